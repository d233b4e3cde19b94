"""No group to divide: rlimits carry what they can and say so, and a profile that requires a controller refuses.

In a group that systemd keeps to itself this must be so for root as well. In the tiny init's machine the cgroup mount
is taken away first.
"""

import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from cgroup_v2 import python, run
from checks import GUARDHOUSE, Checks, make_bundle, make_workspace

from guardhouse.kernel.probe import HostFeatures, probe_host
from guardhouse.launcher.direct import DirectClient
from guardhouse.launcher.messages import LaunchError
from guardhouse.launcher.start import start_launcher

LENIENT = """
profile: lenient
summary: isolate with small limits
extends: isolate
limits:
  - {limit: data, soft: 64 MiB, hard: 64 MiB, why: small}
  - {limit: nproc, soft: 20, hard: 20, why: small}
"""
STRICT = (
    LENIENT.replace("lenient", "strict")
    + """
requires:
  - {layer: cgroup_memory, why: neighbours must not starve}
"""
)
BOMB = """
import os, time
made = 0
try:
    while made < 90:
        if os.fork() == 0:
            time.sleep(60)
        made += 1
except OSError:
    print(made)
"""


def main() -> int:
    """Try it in the group that this process is in."""
    checks = Checks()
    if os.environ.get("HOST_MODE") == "uml":
        subprocess.run(["umount", "-l", "/sys/fs/cgroup"], check=True)
    before = sorted(os.walk("/sys/fs/cgroup"))
    own = Path("/proc/self/cgroup").read_text(encoding="ascii")
    features = probe_host()
    checks.equal("no controller is promised", (features.cgroup_version, set(features.cgroup_controllers)), (0, set()))
    workspace = make_workspace()
    with tempfile.TemporaryDirectory() as scratch:
        strict = Path(scratch) / "strict.yaml"
        strict.write_text(STRICT, encoding="utf-8")
        line = [GUARDHOUSE, "doctor", "--profile", str(strict)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        checks.equal("doctor: a profile that requires memory cannot run", done.returncode, 1)
        checks.that("and names the layer", "cgroup_memory missing" in done.stdout, done.stdout)
        line = [GUARDHOUSE, "try", "--policy", "trusted_machine", "--profile", str(strict), "--", "true"]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        checks.equal("try: refused", done.returncode, 125)
        checks.that("with the layer's name", "cgroup_memory" in done.stderr, done.stderr)
        lenient = Path(scratch) / "lenient.yaml"
        lenient.write_text(LENIENT, encoding="utf-8")
        bundle = make_bundle([lenient], workspace, features=features)
        # What compiling refuses, the launcher refuses as well: it does not trust that the host stayed as it was.
        promised = make_bundle([strict], workspace, features=with_memory(features))
    with DirectClient(start_launcher(bundle)) as client:
        outcome, said = run(client, *python("print(len(b'x' * (20 << 20)))"), profile="lenient")
        checks.equal("a command runs", (outcome.exit_code, said.strip()), (0, str(20 << 20)))
        checks.that("its result says what bounds it", "memory" in "".join(outcome.notes), outcome.notes)
        outcome, said = run(client, *python("b = bytearray(200 << 20)"), profile="lenient")
        held = outcome.exit_code == 1 and "MemoryError" in said
        checks.that("one process's memory is bounded", held, (outcome, said))
        outcome, said = run(client, *python(BOMB), profile="lenient")
        checks.that("a fork bomb ends", said.strip().isdecimal() and int(said) <= 20, (outcome, said[-200:]))
    with DirectClient(start_launcher(promised)) as client:
        try:
            run(client, "true", profile="strict")
            checks.that("the launcher refuses too", held=False, said="it ran")
        except LaunchError as error:
            checks.equal("the launcher refuses too", error.layer, "cgroup_memory")
    checks.equal("its own group is the same", Path("/proc/self/cgroup").read_text(encoding="ascii"), own)
    checks.equal("no group was made or changed", sorted(os.walk("/sys/fs/cgroup")), before)
    return checks.finish()


def with_memory(features: HostFeatures) -> HostFeatures:
    """Return the features of the same host with a memory controller."""
    return replace(features, layers={**features.layers, "cgroup_memory": ""})


if __name__ == "__main__":
    raise SystemExit(main())

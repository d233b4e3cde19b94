"""`guardhouse doctor --json` on this host, and that it says what this kind of host is known to give."""

import json
import os
import subprocess

from checks import GUARDHOUSE, Checks


def main() -> int:
    """Compare doctor's answers with what was booted."""
    checks = Checks()
    done = subprocess.run([GUARDHOUSE, "doctor", "--json"], capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    shown = {key: found[key] for key in ("kernel", "landlock_abi", "cgroup_version", "cgroup_controllers", "profiles")}
    checks.fact("doctor", shown)
    runs = found["profiles"]["observe"]["runs"]
    checks.equal("exit status says whether observe runs", done.returncode, 0 if runs else 1)
    mode = os.environ["HOST_MODE"]
    if mode.startswith("uml"):
        checks.equal("this kernel has no Landlock", found["landlock_abi"], 0)
        checks.that("and doctor says so", "none" in found["layers"]["landlock"]["why_not"])
    if mode == "qemu":
        checks.equal("Debian's kernel has an early Landlock", found["landlock_abi"], 2)
    if mode == "uml":
        checks.equal("all controllers are here", found["cgroup_controllers"], ["cpu", "io", "memory", "pids"])
    if mode != "uml":
        # A oneshot unit without Delegate=: the group is systemd's, and not ours to divide.
        checks.equal("a group that systemd keeps is not taken", found["cgroup_version"], 0)
        checks.that("and doctor says what to write", "Delegate=yes" in found["layers"]["cgroup_memory"]["why_not"])
    return checks.finish()


if __name__ == "__main__":
    raise SystemExit(main())

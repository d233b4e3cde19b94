"""systemd as pid 1 hands a group down: to a root service, to a service's account, to a person's own manager.

Each runs `cgroup_v2.py` whole. A service without ``Delegate=`` and a root shell's scope are not ours: their groups
are left as they were, and rlimits carry what they can.
"""

import os
import subprocess
import sys
import time

from checks import Checks

PYTHON = "/opt/guardhouse/bin/python"
TRIES = (
    ("as root", ("-p", "Delegate=yes"), ("cpu", "io", "memory", "pids")),
    ("as an account", ("-p", "Delegate=yes", "-p", "User=guardhouse"), ("cpu", "io", "memory", "pids")),
)


def systemd_run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a transient service and wait for it."""
    line = ["systemd-run", "--quiet", "--wait", "--pipe", "--working-directory=/share", *words]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def show(done: subprocess.CompletedProcess[str]) -> None:
    """Print what a job inside said."""
    sys.stdout.write("".join(f"    {line}\n" for line in (done.stdout + done.stderr[-2000:]).splitlines()))
    sys.stdout.flush()


def try_person(checks: Checks) -> None:
    """A person's manager: a user service with Delegate=yes, nothing done as root for it but lingering."""
    subprocess.run(["loginctl", "enable-linger", "person"], check=False)
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s and not os.path.exists("/run/user/1000/systemd/private"):
        time.sleep(0.5)
    words = "XDG_RUNTIME_DIR=/run/user/1000 systemd-run --user --quiet --wait --pipe -p Delegate=yes"
    line = f"{words} -p WorkingDirectory=/share {PYTHON} /share/cgroup_v2.py memory pids cpu"
    done = subprocess.run(["su", "-", "person", "-c", line], capture_output=True, text=True, check=False)
    show(done)
    checks.equal("as an ordinary user under the user's own manager", done.returncode, 0)


def main() -> int:
    """Try every way."""
    checks = Checks()
    # An emulated processor is slow: there one way is taken, on Debian's own kernel.
    for name, words, controllers in TRIES[1:] if os.environ["HOST_MODE"] == "qemu" else TRIES:
        done = systemd_run(*words, PYTHON, "/share/cgroup_v2.py", *controllers)
        show(done)
        checks.equal(f"a service with Delegate=yes, {name}", done.returncode, 0)
    done = systemd_run("-p", "User=guardhouse", PYTHON, "/share/cgroup_none.py")
    show(done)
    checks.equal("a service without Delegate=", done.returncode, 0)
    done = systemd_run(PYTHON, "/share/cgroup_none.py")
    show(done)
    checks.equal("the same as root", done.returncode, 0)
    if os.environ["HOST_MODE"] != "qemu":
        try_person(checks)
    return checks.finish()


if __name__ == "__main__":
    raise SystemExit(main())

"""Programs that leave their session, their parents and their descriptors behind are followed like any other.

Each way starts a daemon that tries the marker's program and then says that it is through; its twin makes its file.
"""

import shutil
from pathlib import Path

import pytest

from tests.gate.gates import Gate

WORK = "touch @@; : > through"
PYTHON = f"""
import os
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.closerange(0, 4096)
os.umask(0)
for _ in range(3):
    os.open("/dev/null", os.O_RDWR)
os.system("{WORK}")
"""
PERL = f"""
use POSIX;
exit if fork; POSIX::setsid(); exit if fork;
POSIX::close($_) for 0 .. 255;
$SIG{{CHLD}} = $SIG{{HUP}} = "IGNORE";
exec "sh", "-c", "{WORK}";
"""
DAEMONS = {
    "shell": f"(setsid sh -c '{WORK}' <&- >&- 2>&- &)",
    "nohup": f"nohup sh -c '(sh -c \"{WORK}\" &)' >/dev/null 2>&1 &\ndisown -a",
    "python3": f"python3 -c '{PYTHON}'",
    "perl": f"perl -e '{PERL}'",
    "start-stop-daemon": f"start-stop-daemon --start --background --chdir $PWD --exec /bin/sh -- -c '{WORK}'",
    "orphan's orphan": f'sh -c \'sh -c "sh -c \\"sleep 0.2; {WORK}\\" &" &\'',
    "ignores everything": f"(trap '' HUP INT TERM QUIT; exec setsid -f sh -c '{WORK}')",
    "a loop of its own": f"(for i in 1 2 3; do sleep 0.05; sh -c '{WORK}'; done) >/dev/null 2>&1 &",
}
# Bounded by the command's own time limit.
WAIT = "\nuntil test -e through; do sleep 0.05; done"


def run(gate: Gate, name: str, marker: str) -> list[str]:
    where: Path = gate.fresh_directory()
    done = gate.run(DAEMONS[name].replace("@@", marker) + WAIT, where=where, timeout_s=60)
    assert done.outcome.exit_code == 0, done
    return sorted(path.name for path in where.iterdir())


@pytest.mark.parametrize("name", DAEMONS)
def test_a_daemon_is_still_followed(name: str, deny_gate: Gate) -> None:
    """The denied program does not run, however far its process has gone; the allowed one does."""
    program = DAEMONS[name].split()[0]
    if program in ("python3", "perl", "start-stop-daemon") and shutil.which(program, path="/usr/bin:/usr/sbin") is None:
        pytest.skip(f"{program} is not installed here")
    assert "PWNED" not in run(deny_gate, name, "PWNED")
    assert "FINE" in run(deny_gate, name, "FINE")

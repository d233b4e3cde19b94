"""Nothing is left over after many commands through the real runner, many of them killed in every way.

The short form always runs. ``GUARDHOUSE_LEAK_COMMANDS=1000`` makes as many commands, a tenth of them killed; the counts
before and after are printed (``pytest -s``). Each way of killing comes at least three times in either form.
"""

import subprocess
import sys

import pytest


def run(check: str) -> None:
    """Run one of the checks of `leftovers.py` in a process of its own, which has no other test's processes below it."""
    done = subprocess.run([sys.executable, "-m", "tests.launcher.leftovers", check], capture_output=True, text=True)
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(3600)
def test_nothing_is_left_over() -> None:
    """Counts by kind are the same before and after, with a runner at rest, and without one nothing is there at all."""
    run("everything")


@pytest.mark.timeout(1800)
def test_many_programs_in_one_command_leave_nothing_in_the_monitor() -> None:
    """The exec gate's monitor has the same descriptors after them, and its memory stops growing with more of them."""
    run("monitor")

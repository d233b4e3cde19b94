"""Every program of a command that sees the host's /proc finds a process of its own number there."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from guardhouse.launcher.number_keeper import longest_row

ALLOW = 'permission:\n  bash: {"*": allow}\n'


@pytest.mark.parametrize(
    ("numbers", "first"),
    [([], 2), ([7], 7), ([3, 4, 9, 10, 11, 20], 9), ([5, 6, 1, 2], 1), ([4, 3, 2, 9], 2), ([1, 2, 3, 5, 6, 7], 1)],
)
def test_the_longest_row(numbers: list[int], first: int) -> None:
    """Where it begins; the earliest of two, and the lowest numbers where there is none."""
    assert longest_row(numbers) == first


def test_ps_works_however_many_programs_ran_before() -> None:
    """A program that looks itself up by its number (ps) works: forty programs one after the other each find theirs."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        policy = Path(directory) / "policy.yaml"
        policy.write_text(ALLOW)
        Path(directory).chmod(0o755)
        command = "for i in {1..40}; do ps -e > /dev/null || echo failed; done; ps -e | wc -l"
        done = subprocess.run(
            [sys.executable, "-m", "guardhouse", "try", "--policy", policy, "--", command],
            capture_output=True,
            text=True,
            check=True,
        )
    assert "failed" not in done.stdout
    assert "lookup self" not in done.stderr
    assert int(done.stdout) > 3

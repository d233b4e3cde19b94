"""No file of the project has a merge conflict left in it: git's markers have been committed once."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MARKER = re.compile(rb"^(<{7}|>{7}|\|{7}) \S", re.MULTILINE)


def files() -> list[Path]:
    """Every file of the commit; of the tree, where it is no git work tree (a source archive)."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=False)
    if listed.returncode == 0:
        return [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]
    kept = (ROOT / part for part in ("src", "docs", "policies", "sandbox", "tests", "bench", "fuzz"))
    return [path for part in kept for path in part.rglob("*") if path.is_file()] + list(ROOT.glob("*.md"))


def test_no_conflict_is_left() -> None:
    """No line begins with a marker of a conflict."""
    found = [path for path in files() if path.is_file() and not path.is_symlink() and MARKER.search(path.read_bytes())]
    assert found == []


@pytest.mark.parametrize("line", ["<<<<<<< HEAD", ">>>>>>> f2e73c6 (hub: more)", "||||||| merged common ancestors"])
def test_a_marker_is_known(line: str) -> None:
    """What git writes is what is looked for."""
    assert MARKER.search(f"before\n{line}\nafter\n".encode())

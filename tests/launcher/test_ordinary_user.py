"""The same claims for an ordinary user: the whole of the other tests again, without any privilege."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[2]
NOBODY = 65534
MODULES = ("test_commands.py", "test_masks.py", "test_left_over.py", "test_escapes.py")


def is_readable_by_nobody(path):
    for part in (path, *path.parents):
        mode = part.stat()
        if mode.st_uid != NOBODY and not mode.st_mode & (0o001 if part.is_dir() else 0o004):
            return False
    return True


def site_packages():
    return Path(importlib.util.find_spec("pytest").origin).parents[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="is an ordinary user already: the tests themselves are this test")
@pytest.mark.timeout(900)
def test_everything_again(open_directory):
    """Every test of the launcher passes when an ordinary user starts it, in user namespaces and without cgroups."""
    place = open_directory
    for name in ("src", "sandbox", "tests/launcher"):
        shutil.copytree(TREE / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(TREE / "pyproject.toml", place)
    library = site_packages()
    if not is_readable_by_nobody(library):
        shutil.copytree(library, place / "library", ignore=shutil.ignore_patterns("__pycache__"))
        library = place / "library"
    interpreter = Path(sys.executable).resolve()
    if not is_readable_by_nobody(interpreter):
        pytest.skip(f"an ordinary user cannot run {interpreter}")
    home = place / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    done = subprocess.run(
        [
            *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"),
            *(interpreter, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={home}/base"),
            *(f"tests/launcher/{name}" for name in MODULES),
        ],
        cwd=place,
        env={
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{place}/src:{place}:{library}",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=840,
    )
    assert done.returncode == 0, done.stdout[-8000:]

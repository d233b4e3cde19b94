"""The same claims for an ordinary user, whose monitor has no capability of the host."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launcher.test_ordinary_user import NOBODY, is_readable_by_nobody, site_packages

TREE = Path(__file__).resolve().parents[2]
COPIED = ("src", "sandbox", "tests/launcher", "tests/gate")
MODULES = ("test_attacks.py", "test_normal_work.py")
# Of the stand-in without ptrace: whether the words of a command in a user namespace can be read, and whose they are.
NOTIFIED = (
    "test_notified.py::test_the_error_is_what_a_shell_prints",
    "test_notified.py::test_threads_vfork_and_signals",
)
# The whole table runs as root; here every way of a program of its own, and some of each other kind.
CHOSEN = "not five_thousand and not large_report and not allow_list and not twin"


@pytest.mark.skipif(os.geteuid() != 0, reason="is an ordinary user already: the tests themselves are this test")
@pytest.mark.timeout(900)
def test_everything_again(gate_workspace: Path) -> None:
    """The tests of the gate pass when an ordinary user starts the launcher."""
    interpreter = Path(sys.executable).resolve()
    if not is_readable_by_nobody(interpreter):
        pytest.skip(f"an ordinary user cannot run {interpreter}")
    place = gate_workspace / "as-nobody"
    place.mkdir()
    for name in COPIED:
        shutil.copytree(TREE / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    (place / "tests" / "__init__.py").touch()
    shutil.copy(TREE / "pyproject.toml", place)
    library = site_packages()
    if not is_readable_by_nobody(library):
        shutil.copytree(library, place / "library", ignore=shutil.ignore_patterns("__pycache__"))
        library = place / "library"
    home = place / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    done = subprocess.run(
        [
            *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"),
            *(interpreter, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={home}/base", "-k", CHOSEN),
            *(f"tests/gate/{name}" for name in (*MODULES, *NOTIFIED)),
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

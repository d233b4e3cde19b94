"""An installed wheel is whole: it finds policies/, redaction/ and sandbox/ where no checkout is near."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with only the wheel in it; dependencies are lent from the one that runs the tests."""
    work = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            work,
            REPOSITORY,
        ],
        check=True,
    )
    (wheel,) = work.glob("guardhouse-*.whl")
    venv.create(work / "venv", with_pip=False)
    site = next((work / "venv/lib").glob("python3*/site-packages"))
    subprocess.run([sys.executable, "-m", "zipfile", "-e", wheel, site], check=True)
    lent = [p for p in map(Path, sys.path) if p.name in {"site-packages", "dist-packages"}]
    (site / "lent.pth").write_text("".join(f"{p}\n" for p in lent if ".venv" in str(p) or p.name == "site-packages"))
    return work / "venv/bin/python"


@pytest.mark.parametrize("name", ["policies", "redaction", "sandbox"])
def test_wheel_ships_data(installed: Path, name: str) -> None:
    """The data an auditor reads travels inside the wheel, and is the same as in the tree."""
    code = f"from guardhouse.data_files import shipped_directory as d; print(d({name!r}))"
    found = Path(
        subprocess.run([installed, "-c", code], check=True, capture_output=True, text=True, cwd="/").stdout.strip()
    )
    assert "_data" in found.parts, found
    expected = {p.relative_to(REPOSITORY / name): p.read_bytes() for p in (REPOSITORY / name).rglob("*") if p.is_file()}
    actual = {p.relative_to(found): p.read_bytes() for p in found.rglob("*") if p.is_file()}
    assert expected
    assert actual == expected


def test_missing_data_is_named(tmp_path: Path) -> None:
    """An installation without its data says which data and where it looked, instead of running without."""
    copy = tmp_path / "guardhouse"
    copy.mkdir()
    for module in ("__init__.py", "errors.py", "data_files.py"):
        (copy / module).write_bytes((REPOSITORY / "src/guardhouse" / module).read_bytes())
    code = "from guardhouse.data_files import shipped_directory as d; d('policies')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 1
    assert "shipped data 'policies' is missing" in done.stderr

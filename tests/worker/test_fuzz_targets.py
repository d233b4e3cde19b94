"""The fuzz targets of the workers run over their corpus and some mutations of it in the suite."""

import importlib
import sys
from itertools import islice
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"


@pytest.mark.parametrize("name", ["fetch_url", "files_protocol", "glob", "skill_archive", "skill_tar"])
def test_target(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No input raises; the long runs are `python fuzz/fuzz_NAME.py`."""
    monkeypatch.setattr(sys, "path", [str(FUZZ), *sys.path])
    driver = importlib.import_module("driver")
    target = importlib.import_module(f"fuzz_{name}").fuzz_one
    seeds = [path.read_bytes() for path in sorted((FUZZ / "corpus" / name).iterdir())]
    assert len(seeds) >= 4
    for data in islice(driver.inputs(seeds, seed=1), 300):
        target(data)

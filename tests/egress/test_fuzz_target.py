"""The fuzz targets of the proxy's readers run over their corpus and some thousand mutations of it in the suite."""

import importlib
import sys
from itertools import islice
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"


@pytest.mark.parametrize(("name", "count"), [("egress", 2_000), ("tunnel", 300)])
def test_target(name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No input raises; the long run is `python fuzz/fuzz_NAME.py`."""
    monkeypatch.setattr(sys, "path", [str(FUZZ), *sys.path])
    driver = importlib.import_module("driver")
    target = importlib.import_module(f"fuzz_{name}").fuzz_one
    seeds = [path.read_bytes() for path in sorted((FUZZ / "corpus" / name).iterdir())]
    assert len(seeds) >= 5
    for data in islice(driver.inputs(seeds, seed=1), count):
        target(data)

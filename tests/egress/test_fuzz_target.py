"""The fuzz target of the proxy's readers runs over its corpus and some thousand mutations of it in the suite."""

import importlib
import sys
from itertools import islice
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"


def test_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """No input raises; the long run is `python fuzz/fuzz_egress.py`."""
    monkeypatch.setattr(sys, "path", [str(FUZZ), *sys.path])
    driver = importlib.import_module("driver")
    target = importlib.import_module("fuzz_egress").fuzz_one
    seeds = [path.read_bytes() for path in sorted((FUZZ / "corpus" / "egress").iterdir())]
    assert len(seeds) >= 5
    for data in islice(driver.inputs(seeds, seed=1), 2_000):
        target(data)

"""The long modules come first, and each of them is there."""

from dataclasses import dataclass
from pathlib import Path

from tests.support.long_first import LONG_FIRST, in_order


@dataclass
class Named:
    nodeid: str


def test_every_long_module_is_there_once() -> None:
    """A module that was renamed is noticed."""
    tree = Path(__file__).resolve().parents[2]
    assert [module for module in LONG_FIRST if not (tree / module).is_file()] == []
    assert len(set(LONG_FIRST)) == len(LONG_FIRST)


def test_order() -> None:
    """Long modules by their place in the list; the rest, and what is within a module, as it came."""
    names = ["tests/a.py::z", "tests/a.py::b", f"{LONG_FIRST[1]}::b", f"{LONG_FIRST[1]}::a", f"{LONG_FIRST[0]}::c"]
    assert [test.nodeid for test in in_order([Named(name) for name in names])] == [
        *(names[4], names[2], names[3]),
        *names[:2],
    ]

"""docs/seed_coverage.md names files and tests that are there, and leaves no row of the hub's sections out."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "seed_coverage.md"
# Sections 2 to 4 and 16 to 20 of the checklist: its numbers from and to, both included.
OWNED_BY_THE_HUB = ((8, 40), (195, 236))
SOURCES = (
    ROOT,
    ROOT / "src" / "guardhouse",
    ROOT / "src" / "guardhouse" / "hub",
    ROOT / "src" / "guardhouse" / "hub" / "api",
)
ROW = re.compile(r"S(\d+)(?:(?:-| to )S?(\d+))?")


@cache
def table_rows() -> tuple[tuple[int, list[str]], ...]:
    """Return (line number, cells) of every row of a table."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return tuple(
        (number, [cell.strip() for cell in line.strip("|").split("|")])
        for number, line in enumerate(lines, start=1)
        if line.startswith("|") and not line.startswith("|---") and not line.startswith("| row")
    )


@cache
def names_in(path: Path) -> frozenset[str]:
    """Return the names of the test functions of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


def find_test_file(named: str) -> Path | None:
    """Return the one test file of that path, or of that name where a bare name is the hub's or the only one."""
    if "/" in named:
        return ROOT / named if (ROOT / named).is_file() else None
    in_hub = ROOT / "tests" / "hub" / named
    if in_hub.is_file():
        return in_hub
    found = list(ROOT.glob(f"tests/**/{named}"))
    return found[0] if len(found) == 1 else None


def wrong_names() -> list[str]:
    """Return what the page names and is not there."""
    wrong: list[str] = []
    for number, cells in table_rows():
        file: Path | None = None
        for token in re.findall(r"`([^`]+)`", " ".join(cells)):
            named = re.fullmatch(r"([\w/]*test_\w+\.py)?(?:(?:::)?(test_\w+))?", token)
            if named is not None and (named[1] or named[2]):
                if named[1]:
                    file = find_test_file(named[1])
                if file is None or (named[2] and named[2] not in names_in(file)):
                    wrong.append(f"line {number}: {token} is no test here")
            elif re.fullmatch(r"[a-z_]+(/[a-z_0-9]*)+(\.py)?", token) and not any(
                (base / token).exists() for base in SOURCES
            ):
                wrong.append(f"line {number}: {token} is no file or directory here")
    return wrong


def test_names_are_there() -> None:
    """Every test file, test and source that the page names exists."""
    assert wrong_names() == []


@pytest.mark.parametrize(("first", "last"), OWNED_BY_THE_HUB)
def test_no_row_is_left_out(first: int, last: int) -> None:
    """Every row of the hub's sections is in a table: where it is and what shows it, or why it is left out."""
    seen: set[int] = set()
    for number, cells in table_rows():
        numbers = [(int(one[1]), int(one[2] or one[1])) for one in ROW.finditer(cells[0])] if cells else []
        seen.update(row for start, end in numbers for row in range(start, end + 1))
        if numbers and not cells[-1] and not re.search(r"left out|not here", " ".join(cells)):
            pytest.fail(f"line {number}: {cells[0]} has neither a test nor a reason to be left out")
    assert set(range(first, last + 1)) - seen == set()

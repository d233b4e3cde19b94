"""Races between check and exec: words, paths, files, links, interpreters and descriptors that somebody flips meanwhile.

Short by default; with ``GUARDHOUSE_LONG_TESTS=1`` tens of thousands of execs. Both print how many there were.
"""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gate.gates import Gate

SOURCE = Path(__file__).parent / "race_tool.c"
IS_LONG = bool(os.environ.get("GUARDHOUSE_LONG_TESTS"))
ROUNDS = 1_000 if IS_LONG else 12
WORDS = ("words-thread", "words-process", "words-leader", "words-vfork", "pointer-thread", "pointer-vfork")
FILES = (
    *("path-thread", "path-process", "path-vfork", "link", "hard-link", "content", "memory-file", "descriptor"),
    *("directory", "interpreter", "first-line"),
)
# A file that somebody has mapped for writing is not executed by the kernel at all (ETXTBSY).
NEVER_RUNS = ("mapped",)
KINDS = ("ran", "refused", "killed", "other")


@pytest.fixture(scope="module")
def tool(gate_workspace: Path) -> str:
    """The path of race_tool.c, built."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not installed here, and no script races as tightly")
    made = gate_workspace / "race_tool"
    subprocess.run([compiler, "-O1", "-pthread", "-o", made, SOURCE], check=True)
    return str(made)


@pytest.fixture(scope="module")
def list_of_one(gate_workspace: Path, tool: str) -> Iterator[Gate]:
    """An allow-list of the tool, `true` and its copies; touch is not on it."""
    allowed = ("bash *", f"{tool} *", "true *", f"{gate_workspace}/*/copy-of-true *")
    gate = Gate(gate_workspace, [("*", "deny"), *((pattern, "allow") for pattern in allowed)])
    yield gate
    gate.close()


def race(gate: Gate, tool: str, way: str) -> Counter[str]:
    """Run one way and return how its execs ended; no marker may be there."""
    where = gate.fresh_directory()
    done = gate.run(f"exec {tool} {way} PWNED {ROUNDS}", where=where, timeout_s=900 if IS_LONG else 60)
    assert [*where.rglob("PWNED")] == [], (way, done.output)
    assert done.outcome.exit_code == 0, (way, done)
    counts = Counter(dict(zip(KINDS, map(int, done.output.split()), strict=True)))
    assert counts.total() == ROUNDS, (way, counts)
    return counts


@pytest.mark.timeout(3_600 if IS_LONG else 300)
def test_no_race_gets_past_a_deny_rule(deny_gate: Gate, tool: str) -> None:
    """However it is flipped, the denied program never makes its file, while the allowed state runs."""
    ended: Counter[str] = Counter()
    for way in (*WORDS, *FILES, *NEVER_RUNS):
        counts = race(deny_gate, tool, way)
        print(f"{way:16} {dict(counts)}")
        if way in NEVER_RUNS:
            assert counts["ran"] == 0
        ended += counts
    print(f"{ended.total()} execs raced against a deny rule: {dict(ended)}")
    assert ended["ran"] > 0
    assert ended["refused"] + ended["killed"] > 0


@pytest.mark.timeout(3_600 if IS_LONG else 300)
def test_no_race_gets_past_an_allow_list(list_of_one: Gate, tool: str) -> None:
    """Nor does it where only the allowed state is on a list."""
    ended: Counter[str] = Counter()
    for way in FILES:
        ended += race(list_of_one, tool, way)
    print(f"{ended.total()} execs raced against an allow-list: {dict(ended)}")
    assert ended["ran"] > 0
    assert ended["refused"] + ended["killed"] > 0

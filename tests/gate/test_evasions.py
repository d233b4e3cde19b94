"""The evasions of `evasions.py` against a deny rule and an allow-list, many in one test; their twins must succeed."""

import os
from pathlib import Path

import pytest

from tests.gate.evasions import EVASIONS
from tests.gate.gates import Gate
from tests.gate.test_attacks import MISSING

# The short form takes every third; the long form all.
STEP = 1 if os.environ.get("GUARDHOUSE_LONG_TESTS") else 3
EXTRA = frozenset({"cmake", "ninja", "fakeroot", "tmux", "npm", "objcopy", "sftp", "convert", "gcc", "strip"}) | MISSING


def tried(gate: Gate) -> list[str]:
    """The rows of this form whose programs are installed, asked of a shell as the commands' user."""
    absent = set(gate.run(f"for p in {' '.join(EXTRA)}; do [ $(type -P $p) ] || echo $p; done").output.split())
    found = [text for text in EVASIONS[::STEP] if absent.isdisjoint(text.replace(";", " ").split())]
    if not found:
        pytest.skip(f"not installed here: {', '.join(sorted(absent))}")
    return found


def made(gate: Gate, texts: list[str], marker: str) -> list[str]:
    """Run each in a directory of its own; return those whose marker appeared."""
    found = []
    for text in texts:
        where = gate.fresh_directory()
        done = gate.run(text.replace("@@", marker), where=where)
        assert not done.outcome.timed_out, text
        if [*where.rglob(f"*{marker}")]:
            found.append(text)
    return found


def test_there_are_many_of_them() -> None:
    """The table is not cut by accident, and no row stands twice."""
    assert len(EVASIONS) >= 85
    assert len(set(EVASIONS)) == len(EVASIONS)


@pytest.mark.timeout(300)
def test_a_deny_rule_holds_and_the_twins_run(deny_gate: Gate) -> None:
    """No file with the denied name appears; with another name each of them creates it."""
    texts = tried(deny_gate)
    assert made(deny_gate, texts, "PWNED") == []
    assert [text for text in texts if text not in made(deny_gate, [text], "FINE")] == []


@pytest.mark.timeout(300)
def test_an_allow_list_holds(list_gate: Gate) -> None:
    """A program that the list does not name does not run, whatever a listed one does to start it."""
    assert made(list_gate, tried(list_gate), "PWNED") == []


@pytest.mark.parametrize("copied", ["cp $(type -P zgrep) z", "cat $(type -P zgrep) > z; chmod +x z"])
def test_a_copied_script_is_held_to_the_words_of_a_rule(copied: str, gate_workspace: Path) -> None:
    """A deny rule about one use of a system script holds for a copy of it, and for that use alone (the twin)."""
    gate = Gate(gate_workspace, [("*", "allow"), ("zgrep -c *", "deny")])
    try:
        text = f"echo a | gzip > a.gz; {copied}; ./z %s a a.gz"
        refused = gate.run(text % "-c")
        assert "1\n" not in refused.output
        assert [program["rule"] for program in refused.refused] == ["zgrep -c *"]
        assert gate.run(text % "-n").output == "1:a\n"
    finally:
        gate.close()

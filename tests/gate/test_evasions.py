"""The evasions of `evasions.py` against a deny rule and an allow-list, many in one test; their twins must succeed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gate.evasions import EVASIONS
from tests.gate.gates import Gate
from tests.gate.test_attacks import MISSING

# The short form takes every third; the long form all.
STEP = 1 if os.environ.get("GUARDHOUSE_LONG_TESTS") else 3
EXTRA = frozenset({"cmake", "ninja", "fakeroot", "tmux", "npm", "objcopy", "sftp", "convert", "gcc", "strip"}) | MISSING


@pytest.fixture(scope="module")
def script_gate(gate_workspace: Path) -> Iterator[Gate]:
    """Everything may run but one use of a system script."""
    gate = Gate(gate_workspace, [("*", "allow"), ("zgrep -c *", "deny")])
    yield gate
    gate.close()


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
def test_a_copied_script_is_held_to_the_words_of_a_rule(copied: str, script_gate: Gate) -> None:
    """A deny rule about one use of a system script holds for a copy of it, and for that use alone (the twin)."""
    text = f"echo a | gzip > a.gz; {copied}; ./z %s a a.gz"
    refused = script_gate.run(text % "-c")
    assert [program["rule"] for program in refused.refused] == ["zgrep -c *"]
    assert script_gate.run(text % "-n").output == "1:a\n"


@pytest.mark.parametrize(
    "started", ["exec 9< $(type -P zgrep); /dev/fd/9", "exec 9< $(type -P zgrep); /proc/self/fd/9"]
)
def test_a_script_behind_a_descriptor_is_the_file_that_it_is(started: str, script_gate: Gate) -> None:
    """The interpreter opens the descriptor once more, and since the exec it is nobody else's."""
    text = f"echo a | gzip > a.gz; {started} %s a a.gz"
    refused = script_gate.run(text % "-c")
    assert [program["rule"] for program in refused.refused] == ["zgrep -c *"]
    assert script_gate.run(text % "-n").output == "1:a\n"


# The interpreter opens the script some milliseconds after the check; the link is turned meanwhile.
TURNED = {
    "the file": "ln -s {kept}/run z; ./z & mv -T y z; wait",
    "a directory": "mkdir e; cp evil e/run; ln -s e f; ln -s {kept} d; d/run & mv -T f d; wait",
    "a name before '..'": "mkdir -p e/sub e/kept; cp evil e/kept/run; ln -s {kept} d; {here}/d/../kept/run",
}


@pytest.mark.parametrize("way", TURNED)
def test_a_rule_for_a_script_is_not_for_a_link_that_leads_to_it(way: str, gate_workspace: Path) -> None:
    """Only the path of the rule runs: a link can be turned to another script before its interpreter opens it."""
    kept = gate_workspace / f"kept-{os.getpid()}" / "kept"
    kept.mkdir(parents=True, exist_ok=True)
    script = kept / "run"
    script.write_text("#!/bin/sh\necho good\n")
    script.chmod(0o755)
    tools = ("ln *", "mv *", "mkdir *", "cp *", "chmod *", "printf *", "wait", "cat *")
    gate = Gate(gate_workspace, [("*", "deny"), (f"{script}", "allow"), *((tool, "allow") for tool in tools)])
    try:
        where = gate.fresh_directory()
        made = "printf '#!/bin/sh\\n: > PWNED\\n' > evil; chmod +x evil; ln -s evil y; "
        done = gate.run(made + TURNED[way].format(kept=kept, here=where), where=where)
        assert not (where / "PWNED").exists()
        assert "good" not in done.output
        assert len(done.refused) == 1, done
        assert gate.run(str(script)).output == "good\n"
    finally:
        gate.close()

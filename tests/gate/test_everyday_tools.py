"""Everyday tools run under an allow-list of their own names as without the gate, and nothing of them is refused."""

import os

import pytest

from guardhouse.policy import decide, policy_from_pairs
from guardhouse.policy.shell import read_command
from guardhouse.values import Verdict
from tests.gate.everyday import BUILTINS, SETUP
from tests.gate.everyday_tools import TOOLS
from tests.gate.gates import Gate
from tests.gate.test_corpus_same_output import VOLATILE

# The short form takes every third; the long form all.
TRIED = TOOLS if os.environ.get("GUARDHOUSE_LONG_TESTS") else TOOLS[::3]


def typed(texts: tuple[str, ...]) -> list[tuple[str, str]]:
    """An allow-list of the programs that the texts name, as a person would write it."""
    words = {command.words[0].value for text in texts for command in read_command(text).commands}
    names = sorted({word for word in words if word} | {*BUILTINS.split(), "sh"})
    return [("*", "deny"), *((f"{name} *", "allow") for name in names)]


@pytest.mark.timeout(300)
def test_each_runs_as_without_the_gate(bare_wall: Gate) -> None:
    """The same output and exit code, and no refusal in the record."""
    rules = typed(TRIED)
    policy = policy_from_pairs(rules)
    gate = Gate(bare_wall.directory, rules)
    different = []
    try:
        for text in TRIED:
            results = []
            for which in (bare_wall, gate):
                where = which.fresh_directory()
                assert bare_wall.run(SETUP, where=where).outcome.exit_code == 0
                done = which.run(text, where=where)
                results.append((VOLATILE.sub("N", done.output.replace(where.name, "HERE")), done.outcome.exit_code))
            if results[0] != results[1] or done.refused or decide(policy, text).verdict is Verdict.DENY:
                different.append((text, results, done.refused))
    finally:
        gate.close()
    assert different == []


def test_there_are_many_of_them() -> None:
    """The table is not cut by accident."""
    assert len(TOOLS) >= 60

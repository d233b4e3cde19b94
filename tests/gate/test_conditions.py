"""Rules with `when:` at the exec gate: who asks, which host this is and what time it is count as at gate one."""

import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from guardhouse.policy import load_policy
from tests.gate.gates import Gate

NOW = datetime.now().astimezone()
OPEN = f"{(NOW - timedelta(hours=2)):%H:%M}-{(NOW + timedelta(hours=6)):%H:%M}"
SHUT = f"{(NOW + timedelta(hours=7)):%H:%M}-{(NOW + timedelta(hours=8)):%H:%M}"
RULES = f"""
version: 1
permission:
  bash:
    - {{match: "*", then: deny}}
    - {{match: "id *", then: allow, when: {{requester: ["ada*"]}}}}
    - {{match: "uname *", then: allow, when: {{environment: [staging]}}}}
    - {{match: "arch *", then: allow, when: {{hours: "{OPEN}"}}}}
    - {{match: "nproc *", then: allow, when: {{hours: "{SHUT}"}}}}
    - {{match: "tty *", then: allow}}
    - {{match: "tty *", then: deny, when: {{requester: ["eve"]}}}}
"""
ADA, BOB = "ada@example.org", "bob"


@pytest.fixture(scope="module")
def gates(gate_workspace: Path) -> Iterator[dict[str, Gate]]:
    """One launcher with the tag that a rule asks for, one with another, one without any."""
    policy = load_policy(RULES, name="when.yaml")
    made = {
        "staging": Gate(gate_workspace, policy, tags=frozenset({"staging", "eu"})),
        "production": Gate(gate_workspace, policy, tags=frozenset({"production"})),
        "none": Gate(gate_workspace, policy),
    }
    yield made
    for gate in made.values():
        gate.close()


def status(gate: Gate, text: str, requester: str | None) -> int:
    """Run a text for somebody and return how it ended."""
    null = os.open(os.devnull, os.O_RDWR)
    identifier = gate.start(text, null, requester=requester)
    os.close(null)
    return gate.client.wait(identifier).exit_code


@pytest.mark.parametrize(
    ("tags", "text", "requester", "runs"),
    [
        ("none", "x=id; $x", ADA, True),
        ("none", "x=id; $x", BOB, False),
        ("none", "x=id; $x", None, False),
        ("staging", "x=uname; $x", None, True),
        ("production", "x=uname; $x", None, False),
        ("none", "x=uname; $x", None, False),
        ("none", "x=arch; $x", None, True),
        ("none", "x=nproc; $x", None, False),
        ("none", "x=tty; $x; [ $? != 126 ]", ADA, True),
        ("none", "x=tty; $x; [ $? != 126 ]", "eve", False),
        # Nobody said who asks: the stricter of both answers.
        ("none", "x=tty; $x; [ $? != 126 ]", None, False),
    ],
)
def test_a_condition_counts(gates: dict[str, Gate], tags: str, text: str, requester: str | None, *, runs: bool) -> None:
    """What the rule says under this condition is what the kernel does."""
    assert (status(gates[tags], text, requester) == 0) is runs


def test_one_requesters_answer_is_not_the_nexts(gates: dict[str, Gate]) -> None:
    """The same slot and monitor serve one after the other: what was allowed to the one is asked anew for the other."""
    gate = gates["none"]
    wanted = [(ADA, 0), (BOB, 126), (ADA, 0), (None, 126), (ADA, 0)]
    assert [(who, status(gate, "x=id; $x", who)) for who, _ in wanted] == wanted

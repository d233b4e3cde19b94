"""What the audit log says of a task's end: policies in force by digest, and the shadow, for what ran or was denied."""

import msgspec
import pytest

from guardhouse.hub.tasks.ends import _decision_facts, _read_shown

DIGEST = "ab" * 32
DECISION = {
    "verdict": "allow",
    "because": "every part is allowed",
    "commands": [{"text": "ls", "verdict": "allow"}],
    "policy": {"name": "read_only", "digest": DIGEST},
    "narrowing": {"name": "hub", "digest": "cd" * 32},
    "shadow": {
        "policy": {"name": "next", "digest": "ef" * 32},
        "verdict": "deny",
        "differs": True,
        "because": "no rule",
    },
}


@pytest.mark.parametrize(
    "result", [{"exit_code": 0, "decision": DECISION}, {**DECISION, "verdict": "deny"}], ids=["ran", "denied"]
)
def test_digests_and_shadow_are_recorded(result: dict[str, object]) -> None:
    """A command that ran has its decision in the result; a denied one's result is the decision."""
    shown = _read_shown(msgspec.json.encode(result))
    facts = _decision_facts(shown.decision)
    assert facts["policy"] == {"name": "read_only", "digest": DIGEST}
    assert facts["narrowing"]["digest"] == "cd" * 32
    assert facts["shadow"]["policy"]["digest"] == "ef" * 32
    assert (facts["shadow"]["verdict"], facts["shadow"]["differs"]) == ("deny", True)
    assert "commands" not in facts


@pytest.mark.parametrize("result", [None, b"[]", b"7", b'{"policy": 7, "verdict": 3}', b'{"decision": "x"}'])
def test_what_a_runner_may_send_instead(result: bytes | None) -> None:
    """Anything else is no decision, never an error."""
    shown = _read_shown(result)
    assert not isinstance(shown.decision, dict)

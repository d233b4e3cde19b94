"""Which policies a deed was judged by, as every audit record of a decision names them: each by name and digest.

A decision says so itself; where there is none yet, what the runner said last counts. Pure. Runs in the hub.
"""

from typing import Any, Final

import msgspec

from guardhouse.wire.messages_v1 import PolicyReport

__all__ = ["policies_of_decision", "policies_of_explanation", "policies_of_report"]

_TEXT_MAX_CHARS: Final = 512


def policies_of_decision(decision: object) -> dict[str, Any] | None:
    """Return ``policy`` and ``narrowing`` of a runner's decision; None where it names none."""
    if not isinstance(decision, dict):
        return None
    found = {name: _named(decision[name]) for name in ("policy", "narrowing") if isinstance(decision.get(name), dict)}
    return found or None


def _named(policy: dict[str, Any]) -> dict[str, str]:
    return {name: str(policy[name])[:_TEXT_MAX_CHARS] for name in ("name", "digest") if name in policy}


class _Explanation(msgspec.Struct):
    policy: Any = None
    narrowing: Any = None


def policies_of_explanation(explanation: str | None) -> dict[str, Any] | None:
    """As `policies_of_decision`, of a stored question's explanation: JSON text, of which little is read."""
    if explanation is None:
        return None
    try:
        found = msgspec.json.decode(explanation, type=_Explanation)
    except msgspec.ValidationError:
        return None
    return policies_of_decision({"policy": found.policy, "narrowing": found.narrowing})


def policies_of_report(report: PolicyReport | None) -> dict[str, Any] | None:
    """Return what a runner said last of the policies in force; None where it is away or has said nothing."""
    if report is None or not report.policy_digest:
        return None
    found = {"policy": {"name": report.policy_name, "digest": report.policy_digest}}
    if report.narrowing_digest:
        found["narrowing"] = {"name": report.narrowing_id, "digest": report.narrowing_digest}
    return found

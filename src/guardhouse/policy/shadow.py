"""A second policy judged beside the one in force, and recorded: to see what a change would do before it does it.

The shadow never decides anything. A policy carries its shadow (`Policy.shadow`), and every decision on a command text
then holds what the shadow would have said. Pure.
"""

from typing import Any

from guardhouse.policy.decision import Decision

__all__ = ["shadow_record"]


def shadow_record(decision: Decision, shadow: Decision) -> dict[str, Any]:
    """Return what a decision's record holds of the shadow's: plain JSON data.

    ``differs`` tells whether the shadow's verdict is another one.
    """
    return {
        "policy": {"name": shadow.policy_name, "digest": shadow.policy_digest},
        "verdict": shadow.verdict.value,
        "differs": decision.verdict is not shadow.verdict,
        "because": shadow.because,
        "rule": shadow.rule.says() if shadow.rule else None,
    }

"""A second policy judged beside the one in force, and recorded: to see what a change would do before it does it.

The shadow never decides anything, and what goes wrong in it never reaches the command. Pure.
"""

from dataclasses import dataclass
from typing import Any

from guardhouse.policy.decision import Decision
from guardhouse.policy.gate_one import decide
from guardhouse.policy.model import Context, Policy

__all__ = ["ShadowedDecision", "decide_with_shadow"]


@dataclass(frozen=True, slots=True)
class ShadowedDecision:
    """The decision in force, and what the shadow would have said."""

    decision: Decision
    shadow: Decision

    @property
    def differs(self) -> bool:
        """Whether the verdicts differ."""
        return self.decision.verdict is not self.shadow.verdict

    def shadow_record(self) -> dict[str, Any]:
        """Return what an audit record holds of the shadow: plain JSON data."""
        return {
            "policy": {"name": self.shadow.policy_name, "digest": self.shadow.policy_digest},
            "verdict": self.shadow.verdict.value,
            "differs": self.differs,
            "because": self.shadow.because,
            "rule": self.shadow.rule.says() if self.shadow.rule else None,
        }


def decide_with_shadow(
    policy: Policy,
    shadow: Policy,
    command_text: str,
    *,
    context: Context = Context(),  # noqa: B008 - frozen, without state
) -> ShadowedDecision:
    """Decide a text under both policies, in the same circumstances."""
    return ShadowedDecision(
        decide(policy, command_text, context=context), decide(shadow, command_text, context=context)
    )

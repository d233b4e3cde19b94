"""A second policy judged beside the one in force, and recorded: to see what a change would do before it does it.

The shadow never decides anything. A policy carries its shadow (`Policy.shadow`), and every decision, on a command text
or on another operation, then holds what the shadow would have said. Pure.
"""

from typing import Any, Protocol

from guardhouse.policy.model import Policy, Rule
from guardhouse.values import Verdict

__all__ = ["shadow_record"]


class _Judged(Protocol):
    @property
    def verdict(self) -> Verdict:
        """The answer."""
        ...

    @property
    def because(self) -> str:
        """Why, in one sentence."""
        ...

    @property
    def rule(self) -> Rule | None:
        """The rule behind it, where one is."""
        ...


def shadow_record(verdict: Verdict, policy: Policy, shadow: _Judged) -> dict[str, Any]:
    """Return what a decision's record holds of what ``shadow``, by ``policy``, says: plain JSON data.

    ``verdict`` is that of the decision; ``differs`` tells whether the shadow's verdict is another one.
    """
    return {
        "policy": {"name": policy.name, "digest": policy.digest},
        "verdict": shadow.verdict.value,
        "differs": verdict is not shadow.verdict,
        "because": shadow.because,
        "rule": shadow.rule.says() if shadow.rule else None,
    }

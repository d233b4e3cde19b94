"""Several policies in force at once: the host's own and those that narrow it. What is allowed, all must allow.

Asking all is what makes a policy from a hub harmless: whatever it says, it can only take away. That it would permit
nothing more by itself either is proved beforehand (`compare.check_narrowing`), so that whoever sent it is told what it
will not do.
Knows no hub. Pure.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, Self, TypeVar

from guardhouse.policy.decision import Decision, strictest
from guardhouse.policy.model import Policy
from guardhouse.values import Verdict

__all__ = ["all_must_allow", "chain", "join_decisions"]


class _Judged(Protocol):
    @property
    def verdict(self) -> Verdict:
        """The answer."""
        ...

    def joined(self, other: Self) -> Self:
        """What holds of two answers with the same verdict."""
        ...


P = ParamSpec("P")
D = TypeVar("D", bound=_Judged)


def chain(local: Policy, others: Sequence[Policy]) -> Policy:
    """Return ``local`` with ``others`` in force next to it, in their order; what they hold next to them is dropped."""
    narrowing = None
    for policy in reversed(others):
        narrowing = replace(policy, narrowing=narrowing)
    return replace(local, narrowing=narrowing)


def all_must_allow(decide: Callable[Concatenate[Policy, P], D]) -> Callable[Concatenate[Policy, P], D]:
    """Have a function asked about the policy and about those that narrow it: the strictest answer holds."""

    @wraps(decide)
    def ask_all(policy: Policy, /, *args: P.args, **kwargs: P.kwargs) -> D:
        answer = decide(policy, *args, **kwargs)
        for layer in policy.layers[1:]:
            other = decide(layer, *args, **kwargs)
            if answer.verdict is other.verdict:
                answer = answer.joined(other)
            elif strictest(answer.verdict, other.verdict) is other.verdict:
                answer = other
        return answer

    return ask_all


def join_decisions(own: Decision, other: Decision, *, profile: str | None, clash: str | None) -> Decision:
    """Return one answer for a whole text out of those of two policies.

    It shows the commands as the stricter of the two sees them, and is bound by the walls and time limits of both.

    Args:
        profile: the wall that both are content with; ``clash`` says why there is none.
    """
    verdict = strictest(own.verdict, other.verdict)
    shown = own if verdict is own.verdict else other
    limits_s = [one.timeout_s for one in (own, other) if one.timeout_s is not None]
    joined = replace(
        shown,
        policy_name=own.policy_name,
        policy_digest=own.policy_digest,
        narrowing=(*own.narrowing, (other.policy_name, other.policy_digest)),
        profile=profile,
        timeout_s=min(limits_s, default=None),
    )
    if clash is not None and verdict is not Verdict.DENY:
        return replace(joined, verdict=Verdict.DENY, because=clash)
    return joined

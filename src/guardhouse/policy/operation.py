"""Whether an operation other than a command may go ahead: read, write, list, grep, webfetch, egress, mcp, skill.

A document without a section for the operation leaves it to the workspace and the wall; with one, the last rule that
matches wins and what none matches is denied. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from guardhouse.errors import InvariantError, Refusal
from guardhouse.policy.automaton import TooManySteps
from guardhouse.policy.decision import strictest
from guardhouse.policy.in_force import PolicyId, policies_as_json
from guardhouse.policy.language import ANYTHING, concat
from guardhouse.policy.model import OPERATIONS, Context, Policy, Rule
from guardhouse.policy.narrowing import all_must_allow
from guardhouse.policy.rulebook import action_of, rulebook_of
from guardhouse.policy.shadow import shadow_record
from guardhouse.policy.subjects import normalise_subject
from guardhouse.values import Verdict

__all__ = ["OperationDecision", "OperationDenied", "decide_operation", "decide_tunnel", "decisions_as_json"]


# What a client may speak inside a tunnel, whatever its port suggests.
_SPOKEN_IN_TUNNELS: Final = ("https", "http", "tcp")


class OperationDenied(Refusal):
    """The policy denies an operation. ``decision`` carries everything that the message says."""

    def __init__(self, message: str, decision: "OperationDecision") -> None:
        super().__init__(message)
        self.decision = decision


@dataclass(frozen=True, slots=True)
class OperationDecision:
    """The answer for one operation; ``subject`` is the normal form that the rules were asked about.

    ``policy`` and ``narrowing`` have name and digest of the policies in force, ``shadow`` what one that decides nothing
    would have said (shadow.py).
    """

    operation: str
    subject: str
    verdict: Verdict
    rule: Rule | None
    because: str
    policy: PolicyId = ("", "")
    narrowing: tuple[PolicyId, ...] = ()
    shadow: Mapping[str, Any] | None = None

    def joined(self, other: "OperationDecision") -> "OperationDecision":
        """Return what holds of two policies that answer alike: this one's words."""
        del other
        return self

    def refusal(self) -> OperationDenied:
        """Return the error for an operation that will not happen."""
        return OperationDenied(f"{self.operation} denied: {self.because}", self)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "operation": self.operation,
            "subject": self.subject,
            "verdict": self.verdict.value,
            "rule": self.rule.match if self.rule else None,
            "place": self.rule.place if self.rule else None,
            "because": self.because,
            **policies_as_json(self.policy, self.narrowing),
            **({} if self.shadow is None else {"shadow": dict(self.shadow)}),
        }


def decisions_as_json(decisions: Sequence[OperationDecision]) -> dict[str, Any]:
    """Return the decisions that one request took, at least one, as one: the strictest verdict, and each of them.

    Its keys are those of a command's decision, with ``operations`` in the place of ``commands``; ``shadow`` is that of
    the first which differs.
    """
    verdict = strictest(*(one.verdict for one in decisions))
    shown = next(one for one in decisions if one.verdict is verdict)
    shadows = [one.shadow for one in decisions if one.shadow is not None]
    shadow = next((one for one in shadows if one["differs"]), shadows[0] if shadows else None)
    keys = ("operation", "subject", "verdict", "rule", "place", "because")
    return {
        "verdict": verdict.value,
        "because": shown.because,
        "rule": shown.rule.says() if shown.rule else None,
        "operations": [{key: one.as_json()[key] for key in keys} for one in decisions],
        **policies_as_json(shown.policy, shown.narrowing),
        **({} if shadow is None else {"shadow": dict(shadow)}),
    }


def _recorded(policy: Policy, decision: OperationDecision, shadow: OperationDecision | None) -> OperationDecision:
    """Return ``decision`` with the policies that it is by, and with what the shadow says."""
    own, *others = [(layer.name, layer.digest) for layer in policy.layers]
    said = None
    if shadow is not None and policy.shadow is not None:
        said = shadow_record(decision.verdict, policy.shadow, shadow)
    return replace(decision, policy=own, narrowing=tuple(others), shadow=said)


def decide_operation(
    policy: Policy,
    operation: str,
    subject: str,
    *,
    context: Context = Context(),  # noqa: B008 - frozen, without state
) -> OperationDecision:
    """Decide an operation on one subject: a path (relative to the workspace, or absolute), a URL or ``server/tool``.

    The policies that narrow it must allow it as well; the shadow is asked and decides nothing.

    Raises:
        InvariantError: the operation is none that a policy knows, or is ``bash``, which `decide` judges.
    """
    if operation not in OPERATIONS or operation == "bash":
        raise InvariantError(f"{operation!r} is no operation with one subject")
    shadow = None if policy.shadow is None else _decide_subject(policy.shadow, operation, subject, context)
    return _recorded(policy, _decide_subject(policy, operation, subject, context), shadow)


@all_must_allow
def _decide_subject(policy: Policy, operation: str, subject: str, context: Context) -> OperationDecision:
    book = rulebook_of(policy, operation)
    if book is None:
        because = f"the policy has no rules for {operation}: workspace and wall decide"
        return OperationDecision(operation, subject, Verdict.ALLOW, None, because)
    normal = normalise_subject(operation, subject)
    if normal is None:
        because = f"{subject!r} is no {OPERATIONS[operation].removeprefix('a ')} that rules can be asked about"
        return OperationDecision(operation, subject, Verdict.DENY, None, because)
    match = book.find([normal], context)
    if match.winner is None:
        because = f"no {operation} rule matches {normal!r}, and what no rule allows is denied"
        return OperationDecision(operation, normal, Verdict.DENY, None, because)
    because = f"{normal!r} matches the {operation} rule {match.winner.says()}"
    return OperationDecision(operation, normal, match.winner.action, match.winner, because)


def decide_tunnel(
    policy: Policy,
    scheme: str,
    authority: str,
    *,
    context: Context = Context(),  # noqa: B008 - frozen, without state
) -> OperationDecision:
    """Decide, by the egress rules, a connection of which ``host:port`` is known and what is asked for inside is not.

    The strictest answer over every path and query: a rule for some paths only cannot be held to in a tunnel. It is
    asked as ``scheme``; a rule that says no for another scheme by name, which could be spoken inside, counts as well.
    """
    shadow = None if policy.shadow is None else _decide_tunnel(policy.shadow, scheme, authority, context)
    return _recorded(policy, _decide_tunnel(policy, scheme, authority, context), shadow)


@all_must_allow
def _decide_tunnel(policy: Policy, scheme: str, authority: str, context: Context) -> OperationDecision:
    origin = f"{scheme}://{authority}"
    book = rulebook_of(policy, "egress")
    if book is None:
        because = "the policy has no rules for egress: workspace and wall decide"
        return OperationDecision("egress", origin, Verdict.ALLOW, None, because)
    rules: list[Rule | None] = []
    for spoken in dict.fromkeys((scheme, *_SPOKEN_IN_TUNNELS)):
        normal = normalise_subject("egress", f"{spoken}://{authority}")
        if normal is None:
            because = f"{authority!r} is no host and port that rules can be asked about"
            return OperationDecision("egress", origin, Verdict.DENY, None, because)
        try:
            found = book.find_possible(concat([normal, ANYTHING]), context)
        except TooManySteps:
            because = f"whether every path of {normal!r} is allowed takes too long to tell; write its rules more simply"
            return OperationDecision("egress", origin, Verdict.DENY, None, because)
        rules += [rule for rule in found if spoken == scheme or (rule is not None and _names_a_scheme(rule))]
    verdict = strictest(*(action_of(rule) for rule in rules))
    rule = next(found for found in rules if action_of(found) is verdict)
    hides = f"a tunnel to {origin!r} hides what is asked for inside"
    if rule is None:
        because = f"{hides}, and for some of that no egress rule matches"
    elif verdict is Verdict.ALLOW:
        because = f"{origin!r} matches the egress rule {rule.says()}"
    else:
        because = f"{hides}, and some of that matches the egress rule {rule.says()}"
    return OperationDecision("egress", origin, verdict, rule, because)


def _names_a_scheme(rule: Rule) -> bool:
    """Whether a rule is about one scheme; one about any has been asked under the tunnel's own."""
    scheme, separator, _ = rule.match.partition("://")
    return bool(separator) and scheme != "*"

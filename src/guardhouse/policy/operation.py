"""Whether an operation other than a command may go ahead: read, write, list, grep, webfetch, egress, mcp, skill.

A document without a section for the operation leaves it to the workspace and the wall; with one, the last rule that
matches wins and what none matches is denied. Pure.
"""

from dataclasses import dataclass
from typing import Any

from guardhouse.errors import InvariantError, Refusal
from guardhouse.policy.model import OPERATIONS, Context, Policy, Rule
from guardhouse.policy.narrowing import both_must_allow
from guardhouse.policy.rulebook import rulebook_of
from guardhouse.policy.subjects import normalise_subject
from guardhouse.values import Verdict

__all__ = ["OperationDecision", "OperationDenied", "decide_operation"]


class OperationDenied(Refusal):
    """The policy denies an operation. ``decision`` carries everything that the message says."""

    def __init__(self, message: str, decision: "OperationDecision") -> None:
        super().__init__(message)
        self.decision = decision


@dataclass(frozen=True, slots=True)
class OperationDecision:
    """The answer for one operation; ``subject`` is the normal form that the rules were asked about."""

    operation: str
    subject: str
    verdict: Verdict
    rule: Rule | None
    because: str

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
        }


@both_must_allow
def decide_operation(
    policy: Policy,
    operation: str,
    subject: str,
    *,
    context: Context = Context(),  # noqa: B008 - frozen, without state
) -> OperationDecision:
    """Decide an operation on one subject: a path (relative to the workspace, or absolute), a URL or ``server/tool``.

    Raises:
        InvariantError: the operation is none that a policy knows, or is ``bash``, which `decide` judges.
    """
    if operation not in OPERATIONS or operation == "bash":
        raise InvariantError(f"{operation!r} is no operation with one subject")
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

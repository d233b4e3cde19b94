"""Gate one's verdict turned into yes or no: the only place where that happens. Pure. Runs in the runner."""

from guardhouse.errors import Refusal
from guardhouse.policy.decision import Decision
from guardhouse.runner.approvals import (
    NOBODY_CAN_BE_ASKED,
    ApprovalAnswer,
)
from guardhouse.values import Verdict

__all__ = ["NotAdmitted", "check_admitted", "check_decidable"]


class NotAdmitted(Refusal):
    """Gate one does not let the command run as things stand. ``decision`` carries everything that led to it."""

    def __init__(self, message: str, decision: Decision) -> None:
        super().__init__(message)
        self.decision = decision


def check_admitted(decision: Decision, *, has_gate: bool, answer: ApprovalAnswer | None = None) -> None:
    """Let a decision pass that lets the command run; the only place where gate one's verdict becomes yes or no.

    Args:
        has_gate: the exec gate will judge every program that the command starts, so what the text leaves open may be
            left to it.
        answer: what a person said, where the decision asks; None where nobody could be asked.

    Raises:
        CommandDenied: a rule, or the lack of one, denies.
        NotAdmitted: a person would have to be asked, or only the exec gate could tell.
    """
    match decision.verdict:
        case Verdict.ALLOW:
            return
        case Verdict.DENY:
            raise decision.refusal()
        case Verdict.ASK:
            if answer is None:
                raise NotAdmitted(
                    f"command denied: {decision.because}: it needs a person's approval, and {NOBODY_CAN_BE_ASKED};"
                    " change the rule to allow, or use a command that is allowed",
                    decision,
                )
            if not answer.allows:
                raise NotAdmitted(
                    f"command denied: {decision.because}: it needs a person's approval: {answer.why}", decision
                )
            check_decidable(decision, has_gate=has_gate)
        case Verdict.UNDECIDED:
            check_decidable(decision, has_gate=has_gate)


def check_decidable(decision: Decision, *, has_gate: bool) -> None:
    """Let a decision pass unless a part of it is left to an exec gate that is not there.

    Raises:
        NotAdmitted: only the exec gate could tell.
    """
    if decision.needs_gate_two and not has_gate:
        raise NotAdmitted(
            f"command denied: {_undecided(decision)}; only the exec gate could tell, and this host has none"
            " ('guardhouse doctor' says why): write the command without what text"
            " cannot decide, or allow it by a rule",
            decision,
        )


def _undecided(decision: Decision) -> str:
    reasons = [command.undecided_because for command in decision.commands if command.undecided_because]
    return reasons[0] if reasons else decision.because

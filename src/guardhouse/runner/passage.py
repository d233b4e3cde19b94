"""One request's way past the policy: what was decided of it, who was asked, who said yes.

Commands have their own way (`commands.admit`); this is for every other operation: files, pages, tools, skills. A rule
that asks puts the exact operation before people; a yes holds for this request and these subjects, under the policies
that asked. Runs in the runner.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from guardhouse.errors import Refusal
from guardhouse.policy.decision import Decision
from guardhouse.policy.operation import OperationDecision, OperationDenied, decisions_as_json
from guardhouse.runner.approvals import (
    NOBODY_CAN_BE_ASKED,
    ApprovalAnswer,
    ApprovalQuestion,
    Approver,
    question_about_text,
)
from guardhouse.values import Verdict
from guardhouse.wire.messages_v1 import ApprovalGate

__all__ = ["NeedsApproval", "Passage", "ProgramNeedsApproval"]

# A server could lead from one address that is asked about to the next without end.
_QUESTIONS_MAX = 16
_Key = tuple[Any, ...]


class NeedsApproval(OperationDenied):
    """A rule asks, and nobody has said yes yet: a refusal, unless whoever catches it asks and tries again.

    ``decisions`` are all those that were looked at together with the one that asks.
    """

    def __init__(self, message: str, decision: OperationDecision, decisions: Sequence[OperationDecision]) -> None:
        super().__init__(message, decision)
        self.decisions = tuple(decisions)


class ProgramNeedsApproval(Refusal):
    """As `NeedsApproval`, of a program that the operation needs started in ``profile``."""

    def __init__(self, decision: Decision, *, profile: str) -> None:
        super().__init__(f"command denied: {decision.because}: it needs a person's approval")
        self.decision = decision
        self.profile = profile


async def _nothing_more() -> dict[str, Any]:
    return {}


@dataclass
class Passage:
    """What one request has been through.

    Attributes:
        approver: who can be asked; None where nobody can.
        requester: who asked for the operation, for rules with conditions; None where nobody said.
        summary: what is to be done, in one line.
        preview: makes what people should see of it beside that, bounded; asked only when they are.
    """

    approver: Approver | None = None
    requester: str | None = None
    summary: str = ""
    preview: Callable[[], Awaitable[dict[str, Any]]] = _nothing_more
    decisions: list[OperationDecision] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _approved: set[_Key] = field(default_factory=set)
    _programs: dict[str, ApprovalAnswer] = field(default_factory=dict)
    _questions: int = 0

    def check(self, decisions: Sequence[OperationDecision]) -> None:
        """Let decisions pass that allow, or ask and were answered with yes.

        Raises:
            OperationDenied: a rule, or the lack of one in a section that exists, denies.
            NeedsApproval: a rule asks.
        """
        self._note(decisions)
        for decision in decisions:
            if decision.verdict is Verdict.DENY:
                raise decision.refusal()
        for decision in decisions:
            if decision.verdict is not Verdict.ALLOW and _key(decision) not in self._approved:
                raise NeedsApproval(
                    f"{decision.operation} denied: {decision.because}: it needs a person's approval, and"
                    f" {NOBODY_CAN_BE_ASKED}; change the rule to allow, or choose what is allowed",
                    decision,
                    decisions,
                )

    async def ask(self, needed: "NeedsApproval | ProgramNeedsApproval") -> None:
        """Ask people about what was raised; afterwards it is tried again, under the policy that is in force then.

        Raises:
            Refusal: they say no, nobody answers in time, or nobody can be asked: ``needed`` itself.
        """
        if self.approver is None or not self.approver.can_ask:
            raise needed
        if self._questions >= _QUESTIONS_MAX:
            raise Refusal(f"{needed} (this request has asked {_QUESTIONS_MAX} questions already, the limit)")
        self._questions += 1
        if isinstance(needed, ProgramNeedsApproval):
            decision = needed.decision
            answer = await self.approver.ask(question_about_text(decision, profile=needed.profile, workdir=""))
            self._programs[decision.command] = answer
            self.notes.append(f"{decision.because}: {answer.why}")
        else:
            await self._ask_operation(needed, self.approver)

    def program_answer(self, decision: Decision, *, profile: str) -> ApprovalAnswer | None:
        """Return what people said of a program that the operation needs started; None where nobody can be asked.

        Raises:
            ProgramNeedsApproval: they were not asked yet.
        """
        if decision.command in self._programs:
            return self._programs[decision.command]
        if self.approver is None or not self.approver.can_ask:
            return None
        raise ProgramNeedsApproval(decision, profile=profile)

    def as_json(self) -> dict[str, Any] | None:
        """Return ``decision`` of the task's result; None where no rule was asked."""
        if not self.decisions:
            return None
        return {**decisions_as_json(self.decisions), **({"approved": list(self.notes)} if self.notes else {})}

    def _note(self, decisions: Sequence[OperationDecision]) -> None:
        known = {(one.operation, one.subject): index for index, one in enumerate(self.decisions)}
        for decision in decisions:
            index = known.get((decision.operation, decision.subject))
            if index is None:
                self.decisions.append(decision)
            else:
                self.decisions[index] = decision

    async def _ask_operation(self, needed: NeedsApproval, approver: Approver) -> None:
        decision, rule = needed.decision, needed.decision.rule
        answer = await approver.ask(
            ApprovalQuestion(
                gate=ApprovalGate.OPERATION,
                command=self.summary or f"{decision.operation} {decision.subject}",
                path=decision.subject,
                rule=rule.match if rule is not None else "",
                because=(rule.because if rule is not None else "") or decision.because,
                place=rule.place if rule is not None else "",
                profile="",
                workdir="",
                explanation={**decisions_as_json(needed.decisions), "preview": await self.preview()},
            )
        )
        if not answer.allows:
            raise OperationDenied(
                f"{decision.operation} denied: {decision.because}: it needs a person's approval: {answer.why}", decision
            )
        self.notes.append(f"{decision.because}: {answer.why}")
        # One question for everything that the same rule asks about in this request.
        self._approved |= {
            _key(one) for one in needed.decisions if one.verdict is decision.verdict and one.rule == rule
        }


def _key(decision: OperationDecision) -> _Key:
    place = decision.rule.place if decision.rule is not None else ""
    return (decision.policy, decision.narrowing, decision.operation, decision.subject, place)

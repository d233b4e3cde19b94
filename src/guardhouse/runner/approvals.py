"""Where a rule says `ask`: put the question to people, wait for their answer, withdraw what need not be answered.

The hub's people are asked over the link (`Approvals`); the operator of `guardhouse try` in `terminal_approver.py`.
Nothing is remembered here: what holds for a session or for hours, the hub remembers (docs/wire_protocol.md, 5.4).
Runs in the runner.
"""

import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import trio

from guardhouse import limits
from guardhouse.launcher.messages import Question, QuestionOver
from guardhouse.policy.decision import Decision
from guardhouse.runner.logs import get_logger
from guardhouse.values import Verdict
from guardhouse.wire.messages_v1 import ApprovalDecision, ApprovalGate, ApprovalRequest

__all__ = [
    "NOBODY_CAN_BE_ASKED",
    "ApprovalAnswer",
    "ApprovalQuestion",
    "Approvals",
    "Approver",
    "TaskApprover",
    "approved_words",
    "question_about_program",
    "question_about_text",
    "serve_questions",
]

NOBODY_CAN_BE_ASKED: Final = (
    "nobody can be asked here (approvals come from a guardhouse hub,"
    " for 'guardhouse try' from its terminal or --approve)"
)


@dataclass(frozen=True, slots=True)
class ApprovalAnswer:
    """What was said; ``why`` is for the record and the refusal: by whom, or that nobody answered."""

    allows: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalQuestion:
    """What is asked, not redacted yet; the fields are those of `ApprovalRequest`."""

    gate: ApprovalGate
    command: str
    rule: str
    because: str
    place: str
    profile: str
    workdir: str
    argv: tuple[str, ...] | None = None
    path: str = ""
    started_by: str = ""
    explanation: Any = None


class Approver(Protocol):
    """Who can be asked about one command."""

    @property
    def timeout_s(self) -> float:
        """How long an answer may take."""
        ...

    @property
    def can_ask(self) -> bool:
        """Whether there is anybody now."""
        ...

    async def ask(self, question: ApprovalQuestion) -> ApprovalAnswer:
        """Wait for the answer, a no when none comes in time. A cancelled wait withdraws the question."""
        ...


class AskingLink(Protocol):
    """What carries questions to the hub; `link.Link` is the real one."""

    @property
    def can_ask(self) -> bool:
        """Whether the hub understands questions."""
        ...

    def ask_approval(self, request: ApprovalRequest) -> bool:
        """Send a question now and after each resumption; False where nobody can be asked."""
        ...

    def withdraw_approval(self, approval_id: str, *, reason: str) -> None:
        """Take it back."""
        ...


class RunningWithQuestions(Protocol):
    """A started command that the exec gate may ask about; `launcher.client.RunningCommand` is the real one."""

    async def next_question(self) -> Question | QuestionOver | None:
        """Return the next question, or that one is over; None once the command ended."""
        ...

    async def answer(self, number: int, *, allows: bool, why: str) -> None:
        """Answer one."""
        ...


@dataclass(slots=True)
class _Open:
    task_id: str
    gate: ApprovalGate
    answered: trio.Event = field(default_factory=trio.Event)
    decision: ApprovalDecision | None = None


class Approvals:
    """Every question of a runner that waits for the hub's people."""

    def __init__(self, redact: Callable[[Any], Any], *, timeout_s: float) -> None:
        """``redact`` takes secrets out of plain JSON data."""
        self._redact = redact
        self._open: dict[str, _Open] = {}
        self.timeout_s = timeout_s

    def decide(self, decision: ApprovalDecision) -> None:
        """Take in what the people said; of a question that is not open any more it is ignored."""
        found = self._open.get(decision.approval_id)
        if found is not None and found.decision is None:
            found.decision = decision
            found.answered.set()

    def held_before_start(self) -> frozenset[str]:
        """Return the tasks that wait for an answer before anything of theirs has run: not those of the exec gate."""
        return frozenset(opened.task_id for opened in self._open.values() if opened.gate is not ApprovalGate.EXEC)

    async def ask(
        self, link: AskingLink, question: ApprovalQuestion, *, task_id: str, requested_by: str
    ) -> ApprovalAnswer:
        """Ask the hub's people and wait."""
        if len(self._open) >= limits.APPROVALS_OPEN_MAX:
            return ApprovalAnswer(allows=False, why=f"{len(self._open)} questions are open already, the limit")
        approval_id = f"apr_{secrets.token_hex(16)}"
        request = self._request(question, approval_id, task_id=task_id, requested_by=requested_by)
        opened = self._open[approval_id] = _Open(task_id, question.gate)
        log = get_logger()
        reason = "the task was cancelled or ended"
        try:
            if not link.ask_approval(request):
                return ApprovalAnswer(allows=False, why=NOBODY_CAN_BE_ASKED)
            log.info("asking for approval", approval_id=approval_id, gate=str(question.gate), rule=question.rule)
            with trio.move_on_after(self.timeout_s):
                await opened.answered.wait()
            reason = f"nobody answered within {self.timeout_s:g} s"
            answer = _answer_of(opened.decision, reason)
            log.info("approval over", approval_id=approval_id, allows=answer.allows, why=answer.why)
            return answer
        finally:
            del self._open[approval_id]
            if opened.decision is None:
                link.withdraw_approval(approval_id, reason=reason)

    def _request(
        self, question: ApprovalQuestion, approval_id: str, *, task_id: str, requested_by: str
    ) -> ApprovalRequest:
        fields = {
            "command": question.command[: limits.COMMAND_TEXT_MAX_BYTES],
            "argv": None if question.argv is None else list(question.argv),
            "path": question.path,
            "started_by": question.started_by,
            "rule": question.rule,
            "because": question.because,
            "place": question.place,
            "profile": question.profile,
            "workdir": question.workdir,
            "requested_by": requested_by,
        }
        # File names and words are bytes: what is no UTF-8 is shown, not sent.
        shown = self._redact(_as_unicode(fields))
        argv = shown.pop("argv")
        texts = {name: text[: limits.WIRE_TEXT_MAX_CHARS] for name, text in shown.items() if name != "command"}
        for name in ("profile", "requested_by"):
            texts[name] = texts[name][: limits.WIRE_NAME_MAX_CHARS]
        return ApprovalRequest(
            approval_id=approval_id,
            task_id=task_id,
            gate=question.gate,
            command=shown["command"][: limits.COMMAND_TEXT_MAX_BYTES],
            argv=None if argv is None else tuple(argv[: limits.APPROVAL_ARGV_MAX_WORDS]),
            explanation=self._redact(_as_unicode(question.explanation)),
            expires_at_ms=int((time.time() + self.timeout_s) * 1000),
            **texts,
        )


class TaskApprover:
    """The hub's people, asked about one task."""

    def __init__(self, approvals: Approvals, link: AskingLink, *, task_id: str, requested_by: str) -> None:
        self._approvals = approvals
        self._link = link
        self._task_id = task_id
        self._requested_by = requested_by

    @property
    def timeout_s(self) -> float:
        """How long an answer may take."""
        return self._approvals.timeout_s

    @property
    def can_ask(self) -> bool:
        """Whether the hub understands questions."""
        return self._link.can_ask

    async def ask(self, question: ApprovalQuestion) -> ApprovalAnswer:
        """Wait for the answer."""
        return await self._approvals.ask(self._link, question, task_id=self._task_id, requested_by=self._requested_by)


def question_about_text(decision: Decision, *, profile: str, workdir: str) -> ApprovalQuestion:
    """Return gate one's question about a whole command text."""
    rule = decision.rule
    return ApprovalQuestion(
        gate=ApprovalGate.SHELL,
        command=decision.command,
        rule=rule.match if rule is not None else "",
        because=(rule.because if rule is not None else "") or decision.because,
        place=rule.place if rule is not None else "",
        profile=profile,
        workdir=workdir,
        explanation=decision.as_json(),
    )


def question_about_program(asked: Question, decision: Decision, *, profile: str, workdir: str) -> ApprovalQuestion:
    """Return the exec gate's question about one program of the command that ``decision`` is about."""
    return ApprovalQuestion(
        gate=ApprovalGate.EXEC,
        command=decision.command,
        argv=asked.argv,
        path=asked.path,
        started_by=asked.started_by,
        rule=asked.rule,
        because=asked.because,
        place=asked.place,
        profile=profile,
        workdir=workdir,
        explanation=decision.as_json(),
    )


def approved_words(decision: Decision) -> tuple[tuple[str, ...], ...]:
    """Return the commands of an approved text whose words are known, for `LaunchRequest.approved`."""
    found = [
        (command.rule.place, *command.argv)
        for command in decision.commands
        if command.verdict is Verdict.ASK and command.rule is not None and command.argv
    ]
    return tuple(found[: limits.LAUNCH_APPROVED_MAX])


async def serve_questions(running: RunningWithQuestions, ask: Callable[[Question], Awaitable[ApprovalAnswer]]) -> None:
    """Answer what the exec gate asks about a running command, each question by itself, until the command ends."""
    waits: dict[int, trio.CancelScope] = {}

    async def answer(question: Question, scope: trio.CancelScope) -> None:
        with scope:
            said = await ask(question)
            await running.answer(question.number, allows=said.allows, why=said.why[: limits.APPROVAL_WHY_MAX_CHARS])
        waits.pop(question.number, None)

    async with trio.open_nursery() as nursery:
        while (said := await running.next_question()) is not None:
            if isinstance(said, QuestionOver):
                if said.number in waits:
                    waits[said.number].cancel()
                continue
            scope = waits[said.number] = trio.CancelScope()
            nursery.start_soon(answer, said, scope)
        nursery.cancel_scope.cancel()


def _answer_of(decision: ApprovalDecision | None, silence: str) -> ApprovalAnswer:
    if decision is None:
        return ApprovalAnswer(allows=False, why=silence)
    by = decision.decided_by or "the hub"
    note = f" ({decision.note})" if decision.note else ""
    if decision.verdict is Verdict.ALLOW:
        return ApprovalAnswer(allows=True, why=f"approved by {by}{note}")
    return ApprovalAnswer(allows=False, why=f"not approved by {by}{note}")


def _as_unicode(value: Any) -> Any:
    """Return plain JSON data with every byte that is no UTF-8 shown as U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {key: _as_unicode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_unicode(item) for item in value]
    return value

"""Questions to people: what is asked, what an answer does, and what happens when none comes. No sandbox, no hub."""

import math
from functools import partial
from typing import Any

import pytest
import trio
from tests.runner.test_commands import FakeLauncher, Gathered, write_both

from guardhouse import limits
from guardhouse.launcher.messages import Question, QuestionOver
from guardhouse.policy import load_policy
from guardhouse.policy.shell import read_command
from guardhouse.runner.admission import NotAdmitted
from guardhouse.runner.approvals import (
    ApprovalAnswer,
    ApprovalQuestion,
    Approvals,
    TaskApprover,
    approved_words,
    question_about_text,
    serve_questions,
)
from guardhouse.runner.command_parts import StopSignal
from guardhouse.runner.command_run import CommandRequest
from guardhouse.runner.commands import CommandService
from guardhouse.runner.rules import make_judge
from guardhouse.values import Verdict
from guardhouse.wire.messages_v1 import ApprovalDecision, ApprovalGate, ApprovalRequest

POLICY = load_policy(
    """
permission:
  bash:
    - {match: "*", then: deny}
    - {match: "echo *", then: allow}
    - {match: "restart *", then: ask, because: it drops connections}
    - {match: "restart secret *", then: deny}
    - {match: "late *", then: allow, when: {requester: ["ada*"]}}
    - {match: "stage *", then: allow, when: {environment: [staging]}}
""",
    name="p.yaml",
)
JUDGE = make_judge(POLICY, reader=read_command)


class FakeLink:
    """Takes questions and remembers what was withdrawn."""

    def __init__(self, *, can_ask: bool = True) -> None:
        self.can_ask = can_ask
        self.asked: list[ApprovalRequest] = []
        self.withdrawn: list[tuple[str, str]] = []
        self.came = trio.Event()

    def ask_approval(self, request: ApprovalRequest) -> bool:
        if self.can_ask:
            self.asked.append(request)
            self.came.set()
        return self.can_ask

    def withdraw_approval(self, approval_id: str, *, reason: str) -> None:
        self.withdrawn.append((approval_id, reason))


def _same(value: Any) -> Any:
    return value


class Desk:
    """Approvals over a fake link, for one task."""

    def __init__(self, *, timeout_s: float = 900, can_ask: bool = True) -> None:
        self.link = FakeLink(can_ask=can_ask)
        self.approvals = Approvals(_same, timeout_s=timeout_s)
        self.approver = TaskApprover(self.approvals, self.link, task_id="t1", requested_by="ada")

    async def decide(self, verdict: Verdict, **more: Any) -> None:
        """Answer the newest question."""
        await self.link.came.wait()
        approval_id = self.link.asked[-1].approval_id
        self.approvals.decide(ApprovalDecision(approval_id=approval_id, verdict=verdict, **more))


def service(launcher: FakeLauncher, *, has_gate: bool = False, tags: frozenset[str] | None = None) -> CommandService:
    return CommandService(
        judge=make_judge(POLICY, reader=read_command, environment=tags),
        launcher=launcher,
        profile="observe",
        profiles=frozenset({"observe"}),
        has_gate=has_gate,
    )


async def test_a_yes_admits_and_the_launch_carries_it(nursery) -> None:
    """Gate one waits for the answer; the launch says what was approved, and the run by whom."""
    desk, launcher = Desk(), FakeLauncher(write_both)
    nursery.start_soon(partial(desk.decide, Verdict.ALLOW, decided_by="Grace", note="go"))
    commands = service(launcher)
    request = CommandRequest(text="restart nginx && echo done", workdir="d", timeout_s=9, requester="ada")
    admitted = await commands.admit(request, desk.approver)
    (asked,) = desk.link.asked
    assert (asked.task_id, asked.gate, asked.command) == ("t1", ApprovalGate.SHELL, "restart nginx && echo done")
    assert (asked.rule, asked.because, asked.requested_by) == ("restart *", "it drops connections", "ada")
    assert (asked.place.startswith("p.yaml:"), asked.profile, asked.workdir, asked.argv) == (True, "observe", "d", None)
    assert asked.explanation["verdict"] == "ask"
    assert asked.expires_at_ms is not None
    assert desk.link.withdrawn == []
    assert admitted.launch.approved == ((asked.place, "restart", "nginx"),)
    assert (admitted.launch.ask_timeout_s, admitted.launch.requester) == (900, "ada")
    assert admitted.notes[0].endswith("approved by Grace (go)")


@pytest.mark.parametrize("verdict", [Verdict.DENY, Verdict.ASK, Verdict.UNDECIDED])
async def test_anything_but_a_yes_is_a_no(nursery, verdict: Verdict) -> None:
    """The refusal names who said so."""
    desk, launcher = Desk(), FakeLauncher(write_both)
    nursery.start_soon(partial(desk.decide, verdict, decided_by="Grace", note="not today"))
    with pytest.raises(NotAdmitted, match=r"not approved by Grace \(not today\)"):
        await service(launcher).admit(CommandRequest(text="restart nginx", timeout_s=9), desk.approver)
    assert launcher.requests == []


async def test_silence_is_a_no(autojump_clock) -> None:
    """Nobody answers: refused when time runs out, and the question is withdrawn."""
    desk, commands = Desk(timeout_s=60), service(FakeLauncher(write_both))
    # The decision comes from a thread, whose work the clock does not see: it must not jump over it.
    autojump_clock.autojump_threshold = math.inf
    decision = await commands.judge("restart x")
    autojump_clock.autojump_threshold = 0
    with pytest.raises(NotAdmitted, match="nobody answered within 60 s"):
        await commands.admit_decided(CommandRequest(text="restart x", timeout_s=9), decision, desk.approver)
    assert desk.link.withdrawn == [(desk.link.asked[0].approval_id, "nobody answered within 60 s")]


async def test_a_cancel_works_at_once(nursery) -> None:
    """A task that is cancelled while it waits withdraws its question."""
    desk = Desk()
    with trio.CancelScope() as scope:

        async def cancel() -> None:
            await desk.link.came.wait()
            scope.cancel()

        nursery.start_soon(cancel)
        await service(FakeLauncher(write_both)).admit(CommandRequest(text="restart x", timeout_s=9), desk.approver)
    assert scope.cancelled_caught
    assert [reason for _, reason in desk.link.withdrawn] == ["the task was cancelled or ended"]
    # What comes afterwards meets nothing.
    await desk.decide(Verdict.ALLOW)


@pytest.mark.parametrize("approver", [None, "plain"])
async def test_where_nobody_can_be_asked_it_is_refused_in_words(approver: str | None) -> None:
    """On the plain protocol there are no questions: the refusal says so."""
    who = None if approver is None else Desk(can_ask=False).approver
    with pytest.raises(NotAdmitted, match="needs a person's approval, and nobody can be asked here"):
        await service(FakeLauncher(write_both)).admit(CommandRequest(text="restart x", timeout_s=9), who)


async def test_nobody_is_asked_about_what_is_denied() -> None:
    """A denied part, or an undecided one without an exec gate, refuses before anybody is asked."""
    desk = Desk()
    for text in ("restart secret x", "restart x; rm y", 'restart x; "$y" z'):
        with pytest.raises(Exception, match="command denied"):
            await service(FakeLauncher(write_both)).admit(CommandRequest(text=text, timeout_s=9), desk.approver)
    assert desk.link.asked == []


async def test_secrets_and_odd_bytes_do_not_travel() -> None:
    """Texts are redacted, and bytes that are no UTF-8 are shown instead of breaking the message."""
    desk = Desk()
    desk.approvals = Approvals(lambda data: _replaced(data, "hunter2", "***"), timeout_s=1)
    question = ApprovalQuestion(
        gate=ApprovalGate.EXEC,
        command="restart hunter2 \udcff",
        argv=("restart", "hunter2", "\udcff"),
        path="/\udcff",
        rule="",
        because="",
        place="",
        profile="observe",
        workdir="",
    )
    with trio.move_on_after(0.01):
        await desk.approvals.ask(desk.link, question, task_id="t1", requested_by="a" * 5_000)
    (asked,) = desk.link.asked
    assert asked.command == "restart *** \N{REPLACEMENT CHARACTER}"
    assert asked.argv == ("restart", "***", "\N{REPLACEMENT CHARACTER}")
    assert asked.path == "/\N{REPLACEMENT CHARACTER}"
    assert len(asked.requested_by) == limits.WIRE_NAME_MAX_CHARS


def _replaced(data: Any, secret: str, shown: str) -> Any:
    if isinstance(data, str):
        return data.replace(secret, shown)
    if isinstance(data, dict):
        return {key: _replaced(value, secret, shown) for key, value in data.items()}
    if isinstance(data, list):
        return [_replaced(value, secret, shown) for value in data]
    return data


async def test_questions_are_bounded(monkeypatch) -> None:
    """Beyond the limit of a runner the answer is no, and says why."""
    monkeypatch.setattr(limits, "APPROVALS_OPEN_MAX", 0)
    desk = Desk()
    said = await desk.approver.ask(question_about_text(JUDGE("restart x"), profile="", workdir=""))
    assert (said.allows, "the limit" in said.why) == (False, True)
    assert desk.link.asked == []


def test_only_known_words_of_asking_commands_are_approved() -> None:
    """What the text leaves open, and what was allowed anyway, is not among what gate one's people approved."""
    decision = JUDGE('restart a; restart "$b"; echo c')
    assert [words[1:] for words in approved_words(decision)] == [("restart", "a")]


class FakeQuestions:
    """A running command that asks."""

    def __init__(self, *said: Question | QuestionOver) -> None:
        self._send, self._receive = trio.open_memory_channel[Question | QuestionOver](10)
        for one in said:
            self._send.send_nowait(one)
        self.answers: list[tuple[int, bool, str]] = []

    def over(self, number: int) -> None:
        self._send.send_nowait(QuestionOver(1, number, "over"))

    def end(self) -> None:
        self._send.close()

    async def next_question(self) -> Question | QuestionOver | None:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            return None

    async def answer(self, number: int, *, allows: bool, why: str) -> None:
        self.answers.append((number, allows, why))
        await trio.lowlevel.checkpoint()


def _question(number: int) -> Question:
    return Question(1, number, "/usr/bin/restart", ("restart",), "/bin/bash", "restart *", "p:1:1", "")


async def test_questions_of_a_command_are_answered_each_by_itself(autojump_clock) -> None:
    """One that waits does not hold up another; one that is over is not answered."""
    running = FakeQuestions(_question(1), _question(2), _question(3))
    cancelled: list[int] = []

    async def ask(question: Question) -> ApprovalAnswer:
        try:
            await trio.sleep({1: 100, 2: 1, 3: 1_000}[question.number])
        except trio.Cancelled:
            cancelled.append(question.number)
            raise
        return ApprovalAnswer(allows=question.number == 2, why=f"said of {question.number}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_questions, running, ask)
        await trio.sleep(10)
        running.over(1)
        await trio.sleep(1)
        assert running.answers == [(2, True, "said of 2")]
        assert cancelled == [1]
        running.end()
    assert cancelled == [1, 3]
    assert running.answers == [(2, True, "said of 2")]


async def test_the_exec_gate_asks_through_the_same_people(nursery) -> None:
    """A question of a running command becomes one to the hub, with the file, the words and who starts it."""
    desk = Desk()
    launcher = FakeLauncher(write_both)
    running = FakeQuestions(_question(7))
    answered = trio.Event()

    async def answer(number: int, *, allows: bool, why: str) -> None:
        running.answers.append((number, allows, why))
        answered.set()
        await trio.lowlevel.checkpoint()

    async def launch(request, **descriptors):
        started = await FakeLauncher.launch(launcher, request, **descriptors)
        started.next_question, started.answer = running.next_question, answer
        ended = started.wait

        async def wait():
            await answered.wait()
            return await ended()

        started.wait = wait
        return started

    launcher.launch = launch
    commands = service(launcher, has_gate=True)
    admitted = await commands.admit(CommandRequest(text="echo hi", timeout_s=9), desk.approver)
    nursery.start_soon(partial(desk.decide, Verdict.ALLOW, decided_by="Grace"))
    with trio.fail_after(30):
        await commands.run(admitted, Gathered(), stop=StopSignal())
    assert running.answers == [(7, True, "approved by Grace")]
    (asked,) = desk.link.asked
    assert (asked.gate, asked.path, asked.argv) == (ApprovalGate.EXEC, "/usr/bin/restart", ("restart",))
    assert (asked.started_by, asked.rule, asked.place) == ("/bin/bash", "restart *", "p:1:1")
    assert asked.command == "echo hi"


async def test_conditions_see_requester_and_tags() -> None:
    """Gate one knows who asks and which host this is; without that a rule with such a condition does not allow."""
    admit = service(FakeLauncher(write_both), tags=frozenset({"staging", "x"})).admit
    await admit(CommandRequest(text="late x", timeout_s=9, requester="ada@example"))
    await admit(CommandRequest(text="stage x", timeout_s=9))
    for text, requester in (("late x", "bob"), ("late x", None)):
        with pytest.raises(Exception, match="command denied"):
            await admit(CommandRequest(text=text, timeout_s=9, requester=requester))
    for tags in (None, frozenset({"production"})):
        with pytest.raises(Exception, match="command denied"):
            await service(FakeLauncher(write_both), tags=tags).admit(CommandRequest(text="stage x", timeout_s=9))

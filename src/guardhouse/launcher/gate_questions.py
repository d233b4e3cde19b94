"""Between a slot's monitor, which holds a process until a person has answered, and the runner, which asks that person.

The time limit of the command stands still meanwhile. What questions are made of is only imported where there is a
gate: it needs RE2. Runs in the launcher.
"""

import time
from typing import TYPE_CHECKING, Final

from guardhouse.launcher import channel
from guardhouse.launcher.job import Job
from guardhouse.launcher.messages import LaunchRequest, Question, QuestionOver
from guardhouse.launcher.runner_socket import RunnerSocket
from guardhouse.launcher.slots import Slot

if TYPE_CHECKING:
    from guardhouse.launcher.gate.judge import ExecJudge

__all__ = ["GateQuestions"]

# The monitor itself ends a question in time; this is for one that does not.
_ASK_SLACK_S: Final = 10.0


class GateQuestions:
    """Passes on what monitors ask and what the runner answers."""

    def __init__(self, gate: "ExecJudge | None", runner: RunnerSocket) -> None:
        self._gate = gate
        self._runner = runner

    def begin(self, slot: Slot, request: LaunchRequest) -> None:
        """Tell the slot's monitor whose command comes next, before its init hears of it.

        Raises:
            SetupError: the monitor cannot be told.
        """
        if self._gate is None or not self._gate.needs_request:
            return
        from guardhouse.launcher.gate.messages import Begin, render_order
        from guardhouse.launcher.gate.questions import Request
        from guardhouse.policy.model import Context

        context = Context(environment=self._gate.environment, requester=request.requester)
        approved = frozenset((words[0], words[1:]) for words in request.approved)
        slot.tell_monitor(render_order(Begin(Request(context, request.ask_timeout_s, approved))))

    def take(self, slot: Slot, job: Job | None) -> bool:
        """Pass on what the slot's monitor says of ``job``; False: the monitor has ended."""
        from guardhouse.launcher.gate.messages import Asked, parse_question

        if slot.monitor is None:
            return True
        try:
            received = channel.receive(slot.monitor)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            received = None
        if received is None:
            return False
        if job is None:
            return True
        said = parse_question(received.body)
        now_s = time.monotonic()
        if isinstance(said, Asked):
            job.questions.add(said.number)
            job.lifetime.hold(now_s, at_most_s=job.request.ask_timeout_s + _ASK_SLACK_S)
            self._runner.answer(
                Question(
                    job.identifier,
                    said.number,
                    path=said.path,
                    argv=said.argv,
                    started_by=said.started_by,
                    rule=said.rule,
                    place=said.place,
                    because=said.because,
                )
            )
        elif said.number in job.questions:
            self._close(job, said.number, now_s)
            self._runner.answer(QuestionOver(job.identifier, said.number, said.why))
        return True

    def answer(self, job: Job, number: int, why: str, *, allows: bool) -> None:
        """Pass on what was answered to question ``number``; one that is over is no error, they cross on the way."""
        from guardhouse.launcher.gate.messages import render_order
        from guardhouse.launcher.gate.questions import Answer

        if number not in job.questions:
            return
        self._close(job, number, time.monotonic())
        job.slot.tell_monitor(render_order((number, Answer(allows=allows, why=why))))

    def end(self, slot: Slot) -> None:
        """Let everything that waits in ``slot`` go with a no."""
        if self._gate is not None and self._gate.needs_request:
            from guardhouse.launcher.gate.messages import End, render_order

            slot.tell_monitor(render_order(End()))

    @staticmethod
    def _close(job: Job, number: int, now_s: float) -> None:
        job.questions.discard(number)
        if not job.questions:
            job.lifetime.go_on(now_s)

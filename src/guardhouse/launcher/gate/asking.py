"""Between `questions.py`, which knows what waits for a person, and the launcher, who has the question put before one.

Takes the launcher's orders (which command begins, answers, its end) and sends it what is asked and what need not be
answered any more. Whom an answer lets go it hands to its owner, who knows how. Runs in the exec gate's monitor.
"""

import os
import select
import socket
import time
from collections.abc import Callable
from typing import Final

from guardhouse.launcher import channel
from guardhouse.launcher.gate.messages import Asked, Begin, End, Over, parse_order, render_question
from guardhouse.launcher.gate.questions import Answer, Held, Question, Questions

__all__ = ["ENDING", "EXPIRED", "Asking"]

_EXIT_CLOSED: Final = 0
EXPIRED: Final = Answer(allows=False, why="it needed a person's approval, and nobody answered in time")
ENDING: Final = Answer(allows=False, why="it needed a person's approval, and the command was stopped before that came")


class Asking:
    """The questions of one monitor. ``release`` is told of each thread that an answer lets go, with the answer."""

    def __init__(self, launcher: socket.socket, release: Callable[[Held, Answer], None]) -> None:
        self.questions = Questions()
        self._launcher = launcher
        self._release = release

    def take_orders(self) -> None:
        """Take what the launcher has sent: the request of the command that begins, answers, the end."""
        while True:
            try:
                received = channel.receive(self._launcher)
            except BlockingIOError:
                return
            if received is None:
                os._exit(_EXIT_CLOSED)  # the launcher is gone; leaving ends what waits for us
            match parse_order(received.body):
                case Begin(request):
                    self.questions.begin(request)
                case End():
                    for number in self.questions.refuse_all(ENDING):
                        self._settle(number, ENDING)
                case (int(number), Answer() as answer):
                    self._settle(number, answer)

    def ask(self, held: Held, *, started_by: str) -> None:
        """Hold a stopped thread until what it wants to run is answered, or go on at once where that is known."""
        answer = self.questions.known(held.judgement)
        if answer is None:
            asked = self.questions.ask(held, now_s=time.monotonic())
            if isinstance(asked, Question):
                self._say(Asked.of(asked.number, held.judgement, started_by=started_by))
                return
            if asked is None:
                return
            answer = asked
        self._release(held, answer)

    def expire(self) -> None:
        """Answer what nobody has answered in time."""
        for number in self.questions.expired(time.monotonic()):
            self._settle(number, EXPIRED)

    def let_go(self, tid: int) -> None:
        """Take in that a thread is gone."""
        number = self.questions.ended(tid)
        if number is not None:
            self._say(Over(number, "the process that waited has ended"))

    def _settle(self, number: int, answer: Answer) -> None:
        for held in self.questions.answered(number, answer):
            self._release(held, answer)
        if answer in (EXPIRED, ENDING):
            self._say(Over(number, answer.why))

    def _say(self, question: Asked | Over) -> None:
        body = render_question(question)
        while True:
            try:
                channel.send(self._launcher, body)
            except BlockingIOError:
                # Longer than the launcher takes for anything; what is followed waits meanwhile.
                select.select((), (self._launcher,), ())
            else:
                return

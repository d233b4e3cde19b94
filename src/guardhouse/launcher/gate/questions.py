"""What waits for a person at the exec gate: which question is open, who is held for it, what was answered.

A state machine: told of judgements, answers, ends and times, it says what to ask and whom to let go. One question
stands for one file with one argument vector: it is asked once in a command, whoever runs it how often. Knows no
process, socket or policy. Runs in the exec gate's monitor.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from guardhouse import limits
from guardhouse.launcher.gate.judge import Judgement
from guardhouse.policy.model import Context

__all__ = ["NOBODY", "Answer", "Held", "Question", "Questions", "Request"]

Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether what was asked about may run, and who says so; ``why`` is a sentence of its own."""

    allows: bool
    why: str


NOBODY = Answer(allows=False, why="it needs a person's approval, and nobody can be asked here")


@dataclass(frozen=True, slots=True)
class Request:
    """What the monitor is told of the command that begins.

    Attributes:
        context: what is known of the request, for rules with conditions.
        ask_timeout_s: how long a question may be open; 0 where nobody can be asked.
        approved: (place of the rule, argument vector) of each command that a person approved at gate one.
    """

    context: Context = field(default_factory=Context)
    ask_timeout_s: float = 0.0
    approved: frozenset[tuple[str, tuple[str, ...]]] = frozenset()


@dataclass(frozen=True, slots=True)
class Held:
    """One stopped thread: at the entry of its exec, or at the event, where the new program is loaded."""

    tid: int
    judgement: Judgement
    is_loaded: bool


@dataclass(slots=True)
class Question:
    """One open question and the threads that are held for it."""

    number: int
    key: Key
    deadline_s: float
    held: dict[int, Held] = field(default_factory=dict)


class Questions:
    """The questions of one monitor. Numbers never come again, so that a late answer meets nothing."""

    def __init__(self) -> None:
        self._next = 1
        self._request = Request()
        self._open: dict[int, Question] = {}
        self._answers: dict[Key, Answer] = {}
        self._asked = 0
        self._over: Answer | None = None

    @property
    def request(self) -> Request:
        """What is known of the present command."""
        return self._request

    @property
    def is_waiting(self) -> bool:
        """Whether a thread is held."""
        return bool(self._open)

    def timeout_s(self, now_s: float) -> float | None:
        """Return how long until the first open question runs out of time, None where none is open."""
        deadlines = [question.deadline_s for question in self._open.values()]
        return max(0.0, min(deadlines) - now_s) if deadlines else None

    def begin(self, request: Request) -> None:
        """Begin with a new command: nothing is open, nothing is answered."""
        self._request = request
        self._open.clear()
        self._answers.clear()
        self._asked = 0
        self._over = None

    def known(self, judgement: Judgement) -> Answer | None:
        """Return the answer to what a judgement asks; None where it has to be asked or is open."""
        answer = self._answers.get(_key(judgement))
        if answer is not None:
            return answer
        if self._is_approved(judgement):
            return Answer(allows=True, why="a person approved it before the command started")
        if self._request.ask_timeout_s <= 0:
            return NOBODY
        return self._over

    def ask(self, held: Held, *, now_s: float) -> Question | Answer | None:
        """Hold a thread for its question; return that where it is a new one, or a no where no more may be asked."""
        key = _key(held.judgement)
        for question in self._open.values():
            if question.key == key:
                question.held[held.tid] = held
                return None
        if self._asked >= limits.APPROVALS_A_COMMAND_MAX:
            return Answer(
                allows=False,
                why=f"it needs a person's approval, and this command asked {self._asked} questions already, the limit",
            )
        question = Question(self._next, key, now_s + self._request.ask_timeout_s, {held.tid: held})
        self._next += 1
        self._asked += 1
        self._open[question.number] = question
        return question

    def answered(self, number: int, answer: Answer) -> Iterable[Held]:
        """Take in an answer and return whom it lets go; nobody where the question is not open any more."""
        question = self._open.pop(number, None)
        if question is None:
            return ()
        self._answers[question.key] = answer
        return tuple(question.held.values())

    def expired(self, now_s: float) -> list[int]:
        """Return the numbers of the questions whose time has run out."""
        return [question.number for question in self._open.values() if now_s >= question.deadline_s]

    def ended(self, tid: int) -> int | None:
        """Take in that a thread is gone; return the number of the question that nobody is held for any more."""
        for question in self._open.values():
            if question.held.pop(tid, None) is not None and not question.held:
                del self._open[question.number]
                return question.number
        return None

    def refuse_all(self, answer: Answer) -> list[int]:
        """Answer everything that is open and everything that comes alike; return the open questions' numbers."""
        self._over = answer
        return list(self._open)

    def _is_approved(self, judgement: Judgement) -> bool:
        if not judgement.place:
            return False
        names = (*judgement.names, judgement.path)
        return any((judgement.place, (name, *judgement.words[1:])) in self._request.approved for name in names)


def _key(judgement: Judgement) -> Key:
    return (judgement.file, judgement.words, judgement.place)

"""The kinds of messages between the runner and the launcher, as values. Standard library only."""

from dataclasses import dataclass

from guardhouse.launcher.messages.request import CommandOutcome, LaunchRequest, StopReason

__all__ = [
    "AnswerQuestion",
    "Exited",
    "Launch",
    "Message",
    "ProxyListening",
    "Question",
    "QuestionOver",
    "Ready",
    "Refused",
    "StartWorker",
    "Started",
    "Stop",
    "WorkerStarted",
]


@dataclass(frozen=True, slots=True)
class Stop:
    """Runner: stop command ``id``."""

    id: int
    reason: StopReason


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Runner: start the worker ``kind`` (``files``) and send me its socket."""

    id: int
    kind: str


@dataclass(frozen=True, slots=True)
class Launch:
    """Runner: start this; its three descriptors come along."""

    id: int
    request: LaunchRequest


@dataclass(frozen=True, slots=True)
class ProxyListening:
    """Launcher: the listening socket inside command ``id``'s own network namespace comes along: serve it.

    Comes before any other answer for ``id``, where the profile's network mode is ``domains``.
    """

    id: int


@dataclass(frozen=True, slots=True)
class Started:
    """Launcher: command ``id`` runs; ``pid`` as the launcher sees it."""

    id: int
    pid: int


@dataclass(frozen=True, slots=True)
class Exited:
    """Launcher: command ``id`` and everything it started is gone."""

    id: int
    outcome: CommandOutcome


@dataclass(frozen=True, slots=True)
class Refused:
    """Launcher: ``id`` was not started; ``layer`` and ``why`` as in `LaunchError`."""

    id: int
    layer: str
    why: str


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """Launcher: the worker's socket comes along."""

    id: int
    pid: int


@dataclass(frozen=True, slots=True)
class Ready:
    """Launcher: the bundle is read and accepted, requests are served from now on. ``id`` is 0."""

    id: int


@dataclass(frozen=True, slots=True)
class Question:
    """Launcher: a process of command ``id`` waits at the exec gate until ``number`` is answered.

    Texts are as in the execution record, not redacted.
    """

    id: int
    number: int
    path: str
    argv: tuple[str, ...]
    started_by: str
    rule: str
    place: str
    because: str


@dataclass(frozen=True, slots=True)
class AnswerQuestion:
    """Runner: what a person said to question ``number`` of command ``id``. ``why`` goes into the record."""

    id: int
    number: int
    allows: bool
    why: str


@dataclass(frozen=True, slots=True)
class QuestionOver:
    """Launcher: question ``number`` of command ``id`` needs no answer any more, and why."""

    id: int
    number: int
    why: str


Message = (
    Question
    | AnswerQuestion
    | QuestionOver
    | Launch
    | Stop
    | StartWorker
    | ProxyListening
    | Started
    | Exited
    | Refused
    | WorkerStarted
    | Ready
)

"""What a session tells the program around it, beside the peer's messages themselves.

A session hands most messages on as they are (a `TaskRequest` is its own event). The types here are for what a
message alone does not say. Runs in the runner and in the hub.
"""

from dataclasses import dataclass

from guardhouse.errors import PeerError
from guardhouse.values import Stream
from guardhouse.wire.messages import Heartbeat, Message, TaskResult
from guardhouse.wire.messages_v1 import TaskState

__all__ = [
    "DuplicateRequest",
    "Event",
    "HeartbeatDue",
    "HeartbeatReceived",
    "OutputGap",
    "OutputReceived",
    "OutputRoom",
    "ResultAcknowledged",
    "ResultReceived",
    "Resumed",
    "TaskLost",
    "TaskNotArrived",
    "Warned",
    "WelcomeMissing",
    "WentOffline",
]


@dataclass(frozen=True, slots=True)
class Warned:
    """The peer sent something that is not worth a closed connection: log ``error`` and count it."""

    error: PeerError


@dataclass(frozen=True, slots=True)
class WelcomeMissing:
    """Runner: no welcome within its time from a plain platform; carry on without a name (the seed does)."""


@dataclass(frozen=True, slots=True)
class HeartbeatDue:
    """Runner: gather metrics, and environment facts when ``first``, and call ``RunnerSession.heartbeat``."""

    first: bool


@dataclass(frozen=True, slots=True)
class Resumed:
    """Runner: the connection is ready; what was held is on its way again."""


@dataclass(frozen=True, slots=True)
class DuplicateRequest:
    """Runner: a request came again and starts nothing. Already answered; for the log."""

    task_id: str
    state: TaskState


@dataclass(frozen=True, slots=True)
class OutputRoom:
    """Runner: more output of this task may be given to ``RunnerSession.output``."""

    task_id: str


@dataclass(frozen=True, slots=True)
class ResultAcknowledged:
    """Runner: the result is safe with the hub (or, plain, was written to the socket): drop it from the journal."""

    task_id: str


@dataclass(frozen=True, slots=True)
class HeartbeatReceived:
    """Hub: the runner lives. ``first`` of this connection carries the environment facts."""

    heartbeat: Heartbeat
    first: bool


@dataclass(frozen=True, slots=True)
class WentOffline:
    """Hub: no heartbeat for 90 s. Said once; the next heartbeat ends it."""


@dataclass(frozen=True, slots=True)
class OutputReceived:
    """Hub: new bytes of a stream, in order and without repeats. Store them, then call ``output_stored``."""

    task_id: str
    stream: Stream
    offset: int
    data: bytes
    seq: int | None = None

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        return self.offset + len(self.data)


@dataclass(frozen=True, slots=True)
class OutputGap:
    """Hub: bytes from ``start`` to ``end`` of a stream are lost for good (one side lost its memory)."""

    task_id: str
    stream: Stream
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ResultReceived:
    """Hub: the one result of a task. Store it, then call ``result_stored``.

    ``complete`` is False when the runner sent more output than arrived.
    """

    result: TaskResult
    complete: bool = True


@dataclass(frozen=True, slots=True)
class TaskNotArrived:
    """Hub: the runner never saw this request and its memory is whole: sending it again is safe."""

    task_id: str


@dataclass(frozen=True, slots=True)
class TaskLost:
    """Hub: the runner lost its memory, so whether this task ran cannot be known: report it, never send it again."""

    task_id: str


Event = (
    Message
    | Warned
    | WelcomeMissing
    | HeartbeatDue
    | Resumed
    | DuplicateRequest
    | OutputRoom
    | ResultAcknowledged
    | HeartbeatReceived
    | WentOffline
    | OutputReceived
    | OutputGap
    | ResultReceived
    | TaskNotArrived
    | TaskLost
)

"""A runner's tasks as the platform sees them: given, followed byte for byte, and done.

Takes output and results only of tasks that were given to this runner, each byte and each result once. Knows no time
and no beginning or end of a connection: `hub_session` does. Runs in the hub.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from guardhouse import limits
from guardhouse.errors import InvariantError, PeerError, Refusal
from guardhouse.values import Stream
from guardhouse.wire.events import Event, OutputGap, OutputReceived, ResultReceived, TaskLost, TaskNotArrived, Warned
from guardhouse.wire.messages import Message, TaskCancel, TaskOutput, TaskRequest, TaskResult
from guardhouse.wire.messages_v1 import Disposition, HeldTask, OutputAck, ResultAck, ResumedTask, RunnerHello
from guardhouse.wire.plain import as_plain

__all__ = ["HubTasks", "StoredState", "StoredTask"]

# Tasks of this connection whose result may come once more, because the runner was asked twice.
_DONE_REMEMBERED = 1_000


class StoredState(StrEnum):
    """What the hub's store says of a task. ``requested``: sent once, never heard of."""

    REQUESTED = "requested"
    RUNNING = "running"
    CANCELLING = "cancelling"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class StoredTask:
    """One task of this runner as the hub's store has it; offsets are stored bytes.

    ``memory_id`` is the one of the hello under which the request was sent; None when it was sent on a plain
    connection.
    """

    state: StoredState
    stdout_offset: int = 0
    stderr_offset: int = 0
    memory_id: str | None = None


@dataclass(slots=True)
class _Stream:
    received: int = 0
    stored: int = 0
    acknowledged: int = 0
    resent: int = 0


@dataclass(slots=True)
class _Task:
    streams: dict[Stream, _Stream] = field(default_factory=lambda: {Stream.STDOUT: _Stream(), Stream.STDERR: _Stream()})
    has_result: bool = False


class HubTasks:
    """The part of a hub's session that is about tasks; `HubSession` adds the connection.

    ``is_ready`` says whether the runner takes tasks, ``is_draining`` whether it takes no new ones.
    """

    def __init__(self, *, is_v1: bool, window_bytes: int) -> None:
        """Begin with no task; ``window_bytes`` is the output that may be on its way without an acknowledgement."""
        self.is_v1 = is_v1
        self.is_ready = not is_v1
        self.is_draining = False
        self.hello: RunnerHello | None = None
        self._window_bytes = window_bytes
        # A list: an empty deque takes 700 bytes more, and thousands of runners have nothing to be told.
        self._outbox: list[Message] = []
        self._tasks: dict[str, _Task] = {}
        self._done: OrderedDict[str, None] = OrderedDict()

    def _send(self, message: Message) -> None:
        self._outbox.append(message if self.is_v1 else as_plain(message))

    # What the hub does.

    def request(self, request: TaskRequest) -> None:
        """Give the runner a task. Store it as requested, with ``hello.memory_id``, before the message is sent.

        Raises:
            Refusal: the runner is not ready or is draining.
            InvariantError: this runner holds the task already.
        """
        if not self.is_ready or self.is_draining:
            state = "draining" if self.is_draining else "not ready yet"
            raise Refusal(f"runner is {state}: task {request.task_id} was not sent; choose another or wait")
        if request.task_id in self._tasks:
            raise InvariantError(f"task {request.task_id} was given to this runner already")
        self._tasks[request.task_id] = _Task()
        self._send(request)

    def cancel(self, task_id: str, *, reason: str | None = None) -> None:
        """Ask for a stop; the result still comes. Before the resumption the store's state says it (`CANCELLING`)."""
        if self.is_ready:
            self._send(TaskCancel(task_id=task_id, reason=reason))

    def adopt(self, stored: Mapping[str, StoredTask]) -> None:
        """Plain runner: go on with the unfinished tasks that it was given on earlier connections.

        Cancels that it may not have heard are sent again. Whether a request arrived cannot be known: it is not
        sent again, and the hub's own time limit ends a task that never answers.
        """
        for task_id, task in stored.items():
            if task.state is not StoredState.FINISHED:
                self._tasks[task_id] = _task_from(task)
                if task.state is StoredState.CANCELLING:
                    self.cancel(task_id)

    def output_stored(self, task_id: str, stream: Stream, offset: int) -> None:
        """Note that a stream is stored up to ``offset``; acknowledges once a quarter of the window gathered.

        Raises:
            InvariantError: more was stored than was received.
        """
        task = self._tasks.get(task_id)
        if task is None:
            return
        held = task.streams[stream]
        if offset > held.received:
            raise InvariantError(f"{offset} bytes of {stream} of {task_id} stored, {held.received} received")
        held.stored = max(held.stored, offset)
        if not self.is_v1:
            return
        if sum(one.stored - one.acknowledged for one in task.streams.values()) * 4 >= self._window_bytes:
            self._acknowledge_output(task_id, task)

    def acknowledge_output(self, task_id: str) -> None:
        """Acknowledge what is stored of a task at once."""
        task = self._tasks.get(task_id)
        if self.is_v1 and task is not None:
            self._acknowledge_output(task_id, task)

    def result_stored(self, task_id: str) -> None:
        """Note that a result is durable: acknowledge it and expect nothing more of its task."""
        if self._tasks.pop(task_id, None) is not None:
            self._done[task_id] = None
            if len(self._done) > _DONE_REMEMBERED:
                self._done.popitem(last=False)
        if self.is_v1:
            self._send(ResultAck(task_id=task_id))

    # Rules.

    def _continue(self, held: HeldTask, stored: StoredTask, events: list[Event]) -> ResumedTask:
        """Agree on where each stream goes on: at what is stored, or later where the runner has less."""
        task = _task_from(stored)
        self._tasks[held.task_id] = task
        ranges = {
            Stream.STDOUT: (held.stdout_first, held.stdout_next),
            Stream.STDERR: (held.stderr_first, held.stderr_next),
        }
        agreed = {}
        for stream, (first, following) in ranges.items():
            one = task.streams[stream]
            if one.received < first:
                events.append(OutputGap(held.task_id, stream, one.received, first))
                one.received = one.stored = one.acknowledged = first
            agreed[stream] = min(one.received, following)
            one.resent = min(following - agreed[stream], limits.OUTPUT_WINDOW_MAX_BYTES)
        cancelling = stored.state is StoredState.CANCELLING
        return ResumedTask(
            task_id=held.task_id,
            disposition=Disposition.CANCEL if cancelling else Disposition.CONTINUE,
            stdout_offset=agreed[Stream.STDOUT],
            stderr_offset=agreed[Stream.STDERR],
        )

    def _missing(self, task_id: str, task: StoredTask) -> Event:
        same_memory = self.hello is not None and task.memory_id == self.hello.memory_id
        if same_memory and task.state in (StoredState.REQUESTED, StoredState.CANCELLING):
            return TaskNotArrived(task_id)
        return TaskLost(task_id)

    def _broken(self, what: str) -> list[Event]:
        """Answer a broken rule: the end under v1, a warning for a plain runner."""
        error = PeerError(what, code="protocol")
        if self.is_v1:
            raise error
        return [Warned(error)]

    def _known(self, task_id: str, kind: str) -> _Task | Warned:
        """Return a task of this runner; output and results of any other are not taken.

        Raises:
            PeerError: ``foreign_task``, under v1, where a runner knows which tasks it was given.
        """
        task = self._tasks.get(task_id)
        if task is not None:
            return task
        error = PeerError(f"{kind} of task {task_id[:100]}, which this runner was not given", code="foreign_task")
        if self.is_v1:
            raise error
        return Warned(error)

    def _on_output(self, output: TaskOutput) -> list[Event]:
        task = self._known(output.task_id, "output")
        if isinstance(task, Warned):
            return [task]
        if task.has_result:
            return self._broken(f"output of task {output.task_id} after its result")
        held = task.streams[output.stream]
        data = output.raw
        offset = held.received
        if self.is_v1:
            if output.offset is None or output.seq is None:
                raise PeerError("task.output without offset or seq", code="protocol")
            if output.offset > held.received:
                raise PeerError(
                    f"gap in {output.stream} of task {output.task_id}: {output.offset} after {held.received}",
                    code="protocol",
                )
            data = data[held.received - output.offset :]
            # What a runner held before this connection may be more than this connection's window.
            if held.received + len(data) - held.stored > max(self._window_bytes, held.resent):
                raise PeerError(
                    f"{output.stream} of task {output.task_id} runs over its window of {self._window_bytes} bytes",
                    code="protocol",
                )
        if not data:
            return []
        held.received += len(data)
        return [OutputReceived(output.task_id, output.stream, offset, data, output.seq)]

    def _on_result(self, result: TaskResult) -> list[Event]:
        if result.task_id in self._done:
            if self.is_v1:
                self._send(ResultAck(task_id=result.task_id))
            return []
        task = self._known(result.task_id, "result")
        if isinstance(task, Warned):
            return [task]
        if task.has_result:
            return []
        task.has_result = True
        sent = {Stream.STDOUT: result.stdout_bytes, Stream.STDERR: result.stderr_bytes}
        complete = all(length is None or task.streams[stream].received >= length for stream, length in sent.items())
        return [ResultReceived(result, complete)]

    def _acknowledge_output(self, task_id: str, task: _Task) -> None:
        for one in task.streams.values():
            one.acknowledged = one.stored
        self._send(
            OutputAck(
                task_id=task_id,
                stdout_offset=task.streams[Stream.STDOUT].stored,
                stderr_offset=task.streams[Stream.STDERR].stored,
            )
        )


def _task_from(stored: StoredTask) -> _Task:
    task = _Task()
    for stream, offset in (
        (Stream.STDOUT, stored.stdout_offset),
        (Stream.STDERR, stored.stderr_offset),
    ):
        task.streams[stream] = _Stream(received=offset, stored=offset, acknowledged=offset)
    return task

"""The platform's side of one connection with one runner: what it heard, what to say.

Handed frames, the monotonic time and what the store did; returns events and queues messages. Takes from a runner only
output and results of tasks that were given to it, each byte and each result once. Knows no socket, clock or store.
Runs in the hub. docs/wire_protocol.md is the rule book.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from guardhouse import limits
from guardhouse.errors import InvariantError, PeerError, Refusal
from guardhouse.values import Stream
from guardhouse.wire.envelope import InvalidPayloadError, parse_frame
from guardhouse.wire.events import (
    Event,
    HeartbeatReceived,
    OutputGap,
    OutputReceived,
    ResultReceived,
    TaskLost,
    TaskNotArrived,
    Warned,
    WentOffline,
)
from guardhouse.wire.messages import (
    Direction,
    Heartbeat,
    McpCall,
    McpResult,
    Message,
    TaskCancel,
    TaskOutput,
    TaskRequest,
    TaskResult,
    Unknown,
    Welcome,
)
from guardhouse.wire.messages_files import FileRead, FileResult, FileWrite
from guardhouse.wire.messages_v1 import (
    ApprovalDecision,
    ApprovalRequest,
    ApprovalWithdrawn,
    Disposition,
    HeldTask,
    HubDraining,
    HubGoodbye,
    OutputAck,
    PolicyAnswer,
    PolicyReport,
    PolicySet,
    ResultAck,
    ResumedTask,
    RunnerDraining,
    RunnerGoodbye,
    RunnerHello,
    RunnerResume,
    TaskAccepted,
    TaskCancelAck,
    TaskRejected,
)
from guardhouse.wire.plain import as_plain, is_plain
from guardhouse.wire.typed import printable

__all__ = ["HubSession", "StoredState", "StoredTask"]

_V1 = "guardhouse.v1"

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


class HubSession:
    """One connection, from the upgrade to its end. Make a new one for each connection.

    Every method that takes ``now_s`` wants the same monotonic clock, in seconds. A `PeerError` out of any of them
    ends the connection: close it with `close_codes.close_code`.
    """

    def __init__(self, *, welcome: Welcome, subprotocol: str | None, now_s: float) -> None:
        """Begin with the welcome; ``subprotocol`` is the one that was chosen at the upgrade, None for plain."""
        if subprotocol not in (None, "", _V1):
            raise InvariantError(f"no session for subprotocol {subprotocol!r}")
        self.is_v1 = subprotocol == _V1
        self.is_ready = not self.is_v1
        self.is_draining = False
        # The runner's clock (Unix ms) when it sent the frame that was taken last; its deadlines count against it.
        self.peer_time_ms = 0
        self.is_offline = False
        self.hello: RunnerHello | None = None
        self._window_bytes = welcome.output_window_bytes or limits.OUTPUT_WINDOW_BYTES
        self._outbox: deque[Message] = deque()
        self._tasks: dict[str, _Task] = {}
        self._done: OrderedDict[str, None] = OrderedDict()
        self._has_heartbeat = False
        self._answer_by_s: float | None = now_s + limits.WELCOME_TIMEOUT_S if self.is_v1 else None
        self._offline_at_s = now_s + limits.OFFLINE_AFTER_S
        self._idle_at_s = now_s + limits.IDLE_TIMEOUT_S
        self._send(welcome)

    # The connection.

    @property
    def deadline_s(self) -> float:
        """When ``tick`` must be called at the latest."""
        times = [self._idle_at_s]
        if self._answer_by_s is not None:
            times.append(self._answer_by_s)
        if not self.is_offline:
            times.append(self._offline_at_s)
        return min(times)

    @property
    def backlog(self) -> int:
        """Messages queued and not taken. A program that stops reading its socket while this is large bounds it."""
        return len(self._outbox)

    def traffic(self, now_s: float) -> None:
        """Note any sign of life: a frame, a ping, a pong."""
        self._idle_at_s = now_s + limits.IDLE_TIMEOUT_S

    def tick(self, now_s: float) -> list[Event]:
        """Do what time asks for.

        Raises:
            PeerError: ``idle``: nothing was heard for 60 s; ``protocol``: under v1, no hello within 5 s.
        """
        if now_s >= self._idle_at_s:
            raise PeerError(f"nothing heard for {limits.IDLE_TIMEOUT_S:g} s", code="idle")
        if self._answer_by_s is not None and now_s >= self._answer_by_s:
            raise PeerError(f"no runner.hello within {limits.WELCOME_TIMEOUT_S:g} s", code="protocol")
        if now_s >= self._offline_at_s and not self.is_offline:
            self.is_offline = True
            return [WentOffline()]
        return []

    def take_messages(self) -> list[Message]:
        """Return what to send, in order; each message once."""
        taken = list(self._outbox)
        self._outbox.clear()
        return taken

    # What the runner says.

    def received(self, data: bytes | str, now_s: float) -> list[Event]:
        """Take one frame.

        Raises:
            PeerError: the connection must end; a plain runner's badly typed payload is only a `Warned`.
        """
        self.traffic(now_s)
        try:
            envelope = parse_frame(data, direction=Direction.TO_HUB)
        except InvalidPayloadError as error:
            if self.is_v1:
                raise
            return [Warned(error)]
        self.peer_time_ms = envelope.timestamp_ms
        return self.received_message(envelope.payload, now_s)

    def received_message(self, message: Message, now_s: float) -> list[Event]:
        """Take one message that is already parsed; otherwise as ``received``."""
        if isinstance(message, Unknown) or (not self.is_v1 and not is_plain(type(message))):
            name = message.type if isinstance(message, Unknown) else message.TYPE
            return [Warned(PeerError(f"unknown message type: {printable(name)}", code="unknown_type"))]
        if self.is_v1 and self.hello is None and not isinstance(message, RunnerHello):
            raise PeerError(f"{message.TYPE} before runner.hello", code="protocol")
        match message:
            case RunnerHello():
                return self._on_hello(message)
            case Heartbeat():
                return self._on_heartbeat(message, now_s)
            case TaskOutput():
                return self._on_output(message)
            case TaskResult():
                return self._on_result(message)
            case TaskAccepted():
                return [message] if message.task_id in self._tasks else []
            case ApprovalRequest():
                self._known(message.task_id, "approval request")
                return [message]
            case TaskRejected():
                return [message] if self._tasks.pop(message.task_id, None) is not None else []
            case RunnerDraining():
                self.is_draining = True
                return [message]
            case (
                TaskCancelAck()
                | RunnerGoodbye()
                | ApprovalWithdrawn()
                | PolicyReport()
                | PolicyAnswer()
                | McpResult()
                | FileResult()
            ):
                return [message]
            case _:
                raise InvariantError(f"no rule for {message.TYPE} towards a hub")

    # What the hub does.

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

    def resume(self, stored: Mapping[str, StoredTask]) -> list[Event]:
        """Answer a `RunnerHello` event from the store.

        Args:
            stored: every task that the hello names and every unfinished task that this runner was given. One that
                the hello names and that is missing here is unknown to the hub.

        Returns:
            `TaskNotArrived` and `TaskLost` for tasks that the runner does not hold, `OutputGap` for bytes that
            neither side has.
        """
        if self.hello is None or self.is_ready:
            raise InvariantError("resume without a hello to answer")
        events: list[Event] = []
        answers = []
        for held in self.hello.tasks:
            task = stored.get(held.task_id)
            if task is None:
                answers.append(ResumedTask(task_id=held.task_id, disposition=Disposition.UNKNOWN))
            elif task.state is StoredState.FINISHED:
                answers.append(ResumedTask(task_id=held.task_id, disposition=Disposition.STORED))
            else:
                answers.append(self._continue(held, task, events))
        named = {held.task_id for held in self.hello.tasks}
        for task_id, task in stored.items():
            if task_id in named or task.state is StoredState.FINISHED:
                continue
            events.append(self._missing(task_id, task))
        self._send(RunnerResume(tasks=tuple(answers)))
        self.is_ready = True
        return events

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

    def call(self, call: McpCall) -> None:
        """Ask for one call of an MCP tool; it belongs to this connection."""
        self._send(call)

    def ask_file(self, call: FileRead | FileWrite) -> None:
        """Ask for one part of a file (``guardhouse.v1`` only); the answer belongs to this connection.

        Raises:
            Refusal: the runner speaks the plain protocol, or is not ready.
        """
        if not self.is_v1:
            raise Refusal("this runner speaks the plain protocol, which has no file streams; use read and write tasks")
        if not self.is_ready:
            raise Refusal("runner is not ready yet: ask again in a moment")
        self._send(call)

    def decide(self, decision: ApprovalDecision) -> None:
        """Tell the runner what the people said (``guardhouse.v1`` only)."""
        self._send(decision)

    def set_policy(self, policy: PolicySet) -> bool:
        """Have the runner hold a policy next to its own; False where it is not ready or speaks no ``guardhouse.v1``."""
        if not (self.is_v1 and self.is_ready):
            return False
        self._send(policy)
        return True

    def say_draining(self, draining: HubDraining) -> bool:
        """Tell the runner that its environment is drained, or no more; False as for `set_policy`."""
        if not (self.is_v1 and self.is_ready):
            return False
        self._send(draining)
        return True

    def say_goodbye(self, *, reason: str = "", reconnect_after_s: float | None = None) -> None:
        """Queue the last message before a wanted close (nothing on the plain protocol)."""
        if self.is_v1:
            self._send(HubGoodbye(reason=reason, reconnect_after_s=reconnect_after_s))

    # Rules.

    def _send(self, message: Message) -> None:
        self._outbox.append(message if self.is_v1 else as_plain(message))

    def _on_hello(self, hello: RunnerHello) -> list[Event]:
        if self.hello is not None:
            raise PeerError("a second runner.hello", code="protocol")
        ids = [task.task_id for task in hello.tasks]
        if len(set(ids)) != len(ids):
            raise PeerError("runner.hello names a task twice", code="protocol")
        for task in hello.tasks:
            if task.stdout_first > task.stdout_next or task.stderr_first > task.stderr_next:
                raise PeerError(f"runner.hello: task {task.task_id} begins after its end", code="protocol")
        self.hello = hello
        self.is_draining = hello.draining
        self._answer_by_s = None
        return [hello]

    def _on_heartbeat(self, heartbeat: Heartbeat, now_s: float) -> list[Event]:
        first = not self._has_heartbeat
        self._has_heartbeat = True
        self.is_offline = False
        self._offline_at_s = now_s + limits.OFFLINE_AFTER_S
        return [HeartbeatReceived(heartbeat, first)]

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

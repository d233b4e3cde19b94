"""The platform's side of one connection with one runner: what it heard, what to say.

Handed frames, the monotonic time and what the store did; returns events and queues messages. Takes from a runner only
output and results of tasks that were given to it, each byte and each result once. Knows no socket, clock or store.
Runs in the hub. docs/wire_protocol.md is the rule book.
"""

from collections.abc import Mapping

from guardhouse import limits
from guardhouse.errors import InvariantError, PeerError, Refusal
from guardhouse.wire.envelope import InvalidPayloadError, parse_frame
from guardhouse.wire.events import (
    Event,
    HeartbeatReceived,
    Warned,
    WentOffline,
)
from guardhouse.wire.hub_tasks import HubTasks, StoredState, StoredTask
from guardhouse.wire.messages import (
    Direction,
    Heartbeat,
    McpCall,
    McpResult,
    Message,
    TaskOutput,
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
    HubDraining,
    HubGoodbye,
    PolicyAnswer,
    PolicyReport,
    PolicySet,
    ResumedTask,
    RunnerDraining,
    RunnerGoodbye,
    RunnerHello,
    RunnerResume,
    TaskAccepted,
    TaskCancelAck,
    TaskRejected,
)
from guardhouse.wire.plain import is_plain
from guardhouse.wire.typed import printable

__all__ = ["HubSession"]

_V1 = "guardhouse.v1"


class HubSession(HubTasks):
    """One connection, from the upgrade to its end. Make a new one for each connection.

    Every method that takes ``now_s`` wants the same monotonic clock, in seconds. A `PeerError` out of any of them
    ends the connection: close it with `close_codes.close_code`.
    """

    def __init__(self, *, welcome: Welcome, subprotocol: str | None, now_s: float) -> None:
        """Begin with the welcome; ``subprotocol`` is the one that was chosen at the upgrade, None for plain."""
        if subprotocol not in (None, "", _V1):
            raise InvariantError(f"no session for subprotocol {subprotocol!r}")
        super().__init__(
            is_v1=subprotocol == _V1, window_bytes=welcome.output_window_bytes or limits.OUTPUT_WINDOW_BYTES
        )
        # The runner's clock (Unix ms) when it sent the frame that was taken last; its deadlines count against it.
        self.peer_time_ms = 0
        self.is_offline = False
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
        taken, self._outbox = self._outbox, []
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

"""The runner's side of the conversation, over any number of connections: what it heard, what to say.

Handed frames, the monotonic time and what happened on the host; returns events and queues messages. Knows the
welcome, the heartbeat, the idle limit, acknowledgement, credit and resumption. Knows no socket, clock, journal or
command: the program around it calls ``take_messages``, renders and sends them, and calls ``flushed``.
Runs in the runner. docs/wire_protocol.md is the rule book.
"""

from collections.abc import Iterable

from guardhouse import limits
from guardhouse.errors import InvariantError, PeerError
from guardhouse.wire.envelope import InvalidPayloadError, parse_frame
from guardhouse.wire.events import (
    Event,
    HeartbeatDue,
    OutputRoom,
    ResultAcknowledged,
    Resumed,
    Warned,
    WelcomeMissing,
)
from guardhouse.wire.messages import (
    Direction,
    EnvironmentInfo,
    Heartbeat,
    McpCall,
    McpResult,
    Message,
    Metrics,
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
    Disposition,
    HubDraining,
    HubGoodbye,
    OutputAck,
    PolicyAnswer,
    PolicyReport,
    PolicySet,
    RejectCode,
    ResultAck,
    RunnerDraining,
    RunnerGoodbye,
    RunnerHello,
    RunnerResume,
    TaskRejected,
    TaskState,
)
from guardhouse.wire.plain import is_plain
from guardhouse.wire.runner_tasks import RunnerTasks
from guardhouse.wire.typed import printable

__all__ = ["RunnerSession"]

_V1 = "guardhouse.v1"


class RunnerSession(RunnerTasks):
    """One runner's conversation with its platform, from its start to its end.

    Every method that takes ``now_s`` wants the same monotonic clock, in seconds. A `PeerError` out of any of them
    ends the connection: close it with `close_codes.close_code` and call ``disconnected``.
    """

    def __init__(self, *, memory_id: str, version: str, name: str = "", labels: Iterable[str] = ()) -> None:
        """``memory_id`` names the runner's task memory; make a new one whenever that memory was lost."""
        super().__init__()
        self.welcome: Welcome | None = None
        self._memory_id = memory_id
        self._version = version
        self._name = name
        self._labels = tuple(labels)
        self._taken: list[Message] = []
        self._call_answers: dict[str, McpResult] = {}
        self._said_held: frozenset[str] = frozenset()
        self._policy: PolicyReport | None = None
        self._answer_by_s: float | None = None
        self._heartbeat_at_s: float | None = None
        self._is_first_heartbeat = True
        self._idle_at_s = float("inf")

    # The connection.

    @property
    def deadline_s(self) -> float:
        """When ``tick`` must be called at the latest; infinity while there is no connection."""
        if not self._is_connected:
            return float("inf")
        times = [self._idle_at_s]
        times += [at for at in (self._answer_by_s, self._heartbeat_at_s) if at is not None]
        return min(times)

    def connected(self, now_s: float, *, subprotocol: str | None) -> list[Event]:
        """Begin a connection on which the platform chose ``subprotocol`` (None: the plain protocol)."""
        if self._is_connected:
            raise InvariantError("connected twice without a disconnect between")
        if subprotocol not in (None, "", _V1):
            raise PeerError(f"unknown subprotocol {subprotocol!r}: only {_V1} was offered", code="protocol")
        self._is_v1 = subprotocol == _V1
        self._is_connected = True
        self._is_ready = False
        self._is_first_heartbeat = True
        self.welcome = None
        self._heartbeat_at_s = None
        self._answer_by_s = now_s + limits.WELCOME_TIMEOUT_S
        self._window_bytes = limits.OUTPUT_WINDOW_BYTES
        self.traffic(now_s)
        return []

    def disconnected(self) -> None:
        """End the connection, wanted or not. Running tasks run on; what is not confirmed is kept."""
        self._is_connected = False
        self._is_ready = False
        self._outbox.clear()
        self._taken.clear()
        self._plain_output.reset()

    def traffic(self, now_s: float) -> None:
        """Note any sign of life: a frame, a ping, a pong."""
        self._idle_at_s = now_s + limits.IDLE_TIMEOUT_S

    def tick(self, now_s: float) -> list[Event]:
        """Do what time asks for.

        Raises:
            PeerError: ``idle``: nothing was heard for 60 s; ``protocol``: under v1, no welcome or no resume in time.
        """
        if not self._is_connected:
            return []
        if now_s >= self._idle_at_s:
            raise PeerError(f"nothing heard for {limits.IDLE_TIMEOUT_S:g} s", code="idle")
        events: list[Event] = []
        if self._answer_by_s is not None and now_s >= self._answer_by_s:
            self._answer_by_s = None
            if self._is_v1:
                missing = "runner.resume" if self.welcome else "welcome"
                raise PeerError(f"no {missing} within {limits.WELCOME_TIMEOUT_S:g} s", code="protocol")
            events.append(WelcomeMissing())
            events += self._begin_plain(now_s)
        if self._heartbeat_at_s is not None and now_s >= self._heartbeat_at_s:
            events.append(self._heartbeat_due(now_s))
        return events

    def take_messages(self) -> list[Message]:
        """Return what to send, in order; each message once."""
        taken = list(self._outbox)
        self._outbox.clear()
        # What `flushed` has something to say of; under v1 acknowledgements say the rest.
        self._taken += [one for one in taken if not self._is_v1 or isinstance(one, McpResult)]
        return taken

    def flushed(self) -> list[Event]:
        """Note that everything that ``take_messages`` has returned was written to the socket.

        A plain platform acknowledges nothing, so there this is what a result and the credit for output wait for.
        """
        events: list[Event] = []
        rooms: dict[str, None] = {}
        for message in self._taken:
            match message:
                case McpResult():
                    self._call_answers.pop(message.call_id, None)
                case TaskResult() if not self._is_v1 and self._memory.get(message.task_id) is not None:
                    self._memory.forget(message.task_id, keep_result=True)
                    events.append(ResultAcknowledged(message.task_id))
                case TaskOutput() if not self._is_v1:
                    self._plain_output.written(message)
                    rooms[message.task_id] = None
                case _:
                    pass
        self._taken.clear()
        return events + [OutputRoom(task_id) for task_id in rooms if self._memory.get(task_id) is not None]

    # What the platform says.

    def received(self, data: bytes | str, now_s: float) -> list[Event]:
        """Take one frame.

        Raises:
            PeerError: the connection must end; a plain platform's badly typed payload is only a `Warned`.
        """
        self.traffic(now_s)
        try:
            envelope = parse_frame(data, direction=Direction.TO_RUNNER)
        except InvalidPayloadError as error:
            if self._is_v1:
                raise
            return self._answer_invalid(error)
        return self.received_message(envelope.payload, now_s)

    def received_message(self, message: Message, now_s: float) -> list[Event]:
        """Take one message that is already parsed; otherwise as ``received``."""
        if isinstance(message, Unknown) or (not self._is_v1 and not is_plain(type(message))):
            name = message.type if isinstance(message, Unknown) else message.TYPE
            return [Warned(PeerError(f"unknown message type: {printable(name)}", code="unknown_type"))]
        if isinstance(message, Welcome):
            return self._on_welcome(message, now_s)
        if self._is_ready or isinstance(message, RunnerResume | HubGoodbye):
            return self._on_message(message, now_s)
        if self._is_v1:
            raise PeerError(f"{message.TYPE} before runner.resume", code="protocol")
        return [WelcomeMissing(), *self._begin_plain(now_s), *self._on_message(message, now_s)]

    def _on_message(self, message: Message, now_s: float) -> list[Event]:
        match message:
            case TaskRequest():
                return self._on_request(message)
            case TaskCancel():
                return self._on_cancel(message)
            case RunnerResume():
                return self._on_resume(message, now_s)
            case OutputAck():
                return self._on_output_ack(message)
            case ResultAck():
                return self._on_result_ack(message)
            case ApprovalDecision():
                return [message] if self._approvals.pop(message.approval_id, None) is not None else []
            case PolicySet() | McpCall() | HubGoodbye() | HubDraining() | FileRead() | FileWrite():
                return [message]
            case _:
                raise InvariantError(f"no rule for {message.TYPE} towards a runner")

    # What happens on the host.

    def answer_call(self, result: McpResult) -> None:
        """Send the answer to an `McpCall`; kept over a cut until it was written."""
        self._call_answers[result.call_id] = result
        if self.is_ready:
            self._send(result)

    def answer_file(self, result: FileResult) -> None:
        """Send the answer to a `FileRead` or `FileWrite`; not kept over a cut, since the hub asks again."""
        if self.is_ready and self._is_v1:
            self._send(result)

    def heartbeat(
        self,
        *,
        metrics: Metrics | None,
        environment: EnvironmentInfo | None = None,
        tasks_waiting: int | None = None,
        executor_delay_ms: int | None = None,
    ) -> None:
        """Answer a `HeartbeatDue` event; ``environment`` only when it was the first of its connection."""
        if not self.is_ready:
            return
        welcome = self.welcome or Welcome()
        running = sum(task.result is None for task in self._memory)
        self._send(
            Heartbeat(
                worknode_id=welcome.worknode_id,
                name=welcome.name or self._name,
                labels=welcome.labels or self._labels,
                version=self._version,
                environment=environment,
                metrics=metrics,
                tasks_running=running,
                tasks_waiting=tasks_waiting,
                executor_delay_ms=executor_delay_ms,
                draining=self.is_draining,
                policy_digest=self._policy.policy_digest if self._policy else None,
                narrowing_digest=(self._policy.narrowing_digest or None) if self._policy else None,
            )
        )

    def start_drain(self, *, reason: str = "", deadline_s: float | None = None) -> None:
        """Refuse every new task from now on, and say so where the other side understands it."""
        self._draining = RunnerDraining(reason=reason, deadline_s=deadline_s)
        if self._is_v1 and self.is_ready:
            self._send(self._draining)

    def say_goodbye(self, reason: str = "") -> None:
        """Queue the last message before a wanted close (nothing on the plain protocol)."""
        if self._is_v1 and self.is_ready:
            self._send(RunnerGoodbye(reason=reason))

    def report_policy(self, report: PolicyReport) -> None:
        """Say which policy and protection hold here, now and after each reconnect."""
        self._policy = report
        if self.is_ready and self._is_v1:
            self._send(report)

    def answer_policy(self, answer: PolicyAnswer) -> None:
        """Answer a `PolicySet` event. Not kept over a cut: the report after it says what holds."""
        if self.is_ready and self._is_v1:
            self._send(answer)

    # Rules.

    def _heartbeat_due(self, now_s: float) -> HeartbeatDue:
        self._heartbeat_at_s = now_s + limits.HEARTBEAT_INTERVAL_S
        first = self._is_first_heartbeat
        self._is_first_heartbeat = False
        return HeartbeatDue(first)

    def _on_welcome(self, welcome: Welcome, now_s: float) -> list[Event]:
        if self.welcome is not None:
            if self._is_v1:
                raise PeerError("a second welcome", code="protocol")
            return [Warned(PeerError("a second welcome", code="protocol"))]
        self.welcome = welcome
        if not self._is_v1:
            return [welcome] if self._is_ready else [welcome, *self._begin_plain(now_s)]
        self._window_bytes = welcome.output_window_bytes or limits.OUTPUT_WINDOW_BYTES
        self._answer_by_s = now_s + limits.WELCOME_TIMEOUT_S
        held = tuple(task.held() for task in self._memory if not task.unwanted)
        self._said_held = frozenset(task.task_id for task in held)
        self._send(RunnerHello(memory_id=self._memory_id, version=self._version, draining=self.is_draining, tasks=held))
        return [welcome]

    def _begin_plain(self, now_s: float) -> list[Event]:
        """Make a plain connection ready and send what finished while there was none."""
        self._answer_by_s = None
        self._is_ready = True
        events: list[Event] = [Resumed(), self._heartbeat_due(now_s)]
        for answer in self._call_answers.values():
            self._send(answer)
        for task in self._memory:
            for held in task.streams.values():
                held.acknowledge(held.next_offset)
            if task.result is None:
                events.append(OutputRoom(task.task_id))
            else:
                self._send_result(task)
        return events

    def _on_resume(self, resume: RunnerResume, now_s: float) -> list[Event]:
        if self.welcome is None or self._is_ready:
            raise PeerError("runner.resume without a hello before it", code="protocol")
        answers = {task.task_id: task for task in resume.tasks}
        held = [task for task in self._memory if not task.unwanted]
        for task in held:
            answer = answers.get(task.task_id)
            if answer is None:
                raise PeerError(f"runner.resume says nothing of task {task.task_id}", code="protocol")
            if answer.disposition in (Disposition.CONTINUE, Disposition.CANCEL):
                task.check_acknowledged(stdout_offset=answer.stdout_offset, stderr_offset=answer.stderr_offset)
        self._answer_by_s = None
        self._is_ready = True
        events: list[Event] = [Resumed(), self._heartbeat_due(now_s)]
        for task in held:
            events += self._resume_task(task, answers[task.task_id])
        for task_id in self._said_held:
            if self._memory.state(task_id) is TaskState.UNKNOWN:
                self._send(TaskRejected(task_id=task_id, code=RejectCode.BUSY, error="not started after all"))
        for message in (*self._call_answers.values(), *self._approvals.values()):
            self._send(message)
        if self._policy is not None:
            self._send(self._policy)
        return events

    def _answer_invalid(self, error: InvalidPayloadError) -> list[Event]:
        """Answer a plain platform's badly typed request, so that its task does not wait for ever."""
        if error.reference is not None:
            if error.type_name == TaskRequest.TYPE and self._memory.state(error.reference) is TaskState.UNKNOWN:
                self._send(TaskResult(task_id=error.reference, success=False, error=str(error)))
            elif error.type_name == McpCall.TYPE:
                self._send(McpResult(call_id=error.reference, success=False, error=str(error)))
        return [Warned(error)]

"""The runner's side of the conversation, over any number of connections: what it heard, what to say.

Handed frames, the monotonic time and what happened on the host; returns events and queues messages. Knows the
welcome, the heartbeat, the idle limit, acknowledgement, credit and resumption. Knows no socket, clock, journal or
command: the program around it calls ``take_messages``, renders and sends them, and calls ``flushed``.
Runs in the runner. docs/wire_protocol.md is the rule book.
"""

from collections import deque
from collections.abc import Iterable

from guardhouse import limits
from guardhouse.errors import InvariantError, PeerError
from guardhouse.values import Stream
from guardhouse.wire.envelope import InvalidPayloadError, parse_frame
from guardhouse.wire.events import (
    DuplicateRequest,
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
    ApprovalRequest,
    ApprovalWithdrawn,
    Disposition,
    HubDraining,
    HubGoodbye,
    OutputAck,
    PolicyAnswer,
    PolicyReport,
    PolicySet,
    RejectCode,
    ResultAck,
    ResumedTask,
    RunnerDraining,
    RunnerGoodbye,
    RunnerHello,
    RunnerResume,
    TaskAccepted,
    TaskCancelAck,
    TaskRejected,
    TaskState,
)
from guardhouse.wire.plain import as_plain, is_plain
from guardhouse.wire.plain_output import PlainOutput
from guardhouse.wire.task_memory import RunnerTask, TaskMemory
from guardhouse.wire.typed import printable

__all__ = ["RunnerSession"]

_V1 = "guardhouse.v1"


class RunnerSession:
    """One runner's conversation with its platform, from its start to its end.

    Every method that takes ``now_s`` wants the same monotonic clock, in seconds. A `PeerError` out of any of them
    ends the connection: close it with `close_codes.close_code` and call ``disconnected``.
    """

    def __init__(self, *, memory_id: str, version: str, name: str = "", labels: Iterable[str] = ()) -> None:
        """``memory_id`` names the runner's task memory; make a new one whenever that memory was lost."""
        self.welcome: Welcome | None = None
        self._memory_id = memory_id
        self._version = version
        self._name = name
        self._labels = tuple(labels)
        self._memory = TaskMemory()
        self._outbox: deque[Message] = deque()
        self._taken: list[Message] = []
        self._call_answers: dict[str, McpResult] = {}
        self._said_held: frozenset[str] = frozenset()
        self._plain_output = PlainOutput()
        self._approvals: dict[str, ApprovalRequest] = {}
        self._policy: PolicyReport | None = None
        self._draining: RunnerDraining | None = None
        self._is_v1 = False
        self._is_connected = False
        self._is_ready = False
        self._window_bytes = limits.OUTPUT_WINDOW_BYTES
        self._answer_by_s: float | None = None
        self._heartbeat_at_s: float | None = None
        self._is_first_heartbeat = True
        self._idle_at_s = float("inf")

    # The connection.

    @property
    def is_ready(self) -> bool:
        """Whether tasks may be asked for on this connection: welcomed, and under v1 resumed as well."""
        return self._is_connected and self._is_ready

    @property
    def is_v1(self) -> bool:
        """Whether the present connection, or the last one, speaks ``guardhouse.v1``."""
        return self._is_v1

    @property
    def is_draining(self) -> bool:
        """Whether new tasks are refused."""
        return self._draining is not None

    @property
    def deadline_s(self) -> float:
        """When ``tick`` must be called at the latest; infinity while there is no connection."""
        if not self._is_connected:
            return float("inf")
        times = [self._idle_at_s]
        times += [at for at in (self._answer_by_s, self._heartbeat_at_s) if at is not None]
        return min(times)

    @property
    def backlog(self) -> int:
        """Messages queued and not taken. A program that stops reading its socket while this is large bounds it."""
        return len(self._outbox)

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

    def restore(self, result: TaskResult) -> None:
        """Take back a result that a journal kept over a restart of the runner."""
        self._memory.add(RunnerTask(result.task_id, result.source_instance_id, result=result))

    def restore_forgotten(self, task_id: str) -> None:
        """Take back the id of a task that was over before a restart, so that it never starts again."""
        if self._memory.state(task_id) is TaskState.UNKNOWN:
            self._memory.forget(task_id)

    def state(self, task_id: str) -> TaskState:
        """Return what is known of a task here."""
        return self._memory.state(task_id)

    def accept(self, task_id: str) -> None:
        """Answer a `TaskRequest` event: it is in the journal and will be started now."""
        self._task(task_id)
        if self._is_v1 and self.is_ready:
            self._send(TaskAccepted(task_id=task_id))

    def reject(self, task_id: str, code: RejectCode, error: str) -> None:
        """Answer a `TaskRequest` event: nothing was started and nothing will be."""
        task = self._task(task_id)
        self._memory.withdraw(task_id)
        self._say_rejected(task_id, task.source_instance_id, code, error)

    def output_room(self, task_id: str, stream: Stream) -> int:
        """Return how many bytes ``output`` takes now. At 0 stop reading the command's pipe until `OutputRoom`."""
        task = self._task(task_id)
        if task.unwanted:
            return self._window_bytes
        if self._is_v1:
            return max(0, self._window_bytes - task.streams[stream].unacknowledged)
        return max(0, self._window_bytes - self._plain_output.waiting(task_id))

    def output(self, task_id: str, stream: Stream, data: bytes) -> None:
        """Send a command's output, at most ``output_room`` bytes of it.

        Under v1 it is held until it is acknowledged. A plain platform gets it while it is connected and keeps
        the result's own text otherwise.

        Raises:
            InvariantError: more bytes than there was room for.
        """
        room = self.output_room(task_id, stream)
        if len(data) > room:
            raise InvariantError(f"{len(data)} bytes of output of {task_id} with room for {room}")
        task = self._task(task_id)
        pieces = task.add_output(stream, data)
        if self._is_v1 and not task.unwanted:
            if self.is_ready:
                self._outbox.extend(pieces)
            return
        held = task.streams[stream]
        held.acknowledge(held.next_offset)
        if self.is_ready and not task.unwanted:
            self._outbox.extend(self._plain_output.pieces(task_id, stream, data))

    def finish(self, result: TaskResult) -> list[Event]:
        """Take a task's one result. It is kept until the other side has it.

        Raises:
            InvariantError: the task is not running, so a second result was made for it.
        """
        task = self._task(result.task_id)
        if task.result is not None:
            raise InvariantError(f"second result of task {result.task_id}")
        for approval_id in self._approvals_of(result.task_id):
            self.withdraw_approval(approval_id, reason="the task has ended")
        task.result = _completed(result, task)
        if task.unwanted:
            self._memory.forget(result.task_id)
            return [ResultAcknowledged(result.task_id)]
        if self.is_ready:
            if not self._is_v1:
                self._outbox.extend(self._plain_output.ending(result.task_id))
            self._send_result(task)
        return []

    def replace_result(self, result: TaskResult) -> None:
        """Put a smaller result in the place of one that `render_frame` could not send (`UnsendableMessage`)."""
        task = self._task(result.task_id)
        if task.result is None:
            raise InvariantError(f"task {result.task_id} has no result to replace")
        task.result = _completed(result, task)
        if self.is_ready:
            self._send_result(task)

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

    @property
    def unsent(self) -> int:
        """How many tasks still run or wait for the other side to have their result."""
        return len(self._memory)

    def ask_approval(self, request: ApprovalRequest) -> bool:
        """Put a request before the people; False when nobody can be asked.

        A plain platform has no way to ask, and one that no longer wants the task would take it for another's.
        """
        task = self._memory.get(request.task_id)
        if not self._is_v1 or task is None or task.unwanted or task.result is not None:
            return False
        self._approvals[request.approval_id] = request
        if self.is_ready:
            self._send(request)
        return True

    def withdraw_approval(self, approval_id: str, reason: str = "") -> None:
        """Take a request back that nobody need decide any more."""
        if self._approvals.pop(approval_id, None) is not None and self.is_ready and self._is_v1:
            self._send(ApprovalWithdrawn(approval_id=approval_id, reason=reason))

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

    def _send(self, message: Message) -> None:
        self._outbox.append(message if self._is_v1 else as_plain(message))

    def _approvals_of(self, task_id: str) -> list[str]:
        return [request.approval_id for request in self._approvals.values() if request.task_id == task_id]

    def _task(self, task_id: str) -> RunnerTask:
        task = self._memory.get(task_id)
        if task is None:
            raise InvariantError(f"task {task_id} is not held here")
        return task

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

    def _resume_task(self, task: RunnerTask, answer: ResumedTask) -> list[Event]:
        match answer.disposition:
            case Disposition.STORED | Disposition.UNKNOWN:
                if task.result is not None:
                    self._memory.forget(task.task_id)
                    return [ResultAcknowledged(task.task_id)]
                task.unwanted = True
                # Said on this connection they would be approvals of a task that the hub does not know.
                for approval_id in self._approvals_of(task.task_id):
                    del self._approvals[approval_id]
                reason = f"the hub no longer waits for it ({answer.disposition})"
                return [TaskCancel(task_id=task.task_id, reason=reason), OutputRoom(task.task_id)]
            case Disposition.CONTINUE | Disposition.CANCEL:
                task.acknowledge(stdout_offset=answer.stdout_offset, stderr_offset=answer.stderr_offset)
                for piece in task.unacknowledged_pieces():
                    self._send(piece)
                if task.result is not None:
                    self._send_result(task)
                    return []
                events: list[Event] = [OutputRoom(task.task_id)]
                if answer.disposition is Disposition.CANCEL:
                    events.append(TaskCancel(task_id=task.task_id, reason="cancelled while disconnected"))
                return events

    def _on_request(self, request: TaskRequest) -> list[Event]:
        state = self._memory.state(request.task_id)
        if state is not TaskState.UNKNOWN:
            self._answer_duplicate(request, state)
            return [DuplicateRequest(request.task_id, state)]
        if self._draining is not None:
            error = "runner is draining: it takes no new task; send it to another runner or later"
            self._say_rejected(request.task_id, request.source_instance_id, RejectCode.DRAINING, error)
            return []
        if len(self._memory) >= limits.HELD_TASKS_MAX:
            error = f"runner holds {len(self._memory)} tasks whose results were not acknowledged; try again later"
            self._say_rejected(request.task_id, request.source_instance_id, RejectCode.BUSY, error)
            return []
        self._memory.add(RunnerTask(request.task_id, request.source_instance_id))
        return [request]

    def _answer_duplicate(self, request: TaskRequest, state: TaskState) -> None:
        """Answer a repeated request from memory; it never starts anything."""
        task = self._memory.get(request.task_id)
        if task is not None:
            if self._is_v1:
                self._send(TaskAccepted(task_id=request.task_id, state=state))
                if task.result is not None:
                    self._send_result(task)
            return
        remembered = self._memory.remembered_result(request.task_id)
        if remembered is not None and not self._is_v1:
            self._send(remembered)
            return
        error = f"task {request.task_id} ran before and its result was delivered; use a new task_id to run it again"
        self._say_rejected(request.task_id, request.source_instance_id, RejectCode.FORGOTTEN, error)

    def _say_rejected(self, task_id: str, source_instance_id: str | None, code: RejectCode, error: str) -> None:
        if not self.is_ready:
            return
        if self._is_v1:
            self._send(TaskRejected(task_id=task_id, code=code, error=error))
        else:
            self._send(TaskResult(task_id=task_id, source_instance_id=source_instance_id, success=False, error=error))

    def _on_cancel(self, cancel: TaskCancel) -> list[Event]:
        state = self._memory.state(cancel.task_id)
        if self._is_v1:
            self._send(TaskCancelAck(task_id=cancel.task_id, state=state))
        return [cancel] if state is TaskState.RUNNING else []

    def _on_output_ack(self, ack: OutputAck) -> list[Event]:
        task = self._memory.get(ack.task_id)
        if task is None:
            return []
        task.check_acknowledged(stdout_offset=ack.stdout_offset, stderr_offset=ack.stderr_offset)
        has_room = task.acknowledge(stdout_offset=ack.stdout_offset, stderr_offset=ack.stderr_offset)
        return [OutputRoom(ack.task_id)] if has_room and task.result is None else []

    def _on_result_ack(self, ack: ResultAck) -> list[Event]:
        task = self._memory.get(ack.task_id)
        if task is None:
            return []
        if task.result is None:
            raise PeerError(f"result of task {ack.task_id} acknowledged before it was sent", code="protocol")
        self._memory.forget(ack.task_id)
        return [ResultAcknowledged(ack.task_id)]

    def _send_result(self, task: RunnerTask) -> None:
        if task.result is None:
            raise InvariantError(f"task {task.task_id} has no result to send")
        self._send(task.result)

    def _answer_invalid(self, error: InvalidPayloadError) -> list[Event]:
        """Answer a plain platform's badly typed request, so that its task does not wait for ever."""
        if error.reference is not None:
            if error.type_name == TaskRequest.TYPE and self._memory.state(error.reference) is TaskState.UNKNOWN:
                self._send(TaskResult(task_id=error.reference, success=False, error=str(error)))
            elif error.type_name == McpCall.TYPE:
                self._send(McpResult(call_id=error.reference, success=False, error=str(error)))
        return [Warned(error)]


def _completed(result: TaskResult, task: RunnerTask) -> TaskResult:
    """Return ``result`` with what the session knows: who asked, and how long each stream was."""
    return TaskResult(
        task_id=result.task_id,
        success=result.success,
        source_instance_id=task.source_instance_id,
        result=result.result,
        error=result.error,
        exit_code=result.exit_code,
        error_code=result.error_code,
        stdout_bytes=task.streams[Stream.STDOUT].next_offset,
        stderr_bytes=task.streams[Stream.STDERR].next_offset,
        spans=result.spans,
        decision=result.decision,
    )

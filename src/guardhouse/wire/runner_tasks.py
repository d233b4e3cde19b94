"""A runner's tasks towards its platform: what it may start, says of them, and keeps for the next connection.

At most one start, exactly one result, credit for output, approvals that belong to a task. Knows no time and no
beginning or end of a connection: `runner_session` does. Runs in the runner.
"""

from collections import deque

from guardhouse import limits
from guardhouse.errors import InvariantError, PeerError
from guardhouse.values import Stream
from guardhouse.wire.events import (
    DuplicateRequest,
    Event,
    OutputRoom,
    ResultAcknowledged,
)
from guardhouse.wire.messages import (
    Message,
    TaskCancel,
    TaskRequest,
    TaskResult,
)
from guardhouse.wire.messages_v1 import (
    ApprovalRequest,
    ApprovalWithdrawn,
    Disposition,
    OutputAck,
    RejectCode,
    ResultAck,
    ResumedTask,
    RunnerDraining,
    TaskAccepted,
    TaskCancelAck,
    TaskRejected,
    TaskState,
)
from guardhouse.wire.plain import as_plain
from guardhouse.wire.plain_output import PlainOutput
from guardhouse.wire.task_memory import RunnerTask, TaskMemory

__all__ = ["RunnerTasks"]


class RunnerTasks:
    """The part of a runner's session that is about its tasks; `RunnerSession` adds the connection.

    Messages are queued in the order in which they are to be sent, and only while the connection is ready for them.
    """

    def __init__(self) -> None:
        self._memory = TaskMemory()
        self._outbox: deque[Message] = deque()
        self._plain_output = PlainOutput()
        self._approvals: dict[str, ApprovalRequest] = {}
        self._draining: RunnerDraining | None = None
        self._is_v1 = False
        self._is_connected = False
        self._is_ready = False
        self._window_bytes = limits.OUTPUT_WINDOW_BYTES

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
    def backlog(self) -> int:
        """Messages queued and not taken. A program that stops reading its socket while this is large bounds it."""
        return len(self._outbox)

    @property
    def unsent(self) -> int:
        """How many tasks still run or wait for the other side to have their result."""
        return len(self._memory)

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

    # Rules.

    def _send(self, message: Message) -> None:
        self._outbox.append(message if self._is_v1 else as_plain(message))

    def _task(self, task_id: str) -> RunnerTask:
        task = self._memory.get(task_id)
        if task is None:
            raise InvariantError(f"task {task_id} is not held here")
        return task

    def _send_result(self, task: RunnerTask) -> None:
        if task.result is None:
            raise InvariantError(f"task {task.task_id} has no result to send")
        self._send(task.result)

    def _approvals_of(self, task_id: str) -> list[str]:
        return [request.approval_id for request in self._approvals.values() if request.task_id == task_id]

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

"""What a runner remembers of its tasks between two connections: unacknowledged output and results.

The rules of "at most one start, exactly one result": an id that is in here is never started again, and a result
leaves only when the other side has it. Knows no connection and no protocol choice. Runs in the runner.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from guardhouse import limits
from guardhouse.errors import InvariantError, PeerError
from guardhouse.values import Stream
from guardhouse.wire.messages import TaskOutput, TaskResult
from guardhouse.wire.messages_v1 import HeldTask, TaskState

__all__ = ["HeldOutput", "RunnerTask", "TaskMemory"]


@dataclass(slots=True)
class HeldOutput:
    """One stream of one task: the pieces from ``acknowledged`` to ``next_offset``, in order."""

    acknowledged: int = 0
    next_offset: int = 0
    pieces: deque[TaskOutput] = field(default_factory=deque)

    @property
    def unacknowledged(self) -> int:
        """Bytes sent, or waiting to be, that the other side has not confirmed."""
        return self.next_offset - self.acknowledged

    def acknowledge(self, offset: int) -> bool:
        """Forget the bytes before ``offset``; return whether that made room. An older offset changes nothing."""
        if offset <= self.acknowledged:
            return False
        self.acknowledged = offset
        while self.pieces and _end(self.pieces[0]) <= offset:
            self.pieces.popleft()
        return True


def _end(piece: TaskOutput) -> int:
    return (piece.offset or 0) + len(piece.raw)


@dataclass(slots=True)
class RunnerTask:
    """One task from its request to its acknowledged result.

    ``unwanted``: the hub said that it does not want the result, so nothing of the task is sent any more.
    """

    task_id: str
    source_instance_id: str | None = None
    streams: dict[Stream, HeldOutput] = field(
        default_factory=lambda: {Stream.STDOUT: HeldOutput(), Stream.STDERR: HeldOutput()}
    )
    next_seq: int = 0
    result: TaskResult | None = None
    unwanted: bool = False

    @property
    def state(self) -> TaskState:
        """Whether the task still runs."""
        return TaskState.RUNNING if self.result is None else TaskState.FINISHED

    def add_output(self, stream: Stream, data: bytes) -> list[TaskOutput]:
        """Number ``data`` as pieces of at most ``limits.OUTPUT_CHUNK_MAX_BYTES`` bytes and hold them.

        Raises:
            InvariantError: the task has ended; its result already says how long its streams are.
        """
        if self.result is not None:
            raise InvariantError(f"output of {self.task_id} after its result")
        held = self.streams[stream]
        added = []
        for start in range(0, len(data), limits.OUTPUT_CHUNK_MAX_BYTES):
            chunk = data[start : start + limits.OUTPUT_CHUNK_MAX_BYTES]
            piece = _piece(self.task_id, stream, chunk, seq=self.next_seq, offset=held.next_offset)
            self.next_seq += 1
            held.next_offset += len(chunk)
            held.pieces.append(piece)
            added.append(piece)
        return added

    def unacknowledged_pieces(self) -> list[TaskOutput]:
        """Return what must be sent again, in the order in which the command wrote it."""
        pieces = [piece for held in self.streams.values() for piece in held.pieces]
        return sorted(pieces, key=lambda piece: piece.seq or 0)

    def check_acknowledged(self, *, stdout_offset: int, stderr_offset: int) -> None:
        """Refuse an acknowledgement of bytes that were never sent.

        Raises:
            PeerError: ``protocol``.
        """
        for stream, offset in ((Stream.STDOUT, stdout_offset), (Stream.STDERR, stderr_offset)):
            sent = self.streams[stream].next_offset
            if offset > sent:
                raise PeerError(
                    f"acknowledged beyond the end: {offset} bytes of {stream} of task {self.task_id}, {sent} were sent",
                    code="protocol",
                )

    def acknowledge(self, *, stdout_offset: int, stderr_offset: int) -> bool:
        """Forget acknowledged output; return whether that made room."""
        out = self.streams[Stream.STDOUT].acknowledge(stdout_offset)
        err = self.streams[Stream.STDERR].acknowledge(stderr_offset)
        return out or err

    def held(self) -> HeldTask:
        """Return this task's entry in a hello."""
        out, err = self.streams[Stream.STDOUT], self.streams[Stream.STDERR]
        return HeldTask(
            task_id=self.task_id,
            state=self.state,
            stdout_first=out.acknowledged,
            stdout_next=out.next_offset,
            stderr_first=err.acknowledged,
            stderr_next=err.next_offset,
        )


def _piece(task_id: str, stream: Stream, chunk: bytes, *, seq: int, offset: int) -> TaskOutput:
    """Return one numbered piece: text when the bytes are valid UTF-8 by themselves, else base64."""
    try:
        text = chunk.decode("utf-8")
    except UnicodeDecodeError:
        return TaskOutput(task_id=task_id, stream=stream, data_b64=chunk, seq=seq, offset=offset)
    return TaskOutput(task_id=task_id, stream=stream, data=text, seq=seq, offset=offset)


class TaskMemory:
    """The tasks that a runner holds, and the ids of those that are over."""

    def __init__(self) -> None:
        self._tasks: dict[str, RunnerTask] = {}
        self._forgotten: OrderedDict[str, None] = OrderedDict()
        self._results: OrderedDict[str, TaskResult] = OrderedDict()

    def __iter__(self) -> Iterator[RunnerTask]:
        return iter(list(self._tasks.values()))

    def __len__(self) -> int:
        return len(self._tasks)

    def get(self, task_id: str) -> RunnerTask | None:
        """Return a held task, None when it is over or was never here."""
        return self._tasks.get(task_id)

    def state(self, task_id: str) -> TaskState:
        """Return what is known of an id."""
        task = self._tasks.get(task_id)
        if task is not None:
            return task.state
        return TaskState.FORGOTTEN if task_id in self._forgotten else TaskState.UNKNOWN

    def add(self, task: RunnerTask) -> None:
        """Take a task in.

        Raises:
            InvariantError: the id is here already, so something was about to start twice.
        """
        if self.state(task.task_id) is not TaskState.UNKNOWN:
            raise InvariantError(f"task {task.task_id} is in the memory already")
        self._tasks[task.task_id] = task

    def withdraw(self, task_id: str) -> None:
        """Take a task out that was never started, so that its id may be asked for again."""
        del self._tasks[task_id]

    def forget(self, task_id: str, *, keep_result: bool = False) -> None:
        """Keep only the id of a task that is over, and its last results while a plain peer may ask again.

        The oldest ids leave beyond ``limits.FINISHED_TASKS_REMEMBERED``, the oldest results beyond
        ``limits.PLAIN_RESULTS_REMEMBERED``.
        """
        task = self._tasks.pop(task_id, None)
        self._forgotten[task_id] = None
        self._forgotten.move_to_end(task_id)
        while len(self._forgotten) > limits.FINISHED_TASKS_REMEMBERED:
            oldest, _ = self._forgotten.popitem(last=False)
            self._results.pop(oldest, None)
        if keep_result and task is not None and task.result is not None:
            self._results[task_id] = task.result
            while len(self._results) > limits.PLAIN_RESULTS_REMEMBERED:
                self._results.popitem(last=False)

    def remembered_result(self, task_id: str) -> TaskResult | None:
        """Return the result of a task that is over, while it is still kept."""
        return self._results.get(task_id)

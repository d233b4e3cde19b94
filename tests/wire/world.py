"""A hub with a store, a runner with commands, and a wire between them that can be cut at any message.

Everything goes through real frames. A fake in the sense of the style guide: it keeps the protocol and no clock.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from guardhouse.errors import Refusal
from guardhouse.values import Stream
from guardhouse.wire.envelope import render_frame
from guardhouse.wire.messages import Message, TaskCancel, TaskRequest, TaskResult, Welcome
from guardhouse.wire.messages_v1 import RunnerHello, TaskRejected
from guardhouse.wire.session import (
    HeartbeatDue,
    HubSession,
    OutputGap,
    OutputReceived,
    ResultAcknowledged,
    ResultReceived,
    RunnerSession,
    StoredState,
    StoredTask,
    TaskLost,
    TaskNotArrived,
)

V1 = "guardhouse.v1"


def frame(message: Message) -> str:
    return render_frame(message, message_id="msg_1", timestamp_ms=1)


@dataclass
class StoredRow:
    state: StoredState = StoredState.REQUESTED
    memory_id: str | None = None
    output: dict[Stream, bytearray] = field(
        default_factory=lambda: {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}
    )
    results: list[TaskResult] = field(default_factory=list)
    lost: bool = False

    def as_task(self) -> StoredTask:
        return StoredTask(
            state=self.state,
            stdout_offset=len(self.output[Stream.STDOUT]),
            stderr_offset=len(self.output[Stream.STDERR]),
            memory_id=self.memory_id,
        )


class World:
    """One runner and one hub; ``log`` is the whole conversation for a failing test's message."""

    def __init__(self, *, subprotocol: str | None = V1, window_bytes: int = 256) -> None:
        self.subprotocol = subprotocol
        self.window_bytes = window_bytes
        self.now_s = 0.0
        self.runner = RunnerSession(memory_id="mem_1", version="1")
        self.hub: HubSession | None = None
        self.to_runner: deque[Message] = deque()
        self.to_hub: deque[Message] = deque()
        self.store: dict[str, StoredRow] = {}
        self.unstored: deque[OutputReceived | ResultReceived] = deque()
        self.journal: dict[str, TaskResult | None] = {}
        self.is_whole = True
        self.started: Counter[str] = Counter()
        self.written: dict[str, dict[Stream, bytearray]] = {}
        self.running: list[str] = []
        self.acknowledged: Counter[str] = Counter()
        self.gaps: list[OutputGap] = []
        self.log: list[str] = []

    # The wire.

    def connect(self) -> None:
        if self.hub is not None:
            return
        self.log.append("-- connect")
        welcome = Welcome(worknode_id="env_1", name="n", labels=(), output_window_bytes=self.window_bytes)
        self.hub = HubSession(welcome=welcome, subprotocol=self.subprotocol, now_s=self.now_s)
        if self.subprotocol is None:
            self.hub.adopt({task_id: row.as_task() for task_id, row in self.store.items()})
        self.runner.connected(self.now_s, subprotocol=self.subprotocol)

    def cut(self) -> None:
        self.log.append("-- cut")
        self.runner.disconnected()
        self.hub = None
        self.to_runner.clear()
        self.to_hub.clear()
        self.unstored.clear()

    def restart_runner(self) -> None:
        """Kill the runner and start it again over its journal: what ran is reported interrupted."""
        if self.hub is not None:
            self.cut()
        self.log.append("-- runner restarts")
        self.is_whole = False
        self.running.clear()
        self.runner = RunnerSession(memory_id="mem_1", version="1")
        for task_id, result in self.journal.items():
            if self.acknowledged[task_id]:
                self.runner.restore_forgotten(task_id)
                continue
            interrupted = TaskResult(task_id=task_id, success=False, error="interrupted")
            self.journal[task_id] = result or interrupted
            self.runner.restore(result or interrupted)

    def collect(self) -> None:
        """Move what both sides want to say onto the wire."""
        if self.hub is not None:
            self.to_runner.extend(self.hub.take_messages())
            self.to_hub.extend(self.runner.take_messages())

    def deliver_to_runner(self) -> bool:
        self.collect()
        if not self.to_runner:
            return False
        text = frame(self.to_runner.popleft())
        self.log.append(f"> {text}")
        self._runner_events(self.runner.received(text, self.now_s))
        return True

    def deliver_to_hub(self) -> bool:
        self.collect()
        if not self.to_hub or self.hub is None:
            return False
        text = frame(self.to_hub.popleft())
        self.log.append(f"< {text}")
        self._hub_events(self.hub.received(text, self.now_s))
        if not self.to_hub:
            self._runner_events(self.runner.flushed())
        return True

    def settle(self) -> None:
        """Heal the wire and let everything run to its end."""
        self.connect()
        for _ in range(10_000):
            moved = self.deliver_to_runner() | self.deliver_to_hub() | self.store_next()
            if not moved:
                return
        raise AssertionError("the conversation does not end")

    # The host.

    def write(self, index: int, stream: Stream, data: bytes) -> None:
        if not self.running:
            return
        task_id = self.running[index % len(self.running)]
        data = data[: self.runner.output_room(task_id, stream)]
        self.runner.output(task_id, stream, data)
        self.written[task_id][stream] += data

    def end(self, index: int) -> None:
        if not self.running:
            return
        task_id = self.running.pop(index % len(self.running))
        result = TaskResult(task_id=task_id, success=True, exit_code=0)
        self.journal[task_id] = result
        self._runner_events(self.runner.finish(result))

    def _runner_events(self, events: list[object]) -> None:
        for event in events:
            match event:
                case TaskRequest():
                    self.started[event.task_id] += 1
                    self.journal[event.task_id] = None
                    self.written.setdefault(event.task_id, {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()})
                    self.running.append(event.task_id)
                    self.runner.accept(event.task_id)
                case TaskCancel() if event.task_id in self.running:
                    self.end(self.running.index(event.task_id))
                case HeartbeatDue():
                    self.runner.heartbeat(metrics=None)
                case ResultAcknowledged():
                    self.acknowledged[event.task_id] += 1
                case _:
                    pass

    # The hub.

    def request(self, task_id: str) -> None:
        """Store the task first, send after: the order that the hub must keep."""
        if self.hub is None or not self.hub.is_ready:
            return
        row = self.store.setdefault(task_id, StoredRow())
        row.memory_id = self.hub.hello.memory_id if self.hub.hello else None
        try:
            self.hub.request(TaskRequest(task_id=task_id, operation="bash", args={"command": "x"}))
        except Refusal:
            del self.store[task_id]

    def cancel(self, task_id: str) -> None:
        row = self.store.get(task_id)
        if row is not None and row.state in (StoredState.REQUESTED, StoredState.RUNNING):
            row.state = StoredState.CANCELLING
            if self.hub is not None:
                self.hub.cancel(task_id)

    def store_next(self) -> bool:
        """Make one received thing durable."""
        if not self.unstored or self.hub is None:
            return False
        event = self.unstored.popleft()
        if isinstance(event, OutputReceived):
            kept = self.store[event.task_id].output[event.stream]
            assert event.offset == len(kept), "output out of order"
            kept += event.data
            self.hub.output_stored(event.task_id, event.stream, event.end)
        else:
            row = self.store[event.result.task_id]
            assert event.complete or not self.is_whole
            row.results.append(event.result)
            row.state = StoredState.FINISHED
            self.hub.result_stored(event.result.task_id)
        return True

    def _hub_events(self, events: list[object]) -> None:
        assert self.hub is not None
        for event in events:
            match event:
                case RunnerHello():
                    stored = {task_id: row.as_task() for task_id, row in self.store.items()}
                    self._hub_events(self.hub.resume(stored))
                case OutputReceived() | ResultReceived():
                    self.unstored.append(event)
                case TaskNotArrived():
                    self.request(event.task_id)
                case TaskLost():
                    self.store[event.task_id].lost = True
                case TaskRejected():
                    del self.store[event.task_id]
                case OutputGap():
                    self.gaps.append(event)
                case _:
                    pass

"""A task that has no result yet, as the hub holds it in memory beside its row. Runs in the hub."""

from typing import Any, Final

import msgspec
import trio

from guardhouse.hub.clock import Moment
from guardhouse.hub.store.tasks import TaskRecord, TaskState
from guardhouse.values import Stream
from guardhouse.wire.messages import Span
from guardhouse.wire.session import StoredState, StoredTask

__all__ = ["LiveTask"]


# Times of a record that its limits are counted from.
_COUNTED_FROM: Final = ("sent_ms", "started_ms")


class LiveTask:
    """One unfinished task. ``record`` is what the store has, or is about to have in the order of the writes."""

    __slots__ = (
        "_changed",
        "cancel_sent_s",
        "clock",
        "dropped",
        "finished",
        "handed_over",
        "in_doubt",
        "is_stored",
        "notes",
        "parent_span_id",
        "record",
        "rejections",
        "runner_spans",
    )

    def __init__(self, record: TaskRecord, *, is_stored: bool) -> None:
        self.record = record
        # False until the row is committed as it is here: before that no runner may be given the task.
        self.is_stored = is_stored
        # False while it is certain that no runner was given it. An earlier hub may have.
        self.handed_over = is_stored and record.state != TaskState.QUEUED
        # True once the connection that a plain runner may have got it over has ended.
        self.in_doubt = False
        # When the newest of its times was noted: deadlines count from there, whatever becomes of the wall clock.
        self.clock = Moment()
        self.finished = trio.Event()
        self.cancel_sent_s: float | None = None
        self.rejections = 0
        self.dropped = {Stream.STDOUT: 0, Stream.STDERR: 0}
        self.notes: list[str] = []
        # The span of the request that asked for it, while the hub that took it lives; and what its runner told.
        self.parent_span_id: str | None = None
        self.runner_spans: tuple[Span, ...] | None = None
        self._changed = trio.Event()

    @property
    def id(self) -> str:
        """The task's id."""
        return self.record.id

    @property
    def was_sent(self) -> bool:
        """Whether a runner was, or is about to be, given it."""
        return self.record.state != TaskState.QUEUED

    def update(self, **values: Any) -> None:
        """Change the record and wake who follows it."""
        self.record = msgspec.structs.replace(self.record, **values)
        if not values.keys().isdisjoint(_COUNTED_FROM):
            self.clock = Moment()
        self.wake()

    @property
    def changed(self) -> trio.Event:
        """An event that the next change sets; take it before looking."""
        return self._changed

    def wake(self) -> None:
        """Wake everyone who waits for a change."""
        self._changed.set()
        self._changed = trio.Event()

    def end(self) -> None:
        """Wake everyone who waits for the result."""
        self.finished.set()
        self.wake()

    def as_stored(self) -> StoredTask:
        """Return what a session must know of the task to go on with it."""
        record = self.record
        if record.cancel_ms is not None:
            state = StoredState.CANCELLING
        elif record.state == TaskState.SENT:
            state = StoredState.REQUESTED
        else:
            state = StoredState.RUNNING
        return StoredTask(
            state=state,
            stdout_offset=record.stdout_bytes + self.dropped[Stream.STDOUT],
            stderr_offset=record.stderr_bytes + self.dropped[Stream.STDERR],
            memory_id=record.memory_id,
        )

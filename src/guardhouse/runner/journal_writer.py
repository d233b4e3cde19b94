"""The journal's one writer inside the trio program: in order, off the event loop, and never in the way of an answer.

Whatever waits when a write begins shares its flush to the disk. A full or failing disk is said in the log and by
refusing new tasks; results that cannot be recorded are still delivered from memory. Runs in the runner.
"""

from typing import Final

import trio

from guardhouse.errors import Refusal
from guardhouse.runner.journal import AcceptedTask, Journal, JournalRecord
from guardhouse.runner.logs import get_logger

__all__ = ["JournalWriter"]

# An acknowledgement waits this long for another record to share its flush with. Losing it in a crash costs a result
# that is sent once more, which the hub knows.
ACKNOWLEDGED_WAIT_S: Final = 0.2


class _Entry:
    """A record that waits for the disk; once ``is_done``, ``error`` says how that went."""

    __slots__ = ("error", "is_done", "record")

    def __init__(self, record: JournalRecord) -> None:
        self.record = record
        self.is_done = False
        self.error: OSError | None = None


class JournalWriter:
    """Calls the journal's blocking methods one after the other in a thread."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._order = trio.StrictFIFOLock()
        self._pending: list[_Entry] = []

    async def record_accepted(self, task: AcceptedTask) -> None:
        """Record that a task is about to start.

        Raises:
            Refusal: the disk did not take it; the task must not start, or a restart could start it again.
        """
        try:
            await self._write(_Entry(JournalRecord.accepted(task)))
        except OSError as error:
            get_logger().error("cannot record a task", task_id=task.task_id, error=str(error))
            raise Refusal(
                f"task not started: the runner cannot record it ({error.strerror}); free space in its state directory"
            ) from error

    async def record_result(self, task_id: str, result_json: bytes) -> None:
        """Record a result; a failure is logged and the result is delivered from memory.

        Not cancelled: a runner that stops still keeps what it could not deliver.
        """
        try:
            with trio.CancelScope(shield=True):
                await self._write(_Entry(JournalRecord.finished(task_id, result_json)))
        except OSError as error:
            get_logger().error("cannot record a result", task_id=task_id, error=str(error))

    async def record_acknowledged(self, task_id: str) -> None:
        """Record soon that a result is safe with the platform; a failure is logged and costs a repeated result."""
        entry = _Entry(JournalRecord.acknowledged(task_id))
        self._pending.append(entry)
        try:
            await trio.sleep(ACKNOWLEDGED_WAIT_S)
        finally:
            with trio.CancelScope(shield=True):
                await self._flush(entry)
        if entry.error is not None:
            get_logger().error("cannot record an acknowledgement", task_id=task_id, error=str(entry.error))

    async def _write(self, entry: _Entry) -> None:
        self._pending.append(entry)
        try:
            await self._flush(entry)
        except trio.Cancelled:
            if entry in self._pending:
                self._pending.remove(entry)
            raise
        if entry.error is not None:
            raise entry.error

    async def _flush(self, entry: _Entry) -> None:
        """Return once ``entry`` is done: written by whoever is first in line, with all that waits by then."""
        if entry.is_done:
            return
        async with self._order:
            if not entry.is_done:
                batch, self._pending = self._pending, []
                # Shielded: the batch holds what others wait for.
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._record, batch)

    def _record(self, batch: list[_Entry]) -> None:
        """Write ``batch`` with one flush; where that fails each alone, so that each has its own outcome."""
        try:
            self._journal.record([entry.record for entry in batch])
        except OSError:
            for entry in batch:
                self._record_alone(entry)
        for entry in batch:
            entry.is_done = True

    def _record_alone(self, entry: _Entry) -> None:
        try:
            self._journal.record([entry.record])
        except OSError as error:
            entry.error = error

"""The journal's one writer inside the trio program: in order, off the event loop, and never in the way of an answer.

A full or failing disk is said in the log and by refusing new tasks; results that cannot be recorded are still
delivered from memory. Runs in the runner.
"""

from collections.abc import Callable

import trio

from guardhouse.errors import Refusal
from guardhouse.runner.journal import AcceptedTask, Journal
from guardhouse.runner.logs import get_logger

__all__ = ["JournalWriter"]


class JournalWriter:
    """Calls the journal's blocking methods one after the other in a thread."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._order = trio.StrictFIFOLock()

    async def record_accepted(self, task: AcceptedTask) -> None:
        """Record that a task is about to start.

        Raises:
            Refusal: the disk did not take it; the task must not start, or a restart could start it again.
        """
        try:
            await self._do(lambda: self._journal.record_accepted(task))
        except OSError as error:
            get_logger().error("cannot record a task", task_id=task.task_id, error=str(error))
            raise Refusal(
                f"task not started: the runner cannot record it ({error.strerror}); free space in its state directory"
            ) from error

    async def record_result(self, task_id: str, result_json: bytes) -> None:
        """Record a result; a failure is logged and the result is delivered from memory."""
        try:
            await self._do(lambda: self._journal.record_result(task_id, result_json))
        except OSError as error:
            get_logger().error("cannot record a result", task_id=task_id, error=str(error))

    async def record_acknowledged(self, task_id: str) -> None:
        """Record that a result is safe with the platform; a failure is logged and costs a repeated result."""
        try:
            await self._do(lambda: self._journal.record_acknowledged(task_id))
        except OSError as error:
            get_logger().error("cannot record an acknowledgement", task_id=task_id, error=str(error))

    async def _do(self, write: Callable[[], None]) -> None:
        async with self._order:
            await trio.to_thread.run_sync(write)

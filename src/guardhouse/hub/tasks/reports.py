"""What runners say of their tasks: taken, not taken, never arrived, lost; and what goes on when one comes back.

Runs in the hub.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import trio

from guardhouse.hub.clock import now_ms
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.store import tasks as store
from guardhouse.hub.store.tasks import TaskState
from guardhouse.hub.tasks.dispatch import Dispatcher
from guardhouse.hub.tasks.live import LiveTask
from guardhouse.hub.tasks.live_tasks import LiveTasks
from guardhouse.hub.tasks.sweep import IN_DOUBT, is_in_doubt
from guardhouse.wire.messages_v1 import RejectCode, TaskAccepted, TaskRejected
from guardhouse.wire.messages_v1 import TaskState as RunnerTaskState
from guardhouse.wire.session import StoredState, StoredTask

__all__ = ["RunnerReports"]

# A runner that says "busy" is asked again after this, doubling, at most `BUSY_RETRIES` times.
BUSY_RETRY_S: Final = 0.2
BUSY_RETRIES: Final = 8
_GIVEN: Final = frozenset({TaskState.SENT, TaskState.ACCEPTED, TaskState.RUNNING})


class RunnerReports:
    """What is done with each of them. `start` before a runner connects."""

    def __init__(
        self,
        database: Database,
        live: LiveTasks,
        dispatcher: Dispatcher,
        *,
        end: Callable[[LiveTask, TaskState, str, str], Awaitable[None]],
    ) -> None:
        self._database = database
        self._live = live
        self._dispatcher = dispatcher
        self._end = end
        self._nursery: trio.Nursery | None = None

    def start(self, nursery: trio.Nursery) -> None:
        """Have a place for tasks that are asked again later."""
        self._nursery = nursery

    def unfinished(self, environment_id: str) -> dict[str, StoredTask]:
        """Return the tasks that the environment's runner was given and that have no result."""
        return {task.id: task.as_stored() for task in self._live.of(environment_id) if task.was_sent and task.is_stored}

    async def stored(self, environment_id: str, named: list[str]) -> dict[str, StoredTask]:
        """Return what the hub knows of the tasks in a hello, and of all unfinished ones of the environment."""
        found = self.unfinished(environment_id)
        asked = [task_id for task_id in named if task_id not in found]
        if asked:
            finished = await self._database.read(
                partial(store.finished_task_ids, environment_id=environment_id, task_ids=asked)
            )
            found.update({task_id: StoredTask(state=StoredState.FINISHED) for task_id in finished})
            # A task may have been sent, or have ended, while the store was read.
            found.update(self.unfinished(environment_id))
        return found

    def accepted(self, message: TaskAccepted) -> None:
        """Note that a request arrived."""
        live = self._live.find(message.task_id)
        if live is None or live.record.state not in {TaskState.SENT, TaskState.ACCEPTED}:
            return
        at_ms = now_ms()
        running = message.state is RunnerTaskState.RUNNING
        state = TaskState.RUNNING if running else TaskState.ACCEPTED
        values: dict[str, Any] = {"started_ms": at_ms} if running else {"accepted_ms": at_ms}
        live.update(state=state, **values)
        since = frozenset({TaskState.SENT, TaskState.ACCEPTED})
        self._database.write_soon(partial(store.advance_task, task_id=live.id, to=state, since=since, **values))

    async def rejected(self, message: TaskRejected) -> None:
        """Put a task that a runner did not start back in line, or end it."""
        live = self._live.find(message.task_id)
        if live is None:
            return
        if message.code is RejectCode.FORGOTTEN:
            await self._end(
                live, TaskState.LOST, "result_lost", "the runner ran this task before and its result is gone"
            )
            return
        live.rejections += 1
        may_wait = live.record.queue_until_ms is not None and live.clock.clock_ms() < live.record.queue_until_ms
        if message.code is RejectCode.BUSY and live.rejections <= BUSY_RETRIES:
            delay_s = BUSY_RETRY_S * 2 ** (live.rejections - 1)
        elif may_wait:
            delay_s = BUSY_RETRY_S * 2**BUSY_RETRIES
        else:
            await self._end(
                live,
                TaskState.FAILED,
                f"runner_{message.code.value}",
                message.error or f"runner is {message.code.value}",
            )
            return
        live.update(state=TaskState.QUEUED, sent_ms=None)
        await self._database.write(
            partial(store.advance_task, task_id=live.id, to=TaskState.QUEUED, since=_GIVEN, sent_ms=None)
        )
        if self._nursery is not None:
            self._nursery.start_soon(self._requeue, live, delay_s)

    async def _requeue(self, live: LiveTask, delay_s: float) -> None:
        await trio.sleep(delay_s)
        if not live.record.is_finished:
            self._dispatcher.put(live)
            self._dispatcher.dispatch(live.record.environment_id)

    async def not_arrived(self, task_id: str) -> None:
        """Send a request again that the runner certainly never saw; end it when it was cancelled meanwhile."""
        live = self._live.find(task_id)
        if live is None:
            return
        if live.record.cancel_ms is not None:
            await self._end(
                live, TaskState.CANCELLED, "cancelled", live.record.cancel_reason or "cancelled before it started"
            )
            return
        self._dispatcher.send(live)

    async def resume(self, environment_id: str) -> None:
        """Hand over what a runner that is gone was about to be given, and then what waits in line."""
        for live in self._live.of(environment_id):
            if live.was_sent and live.is_stored and not live.handed_over:
                self._dispatcher.send(live)
        self._dispatcher.dispatch(environment_id)

    def connection_ended(self, environment_id: str) -> None:
        """Note of what was sent over it, and was never heard of, that nobody knows whether it arrived."""
        for live in self._live.of(environment_id):
            self.doubt(live)

    def doubt(self, live: LiveTask) -> None:
        """Note the same of one task, if it holds of it."""
        if live.handed_over and live.is_stored and not live.in_doubt and is_in_doubt(live.record):
            live.in_doubt = True
            live.update(state_reason=IN_DOUBT)
            sent = TaskState.SENT
            note = partial(store.advance_task, task_id=live.id, to=sent, since=frozenset({sent}), state_reason=IN_DOUBT)
            # A hub that is closing stores nothing; the next one says the same at its start.
            with suppress(StoreUnavailable):
                self._database.write_soon(note)

    async def lost(self, task_id: str, *, reason: str) -> None:
        """End a task that nobody can tell anything of."""
        live = self._live.find(task_id)
        if live is not None and live.handed_over:
            await self._end(live, TaskState.LOST, "lost", reason)

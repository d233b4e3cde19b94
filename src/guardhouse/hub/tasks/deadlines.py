"""Ends, again and again, what nothing else would end: tasks whose time is over, runners that stay away.

What is overdue is decided in `guardhouse.hub.tasks.sweep`. Runs in the hub.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import structlog
import trio

from guardhouse.hub.clock import now_ms
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.store import approvals
from guardhouse.hub.store.tasks import TaskState
from guardhouse.hub.tasks.dispatch import Dispatcher
from guardhouse.hub.tasks.live import LiveTask
from guardhouse.hub.tasks.live_tasks import LiveTasks
from guardhouse.hub.tasks.runners import Runners
from guardhouse.hub.tasks.sweep import decide_overdue, is_in_doubt

__all__ = ["Deadlines"]

_log = structlog.get_logger("guardhouse.hub.tasks")

SWEEP_S: Final = 5.0
# Ends that count from when a task began: time in which people were asked is taken off.
_BY_ITS_OWN_LIMIT: Final = ("overdue", "lost")


class Deadlines:
    """Looks at every task without a result. `run` in a nursery."""

    def __init__(
        self,
        database: Database,
        runners: Runners,
        live: LiveTasks,
        dispatcher: Dispatcher,
        *,
        end: Callable[[LiveTask, TaskState, str, str], Awaitable[None]],
        send_cancel: Callable[[LiveTask], None],
    ) -> None:
        self._database = database
        self._runners = runners
        self._live = live
        self._dispatcher = dispatcher
        self._end = end
        self._send_cancel = send_cancel
        self._away_since_s: dict[str, float] = {}

    async def run(self) -> None:
        """End, for ever, what nothing else would end."""
        while True:
            await trio.sleep(SWEEP_S)
            try:
                await self.sweep()
            except StoreUnavailable as error:
                _log.warning("sweep_not_stored", error=str(error))

    async def sweep(self) -> None:
        """Look once at every live task for a deadline that has passed, and at every line for what can go."""
        self._dispatcher.dispatch_all()
        now_s, at_ms = trio.current_time(), now_ms()
        for environment_id in self._live.environments():
            if self._runners.find(environment_id) is not None:
                self._away_since_s.pop(environment_id, None)
            else:
                self._away_since_s.setdefault(environment_id, now_s)
        for environment_id in self._away_since_s.keys() - set(self._live.environments()):
            del self._away_since_s[environment_id]
        for live in self._live:
            away_since_s = self._away_since_s.get(live.record.environment_id)
            decide = partial(
                decide_overdue,
                live.record,
                now_ms=live.clock.clock_ms(),
                away_s=None if away_since_s is None else now_s - away_since_s,
                cancel_sent_s_ago=None if live.cancel_sent_s is None else now_s - live.cancel_sent_s,
                in_doubt=live.in_doubt and is_in_doubt(live.record),
            )
            verdict = decide()
            if verdict is not None and verdict.code in _BY_ITS_OWN_LIMIT:
                # Only now is it worth asking how much of that was waiting for people.
                waited_ms = await self._database.read(partial(approvals.waited_ms, task_id=live.id, now_ms=at_ms))
                verdict = decide(waited_s=waited_ms / 1000)
            if verdict is None or not live.is_stored:
                continue
            if verdict.state is not None:
                await self._end(live, verdict.state, verdict.code, verdict.reason)
            else:
                _log.warning("task_overdue", task_id=live.id, reason=verdict.reason)
                self._send_cancel(live)

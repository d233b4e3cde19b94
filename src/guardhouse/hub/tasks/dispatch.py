"""The lines of tasks that wait, one for each environment, and how a task is given to its runner.

The store comes first: ``sent`` is committed before the request leaves, so a crash at any point leaves at most one
start. Runs in the hub.
"""

from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import structlog
import trio

from guardhouse.errors import Refusal, SetupError
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.clock import now_ms
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.store import tasks as store
from guardhouse.hub.store.tasks import TaskRecord, TaskState
from guardhouse.hub.tasks.live import LiveTask
from guardhouse.hub.tasks.live_tasks import LiveTasks
from guardhouse.hub.tasks.request import TaskRequested
from guardhouse.hub.tasks.runners import Runner, Runners
from guardhouse.hub.trace_context import task_span_id
from guardhouse.wire.messages import TaskRequest

__all__ = ["Dispatcher"]

_log = structlog.get_logger("guardhouse.hub.tasks")


class Dispatcher:
    """Who waits, and who may go. `start` before anything is given."""

    def __init__(
        self,
        database: Database,
        runners: Runners,
        live: LiveTasks,
        *,
        queue_limit: int,
        in_flight_limit: int,
        instance_id: str,
        end_soon: Callable[[LiveTask, TaskState, str, str], None],
    ) -> None:
        """Make it.

        Args:
            queue_limit: tasks that may wait for one environment.
            in_flight_limit: tasks that one runner is given at a time.
            instance_id: of this process, as runners are told it.
            end_soon: ends a task that cannot be given, with a state, a code and a reason.
        """
        self._database = database
        self._runners = runners
        self._live = live
        self._queue_limit = queue_limit
        self._in_flight_limit = in_flight_limit
        self._instance_id = instance_id
        self._end_soon = end_soon
        self._queues: dict[str, deque[LiveTask]] = defaultdict(deque)
        self._dispatching: set[str] = set()
        self._nursery: trio.Nursery | None = None
        # Whether runners are asked how long each part of a task took.
        self.is_traced = False
        # Returns a task's arguments with what is not stored: an MCP server's configuration, a skill's archive.
        self.complete_args: Callable[[TaskRecord], bytes] = _args_as_stored

    def start(self, nursery: trio.Nursery) -> None:
        """Give tasks from now on."""
        self._nursery = nursery

    # Who may go.

    def can_send(self, environment_id: str, runner: Runner | None) -> bool:
        """Whether a new task goes to ``runner`` at once."""
        return (
            runner is not None
            and runner.is_ready
            and environment_id not in self._runners.drained
            and not self._queues[environment_id]
            and self._live.in_flight(environment_id) < self._in_flight_limit
        )

    def check_may_queue(self, asked: TaskRequested, runner: Runner | None) -> None:
        """Let a new task wait in line.

        Raises:
            ApiError: 409 offline and it may not wait; 429 the line is full.
        """
        is_drained = asked.environment.id in self._runners.drained
        if (runner is None or not runner.is_ready or is_drained) and asked.queue_s <= 0:
            why = "takes no tasks now (starting or draining)"
            if is_drained:
                why = "is drained by an operator and takes no new tasks"
            elif runner is None:
                why = "is not connected"
            raise ApiError(
                409,
                "environment_unavailable",
                f"environment {asked.environment.shown_name!r} {why}; the task was not started",
                hint="'guardhouse env show' says since when and why; queue_s lets a task wait for it",
                retryable=True,
            )
        if len(self._queues[asked.environment.id]) >= self._queue_limit:
            raise ApiError(
                429,
                "queue_full",
                f"{self._queue_limit} tasks wait for environment {asked.environment.shown_name!r} already",
                hint="wait for some to end",
                retryable=True,
            )

    # The lines.

    def put(self, live: LiveTask) -> None:
        """Put a task at the end of its line."""
        self._queues[live.record.environment_id].append(live)

    def forget(self, live: LiveTask) -> None:
        """Take a task out of its line, if it is in one."""
        queue = self._queues.get(live.record.environment_id)
        if queue and live in queue:
            queue.remove(live)

    def dispatch_all(self) -> None:
        """Look at every line for what can go."""
        for environment_id, queue in list(self._queues.items()):
            if queue:
                self.dispatch(environment_id)
            elif environment_id not in self._dispatching:
                del self._queues[environment_id]

    def dispatch(self, environment_id: str) -> None:
        """Give waiting tasks to the environment's runner as far as it takes them."""
        if self._nursery is not None and self._queues.get(environment_id) and environment_id not in self._dispatching:
            self._dispatching.add(environment_id)
            self._nursery.start_soon(self._dispatch, environment_id)

    async def _dispatch(self, environment_id: str) -> None:
        queue = self._queues[environment_id]
        try:
            while queue:
                runner = self._runners.find(environment_id)
                if (
                    runner is None
                    or not runner.is_ready
                    or self._live.in_flight(environment_id) >= self._in_flight_limit
                ):
                    return
                if environment_id in self._runners.drained:
                    return
                live = queue.popleft()
                if live.record.is_finished:
                    continue
                values: dict[str, Any] = {
                    "sent_ms": now_ms(),
                    "protocol": runner.protocol,
                    "memory_id": runner.memory_id,
                }
                if not await self._give(live, values):
                    return
        finally:
            self._dispatching.discard(environment_id)

    async def _give(self, live: LiveTask, values: dict[str, Any]) -> bool:
        """Store that a waiting task is sent, then send it; False, and back in line, where the store says no."""
        live.is_stored = False
        live.update(state=TaskState.SENT, **values)
        since = frozenset({TaskState.QUEUED})
        try:
            moved = await self._database.write(
                partial(store.advance_task, task_id=live.id, to=TaskState.SENT, since=since, **values)
            )
        except StoreUnavailable as error:
            _log.warning("dispatch_not_stored", task_id=live.id, error=str(error))
            live.is_stored = True
            live.update(state=TaskState.QUEUED, sent_ms=None)
            self._queues[live.record.environment_id].appendleft(live)
            return False
        live.is_stored = True
        if moved and not live.record.is_finished:
            self.send(live)
        return True

    def send(self, live: LiveTask) -> None:
        """Give a stored, ``sent`` task to the runner that is connected now, unless that one has it already."""
        runner = self._runners.find(live.record.environment_id)
        if runner is None or not runner.is_ready or runner.holds(live.id):
            if runner is None and live.record.protocol != "guardhouse.v1":
                # Nothing was written to a socket, so this is known; over v1 the next hello tells the same.
                self._end_soon(
                    live, TaskState.FAILED, "environment_unavailable", "the connection ended before the task was sent"
                )
            return
        if live.record.cancel_ms is not None:
            self._end_soon(live, TaskState.CANCELLED, "cancelled", "cancelled before it was sent")
            return
        try:
            args = self.complete_args(live.record)
        except (Refusal, SetupError) as error:
            code = "skill_not_at_hand" if live.record.mcp_server_id is None else "mcp_server_unusable"
            self._end_soon(live, TaskState.FAILED, code, str(error))
            return
        live.handed_over = True
        runner.request(
            TaskRequest(
                task_id=live.id,
                operation=live.record.operation,
                args=msgspec.Raw(args),
                trace_id=live.record.trace_id,
                source_instance_id=self._instance_id,
                session_id=live.record.session_id,
                requested_by=live.record.requested_by,
                profile=live.record.profile,
                parent_span_id=task_span_id(live.id) if self.is_traced else None,
            )
        )


def _args_as_stored(record: TaskRecord) -> bytes:
    return record.args

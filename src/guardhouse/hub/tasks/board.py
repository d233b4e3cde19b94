"""Every task without a result, from the request to the one stored end.

The order is always: the store first, then memory, then the runner or whoever waits. ``sent`` is stored before the
request leaves, so a crash at any point leaves at most one start; a result is acknowledged after its commit, so a
crash leaves exactly one. Who waits and what is given is `dispatch`'s, what runners say is `reports`', whose time is
over is `deadlines`'. Knows connections only as `Runner`. Runs in the hub.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import structlog
import trio
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.clock import now_ms
from guardhouse.hub.condition import TimeoutStreaks
from guardhouse.hub.credentials import mint_id
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.store import audit
from guardhouse.hub.store import tasks as store
from guardhouse.hub.store.tasks import TaskEnd, TaskRecord, TaskState
from guardhouse.hub.tasks.deadlines import Deadlines
from guardhouse.hub.tasks.dispatch import Dispatcher
from guardhouse.hub.tasks.ends import finish_and_record, hub_end
from guardhouse.hub.tasks.live import LiveTask
from guardhouse.hub.tasks.live_tasks import LiveTasks
from guardhouse.hub.tasks.reports import RunnerReports
from guardhouse.hub.tasks.request import TaskRequested, check_args, new_record, record_creation
from guardhouse.hub.tasks.runners import Runners

__all__ = ["TaskBoard"]

_log = structlog.get_logger("guardhouse.hub.tasks")


class TaskBoard:
    """The tasks in flight of one hub."""

    def __init__(self, database: Database, runners: Runners, *, queue_limit: int, in_flight_limit: int) -> None:
        self._database = database
        self._runners = runners
        self._live = LiveTasks()
        self._nursery: trio.Nursery | None = None
        self.instance_id = mint_id("hub")
        self.dispatcher = Dispatcher(
            database,
            runners,
            self._live,
            queue_limit=queue_limit,
            in_flight_limit=in_flight_limit,
            instance_id=self.instance_id,
            end_soon=self._end_soon,
        )
        self.reports = RunnerReports(database, self._live, self.dispatcher, end=self.end)
        self.deadlines = Deadlines(
            database, runners, self._live, self.dispatcher, end=self.end, send_cancel=self.send_cancel
        )
        self.timeouts = TimeoutStreaks()
        # Told the id of each task that has got its end.
        self.on_end: list[Callable[[str], None]] = []
        # The same, with the whole of it; before the others.
        self.on_finished: list[Callable[[LiveTask], None]] = []

    async def start(self, nursery: trio.Nursery) -> None:
        """Take up what an earlier hub left; must be awaited before anything is served."""
        self._nursery = nursery
        self.dispatcher.start(nursery)
        self.reports.start(nursery)
        for record in await self._database.read(store.list_live_tasks):
            live = LiveTask(record, is_stored=True)
            self._live.add(live)
            if not live.was_sent:
                self.dispatcher.put(live)
            self.reports.doubt(live)
        if self._live:
            _log.info("tasks_taken_up", count=len(self._live))

    # Looking.

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[LiveTask]:
        return iter(self._live)

    def find(self, task_id: str) -> LiveTask | None:
        """Return a task without a result, or None."""
        return self._live.find(task_id)

    def in_flight(self, environment_id: str) -> int:
        """Return how many tasks the environment's runner has been given and not answered."""
        return self._live.in_flight(environment_id)

    def load(self, environment_id: str) -> int:
        """Return how many tasks run or wait for the environment."""
        return self._live.load(environment_id)

    def session_loads(self) -> Counter[str]:
        """Return how many tasks of each session run or wait."""
        return self._live.session_loads()

    async def record(self, task_id: str) -> TaskRecord | None:
        """Return a task as it stands, live or stored."""
        live = self._live.find(task_id)
        if live is not None and live.is_stored:
            return live.record
        return await self._database.read(partial(store.find_task, task_id=task_id))

    # Asking.

    async def create(self, asked: TaskRequested) -> TaskRecord:
        """Store a task and give it to the runner, or put it in line.

        Raises:
            PeerError: operation or args are wrong.
            ApiError: 409 offline, conflict; 413; 429 the line is full.
        """
        args = check_args(asked.operation, asked.args)
        runner = self._runners.find(asked.environment.id)
        sent_to = runner if self.dispatcher.can_send(asked.environment.id, runner) else None
        if sent_to is None:
            # A repeated request is answered with its task even where a new one would be refused. Where it would be
            # sent at once, the store's own constraint finds the repetition.
            known = await self._known(asked)
            if known is not None:
                return self._same(known, asked)
            self.dispatcher.check_may_queue(asked, runner)
        record = new_record(asked, args, at_ms=now_ms(), sent_to=sent_to)
        live = LiveTask(record, is_stored=False)
        live.parent_span_id = asked.trace.span_id if asked.trace is not None else None
        self._live.add(live)

        def insert(connection: Connection) -> None:
            store.insert_task(connection, live.record)
            if asked.on_insert is not None:
                asked.on_insert(connection)
            record_creation(
                connection, asked, live.record, policies=None if runner is None else runner.policies_in_force
            )

        try:
            await self._database.write(insert)
        except IntegrityError:
            self._drop(live)
            known = await self._known(asked)
            if known is None:
                raise
            return self._same(known, asked)
        except BaseException:  # cancelled too: what was not stored is not live
            self._drop(live)
            raise
        live.is_stored = True
        if sent_to is None:
            self.dispatcher.put(live)
            self.dispatcher.dispatch(asked.environment.id)
        else:
            self.dispatcher.send(live)
        return live.record

    async def _known(self, asked: TaskRequested) -> TaskRecord | None:
        if asked.idempotency_key is None:
            return None
        return await self._database.read(
            partial(store.find_idempotent_task, created_by=asked.created_by, key=asked.idempotency_key)
        )

    def _same(self, known: TaskRecord, asked: TaskRequested) -> TaskRecord:
        if known.request_digest != asked.digest:
            raise ApiError(
                409,
                "idempotency_conflict",
                f"idempotency key {known.idempotency_key!r} was used for another request (task {known.id})",
                hint="use a new key for a new request",
            )
        live = self._live.find(known.id)
        return live.record if live is not None else known

    # Cancelling and ending.

    async def cancel(self, task_id: str, *, actor: str, address: str | None, reason: str) -> TaskRecord | None:
        """Ask for a stop and return the task as it stands; None when there is no such task."""
        live = self._live.find(task_id)
        if live is None:
            return await self.record(task_id)
        if live.record.cancel_ms is not None:
            return live.record
        at_ms = now_ms()
        live.update(cancel_ms=at_ms, cancel_reason=reason)

        def note(connection: Connection) -> None:
            store.record_cancel(connection, task_id, at_ms=at_ms, reason=reason)
            audit.record_audit_event(
                connection,
                at_ms=at_ms,
                actor=actor,
                action="task.cancel",
                target=task_id,
                address=address,
                environment=live.record.environment_id,
                task=task_id,
                command=live.record.command,
                reason=reason,
                policies=self._policies(live.record.environment_id),
            )

        if not live.was_sent:
            await self._database.write(note)
            if not live.was_sent:
                await self.end(live, TaskState.CANCELLED, "cancelled", reason)
        else:
            self.send_cancel(live)
            await self._database.write(note)
        return live.record

    def send_cancel(self, live: LiveTask) -> None:
        """Pass a stored cancel on to the runner; a runner that is away hears it when it resumes."""
        runner = self._runners.find(live.record.environment_id)
        if runner is not None and runner.is_ready and runner.holds(live.id):
            live.cancel_sent_s = trio.current_time()
            runner.cancel(live.id, reason=live.record.cancel_reason)

    async def lose_environment(self, environment_id: str, *, reason: str) -> None:
        """End every task of an environment that is gone."""
        for live in self._live.of(environment_id):
            await self.end(live, TaskState.LOST, "environment_deleted", reason)

    async def end(self, live: LiveTask, state: TaskState, code: str, reason: str) -> None:
        """Store an end that the hub itself gives."""
        end = hub_end(state, at_ms=now_ms(), code=code, reason=reason, notes=live.notes)
        if await self._database.write(
            partial(
                finish_and_record,
                record=live.record,
                end=end,
                actor="hub",
                policies=self._policies(live.record.environment_id),
            )
        ):
            _log.info("task_ended_by_hub", task_id=live.id, state=state.value, reason=reason)
            self.ended(live.id, end)

    def _policies(self, environment_id: str) -> dict[str, Any] | None:
        runner = self._runners.find(environment_id)
        return None if runner is None else runner.policies_in_force

    def _end_soon(self, live: LiveTask, state: TaskState, code: str, reason: str) -> None:
        async def end() -> None:
            try:
                await self.end(live, state, code, reason)
            except StoreUnavailable as error:
                _log.warning("end_not_stored", task_id=live.id, error=str(error))

        if self._nursery is not None:
            self._nursery.start_soon(end)

    def ended(self, task_id: str, end: TaskEnd) -> None:
        """Note that an end was stored: wake who waits, and make room for the next."""
        live = self._live.find(task_id)
        if live is None:
            return
        values = msgspec.structs.asdict(end)
        live.record = msgspec.structs.replace(
            live.record,
            state=values.pop("state"),
            state_reason=values.pop("reason"),
            finished_ms=values.pop("at_ms"),
            **values,
        )
        self._drop(live)
        if end.state in {TaskState.TIMED_OUT, TaskState.SUCCEEDED}:
            self.timeouts.note(
                live.record.environment_id,
                timed_out=end.state is TaskState.TIMED_OUT,
                limit_ms=live.record.timeout_ms,
                at_ms=end.at_ms,
            )
        live.end()
        for tell_all in self.on_finished:
            tell_all(live)
        for tell in self.on_end:
            tell(task_id)
        self.dispatcher.dispatch(live.record.environment_id)

    def _drop(self, live: LiveTask) -> None:
        self._live.drop(live)
        self.dispatcher.forget(live)

"""Tasks that start later: each is looked at when its time comes, and started once, refused, or told that it is late.

The task has an idempotency key that names its schedule, so a crash between the two rows starts nothing twice. Who
asked must still be allowed to when it starts. Runs in the hub.
"""

from functools import partial
from typing import Any, Final

import msgspec
import structlog
import trio
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from guardhouse.errors import PeerError, Refusal
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.authorize import Credentials
from guardhouse.hub.clock import now_ms
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.gateway.links import Links
from guardhouse.hub.store import audit
from guardhouse.hub.store import schedules as store
from guardhouse.hub.store import tasks as task_store
from guardhouse.hub.store.schedules import ScheduleRecord
from guardhouse.hub.store.tasks import TaskRecord
from guardhouse.hub.tasks.asked import check_still_may
from guardhouse.hub.tasks.board import TaskBoard
from guardhouse.hub.tasks.request import TaskRequested
from guardhouse.hub.tasks.schedule_plan import Due, ScheduleState, Verdict, decide_due

__all__ = ["WAITING_MAX", "Schedules"]

_log = structlog.get_logger("guardhouse.hub.schedules")

WAITING_MAX: Final = 10_000
# The wall clock may be set while the hub sleeps, and a runner may come: it looks again after so long at the latest.
LOOK_AGAIN_S: Final = 5.0
LOOK_AGAIN_DUE_S: Final = 0.5


class Schedules:
    """The schedules of one hub that are not decided."""

    def __init__(self, database: Database, board: TaskBoard, links: Links, credentials: Credentials) -> None:
        self._database = database
        self._board = board
        self._links = links
        self._credentials = credentials
        self._waiting: dict[str, ScheduleRecord] = {}
        self._changed = trio.Event()
        # Held by whoever decides: a cancel and a start never both happen.
        self._deciding = trio.Lock()
        self._since_ms = self._looked_ms = now_ms()

    def __len__(self) -> int:
        return len(self._waiting)

    async def start(self) -> None:
        """Take up what an earlier hub left."""
        self._waiting = {record.id: record for record in await self._database.read(store.list_waiting)}
        if self._waiting:
            _log.info("schedules_taken_up", count=len(self._waiting))

    async def create(self, record: ScheduleRecord) -> ScheduleRecord:
        """Store a schedule; under a known idempotency key, return the one that is there.

        Raises:
            ApiError: 409 the key was used for another request; 429 too many wait.
        """
        known = await self._known(record)
        if known is not None:
            return known
        if len(self._waiting) >= WAITING_MAX:
            raise ApiError(429, "too_many_schedules", f"{WAITING_MAX} schedules wait", hint="cancel some")

        def insert(connection: Connection) -> None:
            store.insert_schedule(connection, record)
            _record(
                connection,
                record,
                "schedule.create",
                actor=record.created_by,
                at_ms=record.created_ms,
                address=record.address,
                run_at_ms=record.run_at_ms,
                grace_ms=record.grace_ms,
                operation=record.operation,
                profile=record.profile,
            )

        try:
            await self._database.write(insert)
        except IntegrityError:
            known = await self._known(record)
            if known is None:
                raise
            return known
        self._waiting[record.id] = record
        self._changed.set()
        return record

    async def _known(self, record: ScheduleRecord) -> ScheduleRecord | None:
        if record.idempotency_key is None:
            return None
        known = await self._database.read(
            partial(store.find_idempotent_schedule, created_by=record.created_by, key=record.idempotency_key)
        )
        if known is not None and known.request_digest != record.request_digest:
            raise ApiError(
                409,
                "idempotency_conflict",
                f"idempotency key {record.idempotency_key!r} was used for another request (schedule {known.id})",
                hint="use a new key for a new request",
            )
        return known

    async def cancel(self, schedule_id: str, *, actor: str, address: str | None, reason: str) -> None:
        """Cancel a schedule that waits; nothing happens to one that is decided."""
        async with self._deciding:
            record = self._waiting.get(schedule_id)
            if record is not None:
                await self._decide(record, ScheduleState.CANCELLED, reason, actor=actor, address=address)

    async def run(self) -> None:
        """Look at each schedule when its time comes, for ever."""
        while True:
            wait_s = LOOK_AGAIN_S
            at_ms = now_ms()
            for record in list(self._waiting.values()):
                due = self._due(record, at_ms)
                if due.verdict is Verdict.WAIT:
                    is_due = record.run_at_ms <= at_ms
                    left_s = LOOK_AGAIN_DUE_S if is_due else (due.look_again_ms - at_ms) / 1000
                    wait_s = min(wait_s, max(0.01, left_s))
                    continue
                try:
                    async with self._deciding:
                        if record.id in self._waiting:
                            await self._act(record, due)
                except StoreUnavailable as error:
                    _log.warning("schedule_not_stored", schedule=record.id, error=str(error))
            self._looked_ms = at_ms
            self._changed = trio.Event()
            with trio.move_on_after(wait_s):
                await self._changed.wait()

    def _due(self, record: ScheduleRecord, at_ms: int) -> Due:
        runner = self._links.find(record.environment_id)
        return decide_due(
            run_at_ms=record.run_at_ms,
            grace_ms=record.grace_ms,
            now_ms=at_ms,
            is_online=runner is not None and runner.is_ready,
            served_since_ms=self._since_ms,
            looked_ms=max(self._looked_ms, record.created_ms),
        )

    async def _act(self, record: ScheduleRecord, due: Due) -> None:
        # An earlier hub may have started the task and not lived to say so.
        task = await self._database.read(
            partial(task_store.find_idempotent_task, created_by=record.created_by, key=record.id)
        )
        if task is None and due.verdict is Verdict.EXPIRE:
            await self._decide(record, ScheduleState.EXPIRED, due.reason)
            return
        try:
            task = task or await self._ask(record)
        except (ApiError, Refusal, PeerError) as error:
            if isinstance(error, ApiError) and error.body.error.retryable:
                # The runner went, or its line is full: its grace decides.
                return
            await self._decide(record, ScheduleState.REFUSED, str(error))
            return
        await self._decide(record, ScheduleState.STARTED, None, task_id=task.id)

    async def _ask(self, record: ScheduleRecord) -> TaskRecord:
        environment = await self._links.lookup(record.environment_id)
        if environment is None:
            raise ApiError(404, "environment_not_found", f"environment {record.environment_name!r} is deleted")
        check_still_may(self._credentials, record.created_by, environment, now_ms=now_ms())
        return await self._board.create(
            TaskRequested(
                environment=environment,
                operation=record.operation,
                args=msgspec.json.decode(record.args, type=dict[str, Any]),
                idempotency_key=record.id,
                queue_s=0,
                profile=record.profile,
                created_by=record.created_by,
                requested_by=record.requested_by,
                address=record.address,
                session_id=record.session_id,
                origin=record.id,
            )
        )

    async def _decide(
        self,
        record: ScheduleRecord,
        state: ScheduleState,
        reason: str | None,
        *,
        task_id: str | None = None,
        actor: str = "hub",
        address: str | None = None,
    ) -> None:
        at_ms = now_ms()

        def write(connection: Connection) -> None:
            values = {"state": state.value, "reason": reason, "task_id": task_id, "decided_ms": at_ms}
            if store.decide_schedule(connection, record.id, **values):
                _record(
                    connection,
                    record,
                    _ACTIONS[state],
                    actor=actor,
                    at_ms=at_ms,
                    address=address,
                    reason=reason,
                    started=task_id,
                )

        await self._database.write(write)
        self._waiting.pop(record.id, None)
        _log.info("schedule_decided", schedule=record.id, state=state.value, reason=reason, task_id=task_id)


_ACTIONS: Final = {
    ScheduleState.STARTED: "schedule.start",
    ScheduleState.EXPIRED: "schedule.expire",
    ScheduleState.REFUSED: "schedule.refuse",
    ScheduleState.CANCELLED: "schedule.cancel",
}


def _record(connection: Connection, record: ScheduleRecord, action: str, **more: Any) -> None:
    audit.record_audit_event(
        connection,
        action=action,
        target=record.id,
        environment=record.environment_id,
        command=record.command,
        **more,
    )

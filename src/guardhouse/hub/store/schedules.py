"""Tasks that start later: asked for once, decided once. Runs in the hub's store threads."""

from typing import Any, Final

import msgspec
from sqlalchemy import Connection, and_, delete, func, insert, or_, select, update

from guardhouse.hub.reach import Reach
from guardhouse.hub.schema import ACCOUNT_ID, environments, schedules
from guardhouse.hub.store.environments import reach_conditions
from guardhouse.hub.tasks.schedule_plan import ScheduleState

__all__ = [
    "ScheduleRecord",
    "count_waiting",
    "decide_schedule",
    "delete_old_schedules",
    "find_idempotent_schedule",
    "find_schedule",
    "insert_schedule",
    "list_schedules",
    "list_waiting",
]


class ScheduleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One row. ``args`` is JSON as bytes; times are Unix ms."""

    id: str
    environment_id: str
    environment_name: str
    operation: str
    args: bytes
    command: str
    profile: str | None
    session_id: str | None
    run_at_ms: int
    grace_ms: int
    state: str = ScheduleState.WAITING.value
    reason: str | None = None
    task_id: str | None = None
    idempotency_key: str | None
    request_digest: bytes
    created_by: str
    requested_by: str
    address: str | None
    created_ms: int
    decided_ms: int | None = None


_COLUMNS: Final = [schedules.c[name] for name in ScheduleRecord.__struct_fields__]


def insert_schedule(connection: Connection, record: ScheduleRecord) -> None:
    """Store a new schedule."""
    connection.execute(insert(schedules).values(account_id=ACCOUNT_ID, **msgspec.structs.asdict(record)))


def find_schedule(connection: Connection, schedule_id: str) -> ScheduleRecord | None:
    """Return the schedule, or None."""
    row = connection.execute(select(*_COLUMNS).where(schedules.c.id == schedule_id)).mappings().first()
    return ScheduleRecord(**row) if row is not None else None


def find_idempotent_schedule(connection: Connection, *, created_by: str, key: str) -> ScheduleRecord | None:
    """Return the schedule that ``created_by`` asked for under ``key``, or None."""
    query = select(*_COLUMNS).where(schedules.c.created_by == created_by, schedules.c.idempotency_key == key)
    row = connection.execute(query).mappings().first()
    return ScheduleRecord(**row) if row is not None else None


def list_schedules(
    connection: Connection,
    *,
    state: str | None,
    environment_id: str | None,
    after: tuple[int, str] | None,
    limit: int,
    reach: Reach,
) -> list[ScheduleRecord]:
    """Return up to ``limit`` schedules, latest start first: of environments within ``reach``, and the caller's own."""
    wanted = []
    if not reach.is_everything:
        seen = select(environments.c.id).where(*reach_conditions(reach))
        wanted.append(or_(schedules.c.environment_id.in_(seen), schedules.c.created_by.in_(sorted(reach.own))))
    if state is not None:
        wanted.append(schedules.c.state == state)
    if environment_id is not None:
        wanted.append(schedules.c.environment_id == environment_id)
    if after is not None:
        at_ms, schedule_id = after
        wanted.append(
            or_(schedules.c.run_at_ms < at_ms, and_(schedules.c.run_at_ms == at_ms, schedules.c.id < schedule_id))
        )
    query = select(*_COLUMNS).where(*wanted).order_by(schedules.c.run_at_ms.desc(), schedules.c.id.desc())
    return [ScheduleRecord(**row) for row in connection.execute(query.limit(limit)).mappings()]


def list_waiting(connection: Connection) -> list[ScheduleRecord]:
    """Return every schedule that is not decided."""
    query = select(*_COLUMNS).where(schedules.c.state == ScheduleState.WAITING.value).order_by(schedules.c.run_at_ms)
    return [ScheduleRecord(**row) for row in connection.execute(query).mappings()]


def count_waiting(connection: Connection) -> int:
    """Return how many are not decided."""
    query = select(func.count()).where(schedules.c.state == ScheduleState.WAITING.value)
    return int(connection.execute(query).scalar_one())


def decide_schedule(connection: Connection, schedule_id: str, **values: Any) -> bool:
    """Store what became of a schedule that waits; return False, changing nothing, where it is decided already."""
    here = (schedules.c.id == schedule_id) & (schedules.c.state == ScheduleState.WAITING.value)
    return bool(connection.execute(update(schedules).where(here).values(**values)).rowcount)


def delete_old_schedules(connection: Connection, *, before_ms: int) -> int:
    """Delete schedules that were decided before ``before_ms``; return how many."""
    return connection.execute(delete(schedules).where(schedules.c.decided_ms < before_ms)).rowcount

"""Fan-outs and their children: one request over many environments, one child for each.

A child names its task once it has one. Knows nothing of how children are started. Runs in the hub's store threads.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, or_, select, update

from guardhouse.hub.reach import Reach
from guardhouse.hub.schema import ACCOUNT_ID, environment_tags, environments, fanout_children, fanouts
from guardhouse.hub.store.environments import reach_conditions
from guardhouse.hub.tasks.fanout_plan import ChildState, FanoutState

__all__ = [
    "ChildRecord",
    "FanoutRecord",
    "count_children",
    "delete_old_fanouts",
    "environments_with_tags",
    "find_fanout",
    "find_idempotent_fanout",
    "insert_fanout",
    "list_children",
    "list_fanouts",
    "list_running_fanouts",
    "update_child",
    "update_fanout",
]


class FanoutRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One row. ``args`` is JSON as bytes, ``tags`` JSON as text; times are Unix ms."""

    id: str
    operation: str
    args: bytes
    command: str
    profile: str | None
    session_id: str | None
    tags: str
    parallel: int
    stop_after: int | None
    queue_ms: int
    state: str = FanoutState.RUNNING.value
    reason: str | None = None
    idempotency_key: str | None
    request_digest: bytes
    created_by: str
    requested_by: str
    address: str | None
    created_ms: int
    cancel_ms: int | None = None
    finished_ms: int | None = None


class ChildRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One environment of a fan-out. ``task_state`` is how its task ended; times are Unix ms."""

    fanout_id: str
    position: int
    environment_id: str
    environment_name: str
    state: str = ChildState.WAITING.value
    task_id: str | None = None
    task_state: str | None = None
    exit_code: int | None = None
    error: str | None = None
    started_ms: int | None = None
    finished_ms: int | None = None


_COLUMNS: Final = [fanouts.c[name] for name in FanoutRecord.__struct_fields__]
_CHILD_COLUMNS: Final = [fanout_children.c[name] for name in ChildRecord.__struct_fields__]


def environments_with_tags(
    connection: Connection, tags: Iterable[str], *, reach: Reach, limit: int
) -> list[tuple[str, str]]:
    """Return id and shown name of up to ``limit`` environments within ``reach`` that have every tag, by name."""
    # A session's managed sandbox is reached through its session only.
    wanted = [*reach_conditions(reach), environments.c.kind != "cloud"]
    for tag in sorted(set(tags)):
        tagged = select(environment_tags.c.environment_id).where(environment_tags.c.tag == tag)
        wanted.append(environments.c.id.in_(tagged))
    shown_name = func.coalesce(environments.c.name, environments.c.id)
    query = select(environments.c.id, shown_name).where(*wanted).order_by(shown_name).limit(limit)
    return [(row[0], row[1]) for row in connection.execute(query)]


def insert_fanout(connection: Connection, record: FanoutRecord, children: list[ChildRecord]) -> None:
    """Store a new fan-out with its children."""
    connection.execute(insert(fanouts).values(account_id=ACCOUNT_ID, **msgspec.structs.asdict(record)))
    connection.execute(insert(fanout_children), [msgspec.structs.asdict(child) for child in children])


def find_fanout(connection: Connection, fanout_id: str) -> FanoutRecord | None:
    """Return the fan-out, or None."""
    row = connection.execute(select(*_COLUMNS).where(fanouts.c.id == fanout_id)).mappings().first()
    return FanoutRecord(**row) if row is not None else None


def find_idempotent_fanout(connection: Connection, *, created_by: str, key: str) -> FanoutRecord | None:
    """Return the fan-out that ``created_by`` asked for under ``key``, or None."""
    query = select(*_COLUMNS).where(fanouts.c.created_by == created_by, fanouts.c.idempotency_key == key)
    row = connection.execute(query).mappings().first()
    return FanoutRecord(**row) if row is not None else None


def list_fanouts(
    connection: Connection,
    *,
    state: str | None,
    before: tuple[int, str] | None,
    limit: int,
    reach: Reach,
) -> list[FanoutRecord]:
    """Return up to ``limit`` fan-outs, newest first: all of them, or within a ``reach`` that ends, the caller's own."""
    wanted: list[ColumnElement[bool]] = []
    if not reach.is_everything:
        wanted.append(fanouts.c.created_by.in_(sorted(reach.own)))
    if state is not None:
        wanted.append(fanouts.c.state == state)
    if before is not None:
        at_ms, fanout_id = before
        wanted.append(or_(fanouts.c.created_ms < at_ms, and_(fanouts.c.created_ms == at_ms, fanouts.c.id < fanout_id)))
    query = select(*_COLUMNS).where(*wanted).order_by(fanouts.c.created_ms.desc(), fanouts.c.id.desc()).limit(limit)
    return [FanoutRecord(**row) for row in connection.execute(query).mappings()]


def list_running_fanouts(connection: Connection) -> list[FanoutRecord]:
    """Return those that have not ended, oldest first: what a starting hub takes up again."""
    query = select(*_COLUMNS).where(fanouts.c.state == FanoutState.RUNNING.value).order_by(fanouts.c.created_ms)
    return [FanoutRecord(**row) for row in connection.execute(query).mappings()]


def list_children(
    connection: Connection, fanout_id: str, *, after: int = -1, limit: int | None = None
) -> list[ChildRecord]:
    """Return children in their order, from behind the position ``after``."""
    query = (
        select(*_CHILD_COLUMNS)
        .where(fanout_children.c.fanout_id == fanout_id, fanout_children.c.position > after)
        .order_by(fanout_children.c.position)
    )
    if limit is not None:
        query = query.limit(limit)
    return [ChildRecord(**row) for row in connection.execute(query).mappings()]


def count_children(connection: Connection, fanout_ids: list[str]) -> dict[str, dict[str, int]]:
    """Return how many children of each fan-out are in each state."""
    columns = fanout_children.c
    query = (
        select(columns.fanout_id, columns.state, func.count())
        .where(columns.fanout_id.in_(fanout_ids))
        .group_by(columns.fanout_id, columns.state)
    )
    found: dict[str, dict[str, int]] = {fanout_id: {} for fanout_id in fanout_ids}
    for fanout_id, state, count in connection.execute(query):
        found[fanout_id][state] = count
    return found


def update_fanout(connection: Connection, fanout_id: str, **values: Any) -> bool:
    """Change a fan-out that has not ended; return whether there was one."""
    here = (fanouts.c.id == fanout_id) & (fanouts.c.state == FanoutState.RUNNING.value)
    return bool(connection.execute(update(fanouts).where(here).values(**values)).rowcount)


def update_child(connection: Connection, child: ChildRecord) -> None:
    """Store a child as it stands now."""
    values = msgspec.structs.asdict(child)
    fanout_id, position = values.pop("fanout_id"), values.pop("position")
    here = (fanout_children.c.fanout_id == fanout_id) & (fanout_children.c.position == position)
    connection.execute(update(fanout_children).where(here).values(**values))


def delete_old_fanouts(connection: Connection, *, before_ms: int) -> int:
    """Delete fan-outs, with their children, that ended before ``before_ms``; return how many."""
    return connection.execute(delete(fanouts).where(fanouts.c.finished_ms < before_ms)).rowcount

"""Task records: asked for once, started at most once, ended exactly once.

Every change of state is an UPDATE that names the states it may come from, so that the database itself keeps the
promise even when two parts of the hub race. Knows nothing of connections. Runs in the hub's store threads.
"""

from enum import StrEnum
from functools import cache
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, insert, or_, select, update

from guardhouse.hub.reach import EVERYTHING, Reach
from guardhouse.hub.schema import ACCOUNT_ID, audit_events, environments, task_output, tasks
from guardhouse.hub.store.environments import reach_conditions
from guardhouse.hub.store.prepared import PreparedStatement
from guardhouse.values import Stream

__all__ = [
    "LIVE_STATES",
    "TERMINAL_STATES",
    "TaskEnd",
    "TaskRecord",
    "TaskState",
    "advance_task",
    "delete_old_tasks",
    "find_idempotent_task",
    "find_task",
    "finish_task",
    "finished_task_ids",
    "insert_task",
    "list_live_tasks",
    "list_tasks",
    "read_output",
    "record_cancel",
    "store_output",
]


class TaskState(StrEnum):
    """Where a task is; docs/hub.md draws the ways between them.

    ``sent`` is written before the request leaves, so that after a crash nothing is sent a second time unasked.
    """

    QUEUED = "queued"
    SENT = "sent"
    ACCEPTED = "accepted"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    LOST = "lost"


LIVE_STATES: Final = frozenset({TaskState.QUEUED, TaskState.SENT, TaskState.ACCEPTED, TaskState.RUNNING})
TERMINAL_STATES: Final = frozenset(TaskState) - LIVE_STATES


class TaskRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One row. ``args`` and ``result`` are JSON as bytes; times are Unix ms."""

    id: str
    environment_id: str
    environment_name: str | None
    operation: str
    profile: str | None = None
    session_id: str | None = None
    requested_by: str
    args: bytes
    command: str
    state: str
    state_reason: str | None = None
    idempotency_key: str | None = None
    request_digest: bytes
    trace_id: str
    created_by: str
    protocol: str | None = None
    memory_id: str | None = None
    timeout_ms: int
    created_ms: int
    queue_until_ms: int | None = None
    sent_ms: int | None = None
    accepted_ms: int | None = None
    started_ms: int | None = None
    finished_ms: int | None = None
    cancel_ms: int | None = None
    cancel_reason: str | None = None
    success: bool | None = None
    result: bytes | None = None
    error: str | None = None
    error_code: str | None = None
    exit_code: int | None = None
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    output_note: str | None = None
    origin: str | None = None
    mcp_server_id: str | None = None

    @property
    def is_finished(self) -> bool:
        """Whether it has its one result."""
        return self.state in TERMINAL_STATES


class TaskEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The one result of a task. ``result`` is JSON as bytes."""

    state: TaskState
    at_ms: int
    reason: str | None = None
    success: bool = False
    result: bytes | None = None
    error: str | None = None
    error_code: str | None = None
    exit_code: int | None = None
    output_note: str | None = None


class OutputChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of one stream of a task, its place given by the offset of its first byte."""

    seq: int
    stream: str
    offset: int
    data: bytes


_COLUMNS: Final = [tasks.c[name] for name in TaskRecord.__struct_fields__]
_SUMMARY_COLUMNS: Final = [tasks.c[name] for name in TaskRecord.__struct_fields__ if name not in {"result", "args"}]
_BYTES_COLUMN: Final = {Stream.STDOUT: tasks.c.stdout_bytes, Stream.STDERR: tasks.c.stderr_bytes}
_THE_TASK: Final = tasks.c.id == bindparam("the_task")
_INSERT_TASK: Final = PreparedStatement(insert(tasks), columns=["account_id", *TaskRecord.__struct_fields__])
_INSERT_OUTPUT: Final = PreparedStatement(insert(task_output), columns=["task_id", "stream", "offset", "data"])


@cache
def _update_task(columns: frozenset[str], since: frozenset[TaskState] | None) -> PreparedStatement:
    """Return the UPDATE of one task, in one of the states ``since`` where given, that sets ``columns``."""
    statement = update(tasks).where(_THE_TASK)
    if since is not None:
        # Not IN: its parameters are known only when it runs.
        statement = statement.where(or_(*(tasks.c.state == state for state in sorted(state.value for state in since))))
    return PreparedStatement(statement, columns=sorted(columns))


def _run_update(
    connection: Connection, task_id: str, since: frozenset[TaskState] | None, values: dict[str, Any]
) -> bool:
    statement = _update_task(frozenset(values), since)
    return bool(statement.run(connection, the_task=task_id, **values))


def insert_task(connection: Connection, record: TaskRecord) -> None:
    """Store a new task."""
    _INSERT_TASK.run(connection, account_id=ACCOUNT_ID, **msgspec.structs.asdict(record))


def find_task(connection: Connection, task_id: str) -> TaskRecord | None:
    """Return the task, or None."""
    row = connection.execute(select(*_COLUMNS).where(tasks.c.id == task_id)).mappings().first()
    return TaskRecord(**row) if row is not None else None


def find_idempotent_task(connection: Connection, *, created_by: str, key: str) -> TaskRecord | None:
    """Return the task that ``created_by`` asked for under ``key``, or None."""
    query = select(*_COLUMNS).where(tasks.c.created_by == created_by, tasks.c.idempotency_key == key)
    row = connection.execute(query).mappings().first()
    return TaskRecord(**row) if row is not None else None


def list_tasks(
    connection: Connection,
    *,
    environment_id: str | None = None,
    state: str | None = None,
    text: str | None = None,
    executed: str | None = None,
    operation: str | None = None,
    session_id: str | None = None,
    origin: str | None = None,
    asked_by: str | None = None,
    since_ms: int | None = None,
    until_ms: int | None = None,
    before: tuple[int, str] | None = None,
    limit: int,
    reach: Reach = EVERYTHING,
) -> list[TaskRecord]:
    """Return up to ``limit`` tasks, newest first, without their args and results.

    Args:
        text: found in the command, letter case aside.
        executed: found in what really ran, or was refused at its exec, as the audit log has it; letter case aside.
        since_ms, until_ms: bounds of when they were asked for, the second not included (Unix ms).
        before: creation time (Unix ms) and id of the last one that the reader has.
        reach: only those that ran in environments that the caller sees, and its own.
    """
    wanted: list[ColumnElement[bool]] = []
    if not reach.is_everything:
        seen = select(environments.c.id).where(*reach_conditions(reach))
        wanted.append(or_(tasks.c.environment_id.in_(seen), tasks.c.created_by.in_(sorted(reach.own))))
    if environment_id is not None:
        wanted.append(tasks.c.environment_id == environment_id)
    if state is not None:
        wanted.append(tasks.c.state == state)
    if text:
        wanted.append(tasks.c.command.icontains(text, autoescape=True))
    if executed:
        ran = select(audit_events.c.task).where(audit_events.c.executed.icontains(executed, autoescape=True))
        wanted.append(tasks.c.id.in_(ran))
    for column, value in (
        (tasks.c.operation, operation),
        (tasks.c.session_id, session_id),
        (tasks.c.origin, origin),
        (tasks.c.created_by, asked_by),
    ):
        if value is not None:
            wanted.append(column == value)
    if since_ms is not None:
        wanted.append(tasks.c.created_ms >= since_ms)
    if until_ms is not None:
        wanted.append(tasks.c.created_ms < until_ms)
    if before is not None:
        at_ms, task_id = before
        wanted.append((tasks.c.created_ms < at_ms) | and_(tasks.c.created_ms == at_ms, tasks.c.id < task_id))
    query = select(*_SUMMARY_COLUMNS).where(*wanted).order_by(tasks.c.created_ms.desc(), tasks.c.id.desc()).limit(limit)
    return [TaskRecord(**row, args=b"{}") for row in connection.execute(query).mappings()]


def list_live_tasks(connection: Connection) -> list[TaskRecord]:
    """Return every task without a result, oldest first: what a starting hub must take up again."""
    query = select(*_COLUMNS).where(tasks.c.state.in_(LIVE_STATES)).order_by(tasks.c.created_ms, tasks.c.id)
    return [TaskRecord(**row) for row in connection.execute(query).mappings()]


def finished_task_ids(connection: Connection, *, environment_id: str, task_ids: list[str]) -> list[str]:
    """Return those of ``task_ids`` that are tasks of this environment with a result."""
    found: list[str] = []
    # SQLite takes 32,766 parameters a statement (SQLITE_MAX_VARIABLE_NUMBER).
    for start in range(0, len(task_ids), 10_000):
        query = select(tasks.c.id).where(
            tasks.c.id.in_(task_ids[start : start + 10_000]),
            tasks.c.environment_id == environment_id,
            tasks.c.state.in_(TERMINAL_STATES),
        )
        found += connection.execute(query).scalars()
    return found


def advance_task(
    connection: Connection, task_id: str, *, to: TaskState, since: frozenset[TaskState], **values: Any
) -> bool:
    """Move a live task to another live state; return whether it was in one of ``since``."""
    return _run_update(connection, task_id, since, {"state": to.value, **values})


def record_cancel(connection: Connection, task_id: str, *, at_ms: int, reason: str) -> None:
    """Store that a live task is to be cancelled; the first asker's reason stays."""
    connection.execute(
        update(tasks)
        .where(tasks.c.id == task_id, tasks.c.state.in_(LIVE_STATES), tasks.c.cancel_ms.is_(None))
        .values(cancel_ms=at_ms, cancel_reason=reason)
    )


def finish_task(connection: Connection, task_id: str, end: TaskEnd) -> bool:
    """Store the one result; return False, changing nothing, when the task has one or is gone."""
    values = msgspec.structs.asdict(end)
    values["state"] = end.state.value
    values["state_reason"] = values.pop("reason")
    values["finished_ms"] = values.pop("at_ms")
    return _run_update(connection, task_id, LIVE_STATES, values)


def store_output(connection: Connection, task_id: str, chunks: list[tuple[Stream, int, bytes]]) -> None:
    """Append pieces of output, each with the offset of its first byte, and count them."""
    if not chunks:
        return
    ends: dict[str, int] = {}
    for stream, offset, data in chunks:
        _INSERT_OUTPUT.run(connection, task_id=task_id, stream=stream.value, offset=offset, data=data)
        ends[_BYTES_COLUMN[stream].name] = offset + len(data)
    _run_update(connection, task_id, None, ends)


def read_output(
    connection: Connection,
    task_id: str,
    *,
    offsets: dict[Stream, int],
    after_seq: int,
    limit_bytes: int,
) -> list[OutputChunk]:
    """Return pieces in order of arrival, from behind ``after_seq``, of the streams named in ``offsets``.

    Pieces that end at or before their stream's offset are left out, one that it cuts is cut. At least one piece is
    returned where there is one, then as many as fit in ``limit_bytes``.
    """
    query = (
        select(task_output.c.seq, task_output.c.stream, task_output.c.offset, task_output.c.data)
        .where(
            task_output.c.task_id == task_id,
            task_output.c.seq > after_seq,
            task_output.c.stream.in_([stream.value for stream in offsets]),
        )
        .order_by(task_output.c.seq)
    )
    found: list[OutputChunk] = []
    size = 0
    with connection.execute(query, execution_options={"yield_per": 64}) as rows:
        for seq, stream, offset, data in rows:
            skip = max(0, offsets[Stream(stream)] - offset)
            if skip >= len(data):
                continue
            found.append(OutputChunk(seq=seq, stream=stream, offset=offset + skip, data=data[skip:]))
            size += len(data) - skip
            if size >= limit_bytes:
                break
    return found


def delete_old_tasks(connection: Connection, *, before_ms: int, limit: int) -> int:
    """Delete up to ``limit`` tasks, with their output, that ended before ``before_ms``; return how many."""
    old = (
        select(tasks.c.id)
        .where(tasks.c.state.in_(TERMINAL_STATES), tasks.c.finished_ms < before_ms)
        .limit(limit)
        .scalar_subquery()
    )
    return connection.execute(delete(tasks).where(tasks.c.id.in_(old))).rowcount

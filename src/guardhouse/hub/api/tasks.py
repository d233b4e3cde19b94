"""Routes of tasks: ask, look, wait, follow, cancel. Runs in the hub."""

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Connection

from guardhouse.hub.api import schemas_tasks, views
from guardhouse.hub.api.concern import environment_not_found, mcp_server_not_found, task_not_found
from guardhouse.hub.api.cursors import parse_cursor, render_cursor
from guardhouse.hub.api.door import Call, Reply
from guardhouse.hub.api.environment_filter import environment_id_of
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.clock import parse_time
from guardhouse.hub.concerns import NotVisible, reach_of
from guardhouse.hub.mcp_servers import MCP_OPERATIONS
from guardhouse.hub.store import tasks as store
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.tasks import TaskRecord
from guardhouse.hub.tasks.output import follow_output
from guardhouse.hub.tasks.request import TaskRequested
from guardhouse.values import Stream

__all__ = ["cancel_task", "create_task", "follow_task_output", "list_tasks", "show_result", "show_task"]

NDJSON = "application/x-ndjson"


def _the_task(call: Call) -> TaskRecord:
    if call.task is None:
        raise task_not_found(call.path["task"])
    return call.task


async def create_task(call: Call) -> Reply:
    """Start a task; answer at once, or with the result when it comes within ``wait_s``."""
    body: schemas_tasks.TaskCreate = call.body
    query: schemas_tasks.WaitQuery = call.query
    notice = None
    if call.session is not None:
        started = await call.services.sessions.start(
            call.session.id,
            call.actor,
            environment_id=None if call.environment is None else call.environment.id,
            ask=partial(_request, call),
        )
        record, notice = started.task, started.notice
    elif call.environment is not None:
        if call.environment.kind == "cloud":
            raise ApiError(
                409,
                "session_needed",
                f"{call.environment.shown_name!r} is a session's managed sandbox",
                hint="name the session with session_id instead",
            )
        record = await call.services.board.create(_request(call, call.environment, None))
    else:
        raise environment_not_found(body.environment_id or "")
    if query.wait_s > 0:
        record = await _wait(call, record, query.wait_s)
    status = 200 if record.is_finished else 202
    view = msgspec.structs.replace(views.task_view(record, whole=True), session_notice=notice)
    return Reply(view, status=status, headers={"location": f"/api/v1/tasks/{record.id}"})


def _request(
    call: Call, environment: EnvironmentRecord, on_insert: Callable[[Connection], None] | None
) -> TaskRequested:
    body: schemas_tasks.TaskCreate = call.body
    args, server_id = _with_named_server(call, environment, body)
    return TaskRequested(
        environment=environment,
        operation=body.operation,
        args=args,
        mcp_server_id=server_id,
        idempotency_key=body.idempotency_key,
        queue_s=body.queue_s,
        profile=body.profile,
        created_by=call.actor.id,
        requested_by=call.actor.name,
        address=call.address,
        session_id=body.session_id,
        trace=call.trace,
        on_insert=on_insert,
    )


def _with_named_server(
    call: Call, environment: EnvironmentRecord, body: schemas_tasks.TaskCreate
) -> tuple[dict[str, Any], str | None]:
    """Return the arguments as they are stored, and the record that a server's name (or id) stands for."""
    named = body.args.get("server")
    if body.operation not in MCP_OPERATIONS or not isinstance(named, str):
        return body.args, None
    try:
        found = call.services.mcp_servers.choose(named, call.actor, environment)
    except NotVisible as error:
        raise mcp_server_not_found(named) from error
    return {**body.args, "server": {"name": found.name, "transport": found.transport}}, found.id


async def _wait(call: Call, record: TaskRecord, wait_s: float) -> TaskRecord:
    live = call.services.board.find(record.id)
    if live is None:
        return await call.services.board.record(record.id) or record
    with call.services.waits.at_most(wait_s):
        await live.finished.wait()
    return live.record


async def list_tasks(call: Call) -> Reply:
    """Answer one page of tasks, newest first."""
    query: schemas_tasks.TaskQuery = call.query
    environment_id = await environment_id_of(call, query.environment)
    records = await call.services.database.read(
        partial(
            store.list_tasks,
            environment_id=environment_id,
            state=query.state,
            text=query.text,
            executed=query.executed,
            operation=query.operation,
            session_id=query.session_id,
            origin=query.origin,
            asked_by=query.asked_by,
            since_ms=_time("since", query.since),
            until_ms=_time("until", query.until),
            before=parse_cursor(query.cursor),
            limit=query.limit + 1,
            reach=reach_of(call.actor),
        )
    )
    page = records[: query.limit]
    more = len(records) > query.limit
    return Reply(
        schemas_tasks.TaskList(
            tasks=[views.task_view(record, whole=False) for record in page],
            next_cursor=render_cursor(page[-1].created_ms, page[-1].id) if more else None,
        )
    )


def _time(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_time(text)
    except ValueError as error:
        raise ApiError(400, "invalid_query", f"{name}: {error}", hint="for example 2026-11-22T09:00:00Z") from error


async def show_task(call: Call) -> Reply:
    """Answer one task as it stands."""
    return Reply(views.task_view(_the_task(call), whole=True))


async def show_result(call: Call) -> Reply:
    """Answer a task with its result (200), or as it stands after ``wait_s`` (202)."""
    query: schemas_tasks.WaitQuery = call.query
    record = _the_task(call)
    if not record.is_finished and query.wait_s > 0:
        record = await _wait(call, record, query.wait_s)
    return Reply(views.task_view(record, whole=True), status=200 if record.is_finished else 202)


async def follow_task_output(call: Call) -> Reply:
    """Answer a task's output as lines of JSON, from an offset, to the end when asked to follow."""
    query: schemas_tasks.OutputQuery = call.query
    record = _the_task(call)
    if query.stream == "both":
        if query.offset:
            raise ApiError(
                400,
                "invalid_query",
                "offset needs one stream",
                hint="name it with stream=, or use stdout_offset and stderr_offset",
            )
        offsets = {Stream.STDOUT: query.stdout_offset, Stream.STDERR: query.stderr_offset}
    else:
        stream = Stream(query.stream)
        own = query.stdout_offset if stream is Stream.STDOUT else query.stderr_offset
        offsets = {stream: query.offset or own}
    services = call.services
    lines = follow_output(
        services.database, services.board, services.waits, record.id, offsets=offsets, follow=query.follow
    )
    return Reply(lines, media_type=NDJSON, headers={"x-accel-buffering": "no"})


async def cancel_task(call: Call) -> Reply:
    """Ask for a stop: 202 while the task ends, 200 when it has ended already."""
    body: schemas_tasks.CancelRequest = call.body
    reason = body.reason or f"cancelled by {call.actor.name}"
    record = await call.services.board.cancel(
        call.path["task"], actor=call.actor.id, address=call.address, reason=reason
    )
    if record is None:
        raise task_not_found(call.path["task"])
    return Reply(views.task_view(record, whole=False), status=200 if record.is_finished else 202)

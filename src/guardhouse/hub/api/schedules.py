"""Routes of tasks that start later: ask, look, cancel. Runs in the hub."""

from functools import partial
from typing import Any, Final, cast

from guardhouse.hub.api import schemas_runs, schemas_tasks
from guardhouse.hub.api.concern import check_is_no_sandbox, environment_not_found
from guardhouse.hub.api.cursors import parse_cursor, render_cursor
from guardhouse.hub.api.door import Call, Reply
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.clock import iso_time, now_ms, parse_time
from guardhouse.hub.concerns import NotVisible, check_sees, reach_of
from guardhouse.hub.credentials import mint_id
from guardhouse.hub.store import schedules as store
from guardhouse.hub.store.schedules import ScheduleRecord
from guardhouse.hub.tasks.request import check_args, command_summary, request_digest
from guardhouse.hub.tasks.schedule_plan import ScheduleState

__all__ = ["cancel_schedule", "create_schedule", "list_schedules", "show_schedule"]

# How far ahead, and how late a request may be for its own time (clocks differ).
_AHEAD_MAX_MS: Final = 366 * 86_400_000
_LATE_MAX_MS: Final = 60_000


async def create_schedule(call: Call) -> Reply:
    """Let an operation start later."""
    body: schemas_runs.ScheduleCreate = call.body
    environment = call.environment
    if environment is None:
        raise environment_not_found(body.environment_id)
    check_is_no_sandbox(environment)
    args = check_args(body.operation, body.args).encoded
    at_ms = now_ms()
    run_at_ms = _run_at(body.run_at, at_ms)
    record = await call.services.schedules.create(
        ScheduleRecord(
            id=mint_id("sch"),
            environment_id=environment.id,
            environment_name=environment.shown_name,
            operation=body.operation,
            args=args,
            command=command_summary(body.operation, body.args),
            profile=body.profile,
            session_id=body.session_id,
            run_at_ms=run_at_ms,
            grace_ms=int(body.grace_s * 1000),
            idempotency_key=body.idempotency_key,
            request_digest=request_digest(
                environment.id, body.operation, body.args, body.profile, body.session_id, run_at_ms, body.grace_s
            ),
            created_by=call.actor.id,
            requested_by=call.actor.name,
            address=call.address,
            created_ms=at_ms,
        )
    )
    return Reply(schedule_view(record), status=201, headers={"location": f"/api/v1/schedules/{record.id}"})


def _run_at(text: str, at_ms: int) -> int:
    try:
        found = parse_time(text)
    except (ValueError, OverflowError) as error:
        raise ApiError(400, "invalid_body", f"run_at: {error}", hint="for example 2026-12-01T02:00:00Z") from error
    if found < at_ms - _LATE_MAX_MS:
        raise ApiError(400, "invalid_body", f"run_at {text!r} has passed", hint="start a task at once")
    if found > at_ms + _AHEAD_MAX_MS:
        raise ApiError(400, "invalid_body", f"run_at {text!r} is over a year ahead", hint="choose an earlier time")
    return found


async def list_schedules(call: Call) -> Reply:
    """Answer one page of schedules, the latest start first."""
    query: schemas_runs.ScheduleQuery = call.query
    environment_id = None
    if query.environment is not None:
        found = await call.services.links.lookup(query.environment)
        if found is None:
            raise environment_not_found(query.environment)
        try:
            check_sees(call.actor, found)
        except NotVisible as error:
            raise environment_not_found(query.environment) from error
        environment_id = found.id
    records = await call.services.database.read(
        partial(
            store.list_schedules,
            state=query.state,
            environment_id=environment_id,
            after=parse_cursor(query.cursor),
            limit=query.limit + 1,
            reach=reach_of(call.actor),
        )
    )
    page = records[: query.limit]
    return Reply(
        schemas_runs.ScheduleList(
            schedules=[schedule_view(record) for record in page],
            next_cursor=render_cursor(page[-1].run_at_ms, page[-1].id) if len(records) > query.limit else None,
        )
    )


async def show_schedule(call: Call) -> Reply:
    """Answer one schedule as it stands."""
    return Reply(schedule_view(cast(ScheduleRecord, call.schedule)))


async def cancel_schedule(call: Call) -> Reply:
    """Cancel a schedule that waits; one that has started is a task, which is cancelled as such (409)."""
    body: schemas_tasks.CancelRequest = call.body
    record = cast(ScheduleRecord, call.schedule)
    await call.services.schedules.cancel(
        record.id,
        actor=call.actor.id,
        address=call.address,
        reason=body.reason or f"cancelled by {call.actor.name}",
    )
    found = await call.services.database.read(partial(store.find_schedule, schedule_id=record.id)) or record
    if found.state == ScheduleState.STARTED:
        raise ApiError(
            409, "already_started", f"schedule {found.id} has started", hint=f"cancel its task {found.task_id}"
        )
    return Reply(schedule_view(found))


def schedule_view(record: ScheduleRecord) -> schemas_runs.Schedule:
    """Return a schedule as the interface shows it."""
    return schemas_runs.Schedule(
        id=record.id,
        environment_id=record.environment_id,
        environment_name=record.environment_name,
        operation=record.operation,
        command=record.command,
        run_at=cast(str, iso_time(record.run_at_ms)),
        grace_s=record.grace_ms / 1000,
        state=cast(Any, record.state),
        reason=record.reason,
        task_id=record.task_id,
        profile=record.profile,
        session_id=record.session_id,
        requested_by=record.created_by,
        created_at=cast(str, iso_time(record.created_ms)),
        decided_at=iso_time(record.decided_ms),
    )

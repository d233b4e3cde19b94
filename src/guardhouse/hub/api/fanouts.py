"""Routes of fan-outs: ask, look, follow, cancel. Runs in the hub."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any, cast

import msgspec
import trio

from guardhouse.hub.api import schemas_runs, schemas_tasks
from guardhouse.hub.api.cursors import parse_cursor, render_cursor
from guardhouse.hub.api.door import Call, Reply
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.api.events import EVENT_STREAM, KEEPALIVE_S, STREAM_MAX_S, STREAMS_MAX, render_event
from guardhouse.hub.clock import iso_time, now_ms
from guardhouse.hub.concerns import reach_of
from guardhouse.hub.credentials import mint_id
from guardhouse.hub.store import fanouts as store
from guardhouse.hub.store.fanouts import ChildRecord, FanoutRecord
from guardhouse.hub.tasks.fanout_plan import FanoutState
from guardhouse.hub.tasks.request import check_args, command_summary, request_digest

__all__ = ["cancel_fanout", "create_fanout", "follow_fanout", "list_fanout_children", "list_fanouts", "show_fanout"]


async def create_fanout(call: Call) -> Reply:
    """Start an operation in every environment that has the tags, or that is named."""
    body: schemas_runs.FanoutCreate = call.body
    args = check_args(body.operation, body.args).encoded
    chosen = list(call.environments)
    if body.online_only:
        chosen = [one for one in chosen if _is_online(call, one[0])]
    if not chosen:
        raise ApiError(
            409,
            "no_environment",
            "no environment that you may use has these tags" + (" and is online" if body.online_only else ""),
            hint="'guardhouse env list --tag' shows who has one",
        )
    fanout_id = mint_id("fan")
    record = FanoutRecord(
        id=fanout_id,
        operation=body.operation,
        args=args,
        command=command_summary(body.operation, body.args),
        profile=body.profile,
        session_id=body.session_id,
        tags=msgspec.json.encode(sorted(set(body.tags))).decode(),
        parallel=body.parallel,
        stop_after=body.stop_after,
        queue_ms=int(body.queue_s * 1000),
        idempotency_key=body.idempotency_key,
        request_digest=request_digest(
            body.operation,
            body.args,
            body.profile,
            body.session_id,
            sorted(set(body.tags)),
            body.environments,
            body.parallel,
            body.stop_after,
            body.online_only,
        ),
        created_by=call.actor.id,
        requested_by=call.actor.name,
        address=call.address,
        created_ms=now_ms(),
    )
    children = [
        ChildRecord(fanout_id=fanout_id, position=position, environment_id=environment_id, environment_name=name)
        for position, (environment_id, name) in enumerate(chosen)
    ]
    created = await call.services.fanouts.create(record, children)
    return Reply(await _view(call, created), status=202, headers={"location": f"/api/v1/fanouts/{created.id}"})


def _is_online(call: Call, environment_id: str) -> bool:
    link = call.services.links.find(environment_id)
    return link is not None and link.is_ready


async def list_fanouts(call: Call) -> Reply:
    """Answer one page of fan-outs, newest first: one's own, or everybody's for who sees everything."""
    query: schemas_runs.FanoutQuery = call.query
    records = await call.services.database.read(
        partial(
            store.list_fanouts,
            state=query.state,
            before=parse_cursor(query.cursor),
            limit=query.limit + 1,
            reach=reach_of(call.actor),
        )
    )
    page = records[: query.limit]
    counts = await call.services.database.read(partial(store.count_children, fanout_ids=[one.id for one in page]))
    return Reply(
        schemas_runs.FanoutList(
            fanouts=[fanout_view(record, counts[record.id]) for record in page],
            next_cursor=render_cursor(page[-1].created_ms, page[-1].id) if len(records) > query.limit else None,
        )
    )


async def show_fanout(call: Call) -> Reply:
    """Answer one fan-out as it stands."""
    return Reply(await _view(call, _the_fanout(call)))


async def list_fanout_children(call: Call) -> Reply:
    """Answer one page of a fan-out's environments, in their order."""
    query: schemas_runs.FanoutChildQuery = call.query
    record = _the_fanout(call)
    live = call.services.fanouts.find(record.id)
    if live is not None:
        found = live.children[query.after + 1 : query.after + 2 + query.limit]
    else:
        found = await call.services.database.read(
            partial(store.list_children, fanout_id=record.id, after=query.after, limit=query.limit + 1)
        )
    page = found[: query.limit]
    return Reply(
        schemas_runs.FanoutChildList(
            children=[child_view(child) for child in page],
            next_after=page[-1].position if len(found) > query.limit else None,
        )
    )


async def cancel_fanout(call: Call) -> Reply:
    """Let nothing else start and cancel what runs: 202 while it ends, 200 when it has ended already."""
    body: schemas_tasks.CancelRequest = call.body
    record = _the_fanout(call)
    await call.services.fanouts.cancel(
        record.id,
        actor=call.actor.id,
        address=call.address,
        reason=body.reason or f"cancelled by {call.actor.name}",
    )
    found = await call.services.fanouts.record(record.id) or record
    return Reply(await _view(call, found), status=202 if found.state == FanoutState.RUNNING else 200)


async def follow_fanout(call: Call) -> Reply:
    """Answer a fan-out's progress as server-sent events: ``child`` as each changes, ``progress``, and ``end``.

    A stream begins with every child as it stands, so one that broke is simply asked for again.
    """
    if call.services.event_streams >= STREAMS_MAX:
        raise ApiError(429, "too_many_streams", f"{STREAMS_MAX} event streams are open", retryable=True)
    return Reply(_follow(call, _the_fanout(call)), media_type=EVENT_STREAM, headers={"x-accel-buffering": "no"})


async def _follow(call: Call, record: FanoutRecord) -> AsyncIterator[bytes]:
    services = call.services
    services.event_streams += 1
    try:
        deadline_s = trio.current_time() + STREAM_MAX_S
        live = services.fanouts.find(record.id)
        version = -1
        yield b"retry: 2000\n\n"
        while live is not None and not services.is_stopping and trio.current_time() < deadline_s:
            changed = live.changed
            since, version = version, live.version
            for child in live.changes_since(since):
                yield render_event("child", msgspec.to_builtins(child_view(child)))
            yield render_event("progress", msgspec.to_builtins(fanout_view(live.record, _counts(live.children))))
            if live.record.state != FanoutState.RUNNING:
                break
            with services.waits.at_most(KEEPALIVE_S) as waiting:
                await changed.wait()
            if waiting.cancelled_caught and not services.is_stopping:
                yield b": keepalive\n\n"
        found = await services.fanouts.record(record.id) or record
        if live is None:
            for child in await services.database.read(partial(store.list_children, fanout_id=record.id)):
                yield render_event("child", msgspec.to_builtins(child_view(child)))
        if found.state != FanoutState.RUNNING:
            yield render_event("end", msgspec.to_builtins(await _view(call, found)))
    finally:
        services.event_streams -= 1


def _the_fanout(call: Call) -> FanoutRecord:
    return cast(FanoutRecord, call.fanout)


def _counts(children: list[ChildRecord]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for child in children:
        counts[child.state] = counts.get(child.state, 0) + 1
    return counts


async def _view(call: Call, record: FanoutRecord) -> schemas_runs.Fanout:
    live = call.services.fanouts.find(record.id)
    if live is not None:
        return fanout_view(live.record, _counts(live.children))
    counts = await call.services.database.read(partial(store.count_children, fanout_ids=[record.id]))
    return fanout_view(record, counts[record.id])


def fanout_view(record: FanoutRecord, counts: dict[str, int]) -> schemas_runs.Fanout:
    """Return a fan-out as the interface shows it; ``counts`` are its children by state."""
    return schemas_runs.Fanout(
        id=record.id,
        operation=record.operation,
        command=record.command,
        state=cast(Any, record.state),
        reason=record.reason,
        finished=record.state != FanoutState.RUNNING,
        tags=msgspec.json.decode(record.tags, type=list[str]),
        parallel=record.parallel,
        stop_after=record.stop_after,
        queue_s=record.queue_ms / 1000,
        profile=record.profile,
        session_id=record.session_id,
        requested_by=record.created_by,
        counts=schemas_runs.FanoutCounts(**counts),
        total=sum(counts.values()),
        created_at=cast(str, iso_time(record.created_ms)),
        cancel_requested_at=iso_time(record.cancel_ms),
        finished_at=iso_time(record.finished_ms),
    )


def child_view(child: ChildRecord) -> schemas_runs.FanoutChild:
    """Return one environment of a fan-out."""
    return schemas_runs.FanoutChild(
        position=child.position,
        environment_id=child.environment_id,
        environment_name=child.environment_name,
        state=cast(Any, child.state),
        task_id=child.task_id,
        task_state=child.task_state,
        exit_code=child.exit_code,
        error=child.error,
        started_at=iso_time(child.started_ms),
        finished_at=iso_time(child.finished_ms),
    )

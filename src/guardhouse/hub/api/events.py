"""What changes, as server-sent events: the audit log's records as they come, and runners that come and go.

Each event is small: what happened to which id; whoever wants more asks the route of that thing. Runs in the hub.
"""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import msgspec
import trio

from guardhouse.hub.api.door import Call, Reply
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.api.session_concern import sees_session
from guardhouse.hub.audit.chain import AuditRecord
from guardhouse.hub.authorize import Principal
from guardhouse.hub.clock import iso_time, now_ms
from guardhouse.hub.concerns import NotVisible, check_sees_resource, check_sees_work, reach_of
from guardhouse.hub.store import audit, environments

__all__ = ["EVENT_STREAM", "KEEPALIVE_S", "STREAMS_MAX", "STREAM_MAX_S", "EventQuery", "render_event", "stream_events"]

EVENT_STREAM = "text/event-stream"
STREAMS_MAX = 200
KEEPALIVE_S = 15.0
# Then the browser comes back by itself, with the last id, and is asked again who it is.
STREAM_MAX_S = 300.0
PAGE_RECORDS = 200
# Of no environment; their detail has the team that sees the resource. A refused upload is nobody's resource.
_OF_RESOURCES = frozenset(
    {
        *("skill.create", "skill.upload", "skill.update", "skill.delete", "skill.version.delete"),
        *("mcp_server.create", "mcp_server.update", "mcp_server.delete"),
    }
)


class EventQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Behind which record to begin; without it, and without ``Last-Event-ID``, with what comes from now on."""

    after: int | None = None


async def stream_events(call: Call) -> Reply:
    """Answer changes as they come: ``id`` is the audit record's number, ``event`` its action; ``presence`` has none.

    Events are those of environments that the caller sees and of what they asked for; owners and admins get all.
    """
    query: EventQuery = call.query
    services = call.services
    if services.event_streams >= STREAMS_MAX:
        raise ApiError(429, "too_many_streams", f"{STREAMS_MAX} event streams are open", retryable=True)
    after = query.after if query.after is not None else call.last_event_id
    if after is None:
        after = (await services.database.read(audit.read_audit_head))[0]
    return Reply(_stream(call, after), media_type=EVENT_STREAM, headers={"x-accel-buffering": "no"})


async def _stream(call: Call, after: int) -> AsyncIterator[bytes]:
    services = call.services
    services.event_streams += 1
    try:
        deadline_s = trio.current_time() + STREAM_MAX_S
        seen_presence = services.links.presence_number
        yield b"retry: 2000\n\n"
        while not services.is_stopping and trio.current_time() < deadline_s:
            changed = services.database.changed
            records = await services.database.read(partial(audit.list_audit_page, after=after, limit=PAGE_RECORDS))
            for record in records:
                after = record.seq
                if await _may_hear(call, call.actor, record):
                    yield render_event(record.action, _facts(record), number=record.seq)
            for number, environment_id, connected in services.links.presence_since(seen_presence):
                seen_presence = number
                if await _sees(call, call.actor, environment_id, ()):
                    yield render_event("presence", await _presence(call, environment_id, connected=connected))
            if records:
                continue
            with services.waits.at_most(KEEPALIVE_S) as waiting:
                await changed.wait()
            if waiting.cancelled_caught and not services.is_stopping:
                yield b": keepalive\n\n"
    finally:
        services.event_streams -= 1


async def _may_hear(call: Call, actor: Principal, record: AuditRecord) -> bool:
    """Whether a record's event is for this caller.

    What is of a session, a skill or an MCP server is for those who see that; what else is of no environment is for
    admins, and for whoever did it.
    """
    if record.action.startswith("session.") and record.target is not None and record.actor != actor.id:
        return await sees_session(call, record.target)
    if record.environment is None:
        own = record.actor == actor.id
        return own or (actor.is_admin and reach_of(actor).is_everything) or _sees_resource(actor, record)
    return await _sees(call, actor, record.environment, (record.actor,))


def _sees_resource(actor: Principal, record: AuditRecord) -> bool:
    """Whether a record is of a resource that its reader sees, by the team that this had then or got by the change."""
    if record.action not in _OF_RESOURCES:
        return False
    try:
        detail = msgspec.json.decode(record.detail.encode("utf-8", "surrogatepass"), type=_Resource)
        check_sees_resource(actor, detail.team)
    except (NotVisible, msgspec.DecodeError):
        return False
    return True


class _Resource(msgspec.Struct):
    """What the detail of a resource's record says of who sees it: a team's id, or None for the account's."""

    team: str | None


async def _sees(call: Call, actor: Principal, environment_id: str, asked_by: tuple[str, ...]) -> bool:
    try:
        check_sees_work(actor, await call.services.links.lookup(environment_id), asked_by=asked_by)
    except NotVisible:
        return False
    return True


async def _presence(call: Call, environment_id: str, *, connected: bool) -> dict[str, Any]:
    """Return how an environment is now; several changes in a row may be told by the last state."""
    facts: dict[str, Any] = {"environment": environment_id, "connected": connected}
    record = await call.services.database.read(partial(environments.find_environment, id_or_name=environment_id))
    if record is not None:
        found = call.services.presence(record, at_ms=now_ms())
        facts |= {"status": found.status, "status_reason": found.reason}
    return facts


def _facts(record: AuditRecord) -> dict[str, Any]:
    return {
        "seq": record.seq,
        "at": iso_time(record.at_ms),
        "actor": record.actor,
        "target": record.target,
        "environment": record.environment,
        "task": record.task,
    }


def render_event(name: str, facts: dict[str, Any], *, number: int | None = None) -> bytes:
    """Return one server-sent event; ``number`` is what a client that comes back begins behind."""
    data = msgspec.json.encode(facts)
    head = f"id: {number}\n".encode() if number is not None else b""
    return head + f"event: {name}\n".encode() + b"data: " + data + b"\n\n"

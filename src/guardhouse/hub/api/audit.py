"""Routes of the audit log: search, export, the key to verify with. Runs in the hub."""

from collections.abc import AsyncIterator
from functools import partial

from sqlalchemy import Connection

from guardhouse.hub.api import schemas_audit, views
from guardhouse.hub.api.door import Call, Reply
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.audit.chain import GENESIS, AuditSigner
from guardhouse.hub.audit.export import end_line, iter_export_lines, start_line
from guardhouse.hub.clock import now_ms, parse_time
from guardhouse.hub.database import Database
from guardhouse.hub.store import audit, people, tokens
from guardhouse.hub.store.audit import AuditSearch

__all__ = ["export_audit", "list_audit", "show_audit_key"]

NDJSON = "application/x-ndjson"
# Records read and sent at a time, so that a slow reader holds no view of the store.
PAGE_RECORDS = 1_000


async def list_audit(call: Call) -> Reply:
    """Answer one page of the audit log, newest first."""
    query: schemas_audit.AuditQuery = call.query
    search = AuditSearch(
        actor=query.actor,
        actors=None if query.person is None else await _ids_of(call, query.person),
        action=query.action,
        target=query.target,
        environment=query.environment,
        task=query.task,
        command=query.command,
        executed=query.executed,
        text=query.text,
        since_ms=_time("since", query.since),
        until_ms=_time("until", query.until),
    )
    records = await call.services.database.read(
        partial(audit.list_audit_events, before=query.before, limit=query.limit + 1, search=search)
    )
    page = records[: query.limit]
    return Reply(
        schemas_audit.AuditList(
            events=[views.audit_view(record) for record in page],
            next_before=page[-1].seq if len(records) > query.limit else None,
        )
    )


async def _ids_of(call: Call, reference: str) -> tuple[str, ...]:
    """Return a person's id and those of all API tokens that were ever theirs."""

    def find(connection: Connection) -> tuple[str, ...]:
        person = people.find_person(connection, reference)
        if person is None:
            return (reference,)
        own = [record.id for record in tokens.list_api_tokens(connection) if record.person_id == person.id]
        return (person.id, *own)

    return await call.services.database.read(find)


def _time(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_time(text)
    except ValueError as error:
        raise ApiError(400, "invalid_query", f"{name}: {error}", hint="for example 2026-11-22T09:00:00Z") from error


async def show_audit_key(call: Call) -> Reply:
    """Answer the public key that the audit log is signed with; keep it elsewhere and verify with it."""
    signer = call.services.audit.signer
    return Reply(schemas_audit.AuditKey(public_key=signer.public_text, key_id=signer.key_id))


async def export_audit(call: Call) -> Reply:
    """Answer the audit log as lines of JSON, oldest first, with its checkpoints and a signed last line."""
    query: schemas_audit.AuditExportQuery = call.query
    services = call.services
    at_ms = now_ms()

    def begin(connection: Connection) -> tuple[int, bytes, bytes]:
        # The export is a deed like any other; it ends with the record of itself.
        audit.record_audit_event(
            connection,
            at_ms=at_ms,
            actor=call.actor.id,
            action="audit.export",
            target=None,
            address=call.address,
            after=query.after,
        )
        last, last_hash = audit.read_audit_head(connection)
        before = next(iter(audit.list_audit_events(connection, before=query.after + 1, limit=1)), None)
        if query.after and (before is None or before.seq != query.after):
            raise ApiError(
                404, "record_not_found", f"there is no record {query.after}", hint="give the last one you have"
            )
        return last, last_hash, before.hash if before is not None else GENESIS

    last, last_hash, previous = await services.database.write(begin)
    await services.audit.checkpoint()
    lines = _export(
        services.database, services.audit.signer, after=query.after, last=last, last_hash=last_hash, previous=previous
    )
    return Reply(lines, media_type=NDJSON, headers={"x-accel-buffering": "no"})


async def _export(
    database: Database, signer: AuditSigner, *, after: int, last: int, last_hash: bytes, previous: bytes
) -> AsyncIterator[bytes]:
    yield start_line(signer, first_seq=after + 1, previous=previous)
    position = after
    while position < last:
        until = min(last, position + PAGE_RECORDS)

        def page(connection: Connection, *, after: int = position, until: int = until) -> bytes:
            return b"".join(iter_export_lines(connection, after=after, until=until))

        found = await database.read(page)
        if found:
            yield found
        position = until
    yield end_line(signer.export_end(first_seq=after + 1, last_seq=last, at_ms=now_ms(), hash_=last_hash))

"""Who did what: one row for each change and each look at a secret, written in the transaction of the deed itself.

Knows nothing of who may read it. Runs in the hub's store threads.
"""

from typing import Any, Final

import msgspec
from sqlalchemy import Connection, insert, select

from guardhouse.hub.schema import ACCOUNT_ID, audit_events
from guardhouse.hub.store.prepared import PreparedStatement

__all__ = ["AuditRecord", "list_audit_events", "record_audit_event"]

_INSERT: Final = PreparedStatement(
    insert(audit_events), columns=["account_id", "at_ms", "actor", "action", "target", "address", "detail"]
)


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One deed. ``actor`` is a token's id, ``runner`` or ``hub``; ``target`` an id."""

    seq: int
    at_ms: int
    actor: str
    action: str
    target: str | None
    address: str | None
    detail: dict[str, Any]


def record_audit_event(
    connection: Connection,
    *,
    at_ms: int,
    actor: str,
    action: str,
    target: str | None,
    address: str | None,
    **detail: object,
) -> None:
    """Store one deed; ``detail`` never holds a secret."""
    _INSERT.run(
        connection,
        account_id=ACCOUNT_ID,
        at_ms=at_ms,
        actor=actor,
        action=action,
        target=target,
        address=address,
        detail=msgspec.json.encode(detail).decode(),
    )


def list_audit_events(connection: Connection, *, before: int | None, limit: int) -> list[AuditRecord]:
    """Return up to ``limit`` deeds older than sequence number ``before``, newest first."""
    query = select(*[audit_events.c[name] for name in AuditRecord.__struct_fields__])
    if before is not None:
        query = query.where(audit_events.c.seq < before)
    rows = connection.execute(query.order_by(audit_events.c.seq.desc()).limit(limit)).mappings()
    return [AuditRecord(**{**row, "detail": msgspec.json.decode(row["detail"])}) for row in rows]

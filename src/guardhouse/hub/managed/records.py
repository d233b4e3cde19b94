"""The record of every managed sandbox, in memory as in the store, and what the audit log is told of them.

Runs in the hub.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Connection

from guardhouse.hub.clock import now_ms
from guardhouse.hub.database import Database
from guardhouse.hub.store import audit, tokens
from guardhouse.hub.store import managed as store
from guardhouse.hub.store.managed import SandboxRecord
from guardhouse.hub.store.sessions import SessionRecord

__all__ = ["SandboxRecords"]


class SandboxRecords:
    """Every sandbox by the id of its environment. `load` first."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._records: dict[str, SandboxRecord] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[SandboxRecord]:
        return iter(list(self._records.values()))

    def __contains__(self, environment_id: str) -> bool:
        return environment_id in self._records

    def find(self, environment_id: str) -> SandboxRecord | None:
        """Return a sandbox, or None."""
        return self._records.get(environment_id)

    @property
    def size_bytes(self) -> int:
        """What all of them hold."""
        return sum(record.size_bytes for record in self._records.values())

    async def load(self) -> None:
        """Read what an earlier hub left."""
        for record in await self._database.read(store.list_sandboxes):
            self._records[record.environment_id] = record

    def add(self, record: SandboxRecord) -> None:
        """Count a sandbox that is being made, before it is stored."""
        self._records[record.environment_id] = record

    def drop(self, environment_id: str) -> SandboxRecord | None:
        """Count a sandbox no more, and return it; `delete` takes it out of the store."""
        return self._records.pop(environment_id, None)

    async def insert(
        self, record: SandboxRecord, session: SessionRecord, token: tokens.RunnerTokenRecord, *, actor: str
    ) -> None:
        """Store a new sandbox, as an environment that whoever sees its session sees, with its runner's token."""

        def insert(connection: Connection) -> None:
            store.insert_sandbox(
                connection,
                record,
                name=f"sandbox-{record.environment_id[-8:]}",
                owner=session.owner if session.scope == "personal" else None,
                team_id=session.team_id,
                created_by="hub",
            )
            tokens.insert_runner_token(connection, token)
            _note(connection, "sandbox.create", record, at_ms=record.created_ms, actor=actor)

        await self._database.write(insert)

    async def update(self, environment_id: str, *, durable: bool = True, **values: Any) -> SandboxRecord:
        """Change members of a record, in memory and in the store."""
        record = msgspec.structs.replace(self._records[environment_id], **values)
        self._records[environment_id] = record
        update = partial(store.update_sandbox, environment_id=environment_id, **values)
        await self._database.write(update, durable=durable)
        return record

    async def delete(self, record: SandboxRecord) -> None:
        """Take a sandbox out of the store."""
        at_ms = now_ms()

        def remove(connection: Connection) -> None:
            store.delete_sandbox(connection, record.environment_id)
            _note(connection, "sandbox.delete", record, at_ms=at_ms, actor="hub")

        await self._database.write(remove)

    def tell(self, action: str, record: SandboxRecord, **detail: Any) -> None:
        """Put into the audit log, soon, what the hub did with a sandbox."""
        self._database.write_soon(partial(_note, action=action, record=record, at_ms=now_ms(), actor="hub", **detail))


def _note(connection: Connection, action: str, record: SandboxRecord, *, at_ms: int, actor: str, **detail: Any) -> None:
    audit.record_audit_event(
        connection,
        at_ms=at_ms,
        actor=actor,
        action=action,
        target=record.environment_id,
        address=None,
        environment=record.environment_id,
        session=record.session_id,
        **detail,
    )

"""Managed sandboxes as they are stored: whose each is, how it stands, what was lost; and what all of them may reach.

Runs in the hub's store threads.
"""

from typing import Any, Final, Literal

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from guardhouse.hub.managed.settings import Domain
from guardhouse.hub.schema import ACCOUNT_ID, environment_tags, environments, managed_domains, managed_sandboxes

__all__ = [
    "SandboxRecord",
    "delete_sandbox",
    "insert_sandbox",
    "list_domains",
    "list_sandboxes",
    "share_sandbox",
    "store_domains",
    "update_sandbox",
]


class SandboxRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One row. Times are Unix ms.

    Attributes:
        state: ``running`` while its runner should run, ``frozen`` when it was ended, ``reclaimed`` when the files are
            deleted.
        size_bytes, files: of its workspace, as last measured.
        loss: what its session must be told of files that were deleted; kept once it was told.
        is_told: whether the loss was said in the answer of a task.
    """

    environment_id: str
    session_id: str
    state: Literal["running", "frozen", "reclaimed"]
    created_ms: int
    active_ms: int
    size_bytes: int = 0
    files: int = 0
    loss: str | None = None
    is_told: bool = True


_COLUMNS: Final = [managed_sandboxes.c[name] for name in SandboxRecord.__struct_fields__]


def insert_sandbox(
    connection: Connection, record: SandboxRecord, *, name: str, owner: str | None, team_id: str | None, created_by: str
) -> None:
    """Store a sandbox and its environment.

    Args:
        owner: the person or token whose personal session it is for: only they, owners and admins see it.
        team_id: of a team's session.
    """
    connection.execute(
        insert(environments).values(
            id=record.environment_id,
            account_id=ACCOUNT_ID,
            name=name,
            team_id=team_id,
            kind="cloud",
            owner=owner,
            tags="[]",
            created_ms=record.created_ms,
            created_by=created_by,
        )
    )
    connection.execute(insert(managed_sandboxes).values(**msgspec.structs.asdict(record)))


def list_sandboxes(connection: Connection) -> list[SandboxRecord]:
    """Return every sandbox, oldest first."""
    query = select(*_COLUMNS).order_by(managed_sandboxes.c.created_ms)
    return [SandboxRecord(**row) for row in connection.execute(query).mappings()]


def update_sandbox(connection: Connection, environment_id: str, **values: Any) -> None:
    """Change a sandbox."""
    here = managed_sandboxes.c.environment_id == environment_id
    connection.execute(update(managed_sandboxes).where(here).values(**values))


def share_sandbox(connection: Connection, environment_id: str, *, owner: str | None, team_id: str | None) -> None:
    """Let another circle of people see a sandbox: its session was shared, or is no more."""
    here = environments.c.id == environment_id
    of_ours = environments.c.kind == "cloud"
    connection.execute(update(environments).where(here, of_ours).values(owner=owner, team_id=team_id))


def delete_sandbox(connection: Connection, environment_id: str) -> bool:
    """Delete a sandbox with its environment and tokens; return whether it was there."""
    connection.execute(delete(managed_sandboxes).where(managed_sandboxes.c.environment_id == environment_id))
    connection.execute(delete(environment_tags).where(environment_tags.c.environment_id == environment_id))
    return bool(connection.execute(delete(environments).where(environments.c.id == environment_id)).rowcount)


def list_domains(connection: Connection) -> tuple[Domain, ...]:
    """Return what managed sandboxes of the account may reach."""
    text = connection.execute(
        select(managed_domains.c.domains).where(managed_domains.c.account_id == ACCOUNT_ID)
    ).scalar_one_or_none()
    return tuple(msgspec.json.decode(text, type=list[Domain])) if text is not None else ()


def store_domains(connection: Connection, domains: tuple[Domain, ...], *, at_ms: int, actor: str) -> None:
    """Store what managed sandboxes of the account may reach from their next start on."""
    connection.execute(delete(managed_domains).where(managed_domains.c.account_id == ACCOUNT_ID))
    connection.execute(
        insert(managed_domains).values(
            account_id=ACCOUNT_ID, domains=msgspec.json.encode(domains).decode(), set_ms=at_ms, set_by=actor
        )
    )

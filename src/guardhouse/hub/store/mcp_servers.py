"""Records of MCP servers, with their secrets sealed. Runs in the hub's store threads."""

from typing import Any, Final

import msgspec
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from guardhouse.hub.schema import ACCOUNT_ID, mcp_server_checks, mcp_servers
from guardhouse.hub.store.environments import NameTaken

__all__ = [
    "McpCheckRecord",
    "McpServerRecord",
    "delete_mcp_server",
    "insert_mcp_server",
    "list_mcp_checks",
    "list_mcp_servers",
    "store_mcp_check",
    "update_mcp_server",
]


class McpServerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One row. ``args`` and ``secret_names`` are JSON as text; times are Unix ms."""

    id: str
    name: str
    name_key: str
    team_id: str | None
    environment_id: str | None
    enabled: bool
    transport: str
    command: str
    args: str
    url: str
    connect_timeout_ms: int | None
    call_timeout_ms: int | None
    secret_names: str
    sealed: bytes
    created_ms: int
    created_by: str
    updated_ms: int


class McpCheckRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a server answered in one environment when it was asked for its tools last."""

    server_id: str
    environment_id: str
    checked_ms: int
    tool_count: int | None
    error: str | None


_COLUMNS: Final = [mcp_servers.c[name] for name in McpServerRecord.__struct_fields__]
_CHECK_COLUMNS: Final = [mcp_server_checks.c[name] for name in McpCheckRecord.__struct_fields__]


def _taken(name: str) -> NameTaken:
    return NameTaken(f"MCP server name taken: {name!r} is in use in this account, letter case aside; choose another")


def insert_mcp_server(connection: Connection, record: McpServerRecord) -> None:
    """Store a new record.

    Raises:
        NameTaken: the account has one of this name.
    """
    try:
        connection.execute(insert(mcp_servers).values(account_id=ACCOUNT_ID, **msgspec.structs.asdict(record)))
    except IntegrityError as error:
        raise _taken(record.name) from error


def update_mcp_server(connection: Connection, record: McpServerRecord) -> None:
    """Store a record in the place of the one with its id.

    Raises:
        NameTaken: another one has its name.
    """
    values: dict[str, Any] = msgspec.structs.asdict(record)
    try:
        connection.execute(update(mcp_servers).where(mcp_servers.c.id == values.pop("id")).values(**values))
    except IntegrityError as error:
        raise _taken(record.name) from error


def delete_mcp_server(connection: Connection, server_id: str) -> bool:
    """Delete a record; return whether it existed."""
    return bool(connection.execute(delete(mcp_servers).where(mcp_servers.c.id == server_id)).rowcount)


def list_mcp_servers(connection: Connection) -> list[McpServerRecord]:
    """Return every record, by name."""
    rows = connection.execute(select(*_COLUMNS).order_by(mcp_servers.c.name_key)).mappings()
    return [McpServerRecord(**row) for row in rows]


def list_mcp_checks(connection: Connection, server_id: str) -> list[McpCheckRecord]:
    """Return what a server answered last, in each environment where it was asked."""
    query = select(*_CHECK_COLUMNS).where(mcp_server_checks.c.server_id == server_id)
    return [McpCheckRecord(**row) for row in connection.execute(query).mappings()]


def store_mcp_check(connection: Connection, check: McpCheckRecord) -> None:
    """Store what a server answered, in the place of what it answered before."""
    connection.execute(
        delete(mcp_server_checks).where(
            mcp_server_checks.c.server_id == check.server_id,
            mcp_server_checks.c.environment_id == check.environment_id,
        )
    )
    connection.execute(insert(mcp_server_checks).values(**msgspec.structs.asdict(check)))

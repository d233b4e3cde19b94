"""The account's MCP servers in memory: found by name for who may use them, and filled into a task as it leaves.

A task that uses a record stores its id only. The configuration with its secrets is put into the message when the
runner is given the task, so that neither the tasks' table nor anybody who may see the task has them. Runs in the hub.
"""

from typing import Any, Final

import msgspec

from guardhouse.errors import Refusal
from guardhouse.hub.authorize import Principal
from guardhouse.hub.concerns import NotVisible, check_uses_resource
from guardhouse.hub.credentials import Sealer
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.mcp_servers import McpServerRecord

__all__ = ["MCP_OPERATIONS", "McpSecrets", "McpServerUnusable", "McpServers", "mcp_secret_owner", "seal_secrets"]

MCP_OPERATIONS: Final = frozenset({"mcp_call", "mcp_list_tools"})


class McpServerUnusable(Refusal):
    """The record that a task names was deleted, disabled or bound elsewhere."""


class McpSecrets(msgspec.Struct, frozen=True, kw_only=True):
    """What is sealed of a record: values by name, for its environment and its headers."""

    env: dict[str, str] = {}
    headers: dict[str, str] = {}

    def __repr__(self) -> str:
        return "McpSecrets(…)"


def mcp_secret_owner(server_id: str) -> str:
    """Return what a record's secrets are sealed to."""
    return f"mcp-server/{server_id}"


def seal_secrets(sealer: Sealer, server_id: str, secrets: McpSecrets) -> bytes:
    """Return secrets as they are stored."""
    return sealer.seal(msgspec.json.encode(secrets).decode(), owner=mcp_secret_owner(server_id))


class McpServers:
    """Every record, by id and by name."""

    def __init__(self, sealer: Sealer, records: list[McpServerRecord]) -> None:
        self._sealer = sealer
        self._records = {record.id: record for record in records}

    def all(self) -> list[McpServerRecord]:
        """Return every record, by name."""
        return sorted(self._records.values(), key=lambda record: record.name_key)

    def find(self, id_or_name: str) -> McpServerRecord | None:
        """Return the record with this id or name, or None."""
        found = self._records.get(id_or_name)
        if found is not None:
            return found
        key = id_or_name.lower()
        return next((record for record in self._records.values() if record.name_key == key), None)

    def put(self, record: McpServerRecord) -> None:
        """Note a stored record, new or changed."""
        self._records[record.id] = record

    def drop(self, server_id: str) -> None:
        """Forget a deleted record."""
        self._records.pop(server_id, None)

    def drop_environment(self, environment_id: str) -> None:
        """Forget the records that were bound to a deleted environment."""
        self._records = {key: one for key, one in self._records.items() if one.environment_id != environment_id}

    def secrets(self, record: McpServerRecord) -> McpSecrets:
        """Return a record's secrets.

        Raises:
            SetupError: they were not sealed with this hub's key.
        """
        opened = self._sealer.open(record.sealed, owner=mcp_secret_owner(record.id))
        return msgspec.json.decode(opened, type=McpSecrets)

    def choose(self, id_or_name: str, principal: Principal, environment: EnvironmentRecord) -> McpServerRecord:
        """Return the record that ``principal`` means, for use in ``environment``.

        Raises:
            NotVisible: there is none, or none that they may use.
            McpServerUnusable: it is disabled, or bound to another environment.
        """
        record = self.find(id_or_name)
        if record is None:
            raise NotVisible(f"no MCP server {id_or_name!r}")
        check_uses_resource(principal, record.team_id)
        _check_usable(record, environment.id)
        return record

    def complete(self, args: bytes, server_id: str, environment_id: str) -> bytes:
        """Return a task's arguments with the server's whole configuration, as the runner needs them.

        Raises:
            McpServerUnusable: the record is gone, disabled or bound elsewhere by now.
            SetupError: its secrets cannot be opened.
        """
        record = self._records.get(server_id)
        if record is None:
            raise McpServerUnusable(f"MCP server {server_id} is deleted; the task was not started")
        _check_usable(record, environment_id)
        found = msgspec.json.decode(args, type=dict[str, Any])
        return msgspec.json.encode({**found, "server": self._configuration(record)})

    def _configuration(self, record: McpServerRecord) -> dict[str, Any]:
        secrets = self.secrets(record)
        found: dict[str, Any] = {
            "name": record.name,
            "transport": record.transport,
            "command": record.command,
            "args": msgspec.json.decode(record.args, type=list[str]),
            "env": secrets.env,
            "url": record.url,
            "headers": secrets.headers,
        }
        for name, value_ms in (
            ("connect_timeout", record.connect_timeout_ms),
            ("call_timeout", record.call_timeout_ms),
        ):
            if value_ms is not None:
                found[name] = value_ms / 1000
        return found


def _check_usable(record: McpServerRecord, environment_id: str) -> None:
    if not record.enabled:
        raise McpServerUnusable(f"MCP server {record.name!r} is disabled; enable it, or use another")
    if record.environment_id is not None and record.environment_id != environment_id:
        raise McpServerUnusable(
            f"MCP server {record.name!r} is bound to environment {record.environment_id}, not {environment_id}"
        )

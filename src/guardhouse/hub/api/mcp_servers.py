"""Routes of MCP servers: records that agents use by name, with secrets that nobody reads again. Runs in the hub."""

import re
from functools import partial
from typing import Any, Final, cast
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection

from guardhouse.hub.api.concern import check_is_no_sandbox, environment_not_found, mcp_server_not_found
from guardhouse.hub.api.door import Call, Reply
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.api.schemas_mcp_servers import (
    McpServer,
    McpServerCheck,
    McpServerCreate,
    McpServerList,
    McpServerTested,
    McpServerUpdate,
    McpToolShown,
)
from guardhouse.hub.clock import iso_time, now_ms
from guardhouse.hub.concerns import NotVisible, check_sees, check_sees_resource
from guardhouse.hub.credentials import mint_id
from guardhouse.hub.mcp_servers import McpSecrets, seal_secrets
from guardhouse.hub.store import audit, teams
from guardhouse.hub.store import mcp_servers as store
from guardhouse.hub.store.mcp_servers import McpCheckRecord, McpServerRecord
from guardhouse.hub.store.tasks import TaskRecord
from guardhouse.hub.tasks.request import TaskRequested
from guardhouse.wire.operations import OPERATIONS

__all__ = [
    "create_mcp_server",
    "delete_mcp_server",
    "list_mcp_servers",
    "show_mcp_server",
    "test_mcp_server",
    "update_mcp_server",
]

MASK: Final = "********"
SERVERS_MAX: Final = 1_000
TEST_WAIT_S: Final = 75.0
# What RFC 9110 allows as a header's name, and what a shell can export.
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


async def list_mcp_servers(call: Call) -> Reply:
    """Answer every record that the caller sees."""
    return Reply(McpServerList(servers=[_view(one) for one in call.services.mcp_servers.all() if _sees(call, one)]))


def _sees(call: Call, record: McpServerRecord) -> bool:
    try:
        check_sees_resource(call.actor, record.team_id)
    except NotVisible:
        return False
    return True


async def show_mcp_server(call: Call) -> Reply:
    """Answer one record, secrets masked."""
    record = _the_server(call)
    checks = await call.services.database.read(partial(store.list_mcp_checks, server_id=record.id))
    return Reply(_view(record, checks))


async def create_mcp_server(call: Call) -> Reply:
    """Make a record."""
    body: McpServerCreate = call.body
    services = call.services
    if len(services.mcp_servers.all()) >= SERVERS_MAX:
        raise ApiError(409, "too_many_mcp_servers", f"{SERVERS_MAX} MCP servers are there", hint="remove some")
    team = None
    if body.scope.team is not None:
        team = await services.database.read(partial(teams.find_team, id_or_name=body.scope.team))
    at_ms, server_id = now_ms(), mint_id("mcp")
    secrets = McpSecrets(env=body.env, headers=body.headers)
    record = McpServerRecord(
        id=server_id,
        name=body.name,
        name_key=body.name.lower(),
        team_id=team.id if team is not None else None,
        environment_id=await _environment_id(call, body.environment),
        enabled=body.enabled,
        transport=body.transport,
        command=body.command,
        args=_json(body.args),
        url=body.url,
        connect_timeout_ms=_ms(body.connect_timeout_s),
        call_timeout_ms=_ms(body.call_timeout_s),
        secret_names=_names(secrets),
        sealed=seal_secrets(services.sealer, server_id, secrets),
        created_ms=at_ms,
        created_by=call.actor.id,
        updated_ms=at_ms,
    )
    _check(record, secrets)

    def insert(connection: Connection) -> None:
        store.insert_mcp_server(connection, record)
        _audit(connection, call, record, "mcp_server.create")

    await services.database.write(insert)
    services.mcp_servers.put(record)
    return Reply(_view(record), status=201, headers={"location": f"/api/v1/mcp-servers/{record.id}"})


async def update_mcp_server(call: Call) -> Reply:
    """Change a record; its scope stays."""
    body: McpServerUpdate = call.body
    services, record = call.services, _the_server(call)
    old = services.mcp_servers.secrets(record)
    secrets = McpSecrets(
        env=old.env if body.env is UNSET else _kept(old.env, body.env),
        headers=old.headers if body.headers is UNSET else _kept(old.headers, body.headers),
    )
    changes: dict[str, Any] = {
        name: getattr(body, name)
        for name in ("name", "transport", "command", "url", "enabled")
        if getattr(body, name) is not UNSET
    }
    if body.args is not UNSET:
        changes["args"] = _json(body.args)
    for name, value in (("connect_timeout_ms", body.connect_timeout_s), ("call_timeout_ms", body.call_timeout_s)):
        if value is not UNSET:
            changes[name] = _ms(value)
    if body.environment is not UNSET:
        changes["environment_id"] = await _environment_id(call, body.environment)
    changed = msgspec.structs.replace(
        record,
        **changes,
        secret_names=_names(secrets),
        sealed=seal_secrets(services.sealer, record.id, secrets),
        updated_ms=now_ms(),
    )
    changed = msgspec.structs.replace(changed, name_key=changed.name.lower())
    _check(changed, secrets)
    _check_not_led_away(record, changed, _stayed(old.env, body.env) + _stayed(old.headers, body.headers))

    def write(connection: Connection) -> None:
        store.update_mcp_server(connection, changed)
        given = [name for name in McpServerUpdate.__struct_fields__ if getattr(body, name) is not UNSET]
        _audit(connection, call, changed, "mcp_server.update", changed=given)

    await services.database.write(write)
    services.mcp_servers.put(changed)
    return Reply(_view(changed))


async def delete_mcp_server(call: Call) -> Reply:
    """Delete a record; tasks that wait with it fail."""
    record = _the_server(call)

    def delete(connection: Connection) -> None:
        if store.delete_mcp_server(connection, record.id):
            _audit(connection, call, record, "mcp_server.delete")

    await call.services.database.write(delete)
    call.services.mcp_servers.drop(record.id)
    return Reply(None, status=204)


async def test_mcp_server(call: Call) -> Reply:
    """Ask it for its tools in one environment; a task, like any other use of it."""
    services, record = call.services, _the_server(call)
    environment = call.environment
    if environment is None:
        raise environment_not_found(call.body.environment_id)
    task = await services.board.create(
        TaskRequested(
            environment=environment,
            operation="mcp_list_tools",
            args={"server": {"name": record.name, "transport": record.transport}},
            idempotency_key=None,
            queue_s=0,
            profile=None,
            created_by=call.actor.id,
            requested_by=call.actor.name,
            address=call.address,
            mcp_server_id=record.id,
            trace=call.trace,
        )
    )
    live = services.board.find(task.id)
    if live is not None:
        with services.waits.at_most(TEST_WAIT_S):
            await live.finished.wait()
        task = live.record
    answered = _tested(task)
    check = McpCheckRecord(
        server_id=record.id,
        environment_id=environment.id,
        checked_ms=now_ms(),
        tool_count=len(answered.tools) if answered.error is None else None,
        error=answered.error,
    )
    await services.database.write(partial(store.store_mcp_check, check=check), durable=False)
    return Reply(answered)


def _tested(task: TaskRecord) -> McpServerTested:
    error = task.error or (None if task.is_finished else f"no answer within {TEST_WAIT_S:g} s; the task goes on")
    result = msgspec.json.decode(task.result) if task.result is not None else None
    tools = [
        McpToolShown(name=one["name"], description=str(one.get("description") or ""))
        for one in (result.get("tools", []) if isinstance(result, dict) else [])
        if isinstance(one, dict) and isinstance(one.get("name"), str)
    ]
    return McpServerTested(
        environment_id=task.environment_id, task_id=task.id, tools=tools, error=None if error is None else error[:2_048]
    )


def _the_server(call: Call) -> McpServerRecord:
    if call.mcp_server is None:
        raise mcp_server_not_found(call.path["server"])
    return call.mcp_server


async def _environment_id(call: Call, reference: str | None) -> str | None:
    if reference is None:
        return None
    found = await call.services.links.lookup(reference)
    try:
        if found is None:
            raise NotVisible("there is none")
        check_sees(call.actor, found)
    except NotVisible as error:
        raise environment_not_found(reference) from error
    check_is_no_sandbox(found)
    return found.id


def _check(record: McpServerRecord, secrets: McpSecrets) -> None:
    """Refuse a record that no runner could use, with an operation's name, or with a secret where people read it."""
    if record.name_key in OPERATIONS:
        raise _invalid(f"name {record.name!r} is that of an operation of every runner; choose another")
    if record.transport == "stdio":
        if not record.command or record.url or secrets.headers:
            raise _invalid("a stdio server has a command, and neither url nor headers")
    elif not record.url or record.command or secrets.env:
        raise _invalid(f"a {record.transport} server has a url, and neither command nor env")
    if record.url:
        parts = urlsplit(record.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.password:
            raise _invalid(f"url {record.url!r} must be http(s) and carry no user: secrets belong in headers")
    for name in secrets.env:
        if not _VARIABLE.fullmatch(name):
            raise _invalid(f"env has {name!r}, which is no variable's name")
    for name, value in secrets.headers.items():
        if not _HEADER.fullmatch(name) or not value.isprintable():
            raise _invalid(f"header {name!r} or its value is none that HTTP carries")


def _check_not_led_away(old: McpServerRecord, new: McpServerRecord, stayed: list[str]) -> None:
    """Refuse to let a secret that the editor did not give go to another program, address or host than before."""
    places = ("transport", "command", "args", "url", "environment_id")
    if stayed and any(getattr(old, name) != getattr(new, name) for name in places):
        raise ApiError(
            400,
            "secrets_needed",
            f"{', '.join(sorted(stayed))} would go to another place than they were given for",
            hint="give env and headers anew with this change",
        )


def _stayed(old: dict[str, str], given: dict[str, str] | UnsetType) -> list[str]:
    """Return the names whose values were not given anew."""
    if given is UNSET:
        return list(old)
    return [name for name, value in given.items() if value in {"", MASK} and name in old]


def _invalid(message: str) -> ApiError:
    return ApiError(400, "invalid_mcp_server", message, hint="docs/mcp.md has an example")


def _kept(old: dict[str, str], new: dict[str, str]) -> dict[str, str]:
    """Return the new values; an empty one, or the mask as it was shown, keeps what was there under its name."""
    return {name: old.get(name, "") if value in {"", MASK} else value for name, value in new.items()}


def _json(words: tuple[str, ...]) -> str:
    return msgspec.json.encode(words).decode()


def _names(secrets: McpSecrets) -> str:
    return msgspec.json.encode({"env": sorted(secrets.env), "headers": sorted(secrets.headers)}).decode()


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)


def _audit(connection: Connection, call: Call, record: McpServerRecord, action: str, **more: Any) -> None:
    audit.record_audit_event(
        connection,
        at_ms=now_ms(),
        actor=call.actor.id,
        action=action,
        target=record.id,
        address=call.address,
        name=record.name,
        transport=record.transport,
        server_command=record.command,
        server_args=msgspec.json.decode(record.args),
        url=record.url,
        team=record.team_id,
        bound_to=record.environment_id,
        enabled=record.enabled,
        secret_names=msgspec.json.decode(record.secret_names),
        **more,
    )


def _view(record: McpServerRecord, checks: list[McpCheckRecord] | None = None) -> McpServer:
    names = msgspec.json.decode(record.secret_names, type=dict[str, list[str]])
    return McpServer(
        id=record.id,
        name=record.name,
        transport=cast(Any, record.transport),
        command=record.command,
        args=msgspec.json.decode(record.args, type=list[str]),
        url=record.url,
        env=dict.fromkeys(names["env"], MASK),
        headers=dict.fromkeys(names["headers"], MASK),
        connect_timeout_s=None if record.connect_timeout_ms is None else record.connect_timeout_ms / 1000,
        call_timeout_s=None if record.call_timeout_ms is None else record.call_timeout_ms / 1000,
        team_id=record.team_id,
        environment_id=record.environment_id,
        enabled=record.enabled,
        created_at=cast(str, iso_time(record.created_ms)),
        created_by=record.created_by,
        updated_at=cast(str, iso_time(record.updated_ms)),
        checks=tuple(
            McpServerCheck(
                environment_id=check.environment_id,
                checked_at=cast(str, iso_time(check.checked_ms)),
                tool_count=check.tool_count,
                error=check.error,
            )
            for check in checks or []
        ),
    )

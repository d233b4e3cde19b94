"""`guardhouse mcp-server`: records of MCP servers that agents use by name. Wiring only."""

import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from guardhouse.cli.client import ClientError, HubClient, hub_options, print_json
from guardhouse.cli.exit_codes import ExitCode
from guardhouse.cli.tables import plain_text, print_facts, print_table

__all__ = ["mcp_server"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_SERVER = click.argument("server")
_PATH = "/api/v1/mcp-servers"
SECRET_MAX_BYTES = 8_192


def _path(server: str, rest: str = "") -> str:
    return f"{_PATH}/{quote(server, safe='')}{rest}"


def _secrets(pairs: tuple[str, ...], option: str) -> dict[str, str]:
    """Return names and values of ``NAME=@FILE`` or ``NAME=$VARIABLE``; a value itself would stand in ``ps``."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, source = pair.partition("=")
        if not equals or source[:1] not in {"@", "$"}:
            raise ClientError(
                f"{option} {name}=…: give the secret as {name}=@FILE or {name}='$VARIABLE', so that no process list"
                " and no history has it",
                exit_code=ExitCode.USAGE,
            )
        found[name] = _read_file(source[1:]) if source[0] == "@" else _read_variable(source[1:])
    return found


def _read_file(path: str) -> str:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ClientError(f"cannot read {path!r}: {error.strerror}", exit_code=ExitCode.USAGE) from error
    if len(data) > SECRET_MAX_BYTES:
        raise ClientError(f"{path!r} is over {SECRET_MAX_BYTES} bytes", exit_code=ExitCode.USAGE)
    return data.decode("utf-8", "replace").rstrip("\r\n")


def _read_variable(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise ClientError(f"the variable {name} is not set here", exit_code=ExitCode.USAGE)
    return value


@click.group("mcp-server")
def mcp_server() -> None:
    """Make, list, show, try and remove records of MCP servers."""


@mcp_server.command()
@click.argument("name")
@click.option("--transport", type=click.Choice(["stdio", "sse", "streamable-http"]), help="Told from the rest.")
@click.option("--url", default="", help="Where the server is.")
@click.option("--header", "headers", multiple=True, metavar="NAME=@FILE", help="A secret header; or NAME='$VARIABLE'.")
@click.option("--set-env", "variables", multiple=True, metavar="NAME=@FILE", help="The same for a local server.")
@click.option("--team", help="For this team; without it for the account.")
@click.option("--env", "environment", metavar="ENVIRONMENT", help="Bind it to this one; without it any may use it.")
@click.option("--connect-timeout", type=click.FloatRange(0, 3_600, min_open=True), metavar="S", help="10 without.")
@click.option("--call-timeout", type=click.FloatRange(0, 3_600, min_open=True), metavar="S", help="60 without.")
@click.option("--disabled", is_flag=True, help="Nobody may use it yet.")
@_JSON
@hub_options
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def add(
    client: HubClient,
    *,
    name: str,
    transport: str | None,
    url: str,
    headers: tuple[str, ...],
    variables: tuple[str, ...],
    team: str | None,
    environment: str | None,
    connect_timeout: float | None,
    call_timeout: float | None,
    disabled: bool,
    as_json: bool,
    command: tuple[str, ...],
) -> None:
    """Make a record: add git -- uvx mcp-server-git, or add wiki --url https://wiki.example.com/mcp."""
    words = command[1:] if command[:1] == ("--",) else command
    body: dict[str, Any] = {
        "name": name,
        "transport": transport or ("streamable-http" if url else "stdio"),
        "command": words[0] if words else "",
        "args": list(words[1:]),
        "url": url,
        "env": _secrets(variables, "--set-env"),
        "headers": _secrets(headers, "--header"),
        "connect_timeout_s": connect_timeout,
        "call_timeout_s": call_timeout,
        "scope": {"kind": "team", "team": team} if team else {"kind": "account"},
        "environment": environment,
        "enabled": not disabled,
    }
    made = client.request("POST", _PATH, body=body)
    if as_json:
        print_json(made)
    else:
        click.echo(made["id"])


@mcp_server.command("list")
@_JSON
@hub_options
def list_(client: HubClient, *, as_json: bool) -> None:
    """List records, by name."""
    found = client.request("GET", _PATH)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["name"],
            "yes" if one["enabled"] else "no",
            one["transport"],
            one["environment_id"] or "any",
            one["url"] or " ".join([one["command"], *one["args"]]),
        )
        for one in found["servers"]
    ]
    print_table(("name", "enabled", "transport", "environment", "what"), rows, flexible=4)


@mcp_server.command()
@_SERVER
@_JSON
@hub_options
def show(client: HubClient, *, server: str, as_json: bool) -> None:
    """Show one record, its secrets masked, and what it answered last in each environment."""
    found = client.request("GET", _path(server))
    if as_json:
        print_json(found)
        return
    print_facts(
        [
            ("id", found["id"]),
            ("name", found["name"]),
            ("enabled", "yes" if found["enabled"] else "no"),
            ("transport", found["transport"]),
            ("command", " ".join([found["command"], *found["args"]])),
            ("url", found["url"]),
            ("variables", ", ".join(found["env"])),
            ("headers", ", ".join(found["headers"])),
            ("team", found["team_id"]),
            ("environment", found["environment_id"] or "any"),
            ("created", f"{found['created_at']} by {found['created_by']}"),
            ("updated", found["updated_at"]),
        ]
    )
    for one in found["checks"]:
        what = one["error"] or f"{one['tool_count']} tools"
        click.echo(plain_text(f"{one['environment_id']} at {one['checked_at']}: {what}"))


@mcp_server.command()
@_SERVER
@click.argument("environment")
@_JSON
@hub_options
def test(client: HubClient, *, server: str, environment: str, as_json: bool) -> None:
    """Ask SERVER for its tools in ENVIRONMENT; exit status 1 when it does not answer."""
    found = client.request("POST", _path(server, "/test"), body={"environment_id": environment})
    if as_json:
        print_json(found)
    elif found["error"] is not None:
        click.echo(plain_text(f"guardhouse: {server}: {found['error']} (task {found['task_id']})"), err=True)
    else:
        rows = [(one["name"], one["description"].partition("\n")[0]) for one in found["tools"]]
        print_table(("tool", "description"), rows, flexible=1)
    sys.exit(ExitCode.OK if found["error"] is None else ExitCode.FAILED)


@mcp_server.command()
@_SERVER
@click.option("--enable/--disable", "enabled", default=None, help="Whether it may be used.")
@click.option("--header", "headers", multiple=True, metavar="NAME=@FILE", help="All headers anew.")
@click.option("--set-env", "variables", multiple=True, metavar="NAME=@FILE", help="All variables anew.")
@click.option("--url", help="Another address; needs the headers anew.")
@_JSON
@hub_options
def update(
    client: HubClient,
    *,
    server: str,
    enabled: bool | None,
    headers: tuple[str, ...],
    variables: tuple[str, ...],
    url: str | None,
    as_json: bool,
) -> None:
    """Change a record."""
    body: dict[str, Any] = {}
    if enabled is not None:
        body["enabled"] = enabled
    if headers:
        body["headers"] = _secrets(headers, "--header")
    if variables:
        body["env"] = _secrets(variables, "--set-env")
    if url is not None:
        body["url"] = url
    if not body:
        raise click.UsageError("nothing to change")
    found = client.request("PATCH", _path(server), body=body)
    if as_json:
        print_json(found)
    else:
        click.echo(found["id"])


@mcp_server.command()
@_SERVER
@click.option("--yes", is_flag=True, help="Do not ask.")
@hub_options
def remove(client: HubClient, *, server: str, yes: bool) -> None:
    """Remove a record; tasks that wait with it fail."""
    if not yes:
        click.confirm(f"Remove MCP server {plain_text(server)}?", abort=True, err=True)
    client.request("DELETE", _path(server))

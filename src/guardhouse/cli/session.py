"""`guardhouse session`: work that stays in one environment, and its history. Wiring only."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from guardhouse.cli.client import ClientError, HubClient, hub_options, print_json
from guardhouse.cli.exec import command_options, run_command
from guardhouse.cli.exit_codes import ExitCode
from guardhouse.cli.paging import read_pages, say_more
from guardhouse.cli.tables import plain_text, print_facts, print_table

__all__ = ["session"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_SESSION = click.argument("session_id", metavar="SESSION")


def session_path(session_id: str, rest: str = "") -> str:
    """Return the API path of a session."""
    return f"/api/v1/sessions/{quote(session_id, safe='')}{rest}"


def _scope(found: dict[str, Any]) -> str:
    scope = found["scope"]
    return scope["team"] if scope["kind"] == "team" else str(scope["kind"])


def _where(found: dict[str, Any]) -> str:
    bound, chosen = found["bound_environment"], found["environment"]
    if bound is not None:
        return f"{bound['name']} ({bound['status']})"
    if chosen["kind"] == "named":
        return f"{chosen['environment_name']}, chosen"
    return "Auto" + "".join(f" {tag}" for tag in chosen["tags"]) if chosen["kind"] == "auto" else "managed sandbox"


@click.group()
def session() -> None:
    """Make sessions: work in one environment, which the first command decides for good."""


@session.command()
@click.argument("title", default="")
@click.option("--env", "environment", metavar="NAME", help="Run in this environment, which must be online.")
@click.option("--managed", is_flag=True, help="Run in a managed sandbox, whatever runners there are.")
@click.option("--tag", "tags", multiple=True, help="Let Auto choose among environments with this tag; repeatable.")
@click.option("--team", help="Let this team's people see and use it.")
@click.option("--shared", is_flag=True, help="Let everybody in the account see and use it.")
@_JSON
@hub_options
def create(
    client: HubClient,
    *,
    title: str,
    environment: str | None,
    managed: bool,
    tags: tuple[str, ...],
    team: str | None,
    shared: bool,
    as_json: bool,
) -> None:
    """Make a session and print its id. Without --env and --managed Auto chooses at its first command."""
    if team and shared:
        raise click.UsageError("--team and --shared exclude each other")
    choice = _choice(environment, managed=managed, tags=tags)
    scope = {"kind": "team", "team": team} if team else {"kind": "account" if shared else "personal"}
    body = {"title": title or None, "environment": choice, "scope": scope}
    made = client.request("POST", "/api/v1/sessions", body=body)
    if as_json:
        print_json(made)
    else:
        click.echo(made["id"])


def _choice(environment: str | None, *, managed: bool, tags: tuple[str, ...]) -> dict[str, Any]:
    if sum((environment is not None, managed, bool(tags))) > 1:
        raise click.UsageError("--env, --managed and --tag exclude each other")
    if environment is not None:
        return {"kind": "named", "environment": environment}
    return {"kind": "managed"} if managed else {"kind": "auto", "tags": list(tags)}


@session.command()
@_SESSION
@click.option("--title", help="Another title.")
@click.option("--env", "environment", metavar="NAME", help="Run in this environment.")
@click.option("--managed", is_flag=True, help="Run in a managed sandbox.")
@click.option("--auto", is_flag=True, help="Let Auto choose.")
@click.option("--tag", "tags", multiple=True, help="Let Auto choose among environments with this tag; repeatable.")
@click.option("--personal", is_flag=True, help="Let nobody else see it but owners and admins.")
@click.option("--team", help="Let this team's people see and use it.")
@click.option("--shared", is_flag=True, help="Let everybody in the account see and use it.")
@_JSON
@hub_options
def update(
    client: HubClient,
    *,
    session_id: str,
    title: str | None,
    environment: str | None,
    managed: bool,
    auto: bool,
    tags: tuple[str, ...],
    personal: bool,
    team: str | None,
    shared: bool,
    as_json: bool,
) -> None:
    """Change a session's title, who sees it, or, before its first command, where it is to run."""
    if sum((personal, team is not None, shared)) > 1:
        raise click.UsageError("--personal, --team and --shared exclude each other")
    if auto and (environment is not None or managed):
        raise click.UsageError("--auto excludes --env and --managed")
    body: dict[str, Any] = {} if title is None else {"title": title}
    if auto or environment is not None or managed or tags:
        body["environment"] = _choice(environment, managed=managed, tags=tags)
    if team is not None:
        body["scope"] = {"kind": "team", "team": team}
    elif personal or shared:
        body["scope"] = {"kind": "personal" if personal else "account"}
    if not body:
        raise click.UsageError("nothing to change")
    found = client.request("PATCH", session_path(session_id), body=body)
    if as_json:
        print_json(found)
    else:
        click.echo(plain_text(f"{found['id']}: {found['title']}; {_where(found)}; {_scope(found)}"), err=True)


@session.command()
@click.option("--tag", "tags", multiple=True, help="Only environments with this tag; repeatable.")
@_JSON
@hub_options
def choices(client: HubClient, *, tags: tuple[str, ...], as_json: bool) -> None:
    """Show what Auto would choose now, and whether there can be a managed sandbox."""
    found = client.request("GET", "/api/v1/session-choices", query={"tags": ",".join(tags) or None})
    if as_json:
        print_json(found)
        return
    chosen = found["auto"]
    print_facts(
        [
            ("Auto", "nothing" if chosen is None else f"{chosen['name']} ({chosen['id'] or 'managed sandbox'})"),
            ("note", found["auto_note"]),
            ("managed sandbox", "available" if found["managed_available"] else "not available"),
            ("managed note", found["managed_note"]),
        ]
    )


@session.command("list")
@click.option("--text", help="Text in the title.")
@click.option("--scope", help="'personal', 'account', 'team', or a team's name or id.")
@click.option("--env", "environment", help="Only those that are bound to this environment.")
@click.option("--mine", is_flag=True, help="Only one's own.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@_JSON
@hub_options
def list_(
    client: HubClient,
    *,
    text: str | None,
    scope: str | None,
    environment: str | None,
    mine: bool,
    limit: int,
    as_json: bool,
) -> None:
    """List sessions, newest first."""
    query = {"text": text, "scope": scope, "environment": environment, "mine": mine}
    found, more = read_pages(client, "/api/v1/sessions", "sessions", query=query, limit=limit)
    if as_json:
        print_json({"sessions": found, "more": more})
        return
    rows = [(one["id"], one["state"], _where(one), _scope(one), one["active_ago"], one["title"]) for one in found]
    print_table(("session", "state", "environment", "scope", "active", "title"), rows, flexible=5)
    if more:
        say_more(limit)


@session.command()
@_SESSION
@_JSON
@hub_options
def show(client: HubClient, *, session_id: str, as_json: bool) -> None:
    """Show a session: what it is bound to, how that is now, and whether it can go on."""
    found = client.request("GET", session_path(session_id))
    if as_json:
        print_json(found)
        return
    bound = found["bound_environment"] or {}
    print_facts(
        [
            ("id", found["id"]),
            ("title", found["title"]),
            ("state", f"{found['state']}: {found['state_reason']}"),
            ("environment", _where(found)),
            ("environment id", bound.get("id")),
            ("bound", bound.get("bound_at")),
            ("warning", found["warning"]),
            ("notice", found["notice"]),
            ("scope", _scope(found)),
            ("active", f"{found['active_ago']} ({found['active_at']})"),
            ("created", f"{found['created_at']} by {found['created_by_name']} ({found['created_by']})"),
        ]
    )


@session.command()
@command_options
@hub_options
@_SESSION
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(client: HubClient, *, session_id: str, command: tuple[str, ...], **options: Any) -> None:
    """Run COMMAND in the session's environment, as 'guardhouse exec --session' does."""
    run_command(client, {"session_id": session_id}, command, **options)


@session.command()
@_SESSION
@_JSON
@hub_options
def history(client: HubClient, *, session_id: str, as_json: bool) -> None:
    """Show what ran, oldest first, with what was decided and which programs it started; --json: one object a line."""
    cursor = None
    while True:
        page = client.request("GET", session_path(session_id, "/history"), query={"cursor": cursor, "limit": 200})
        for step in page["steps"]:
            if as_json:
                print_json(step)
            else:
                _print_step(step)
        cursor = page["next_cursor"]
        if cursor is None:
            return


def _print_step(step: dict[str, Any]) -> None:
    task, decision = step["task"], step["decision"] or {}
    exit_code = "" if task["exit_code"] is None else f", exit {task['exit_code']}"
    click.echo(f"{task['created_at']}  {task['id']}  {task['state']}{exit_code}  {plain_text(task['command'])}")
    if decision:
        rule = f" by rule {decision['rule']!r}" if decision.get("rule") else ""
        click.echo(f"    decided: {plain_text(decision.get('verdict'))}{plain_text(rule)}")
    for approval in step["approvals"]:
        by = f" by {approval['decided_by_name']}" if approval["decided_by_name"] else ""
        click.echo(f"    {approval['state']}{plain_text(by)}: rule {plain_text(approval['rule'])}")
    for line in (step["executed"] or "").splitlines():
        click.echo(f"    ran: {plain_text(line)}")
    for refused in step["refused"] or ():
        click.echo(f"    refused: {plain_text(' '.join(refused['argv']))}: {plain_text(refused['because'])}")


@session.command()
@_SESSION
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to this new file; else to stdout.")
@hub_options
def export(client: HubClient, *, session_id: str, out: Path | None) -> None:
    """Export a session as lines of JSON: who and where, then each task with its answer and output."""
    last: dict[str, Any] = {}
    try:
        with nullcontext(sys.stdout) if out is None else out.open("x", encoding="utf-8") as file:
            for line in client.lines(session_path(session_id, "/export"), query={}):
                file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
                last = line
    except OSError as error:
        raise ClientError(f"{str(out)!r} cannot be written: {error.strerror}", exit_code=ExitCode.FAILED) from error
    if last.get("kind") != "end":
        why = last.get("message") or "the hub's answer broke off"
        raise ClientError(f"the export is not whole: {why}; export it again", exit_code=ExitCode.UNAVAILABLE)


@session.command()
@_SESSION
@click.option("--keep-tasks", is_flag=True, help="Keep its tasks and their output; only the session goes.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@hub_options
def delete(client: HubClient, *, session_id: str, keep_tasks: bool, yes: bool) -> None:
    """Delete a session with its tasks and their output. The audit log keeps what was asked, decided and ran."""
    found = client.request("GET", session_path(session_id))
    if not yes:
        what = "" if keep_tasks else " with its tasks and their output"
        click.confirm(
            f"Delete session {found['title']!r} ({found['id']}){what}? The audit log keeps what ran.",
            abort=True,
            err=True,
        )
    client.request("DELETE", session_path(session_id), query={"keep_tasks": keep_tasks})
    click.echo(f"deleted {found['id']}", err=True)

"""`guardhouse approval`: what runners ask people, and the answers. Wiring only."""

import re
import shlex
from typing import Any, Final
from urllib.parse import quote

import click

from guardhouse.cli.client import HubClient, hub_options, print_json
from guardhouse.cli.tables import plain_text, print_facts, print_table

__all__ = ["approval"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class _Duration(click.ParamType[int]):
    """``90s``, ``30m``, ``4h`` or ``7d`` as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", str(value))
        if found is None:
            self.fail(f"{value!r} is not like 90s, 30m, 4h or 7d", param, ctx)
        return int(found[1]) * _UNITS[found[2]]


_GATES: Final = {
    "exec": "a program of a running command",
    "shell": "before it starts",
    "operation": "a file operation, page, tool or skill, before it begins",
}


@click.group()
def approval() -> None:
    """List, show, approve and deny what a policy's rules ask people about."""


def _path(approval_id: str) -> str:
    return f"/api/v1/approvals/{quote(approval_id, safe='')}"


@approval.command("list")
@click.option(
    "--state",
    type=click.Choice(("pending", "approved", "denied", "expired", "withdrawn", "all")),
    default="pending",
    show_default=True,
    help="Only those.",
)
@click.option("--environment", metavar="NAME", help="Only of this environment.")
@click.option("--task", metavar="ID", help="Only of this task.")
@click.option("--limit", type=click.IntRange(1, 500), default=100, show_default=True, help="At most so many.")
@_JSON
@hub_options
def list_(
    client: HubClient, *, state: str, environment: str | None, task: str | None, limit: int, as_json: bool
) -> None:
    """List approvals, newest first; the open ones unless said otherwise."""
    query = {
        "state": None if state == "all" else state,
        "environment": environment,
        "task": task,
        "limit": limit,
    }
    found = client.request("GET", "/api/v1/approvals", query=query)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["id"],
            one["state"],
            one["environment_name"] or one["environment_id"],
            one["requested_by"],
            one["expires_at"],
            shlex.join(one["argv"]) if one["argv"] is not None else one["command"],
        )
        for one in found["approvals"]
    ]
    print_table(("id", "state", "environment", "asked by", "expires", "command"), rows, flexible=5)


@approval.command()
@click.argument("approval_id")
@_JSON
@hub_options
def show(client: HubClient, *, approval_id: str, as_json: bool) -> None:
    """Show one approval whole: the exact command, the rule, where it would run, who asks."""
    found = client.request("GET", _path(approval_id))
    if as_json:
        print_json(found)
        return
    print_facts(
        [
            ("id", found["id"]),
            ("state", found["state"]),
            ("environment", f"{found['environment_name'] or ''} ({found['environment_id']})"),
            ("asked by", f"{found['requested_by']} ({found['requester']})"),
            ("gate", f"{found['gate']}: {_GATES.get(found['gate'], 'unknown to this version')}"),
            ("rule", found["rule"]),
            ("because", found["because"]),
            ("at", found["place"]),
            ("profile", found["profile"]),
            ("workdir", found["workdir"]),
            ("program", found["path"]),
            ("started by", found["started_by"]),
            ("task", found["task_id"]),
            ("asked", found["asked_at"]),
            ("expires", found["expires_at"]),
            ("yes so far", ", ".join(f"{one['name']} (for {one['scope']})" for one in found["votes"])),
            ("yes needed", found["votes_needed"]),
            ("decided by", found["decided_by_name"] or found["decided_by"]),
            ("scope", found["scope"]),
            ("valid until", found["valid_until"]),
            ("note", found["note"]),
        ]
    )
    click.echo("command:")
    for line in found["command"].split("\n"):
        click.echo(f"  {plain_text(line)}")
    _print_explanation(found["explanation"] or {})
    preview = (found["explanation"] or {}).get("preview")
    if isinstance(preview, dict) and preview.get("text"):
        click.echo(f"{plain_text(str(preview.get('kind', 'preview')))}:")
        for line in str(preview["text"]).split("\n"):
            click.echo(f"  {plain_text(line)}")
        if preview.get("left_out"):
            click.echo(f"  [{plain_text(str(preview['left_out']))} are not shown]")
    if found["argv"] is not None:
        click.echo("about to run:")
        for word in found["argv"]:
            click.echo(f"  {plain_text(shlex.quote(word))}")


def _print_explanation(explanation: dict[str, Any]) -> None:
    """Print what gate one says of each part of a command text, as the runner told it."""
    parts = [
        part
        for key in ("commands", "concerns")
        for part in (explanation[key] if isinstance(explanation.get(key), list) else ())
        if isinstance(part, dict)
    ]
    if parts:
        click.echo("gate one says:")
    for part in parts:
        why = part.get("undecided_because") or part.get("because") or ""
        click.echo(f"  {plain_text(str(part.get('verdict')))}: {plain_text(str(part.get('text')))}")
        click.echo(f"    {plain_text(str(why))}")
    if explanation.get("left_out"):
        click.echo(f"gate one's explanation was left out: {plain_text(str(explanation['left_out']))}")


def _decision_options(command: Any) -> Any:
    for option in (
        click.option("--note", default="", help="Why; shown to whoever asked, and kept."),
        click.option(
            "--for-rule",
            type=_Duration(),
            metavar="TIME",
            help="For this rule in this environment: 30m, 4h, 7d.",
        ),
        click.option("--for-session", is_flag=True, help="For the rest of this session, or of this task."),
        click.argument("approval_id"),
    ):
        command = option(command)
    return command


def _decide(
    client: HubClient, verb: str, approval_id: str, *, for_session: bool, for_rule: int | None, note: str, as_json: bool
) -> None:
    if for_session and for_rule is not None:
        raise click.UsageError("--for-session and --for-rule exclude each other")
    body: dict[str, Any] = {"note": note}
    if for_session:
        body["scope"] = "session"
    elif for_rule is not None:
        body |= {"scope": "rule", "for_s": for_rule}
    found = client.request("POST", f"{_path(approval_id)}/{verb}", body=body)
    if as_json:
        print_json(found)
    elif found["state"] == "pending":
        click.echo(f"{found['id']}: yes counted; a second person must approve too", err=True)
    else:
        until = f" until {found['valid_until']}" if found["valid_until"] else ""
        click.echo(f"{found['id']}: {found['state']} for {found['scope']}{until}", err=True)


@approval.command()
@_decision_options
@_JSON
@hub_options
def approve(
    client: HubClient, *, approval_id: str, for_session: bool, for_rule: int | None, note: str, as_json: bool
) -> None:
    """Let it run: once, or for longer with --for-session or --for-rule."""
    _decide(client, "approve", approval_id, for_session=for_session, for_rule=for_rule, note=note, as_json=as_json)


@approval.command()
@_decision_options
@_JSON
@hub_options
def deny(
    client: HubClient, *, approval_id: str, for_session: bool, for_rule: int | None, note: str, as_json: bool
) -> None:
    """Say no: once, or for longer with --for-session or --for-rule."""
    _decide(client, "deny", approval_id, for_session=for_session, for_rule=for_rule, note=note, as_json=as_json)


@approval.command()
@_JSON
@hub_options
def grants(client: HubClient, *, as_json: bool) -> None:
    """List the answers that still hold for later questions."""
    found = client.request("GET", "/api/v1/approval-grants")
    if as_json:
        print_json(found)
        return
    rows = [
        (one["id"], one["verdict"], one["scope"], one["environment_id"], one["rule"], one["valid_until"])
        for one in found["grants"]
    ]
    print_table(("id", "verdict", "scope", "environment", "rule", "valid until"), rows, flexible=4)


@approval.command()
@click.argument("grant_id")
@hub_options
def revoke(client: HubClient, *, grant_id: str) -> None:
    """End a grant: the next question of its rule comes before people again."""
    client.request("DELETE", f"/api/v1/approval-grants/{quote(grant_id, safe='')}")
    click.echo(f"revoked {grant_id}", err=True)

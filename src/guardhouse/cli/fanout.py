"""`guardhouse fanout`: one command in many environments, with a table of what became of each. Wiring only."""

import shlex
import sys
import uuid
from typing import Any
from urllib.parse import quote

import click

from guardhouse.cli.client import ClientError, HubClient, HubUnreachable, hub_options, print_json
from guardhouse.cli.event_stream import read_events
from guardhouse.cli.exit_codes import ExitCode
from guardhouse.cli.paging import read_pages, say_more
from guardhouse.cli.tables import plain_text, print_facts, print_table

__all__ = ["fanout"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_FANOUT = click.argument("fanout_id", metavar="FANOUT")
_PATH = "/api/v1/fanouts"


def _path(fanout_id: str, rest: str = "") -> str:
    return f"{_PATH}/{quote(fanout_id, safe='')}{rest}"


@click.group()
def fanout() -> None:
    """Run a command in every environment that has some tags, so many at a time."""


@fanout.command()
@click.option("--tags", metavar="TAG[,TAG…]", help="Environments that have every one of these tags.")
@click.option("--env", "environments", multiple=True, metavar="NAME", help="An environment; may be repeated.")
@click.option("--parallel", type=click.IntRange(1, 1_000), default=10, show_default=True, help="So many at a time.")
@click.option("--stop-after", type=click.IntRange(1, 1_000), metavar="N", help="Start nothing else after N failures.")
@click.option("--online-only", is_flag=True, help="Leave out environments that are not online.")
@click.option(
    "--queue", "queue_s", type=click.FloatRange(0, 86_400), default=0.0, metavar="SECONDS", help="Wait for runners."
)
@click.option("--timeout", type=click.FloatRange(0, 86_400, min_open=True), metavar="SECONDS", help="120 without.")
@click.option("--workdir", metavar="DIR", help="Directory inside each workspace.")
@click.option("--profile", metavar="NAME", help="Sandbox profile, where the runners allow the choice.")
@click.option("--detach", is_flag=True, help="Print the fan-out's id and do not wait.")
@_JSON
@hub_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    client: HubClient,
    *,
    tags: str | None,
    environments: tuple[str, ...],
    parallel: int,
    stop_after: int | None,
    online_only: bool,
    queue_s: float,
    timeout: float | None,
    workdir: str | None,
    profile: str | None,
    detach: bool,
    as_json: bool,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND in many environments and print how it ended in each; the output stays with the tasks.

    One word is a command text for bash, several are quoted and joined. Progress goes to stderr. Exit status: 0 when it
    succeeded everywhere, 1 when it failed or was not started somewhere, 5 when no environment was there, 130 after
    Ctrl-C, which cancels the whole.
    """
    words = command[1:] if command[0] == "--" else command
    if not words:
        raise click.UsageError("no command: write it after --")
    if bool(tags) == bool(environments):
        raise click.UsageError("give either --tags or --env")
    args: dict[str, Any] = {"command": words[0] if len(words) == 1 else shlex.join(words)}
    if timeout is not None:
        args["timeout"] = timeout
    if workdir is not None:
        args["workdir"] = workdir
    body = {
        "tags": [tag.strip() for tag in tags.split(",")] if tags else [],
        "environments": list(environments),
        "operation": "bash",
        "args": args,
        "parallel": parallel,
        "stop_after": stop_after,
        "online_only": online_only,
        "queue_s": queue_s,
        "profile": profile,
        # A request whose answer was lost is asked again under the same key: it starts one fan-out.
        "idempotency_key": f"fanout-{uuid.uuid4()}",
    }
    try:
        made = _create(client, body)
    except ClientError as error:
        if error.code == "no_environment":
            raise ClientError(str(error), exit_code=ExitCode.UNAVAILABLE, code=error.code) from error
        raise
    if detach:
        if as_json:
            print_json(made)
        else:
            click.echo(made["id"])
        return
    sys.exit(_attend(client, made["id"], as_json=as_json))


def _create(client: HubClient, body: dict[str, Any]) -> dict[str, Any]:
    try:
        return client.request("POST", _PATH, body=body)
    except HubUnreachable:
        return client.request("POST", _PATH, body=body)


def _attend(client: HubClient, fanout_id: str, *, as_json: bool) -> int:
    """Follow a fan-out to its end, print what became of it, and return the exit status."""
    try:
        _follow(client, fanout_id, quiet=as_json)
    except KeyboardInterrupt:
        click.echo(f"guardhouse: cancelling {fanout_id}", err=True)
        client.request("POST", _path(fanout_id, "/cancel"), body={"reason": "interrupted by Ctrl-C"})
        _follow(client, fanout_id, quiet=True)
        _print(client, fanout_id, as_json=as_json)
        return ExitCode.INTERRUPTED
    found = _print(client, fanout_id, as_json=as_json)
    return ExitCode.OK if found["counts"]["succeeded"] == found["total"] else ExitCode.FAILED


def _follow(client: HubClient, fanout_id: str, *, quiet: bool) -> None:
    """Wait for the end; a stream that breaks or is over is asked for again."""
    seen: set[int] = set()
    while True:
        for name, _, facts in read_events(client, _path(fanout_id, "/events")):
            if name == "end":
                return
            is_over = name == "child" and facts["state"] in {"succeeded", "failed"}
            if is_over and facts["position"] not in seen:
                seen.add(facts["position"])
                if not quiet:
                    why = f": {facts['error']}" if facts["error"] else ""
                    status = "" if facts["exit_code"] is None else f", status {facts['exit_code']}"
                    click.echo(
                        plain_text(f"guardhouse: {facts['environment_name']}: {facts['state']}{status}{why}"), err=True
                    )


def _children(client: HubClient, fanout_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after: int | None = -1
    while after is not None:
        page = client.request("GET", _path(fanout_id, "/children"), query={"after": after})
        found += page["children"]
        after = page["next_after"]
    return found


def _print(client: HubClient, fanout_id: str, *, as_json: bool) -> dict[str, Any]:
    found = client.request("GET", _path(fanout_id))
    children = _children(client, fanout_id)
    if as_json:
        print_json({**found, "children": children})
        return found
    rows = [
        (
            one["environment_name"],
            one["state"],
            "" if one["exit_code"] is None else one["exit_code"],
            one["task_id"],
            one["error"],
        )
        for one in children
    ]
    print_table(("environment", "outcome", "exit", "task", "error"), rows, flexible=4)
    counts = ", ".join(f"{count} {state}" for state, count in found["counts"].items() if count)
    why = f" ({found['reason']})" if found["reason"] else ""
    click.echo(plain_text(f"guardhouse: {found['id']} {found['state']}{why}: {counts}"), err=True)
    return found


@fanout.command("list")
@click.option("--state", type=click.Choice(["running", "finished", "stopped", "cancelled"]), help="Only those.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@_JSON
@hub_options
def list_(client: HubClient, *, state: str | None, limit: int, as_json: bool) -> None:
    """List fan-outs, newest first."""
    query = {"state": state}
    found, more = read_pages(client, _PATH, "fanouts", query=query, limit=limit)
    if as_json:
        print_json({"fanouts": found, "more": more})
        return
    rows = [
        (
            one["id"],
            one["state"],
            f"{one['counts']['succeeded']}/{one['total']}",
            one["counts"]["failed"],
            one["created_at"],
            one["command"],
        )
        for one in found
    ]
    print_table(("fan-out", "state", "ok", "failed", "created", "command"), rows, flexible=5)
    if more:
        say_more(limit)


@fanout.command()
@_FANOUT
@_JSON
@hub_options
def show(client: HubClient, *, fanout_id: str, as_json: bool) -> None:
    """Show a fan-out and what became of each environment."""
    if not as_json:
        found = client.request("GET", _path(fanout_id))
        print_facts(
            [
                ("id", found["id"]),
                ("command", found["command"]),
                ("tags", ", ".join(found["tags"])),
                ("parallel", found["parallel"]),
                ("stop after", found["stop_after"]),
                ("asked by", found["requested_by"]),
                ("created", found["created_at"]),
                ("finished", found["finished_at"]),
            ]
        )
        click.echo()
    _print(client, fanout_id, as_json=as_json)


@fanout.command()
@_FANOUT
@click.option("--reason", default="", help="Why; audited.")
@_JSON
@hub_options
def cancel(client: HubClient, *, fanout_id: str, reason: str, as_json: bool) -> None:
    """Cancel a fan-out as a whole: nothing else starts, what runs is stopped."""
    found = client.request("POST", _path(fanout_id, "/cancel"), body={"reason": reason})
    if as_json:
        print_json(found)
    else:
        click.echo(f"{found['id']} {'cancelling' if not found['finished'] else found['state']}")

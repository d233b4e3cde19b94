"""`guardhouse task`: start, list, follow, wait for and cancel tasks. Wiring only."""

import json
import sys
import time
from typing import Any
from urllib.parse import quote

import click

from guardhouse.cli.client import ClientError, HubClient, hub_options, print_json
from guardhouse.cli.exec_tree import tree_lines
from guardhouse.cli.exit_codes import ExitCode
from guardhouse.cli.follow import exit_status, follow_output
from guardhouse.cli.paging import read_pages, say_more
from guardhouse.cli.tables import print_facts, print_table
from guardhouse.cli.terminal import HarmlessOutput

__all__ = ["task"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_TASK = click.argument("task_id", metavar="TASK")
# One request waits at most so long; longer waits ask again.
WAIT_SLICE_S = 60.0


def task_path(task_id: str, rest: str = "") -> str:
    """Return the API path of a task."""
    return f"/api/v1/tasks/{quote(task_id, safe='')}{rest}"


def wait_for(client: HubClient, task_id: str, *, timeout_s: float | None = None) -> dict[str, Any]:
    """Return the task once it has ended, or as it stands after ``timeout_s``."""
    give_up_s = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        wait_s = WAIT_SLICE_S if give_up_s is None else max(0.0, min(WAIT_SLICE_S, give_up_s - time.monotonic()))
        found = client.request("GET", task_path(task_id, "/result"), query={"wait_s": wait_s})
        if found["finished"] or (give_up_s is not None and time.monotonic() >= give_up_s):
            return found


def print_task(found: dict[str, Any]) -> None:
    """Print one task for people."""
    print_facts(
        [
            ("id", found["id"]),
            ("environment", found["environment_name"] or found["environment_id"]),
            ("operation", found["operation"]),
            ("command", found["command"]),
            ("state", found["state"]),
            ("reason", found["state_reason"]),
            ("error", found["error"]),
            ("exit status", found["exit_code"]),
            ("output", f"{found['stdout_bytes']} bytes stdout, {found['stderr_bytes']} bytes stderr"),
            ("output note", found["output_note"]),
            ("cancelled", found["cancel_reason"]),
            ("asked by", found["requested_by"]),
            ("part of", found["origin"]),
            ("created", found["created_at"]),
            ("sent", found["sent_at"]),
            ("started", found["started_at"]),
            ("finished", found["finished_at"]),
            ("took", None if found["duration_s"] is None else f"{found['duration_s']:.3f} s"),
            ("trace", found["trace_id"]),
        ]
    )


@click.group()
def task() -> None:
    """Start operations, list tasks, show output and results, wait, cancel."""


@task.command()
@click.argument("environment")
@click.argument("operation")
@click.option("--args", "args_text", default="{}", metavar="JSON", help="The operation's arguments.")
@click.option(
    "--queue",
    "queue_s",
    type=click.FloatRange(0, 86_400),
    default=0.0,
    metavar="SECONDS",
    help="Let it wait so long for a runner that is not connected.",
)
@click.option("--key", "idempotency_key", help="Asking twice with the same key starts one task.")
@click.option("--wait", "wait", is_flag=True, help="Wait for the result and return its exit status.")
@_JSON
@hub_options
def run(
    client: HubClient,
    *,
    environment: str,
    operation: str,
    args_text: str,
    queue_s: float,
    idempotency_key: str | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Start any OPERATION in ENVIRONMENT, for example: read --args '{"path":"notes.txt"}'."""
    try:
        args = json.loads(args_text)
    except ValueError as error:
        raise ClientError(f"--args is no JSON: {error}", exit_code=ExitCode.USAGE) from error
    body = {
        "environment_id": environment,
        "operation": operation,
        "args": args,
        "queue_s": queue_s,
        "idempotency_key": idempotency_key,
    }
    found = client.request("POST", "/api/v1/tasks", body=body)
    if wait:
        found = wait_for(client, found["id"])
    if as_json:
        print_json(found)
    elif wait:
        print_task(found)
        print_json(found["result"])
    else:
        click.echo(found["id"])
    if wait:
        sys.exit(exit_status(found))


@task.command("list")
@click.option("--env", "environment", help="Only those of this environment.")
@click.option("--state", help="Only those in this state.")
@click.option("--text", help="Text in the command.")
@click.option("--executed", help="Text in what really ran, or was refused at its exec.")
@click.option("--operation", help="Only this operation.")
@click.option("--session", "session_id", help="Only those of this session.")
@click.option("--origin", help="Only those of this fan-out or schedule.")
@click.option("--asked-by", help="Only those that this token or person (id) asked for.")
@click.option("--since", metavar="TIME", help="Asked for at this time or later, ISO 8601 with its zone.")
@click.option("--until", metavar="TIME", help="Asked for before this time.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@_JSON
@hub_options
def list_(
    client: HubClient,
    *,
    environment: str | None,
    state: str | None,
    text: str | None,
    executed: str | None,
    operation: str | None,
    session_id: str | None,
    origin: str | None,
    asked_by: str | None,
    since: str | None,
    until: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List tasks, newest first."""
    query = {
        "environment": environment,
        "state": state,
        "text": text,
        "executed": executed,
        "operation": operation,
        "session_id": session_id,
        "origin": origin,
        "asked_by": asked_by,
        "since": since,
        "until": until,
    }
    found, more = read_pages(client, "/api/v1/tasks", "tasks", query=query, limit=limit)
    if as_json:
        print_json({"tasks": found, "more": more})
        return
    rows = [
        (
            one["id"],
            one["state"],
            "" if one["exit_code"] is None else one["exit_code"],
            one["environment_name"] or one["environment_id"],
            one["created_at"],
            one["command"],
        )
        for one in found
    ]
    print_table(("task", "state", "exit", "environment", "created", "command"), rows, flexible=5)
    if more:
        say_more(limit)


@task.command()
@_TASK
@click.option("--tree", is_flag=True, help="Also every program that ran or was refused, below what started it.")
@_JSON
@hub_options
def show(client: HubClient, *, task_id: str, tree: bool, as_json: bool) -> None:
    """Show one task as it stands."""
    found = client.request("GET", task_path(task_id))
    if as_json:
        print_json(found)
        return
    print_task(found)
    if tree:
        result = found["result"] if isinstance(found["result"], dict) else {}
        execs = result.get("execs")
        click.echo()
        for line in tree_lines(execs) if execs else ["no record of programs: not a command, or no exec gate there"]:
            click.echo(line)


@task.command()
@_TASK
@click.option("--stream", type=click.Choice(["stdout", "stderr", "both"]), default="both", show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0, help="First byte of the one stream that is named.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the task has ended.")
@click.option("--raw", is_flag=True, help="Show a terminal every byte, control sequences too.")
@_JSON
@hub_options
def output(
    client: HubClient, *, task_id: str, stream: str, offset: int, follow: bool, raw: bool, as_json: bool
) -> None:
    """Print a task's output, byte for byte; with --json one object a line, as the API gives it.

    On a terminal, control sequences other than colours are spelt out.
    """
    if as_json:
        query = {"stream": stream, "offset": offset, "follow": follow}
        for line in client.lines(task_path(task_id, "/output"), query=query):
            print_json(line)
        return
    shown = HarmlessOutput(raw=raw)
    try:
        for name, data in follow_output(client, task_id, stream=stream, offset=offset, follow=follow):
            shown.write(name, data)
    finally:
        shown.finish()


@task.command()
@_TASK
@click.option("--timeout", "timeout_s", type=click.FloatRange(0), metavar="SECONDS", help="For ever without.")
@_JSON
@hub_options
def wait(client: HubClient, *, task_id: str, timeout_s: float | None, as_json: bool) -> None:
    """Wait for a task's result and return its exit status; 124 when it has not ended in time."""
    found = wait_for(client, task_id, timeout_s=timeout_s)
    if as_json:
        print_json(found)
    else:
        print_task(found)
    sys.exit(exit_status(found) if found["finished"] else ExitCode.TIMED_OUT)


@task.command()
@_TASK
@click.option("--reason", default="", help="Kept with the task.")
@_JSON
@hub_options
def cancel(client: HubClient, *, task_id: str, reason: str, as_json: bool) -> None:
    """Ask a task to stop: its whole process tree ends, its output so far stays."""
    found = client.request("POST", task_path(task_id, "/cancel"), body={"reason": reason})
    if as_json:
        print_json(found)
    else:
        click.echo(f"{found['id']}: {found['state']}", err=True)

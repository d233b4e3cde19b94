"""`guardhouse schedule`: tasks that start later; `guardhouse exec --at` makes them. Wiring only."""

import re
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import click

from guardhouse.cli.client import ClientError, HubClient, hub_options, print_json
from guardhouse.cli.exit_codes import ExitCode
from guardhouse.cli.paging import read_pages, say_more
from guardhouse.cli.tables import print_facts, print_table

__all__ = ["SCHEDULES_PATH", "parse_at", "schedule"]

SCHEDULES_PATH = "/api/v1/schedules"
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_SCHEDULE = click.argument("schedule_id", metavar="SCHEDULE")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_at(text: str) -> str:
    """Return ISO 8601 in UTC of a time with its zone, or of ``+90s``, ``+10m``, ``+2h``, ``+1d`` from now.

    Raises:
        ClientError: it is neither; a time without a zone would mean another one on another machine.
    """
    span = re.fullmatch(r"\+(\d{1,6})([smhd])", text)
    if span is not None:
        return (datetime.now(UTC) + timedelta(**{_UNITS[span[2]]: int(span[1])})).isoformat()
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ClientError(
            f"--at {text!r} is no time; write 2026-12-01T02:00:00Z, or +90s, +10m, +2h, +1d", exit_code=ExitCode.USAGE
        ) from error
    if found.tzinfo is None:
        raise ClientError(
            f"--at {text!r} does not say its zone; end it with Z for UTC, or with +01:00", exit_code=ExitCode.USAGE
        )
    return found.astimezone(UTC).isoformat()


def _path(schedule_id: str, rest: str = "") -> str:
    return f"{SCHEDULES_PATH}/{quote(schedule_id, safe='')}{rest}"


@click.group()
def schedule() -> None:
    """List, show and cancel tasks that start later ('guardhouse exec --at' makes them)."""


@schedule.command("list")
@click.option("--env", "environment", help="Only those of this environment.")
@click.option(
    "--state", type=click.Choice(["waiting", "started", "expired", "refused", "cancelled"]), help="Only those."
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@_JSON
@hub_options
def list_(client: HubClient, *, environment: str | None, state: str | None, limit: int, as_json: bool) -> None:
    """List schedules, the latest start first."""
    query = {"environment": environment, "state": state}
    found, more = read_pages(client, SCHEDULES_PATH, "schedules", query=query, limit=limit)
    if as_json:
        print_json({"schedules": found, "more": more})
        return
    rows = [
        (one["id"], one["state"], one["run_at"], one["environment_name"], one["task_id"], one["command"])
        for one in found
    ]
    print_table(("schedule", "state", "at", "environment", "task", "command"), rows, flexible=5)
    if more:
        say_more(limit)


@schedule.command()
@_SCHEDULE
@_JSON
@hub_options
def show(client: HubClient, *, schedule_id: str, as_json: bool) -> None:
    """Show one schedule as it stands."""
    found = client.request("GET", _path(schedule_id))
    if as_json:
        print_json(found)
        return
    print_facts(
        [
            ("id", found["id"]),
            ("environment", found["environment_name"]),
            ("command", found["command"]),
            ("at", found["run_at"]),
            ("grace", f"{found['grace_s']:g} s"),
            ("state", found["state"]),
            ("reason", found["reason"]),
            ("task", found["task_id"]),
            ("asked by", found["requested_by"]),
            ("created", found["created_at"]),
            ("decided", found["decided_at"]),
        ]
    )


@schedule.command()
@_SCHEDULE
@click.option("--reason", default="", help="Why; audited.")
@_JSON
@hub_options
def cancel(client: HubClient, *, schedule_id: str, reason: str, as_json: bool) -> None:
    """Cancel a schedule that waits."""
    found = client.request("POST", _path(schedule_id, "/cancel"), body={"reason": reason})
    if as_json:
        print_json(found)
    else:
        click.echo(f"{found['id']} {found['state']}")

"""`guardhouse env drain`, `undrain` and `guide`: an environment's life cycle. Wiring only."""

import sys
import time
from typing import Final
from urllib.parse import quote

import click

from guardhouse.cli.client import HubClient, hub_options, print_json
from guardhouse.cli.exit_codes import ExitCode
from guardhouse.cli.tables import plain_text

__all__ = ["drain", "guide", "undrain"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_REFERENCE = click.argument("environment", metavar="ENVIRONMENT")
_ASK_AGAIN_S: Final = 1.0
SECTIONS: Final = ("install", "manual", "upgrade", "uninstall", "purge")


def _path(reference: str, rest: str) -> str:
    return f"/api/v1/environments/{quote(reference, safe='')}{rest}"


@click.command()
@_REFERENCE
@click.option("--reason", default="", help="Why; people and the audit log are shown it.")
@click.option("--wait", is_flag=True, help="Return when nothing runs there any more.")
@click.option(
    "--timeout", type=click.FloatRange(0), default=3600.0, show_default=True, metavar="SECONDS", help="For --wait."
)
@_JSON
@hub_options
def drain(client: HubClient, *, environment: str, reason: str, wait: bool, timeout: float, as_json: bool) -> None:
    """Let an environment take no new tasks: running ones end, queued ones wait. Exit 1: they still ran at --timeout."""
    found = client.request("POST", _path(environment, "/drain"), body={"reason": reason})
    until_s = time.monotonic() + timeout
    is_over = not wait
    while not is_over:
        is_over = not (found["connection"] or {}).get("tasks_in_flight")
        if not is_over and time.monotonic() >= until_s:
            break
        if not is_over:
            time.sleep(_ASK_AGAIN_S)
            found = client.request("GET", _path(found["id"], ""))
    if as_json:
        print_json(found)
    else:
        click.echo(plain_text(f"{found['name']}: {found['status']}: {found['status_reason']}"), err=True)
    if not is_over:
        sys.exit(ExitCode.FAILED)


@click.command()
@_REFERENCE
@_JSON
@hub_options
def undrain(client: HubClient, *, environment: str, as_json: bool) -> None:
    """Let a drained environment take tasks again; those that waited are given to it."""
    found = client.request("DELETE", _path(environment, "/drain"))
    if as_json:
        print_json(found)
    else:
        click.echo(plain_text(f"{found['name']}: {found['status']}: {found['status_reason']}"), err=True)


@click.command()
@_REFERENCE
@click.option("--section", type=click.Choice(SECTIONS), help="Only this part.")
@_JSON
@hub_options
def guide(client: HubClient, *, environment: str, section: str | None, as_json: bool) -> None:
    """Show how a host becomes this environment's runner, is upgraded, and stops being it. Holds no secret."""
    found = client.request("GET", _path(environment, "/guide"))
    if section is not None:
        found["sections"] = [one for one in found["sections"] if one["id"] == section]
    if as_json:
        print_json(found)
        return
    if section is None:
        for line in found["markdown"].splitlines():
            click.echo(plain_text(line))
        return
    for one in found["sections"]:
        for step in one["steps"]:
            click.echo(plain_text(f"# {step['text']}"))
            for line in step["commands"]:
                click.echo(plain_text(line))

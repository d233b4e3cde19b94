"""`guardhouse events`: what changes at the hub, as it happens. Wiring only."""

import time
from typing import Any

import click

from guardhouse.cli.client import HubClient, HubUnreachable, hub_options, print_json
from guardhouse.cli.event_stream import read_events
from guardhouse.cli.tables import plain_text

__all__ = ["events"]

RETRY_S = 2.0


@click.command()
@click.option("--after", type=click.IntRange(0), metavar="SEQ", help="Begin behind this audit record; without, now.")
@click.option("--action", metavar="TEXT", help="Only actions that begin so, as 'task.' or 'approval.ask'.")
@click.option("--until", metavar="ACTION", help="End, with status 0, after the first event of this action.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@hub_options
def events(client: HubClient, *, after: int | None, action: str | None, until: str | None, as_json: bool) -> None:
    """Print what changes that you may see, until Ctrl-C; a stream that broke is taken up where it broke.

    'presence', a runner that comes or goes, has no number: what happened while the stream was broken is in
    'guardhouse env list'.
    """
    while True:
        try:
            for name, number, facts in read_events(client, "/api/v1/events", query={"after": after}):
                after = after if number is None else number
                if action is None or name.startswith(action):
                    _print(name, facts, as_json=as_json)
                if name == until:
                    return
        except HubUnreachable as error:
            if after is None:
                raise
            click.echo(f"guardhouse events: {error}; trying again", err=True)
            time.sleep(RETRY_S)


def _print(name: str, facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json({"event": name, **facts})
        return
    words = " ".join(f"{key}={value}" for key, value in facts.items() if value is not None and key != "at")
    click.echo(plain_text(f"{facts.get('at') or '':24} {name}  {words}".strip()))

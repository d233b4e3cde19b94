"""`guardhouse team`: teams of the hub's account and who is in them. Wiring only."""

from urllib.parse import quote

import click

from guardhouse.cli.client import HubClient, hub_options, print_json
from guardhouse.cli.tables import print_table

__all__ = ["team"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def team() -> None:
    """Make teams; people see and edit the environments of their own."""


def _members(name: str) -> str:
    return f"/api/v1/teams/{quote(name, safe='')}/members"


@team.command("list")
@_JSON
@hub_options
def list_(client: HubClient, *, as_json: bool) -> None:
    """List teams."""
    found = client.request("GET", "/api/v1/teams")
    if as_json:
        print_json(found)
    else:
        print_table(("id", "name"), [(one["id"], one["name"]) for one in found["teams"]], flexible=1)


@team.command()
@click.argument("name")
@_JSON
@hub_options
def create(client: HubClient, *, name: str, as_json: bool) -> None:
    """Create a team."""
    found = client.request("POST", "/api/v1/teams", body={"name": name})
    if as_json:
        print_json(found)
    else:
        click.echo(found["id"])


@team.command()
@click.argument("name")
@_JSON
@hub_options
def members(client: HubClient, *, name: str, as_json: bool) -> None:
    """List who is in the team NAME (or id)."""
    found = client.request("GET", _members(name))
    if as_json:
        print_json(found)
    else:
        rows = [(one["id"], one["email"], one["name"]) for one in found["members"]]
        print_table(("id", "email", "name"), rows, flexible=2)


@team.command()
@click.argument("name")
@click.argument("person")
@hub_options
def add(client: HubClient, *, name: str, person: str) -> None:
    """Put PERSON (id or address) in the team NAME."""
    client.request("PUT", f"{_members(name)}/{quote(person, safe='@')}")
    click.echo(f"{person} is in {name}", err=True)


@team.command()
@click.argument("name")
@click.argument("person")
@hub_options
def remove(client: HubClient, *, name: str, person: str) -> None:
    """Take PERSON (id or address) out of the team NAME."""
    client.request("DELETE", f"{_members(name)}/{quote(person, safe='@')}")
    click.echo(f"{person} is not in {name} any more", err=True)

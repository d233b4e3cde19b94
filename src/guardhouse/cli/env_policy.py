"""`guardhouse env policy`: the policy that a hub asks an environment's runner to hold next to its own. Wiring only."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from guardhouse.cli.client import HubClient, hub_options, print_json
from guardhouse.cli.tables import print_facts

__all__ = ["policy"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_REFERENCE = click.argument("environment", metavar="ENVIRONMENT")


def _path(reference: str) -> str:
    return f"/api/v1/environments/{quote(reference, safe='')}/policy"


@click.group()
def policy() -> None:
    """Narrow what an environment's own policy allows: set, show and withdraw the hub's policy."""


@policy.command("set")
@_REFERENCE
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_JSON
@hub_options
def set_(client: HubClient, *, environment: str, file: Path, as_json: bool) -> None:
    """Have the runner hold the policy in FILE next to its own: what is allowed, both must allow.

    The runner takes it only when it permits nothing that its own policy does not; `show` says what it answered.
    """
    from guardhouse.cli.policy_files import read_text

    found = client.request("PUT", _path(environment), body={"document": read_text(file)})
    _show(found, as_json=as_json)


@policy.command()
@_REFERENCE
@_JSON
@hub_options
def show(client: HubClient, *, environment: str, as_json: bool) -> None:
    """Show the hub's policy for an environment, and what its runner says of it."""
    _show(client.request("GET", _path(environment)), as_json=as_json)


@policy.command()
@_REFERENCE
@hub_options
def withdraw(client: HubClient, *, environment: str) -> None:
    """Withdraw the hub's policy: the runner's own holds alone again."""
    client.request("DELETE", _path(environment))
    click.echo("withdrawn", err=True)


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    print_facts(
        [
            ("policy", found["policy_id"]),
            ("state", found["state"]),
            ("refused because", found["error"]),
            ("digest", found["digest"]),
            ("in force there", found["reported_digest"]),
            ("set", f"{found['set_at']} by {found['set_by']}"),
            ("answered", found["answered_at"]),
        ]
    )
    click.echo(f"\n{found['document'].rstrip()}")

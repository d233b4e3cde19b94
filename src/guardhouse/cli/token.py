"""`guardhouse token`: API tokens of the hub. Wiring only."""

from urllib.parse import quote

import click

from guardhouse.cli.client import HubClient, hub_options, print_json
from guardhouse.cli.tables import print_table

__all__ = ["token"]

SCOPES = (
    "env:read",
    "env:write",
    "tasks:read",
    "tasks:run",
    "tokens:write",
    "approvals:read",
    "approvals:decide",
    "metrics:read",
    "admin",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def token() -> None:
    """Create, list and revoke API tokens. A token is shown once, when it is made."""


@token.command()
@click.argument("name")
@click.option("--scope", "scopes", type=click.Choice(SCOPES), multiple=True, required=True, help="May be repeated.")
@click.option("--expires-in", type=click.IntRange(60), metavar="SECONDS", help="For ever without.")
@click.option("--environment", "environments", multiple=True, help="Only for this environment; may be repeated.")
@click.option("--tag", "tags", multiple=True, help="Only for environments with this tag; may be repeated.")
@_JSON
@hub_options
def create(
    client: HubClient,
    *,
    name: str,
    scopes: tuple[str, ...],
    expires_in: int | None,
    environments: tuple[str, ...],
    tags: tuple[str, ...],
    as_json: bool,
) -> None:
    """Create an API token with some of your own scopes and print it."""
    body = {
        "name": name,
        "scopes": list(scopes),
        "expires_in_s": expires_in,
        "environments": list(environments) or None,
        "tags": list(tags) or None,
    }
    created = client.request("POST", "/api/v1/tokens", body=body)
    if as_json:
        print_json(created)
    else:
        click.echo(created["secret"])
        click.echo(f"{created['token']['id']}: keep it now, it is not shown again", err=True)


@token.command("list")
@click.option("--all", "everything", is_flag=True, help="Revoked and expired ones too.")
@_JSON
@hub_options
def list_(client: HubClient, *, everything: bool, as_json: bool) -> None:
    """List API tokens, without their secrets."""
    found = [one for one in client.request("GET", "/api/v1/tokens")["tokens"] if everything or one["valid"]]
    if as_json:
        print_json({"tokens": found})
        return
    rows = [
        (
            one["id"],
            one["name"],
            one["hint"],
            " ".join(one["scopes"]),
            one["expires_at"] or "never",
            "valid" if one["valid"] else "revoked" if one["revoked_at"] else "expired",
        )
        for one in found
    ]
    print_table(("id", "name", "token", "scopes", "expires", "state"), rows, flexible=3)


@token.command()
@click.argument("token_id")
@click.option("--and-made", is_flag=True, help="Also the API and join tokens that were made with it, and so on.")
@hub_options
def revoke(client: HubClient, *, token_id: str, and_made: bool) -> None:
    """Revoke an API token by its id; the next request with it is refused.

    What was made with it goes on, unless --and-made: say that where the token was stolen.
    """
    query = {"made": "true"} if and_made else None
    client.request("DELETE", f"/api/v1/tokens/{quote(token_id, safe='')}", query=query)
    click.echo(f"revoked {token_id}", err=True)

"""`guardhouse env join-token`: tokens with which machines become environments. Wiring only."""

from urllib.parse import quote

import click

from guardhouse.cli.client import HubClient, hub_options, print_json
from guardhouse.cli.tables import print_table

__all__ = ["join_token"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group("join-token")
def join_token() -> None:
    """Tokens that machines swap for an environment and a key of their own (guardhouse join)."""


@join_token.command()
@click.option("--name", help="What the one environment is called; without, its hostname.")
@click.option("--tag", "tags", multiple=True, help="A tag of what joins; may be given several times, or with commas.")
@click.option("--team", help="The team that it belongs to; without, the whole account.")
@click.option("--uses", type=click.IntRange(1, 1_000), default=1, show_default=True, help="How many machines may join.")
@click.option(
    "--expires-in",
    type=click.IntRange(60, 7 * 86_400),
    default=3_600,
    show_default=True,
    metavar="SECONDS",
    help="It works no longer than this.",
)
@_JSON
@hub_options
def create(
    client: HubClient,
    *,
    name: str | None,
    tags: tuple[str, ...],
    team: str | None,
    uses: int,
    expires_in: int,
    as_json: bool,
) -> None:
    """Make a join token and print it; it is shown this once."""
    body = {
        "name": name,
        "tags": [tag.strip() for group in tags for tag in group.split(",") if tag.strip()],
        "scope": {"kind": "team", "team": team} if team else {"kind": "account"},
        "uses": uses,
        "expires_in_s": expires_in,
    }
    made = client.request("POST", "/api/v1/join-tokens", body=body)
    if as_json:
        print_json(made)
        return
    click.echo(made["secret"])
    click.echo(f"{made['join_token']['id']}: until {made['join_token']['expires_at']}; on the machine:", err=True)
    click.echo(f"guardhouse join --hub {made['hub_url']} --join-token-file - --out runner.key", err=True)


@join_token.command("list")
@_JSON
@hub_options
def list_(client: HubClient, *, as_json: bool) -> None:
    """List the join tokens that still work, without their secrets."""
    found = client.request("GET", "/api/v1/join-tokens")
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["id"],
            one["name"] or "",
            one["scope"]["team"] or "Account",
            ",".join(one["tags"]),
            one["uses_left"],
            one["expires_at"],
        )
        for one in found["join_tokens"]
    ]
    print_table(("id", "name", "scope", "tags", "uses left", "expires"), rows, flexible=3)


@join_token.command()
@click.argument("token_id")
@hub_options
def delete(client: HubClient, *, token_id: str) -> None:
    """End a join token by its id. Machines that joined with it stay."""
    client.request("DELETE", f"/api/v1/join-tokens/{quote(token_id, safe='')}")
    click.echo(f"deleted {token_id}", err=True)

"""`guardhouse env`: environments and their runner tokens. Wiring only."""

from typing import Any
from urllib.parse import quote

import click

from guardhouse.cli.client import HubClient, hub_options, print_json
from guardhouse.cli.env_join import join_token
from guardhouse.cli.env_lifecycle import drain, guide, undrain
from guardhouse.cli.env_policy import policy
from guardhouse.cli.paging import read_pages
from guardhouse.cli.tables import print_facts, print_table

__all__ = ["env"]

STATUSES = ("pending", "online", "degraded", "draining", "offline")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_REFERENCE = click.argument("environment", metavar="ENVIRONMENT")


def environment_path(reference: str, rest: str = "") -> str:
    """Return the API path of an environment given by name or id."""
    return f"/api/v1/environments/{quote(reference, safe='')}{rest}"


def _scope(environment: dict[str, Any]) -> str:
    scope = environment["scope"]
    return scope["team"] if scope["kind"] == "team" else "Account"


def _machine(environment: dict[str, Any]) -> str:
    machine = environment["machine"] or {}
    return " / ".join(str(machine[key]) for key in ("os", "arch", "hostname") if machine.get(key))


@click.group()
def env() -> None:
    """Create, list, show and delete environments: the places where commands run."""


for _command in (policy, drain, undrain, guide, join_token):
    env.add_command(_command)


@env.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only these.")
@click.option("--tag", help="Only those with this tag.")
@click.option("--scope", help="'account', or a team's name or id.")
@click.option("--text", help="Text in the name, the id or the machine's facts.")
@click.option("--kind", type=click.Choice(("byoc", "cloud")), help="Self-hosted ones, or managed sandboxes.")
@_JSON
@hub_options
def list_(
    client: HubClient,
    *,
    status: str | None,
    tag: str | None,
    scope: str | None,
    text: str | None,
    kind: str | None,
    as_json: bool,
) -> None:
    """List environments by name."""
    query = {"status": status, "tag": tag, "scope": scope, "text": text, "kind": kind}
    found, _ = read_pages(client, "/api/v1/environments", "environments", query=query)
    if as_json:
        print_json({"environments": found})
        return
    rows = [
        (
            one["status"],
            one["name"],
            _scope(one),
            ",".join(one["tags"]),
            _machine(one),
            f"{one['version'] or ''}{' (upgrade available)' if one['upgrade_available'] else ''}",
            one["last_heartbeat_ago"],
        )
        for one in found
    ]
    print_table(("status", "name", "scope", "tags", "machine", "version", "last heartbeat"), rows, flexible=4)


@env.command()
@click.argument("name", default="")
@click.option("--tag", "tags", multiple=True, help="A tag; may be given several times, or with commas.")
@click.option("--team", help="The team that it belongs to; without, the whole account.")
@click.option("--token-out", type=click.Path(dir_okay=False), help="Write the runner token to this new file (0600).")
@_JSON
@hub_options
def create(
    client: HubClient, *, name: str, tags: tuple[str, ...], team: str | None, token_out: str | None, as_json: bool
) -> None:
    """Create an environment and show its runner's token. A blank NAME becomes the runner's hostname."""
    body = {
        "name": name,
        "tags": _tags(tags),
        "scope": {"kind": "team", "team": team} if team else {"kind": "account"},
    }
    created = client.request("POST", "/api/v1/environments", body=body)
    if token_out:
        _write_token(token_out, created.pop("token"))
        created["token_file"] = token_out
    if as_json:
        print_json(created)
        return
    environment = created["environment"]
    print_facts(
        [
            ("id", environment["id"]),
            ("name", environment["name"]),
            ("token", created.get("token")),
            ("token file", token_out),
            ("connect url", created["connect_url"]),
        ]
    )
    place = token_out or "TOKEN_FILE"
    click.echo(f"\nOn the host: guardhouse run --url {created['connect_url']} --token-file {place}", err=True)


def _tags(given: tuple[str, ...]) -> list[str]:
    return [tag.strip() for group in given for tag in group.split(",") if tag.strip()]


def _write_token(path: str, token: str) -> None:
    import os

    from guardhouse.cli.client import ClientError
    from guardhouse.cli.exit_codes import ExitCode

    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ClientError(
            f"the environment exists, but {path!r} cannot be written: {error.strerror};"
            " 'guardhouse env token' shows the token again",
            exit_code=ExitCode.FAILED,
        ) from error
    with os.fdopen(fd, "w") as file:
        file.write(token + "\n")


@env.command()
@_REFERENCE
@_JSON
@hub_options
def show(client: HubClient, *, environment: str, as_json: bool) -> None:
    """Show one environment by name or id."""
    found = client.request("GET", environment_path(environment))
    if as_json:
        print_json(found)
        return
    machine, connection = found["machine"] or {}, found["connection"] or {}
    print_facts(
        [
            ("id", found["id"]),
            ("name", found["name"]),
            ("status", f"{found['status']}: {found['status_reason']}"),
            ("scope", _scope(found)),
            ("tags", ", ".join(found["tags"])),
            ("version", found["version"]),
            ("upgrade available", found["upgrade_available"]),
            *[(one["code"].replace("_", " "), one["text"]) for one in found["conditions"]],
            ("last heartbeat", f"{found['last_heartbeat_ago']} ({found['last_heartbeat_at'] or 'none yet'})"),
            ("connected from", connection.get("remote_address")),
            ("connected at", connection.get("connected_at")),
            ("protocol", connection.get("protocol")),
            ("tasks in flight", connection.get("tasks_in_flight")),
            *[(name.replace("_", " "), value) for name, value in machine.items()],
            *[(name.replace("_", " "), value) for name, value in (found["metrics"] or {}).items()],
            ("created", f"{found['created_at']} by {found['created_by']}"),
        ]
    )


@env.command()
@_REFERENCE
@click.option("--name", help="Another name.")
@click.option("--tag", "tags", multiple=True, help="Have these tags and no others; repeatable, or with commas.")
@click.option("--no-tags", is_flag=True, help="Have no tags.")
@_JSON
@hub_options
def update(
    client: HubClient, *, environment: str, name: str | None, tags: tuple[str, ...], no_tags: bool, as_json: bool
) -> None:
    """Change an environment's name or tags. Its scope stays: make another one where that is wrong."""
    if tags and no_tags:
        raise click.UsageError("--tag and --no-tags exclude each other")
    body: dict[str, Any] = {} if name is None else {"name": name}
    if tags or no_tags:
        body["tags"] = _tags(tags)
    if not body:
        raise click.UsageError("nothing to change: give --name, --tag or --no-tags")
    found = client.request("PATCH", environment_path(environment), body=body)
    if as_json:
        print_json(found)
    else:
        click.echo(f"{found['id']} is {found['name']!r}, tags: {', '.join(found['tags']) or 'none'}", err=True)


@env.command()
@_REFERENCE
@click.option("--yes", is_flag=True, help="Do not ask.")
@hub_options
def delete(client: HubClient, *, environment: str, yes: bool) -> None:
    """Delete an environment: its token stops working, its runner is disconnected, its running tasks are lost."""
    found = client.request("GET", environment_path(environment))
    if not yes:
        click.confirm(f"Delete {found['name']!r} ({found['id']}, {found['status']})?", abort=True, err=True)
    client.request("DELETE", environment_path(found["id"]))
    click.echo(f"deleted {found['id']}", err=True)


@env.command()
@_REFERENCE
@_JSON
@hub_options
def token(client: HubClient, *, environment: str, as_json: bool) -> None:
    """Show the runner token again. The hub writes down who looked."""
    found = client.request("GET", environment_path(environment, "/token"))
    if as_json:
        print_json(found)
    else:
        click.echo(found["token"])


@env.command()
@_REFERENCE
@click.option(
    "--overlap",
    type=click.IntRange(0, 30 * 86_400),
    default=86_400,
    show_default=True,
    metavar="SECONDS",
    help="How long the old token keeps working; 0 ends it and its connection at once.",
)
@_JSON
@hub_options
def rotate(client: HubClient, *, environment: str, overlap: int, as_json: bool) -> None:
    """Make a new runner token; the old one works until the overlap ends."""
    found = client.request("POST", environment_path(environment, "/token/rotate"), body={"overlap_s": overlap})
    if as_json:
        print_json(found)
    else:
        click.echo(found["token"])
        click.echo(f"the old token works until {found['overlap_until']}", err=True)

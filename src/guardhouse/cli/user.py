"""`guardhouse user`: people of the hub's account. Wiring only."""

import sys
from typing import Any
from urllib.parse import quote, urlsplit

import click

from guardhouse.cli.client import HubClient, Settings, hub_options, print_json
from guardhouse.cli.exit_codes import ExitCode
from guardhouse.cli.tables import print_facts, print_table

__all__ = ["user"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_ROLE = click.option("--role", type=click.Choice(("owner", "admin", "member")), help="What they may do.")


@click.group()
def user() -> None:
    """Invite, list, change and disable people."""


def _path(person: str) -> str:
    return f"/api/v1/people/{quote(person, safe='@')}"


@user.command("list")
@_JSON
@hub_options
def list_(client: HubClient, *, as_json: bool) -> None:
    """List everybody of the account."""
    found = client.request("GET", "/api/v1/people")
    if as_json:
        print_json(found)
        return
    rows = [
        (one["id"], one["email"], one["name"], one["role"], one["state"], one["last_sign_in_at"] or "never")
        for one in found["people"]
    ]
    print_table(("id", "email", "name", "role", "state", "last sign-in"), rows, flexible=2)


def _print_link(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    click.echo(found["link"])
    click.echo(f"works once, until {found['expires_at']}; hand it to {found['person']['email']} yourself", err=True)


@user.command()
@click.argument("email")
@click.option("--name", help="What they are called.")
@_ROLE
@click.option("--team", "teams", multiple=True, help="Put them in this team; may be repeated.")
@_JSON
@hub_options
def invite(
    client: HubClient, *, email: str, name: str | None, role: str | None, teams: tuple[str, ...], as_json: bool
) -> None:
    """Invite a person and print the one-time link with which they set their password."""
    body = {"email": email, "name": name, "role": role or "member", "teams": list(teams)}
    _print_link(client.request("POST", "/api/v1/people", body=body), as_json=as_json)


@user.command()
@click.argument("person")
@_JSON
@hub_options
def reset(client: HubClient, *, person: str, as_json: bool) -> None:
    """Print a one-time link with which PERSON (id or address) sets a new password."""
    _print_link(client.request("POST", f"{_path(person)}/reset"), as_json=as_json)


@user.command()
@click.argument("person")
@click.option("--name", help="What they are called.")
@_ROLE
@_JSON
@hub_options
def update(client: HubClient, *, person: str, name: str | None, role: str | None, as_json: bool) -> None:
    """Change PERSON's name or role."""
    body = {key: value for key, value in (("name", name), ("role", role)) if value is not None}
    found = client.request("PATCH", _path(person), body=body)
    if as_json:
        print_json(found)
    else:
        click.echo(f"{found['email']} is {found['role']}", err=True)


@user.command()
@click.argument("person")
@hub_options
def disable(client: HubClient, *, person: str) -> None:
    """Shut PERSON out: their sign-ins and tokens end at once."""
    client.request("PATCH", _path(person), body={"disabled": True})
    click.echo(f"disabled {person}", err=True)


@user.command()
@click.argument("person")
@hub_options
def enable(client: HubClient, *, person: str) -> None:
    """Let PERSON in again; their tokens work again, sign-ins are over."""
    client.request("PATCH", _path(person), body={"disabled": False})
    click.echo(f"enabled {person}", err=True)


@user.command()
@click.argument("person")
@_JSON
@hub_options
def show(client: HubClient, *, person: str, as_json: bool) -> None:
    """Show PERSON (id or address)."""
    found = client.request("GET", _path(person))
    if as_json:
        print_json(found)
    else:
        print_facts([(name.replace("_", " "), value) for name, value in found.items()])


@user.command()
@click.argument("person")
@hub_options
def unlink(client: HubClient, *, person: str) -> None:
    """Forget who PERSON is at the identity provider, and end their sign-ins."""
    client.request("DELETE", f"{_path(person)}/oidc")
    click.echo(f"unlinked {person}", err=True)


@user.command("sign-ins")
@_JSON
@hub_options
def sign_ins(client: HubClient, *, as_json: bool) -> None:
    """List the browsers that you are signed in with; 'token list' has your terminals."""
    found = client.request("GET", "/api/v1/self/sign-ins")
    if as_json:
        print_json(found)
        return
    rows = [[one[name] or "" for name in ("id", "last_used_at", "address", "user_agent")] for one in found["sign_ins"]]
    print_table(("sign-in", "last used", "address", "browser"), rows, flexible=3)


@user.command("end-sign-in")
@click.argument("sign_in")
@hub_options
def end_sign_in(client: HubClient, *, sign_in: str) -> None:
    """Sign the browser SIGN_IN (an id of 'user sign-ins') out."""
    client.request("DELETE", f"/api/v1/self/sign-ins/{quote(sign_in, safe='')}")
    click.echo(f"ended {sign_in}", err=True)


@user.command()
@click.option("--passwords-stdin", is_flag=True, help="Read the present one and the new one from two lines.")
@hub_options
def password(client: HubClient, *, passwords_stdin: bool) -> None:
    """Change your own password; every browser that you are signed in with is signed out."""
    if passwords_stdin:
        current, new = (sys.stdin.readline().rstrip("\n") for _ in range(2))
    else:
        current = click.prompt("Present password", hide_input=True)
        new = click.prompt("New password", hide_input=True, confirmation_prompt=True)
    client.request("POST", "/api/v1/self/password", body={"current": current, "new": new})
    click.echo("changed; browsers are signed out", err=True)


@user.command()
@click.argument("link")
@click.option("--email", help="Your address; only for the first owner's link.")
@click.option("--name", help="What you are called.")
@click.option("--ca-file", metavar="FILE", help="CA that signed the hub's certificate. [GUARDHOUSE_CA_FILE]")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input, not from the terminal.")
def accept(*, link: str, email: str | None, name: str | None, ca_file: str | None, password_stdin: bool) -> None:
    """Set your password with the one-time LINK that you were given; for the first owner's, give --email too."""
    import os
    from pathlib import Path

    from guardhouse.cli.client import ClientError

    parts = urlsplit(link)
    secret = parts.fragment
    if not secret.startswith("ghl_") or parts.scheme not in {"http", "https"}:
        raise click.UsageError("LINK is the whole address, with # and what follows; quote it for the shell")
    base = f"{parts.scheme}://{parts.netloc}{parts.path.removesuffix('/welcome')}"
    if password_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = click.prompt("New password", hide_input=True, confirmation_prompt=True)
    body = {"token": secret, "password": password, "email": email, "name": name}
    ca = ca_file or os.environ.get("GUARDHOUSE_CA_FILE")
    settings = Settings(base, "", Path(ca).expanduser() if ca else None)
    try:
        with HubClient(settings) as client:
            found = client.request(
                "POST", "/api/v1/links/accept", body={key: value for key, value in body.items() if value is not None}
            )
    except ClientError as error:
        click.echo(f"guardhouse: {error}", err=True)
        sys.exit(error.exit_code if error.exit_code else ExitCode.FAILED)
    click.echo(f"{found['email']} is {found['role']}; sign in at {base}", err=True)

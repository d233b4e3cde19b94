"""`guardhouse login`, `logout` and `whoami`: people sign in at a hub from a terminal.

The hub shows a code that is approved in any browser that is signed in there; or, with --password, the terminal asks
for address and password. Neither leaves anything in arguments or environment. Runs in the `guardhouse` command of
whoever operates the hub.
"""

import getpass
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from guardhouse.cli.client import ClientError, HubClient, HubUnreachable, Settings, check_url, hub_options, print_json
from guardhouse.cli.exit_codes import ExitCode
from guardhouse.cli.logins import (
    Login,
    Logins,
    LoginsUnusable,
    change_logins,
    check_context,
    default_context,
    read_logins,
)
from guardhouse.cli.tables import plain_text, print_facts
from guardhouse.cli.token import SCOPES

__all__ = ["login", "logout", "whoami"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
LIFE_MAX_S: Final = 90 * 86_400
# A hub that restarts meanwhile has forgotten the code; a network that is away for a moment has not.
UNREACHABLE_WAIT_S: Final = 5.0


@click.command()
@click.option("--hub", metavar="URL", envvar="GUARDHOUSE_HUB_URL", show_envvar=True, required=True, help="The hub.")
@click.option("--ca-file", envvar="GUARDHOUSE_CA_FILE", show_envvar=True, help="CA that signed the hub's certificate.")
@click.option("--context", metavar="NAME", help="What this login is called; without, the hub's host.")
@click.option("--name", help="What the token is called at the hub; without, login USER@HOST.")
@click.option("--scope", "scopes", type=click.Choice(SCOPES), multiple=True, help="Only this; may be repeated.")
@click.option(
    "--expires-in",
    type=click.IntRange(60, LIFE_MAX_S),
    default=7 * 86_400,
    show_default=True,
    metavar="SECONDS",
    help="It works no longer than this.",
)
@click.option("--password", "with_password", is_flag=True, help="Ask for address and password here, use no browser.")
@click.option("--email", help="Your address, with --password; without, it is asked for.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input, not from the terminal.")
@_JSON
def login(
    *,
    hub: str,
    ca_file: str | None,
    context: str | None,
    name: str | None,
    scopes: tuple[str, ...],
    expires_in: int,
    with_password: bool,
    email: str | None,
    password_stdin: bool,
    as_json: bool,
) -> None:
    """Sign in at a hub; commands then need no token file.

    Shows a code to approve in a browser that is signed in at the hub, on any machine. The token is kept in
    ~/.config/guardhouse/logins.json (0600). Exit 4: refused, or nobody approved it in ten minutes.
    """
    if email is not None and not (with_password or password_stdin):
        raise click.UsageError("--email goes with --password")
    hub = hub.rstrip("/")
    asked = {"name": name or _own_name(), "expires_in_s": expires_in, "scopes": list(scopes) or None}
    try:
        check_url(hub)
        chosen = check_context(context or default_context(hub))
        # Before anybody approves anything: a file that cannot be used is said now.
        read_logins(os.environ)
        with HubClient(Settings(hub, "", Path(ca_file).expanduser() if ca_file else None)) as client:
            if with_password or password_stdin:
                address = email or click.prompt("Email", err=True)
                made = client.request(
                    "POST",
                    "/api/v1/sign-in/token",
                    body={**asked, "email": address, "password": _password(from_stdin=password_stdin)},
                )
            else:
                made = _approved_elsewhere(client, asked)
        person = _keep(hub, ca_file, chosen, made)
    except LoginsUnusable as error:
        click.echo(f"guardhouse login: {error}", err=True)
        sys.exit(ExitCode.NOT_AUTHORIZED if error.is_unsafe else ExitCode.FAILED)
    except ClientError as error:
        click.echo(f"guardhouse login: {error}", err=True)
        sys.exit(error.exit_code)
    expires_at = made["token"]["expires_at"]
    if as_json:
        print_json(
            {
                "context": chosen,
                "hub_url": hub,
                "email": person["email"],
                "role": person["role"],
                "token_id": made["token"]["id"],
                "scopes": made["token"]["scopes"],
                "expires_at": expires_at,
            }
        )
        return
    click.echo(f"signed in at {hub} as {plain_text(person['email'])} until {expires_at} (context {chosen})", err=True)


def _own_name() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"login {plain_text(user)}@{plain_text(platform.node() or 'unknown')}"[:128].strip()


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    return str(click.prompt("Password", hide_input=True, err=True))


def _approved_elsewhere(client: HubClient, asked: dict[str, Any]) -> dict[str, Any]:
    """Show a code and wait until somebody has approved it; return the token."""
    begun = client.request("POST", "/api/v1/device-sign-ins", body=asked)
    click.echo(f"Open {plain_text(begun['verification_uri'])}", err=True)
    click.echo(f"and enter the code {plain_text(begun['user_code'])}", err=True)
    end_s = time.monotonic() + float(begun["expires_in_s"])
    body = {"device_code": begun["device_code"]}
    while time.monotonic() < end_s:
        time.sleep(min(60.0, max(1.0, float(begun["interval_s"]))))
        try:
            found = client.request("POST", "/api/v1/device-token", body=body)
        except HubUnreachable as error:
            click.echo(f"guardhouse login: {error}; trying again", err=True)
            time.sleep(UNREACHABLE_WAIT_S)
            continue
        if "secret" in found:
            return found
    raise ClientError(
        "nobody approved the code in time; run 'guardhouse login' again", exit_code=ExitCode.NOT_AUTHORIZED
    )


def _keep(hub: str, ca_file: str | None, context: str, made: dict[str, Any]) -> dict[str, Any]:
    """Store the new token, end the one that it takes the place of, and return whose it is."""
    ca = Path(ca_file).expanduser().absolute() if ca_file else None
    settings = Settings(hub, made["secret"], ca)
    with HubClient(settings) as client:
        person = client.request("GET", "/api/v1/self")
        new = Login(
            hub_url=hub,
            ca_file=str(ca) if ca is not None else None,
            token=made["secret"],
            token_id=made["token"]["id"],
            email=person["email"] or person["name"],
            expires_at=made["token"]["expires_at"],
        )

        def put(logins: Logins) -> Login | None:
            before = logins.by_context.get(context)
            logins.by_context[context] = new
            logins.current = context
            return before

        try:
            before = change_logins(os.environ, put)
        except LoginsUnusable:
            # A token that nobody keeps must not stay valid.
            client.request("DELETE", "/api/v1/self/token")
            raise
    if before is not None:
        _end(before, say=lambda text: click.echo(f"guardhouse login: the token before it: {text}", err=True))
    return person


def _end(one: Login, *, say: Callable[[str], None]) -> bool:
    """Revoke a login's token at its hub and return whether it is over for certain."""
    try:
        with HubClient(Settings(one.hub_url, one.token, Path(one.ca_file) if one.ca_file else None)) as client:
            client.request("DELETE", "/api/v1/self/token")
    except ClientError as error:
        if error.code == "authentication_failed":
            return True
        say(f"not revoked: {error}; 'guardhouse token revoke {one.token_id}' ends it")
        return False
    return True


@click.command()
@click.option("--context", metavar="NAME", envvar="GUARDHOUSE_CONTEXT", show_envvar=True, help="Of this hub.")
@click.option("--all", "everything", is_flag=True, help="Of every hub.")
def logout(*, context: str | None, everything: bool) -> None:
    """Revoke the token of a login at its hub and forget it here; without --context, of the current one.

    Exit 3: there is no such login. Exit 5: forgotten here, but the hub could not be told.
    """
    if everything and context is not None:
        raise click.UsageError("--all and --context exclude each other")

    def take(logins: Logins) -> dict[str, Login]:
        names = list(logins.by_context) if everything else [name for name in [context or logins.current] if name]
        taken = {name: logins.by_context.pop(name) for name in names if name in logins.by_context}
        if logins.current not in logins.by_context:
            logins.current = next(iter(logins.by_context)) if len(logins.by_context) == 1 else None
        return taken

    try:
        taken = change_logins(os.environ, take)
    except LoginsUnusable as error:
        click.echo(f"guardhouse logout: {error}", err=True)
        sys.exit(ExitCode.FAILED)
    if not taken:
        what = f"context {context!r}" if context else "login"
        click.echo(f"guardhouse logout: there is no {what}; 'guardhouse context list' shows them", err=True)
        sys.exit(ExitCode.NOT_FOUND)
    over = True
    for name, one in taken.items():
        is_over = _end(one, say=lambda text: click.echo(f"guardhouse logout: {text}", err=True))
        click.echo(f"signed out of {one.hub_url} (context {name})", err=True)
        over = over and is_over
    if not over:
        sys.exit(ExitCode.UNAVAILABLE)


@click.command()
@_JSON
@hub_options
def whoami(client: HubClient, *, as_json: bool) -> None:
    """Show who you are at the hub, what you may do there, and until when."""
    found = client.request("GET", "/api/v1/self")
    if as_json:
        print_json({"hub_url": client.url, **found})
        return
    print_facts(
        [
            ("hub", client.url),
            ("person", found["email"] or "(a token of the account)"),
            ("role", found["role"]),
            ("teams", " ".join(found["teams"])),
            ("token", f"{found['name']} ({found['id']})"),
            ("scopes", " ".join(found["scopes"])),
            ("expires", found["expires_at"] or "never"),
        ]
    )

"""`guardhouse context`: the hubs that somebody is signed in at. Wiring only."""

import os
import sys

import click

from guardhouse.cli.client import print_json
from guardhouse.cli.exit_codes import ExitCode
from guardhouse.cli.logins import Logins, LoginsUnusable, change_logins, read_logins
from guardhouse.cli.tables import print_table

__all__ = ["context"]


@click.group()
def context() -> None:
    """Show the hubs that you are signed in at, and choose the one that counts."""


@context.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_(*, as_json: bool) -> None:
    """List the logins of this account; no hub is asked."""
    try:
        logins = read_logins(os.environ)
    except LoginsUnusable as error:
        click.echo(f"guardhouse context: {error}", err=True)
        sys.exit(ExitCode.NOT_AUTHORIZED if error.is_unsafe else ExitCode.FAILED)
    if as_json:
        contexts = [
            {
                "name": name,
                "current": name == logins.current,
                "hub_url": one.hub_url,
                "email": one.email,
                "token_id": one.token_id,
                "expires_at": one.expires_at,
            }
            for name, one in logins.by_context.items()
        ]
        print_json({"contexts": contexts})
        return
    rows = [
        ("*" if name == logins.current else "", name, one.hub_url, one.email, one.expires_at)
        for name, one in logins.by_context.items()
    ]
    print_table(("", "name", "hub", "person", "expires"), rows, flexible=2)


@context.command()
@click.argument("name")
def use(*, name: str) -> None:
    """Let commands that name no hub go to the one of context NAME."""

    def choose(logins: Logins) -> bool:
        if name not in logins.by_context:
            return False
        logins.current = name
        return True

    try:
        is_there = change_logins(os.environ, choose)
    except LoginsUnusable as error:
        click.echo(f"guardhouse context: {error}", err=True)
        sys.exit(ExitCode.FAILED)
    if not is_there:
        click.echo(f"guardhouse context: no login {name!r}; 'guardhouse context list' shows them", err=True)
        sys.exit(ExitCode.NOT_FOUND)

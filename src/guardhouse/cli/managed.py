"""`guardhouse managed`: the managed sandboxes of the hub. Wiring only."""

import re
from typing import Any, Final

import click

from guardhouse.cli.client import HubClient, hub_options, print_json
from guardhouse.cli.tables import print_facts

__all__ = ["managed"]

_PATH = "/api/v1/managed-sandbox"
_DOMAIN: Final = re.compile(r"(\*\.)?([A-Za-z0-9-]{1,63}\.)+[A-Za-z][A-Za-z0-9-]{0,62}", re.ASCII)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def managed() -> None:
    """Show the managed sandboxes and say what they may reach."""


@managed.command()
@_JSON
@hub_options
def show(client: HubClient, *, as_json: bool) -> None:
    """Show whether there can be a new one, how many there are, what they hold and what they may reach."""
    _print(client.request("GET", _PATH), as_json=as_json)


@managed.command()
@click.argument("domains", nargs=-1, metavar="DOMAIN[:PORT,PORT]...")
@click.option("--none", "none", is_flag=True, help="Allow nothing: sandboxes have no network then.")
@_JSON
@hub_options
def allow(client: HubClient, *, domains: tuple[str, ...], none: bool, as_json: bool) -> None:
    """Let managed sandboxes reach these names only: pkg.example.org '*.example.com:80,443'; 443 without a port.

    It holds for each sandbox from its next start or thaw on.
    """
    if bool(domains) == none:
        raise click.UsageError("name domains, or say --none")
    body = {"domains": [_parse(text) for text in domains]}
    _print(client.request("PUT", _PATH, body=body), as_json=as_json)


def _parse(text: str) -> dict[str, Any]:
    name, colon, ports = text.partition(":")
    if _DOMAIN.fullmatch(name) is None:
        raise click.UsageError(
            f"{text!r} is no domain: give names such as packages.example.org, or '*.example.org' for all below it, with"
            " ports behind a colon; no address and no URL"
        )
    if not colon:
        return {"domain": name.lower()}
    try:
        return {"domain": name.lower(), "ports": [int(port) for port in ports.split(",")]}
    except ValueError as error:
        raise click.UsageError(f"{text!r} is not DOMAIN:PORT,PORT") from error


def _print(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    domains = [f"{one['domain']}:{','.join(str(port) for port in one['ports'])}" for one in found["domains"]]
    print_facts(
        [
            ("available", "yes" if found["available"] else f"no: {found['reason']}"),
            ("may reach", " ".join(domains) or "nothing"),
            ("running", f"{found['running']} of {found['running_max']}"),
            ("frozen in memory", _freezing(found)),
            ("sandboxes", f"{found['sandboxes']} of {found['sandboxes_max']}"),
            ("hold", f"{found['size_bytes']} of {found['total_max']} bytes"),
            ("each may hold", f"{found['size_max']} bytes in {found['files_max']} files"),
            ("frozen after", f"{found['idle_s']} s"),
            ("reclaimed after", f"{found['reclaim_s']} s"),
        ]
    )


def _freezing(found: dict[str, Any]) -> str:
    if found["freezer"] is None:
        return f"none; idle ones are ended: {found['freezer_reason']}"
    return f"{found['frozen']} of {found['frozen_max']}, by {found['freezer']}"

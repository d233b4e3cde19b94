"""`guardhouse policy hub`: the policies that a hub has runners hold next to their own. Wiring only."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click

from guardhouse.cli.client import HubClient, hub_options, print_json
from guardhouse.cli.tables import print_facts, print_table

__all__ = ["hub"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
F = TypeVar("F", bound=Callable[..., Any])


def _whose(command: F) -> F:
    for option in (
        click.option("--environment", metavar="ENVIRONMENT", help="Of one environment, by name or id."),
        click.option("--team", metavar="TEAM", help="Of a team: the runners of all its environments."),
        click.option("--account", is_flag=True, help="Of the account: every runner."),
    ):
        command = option(command)
    return command


def _path(*, account: bool, team: str | None, environment: str | None) -> str:
    if [account, team is not None, environment is not None].count(True) != 1:
        raise click.UsageError("say whose: --account, --team TEAM or --environment ENVIRONMENT")
    if account:
        return "/api/v1/policy"
    kind, name = ("teams", team) if team is not None else ("environments", environment or "")
    return f"/api/v1/{kind}/{quote(name or '', safe='')}/policy"


@click.group()
def hub() -> None:
    """Narrow what runners' own policies allow, for the account, a team or an environment.

    A runner holds all that concern it next to its own: what is allowed, every one of them must allow. It takes one only
    when it permits nothing that its own does not.
    """


@hub.command("set")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_whose
@_JSON
@hub_options
def set_(
    client: HubClient, *, file: Path, account: bool, team: str | None, environment: str | None, as_json: bool
) -> None:
    """Have the runners concerned hold the policy in FILE; `show` says what they answered."""
    from guardhouse.cli.policy_files import read_text

    path = _path(account=account, team=team, environment=environment)
    _show(client.request("PUT", path, body={"document": read_text(file)}), as_json=as_json)


@hub.command()
@_whose
@_JSON
@hub_options
def show(client: HubClient, *, account: bool, team: str | None, environment: str | None, as_json: bool) -> None:
    """Show one policy and what the runners concerned say of it."""
    _show(client.request("GET", _path(account=account, team=team, environment=environment)), as_json=as_json)


@hub.command()
@_whose
@hub_options
def withdraw(client: HubClient, *, account: bool, team: str | None, environment: str | None) -> None:
    """Withdraw one policy; the others and the runners' own hold on."""
    client.request("DELETE", _path(account=account, team=team, environment=environment))
    click.echo("withdrawn", err=True)


@hub.command("list")
@click.argument("environment", metavar="ENVIRONMENT")
@_JSON
@hub_options
def list_(client: HubClient, *, environment: str, as_json: bool) -> None:
    """List every policy of the hub's that holds for an environment, the widest first."""
    found = client.request("GET", f"/api/v1/environments/{quote(environment, safe='')}/policies")
    if as_json:
        print_json(found)
        return
    rows = [
        (one["layer"], one["policy_id"], one["state"], "yes" if one["held"] else "no", one["error"] or "")
        for one in found["policies"]
    ]
    print_table(("of", "policy", "state", "held", "refused because"), rows, flexible=4)


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    facts = [
        ("policy", found["policy_id"]),
        ("digest", found["digest"]),
        ("set", f"{found['set_at']} by {found['set_by']}"),
    ]
    if "states" in found:
        facts.append(("runners", ", ".join(f"{count} {state}" for state, count in found["states"].items())))
        facts += [("refused by", f"{one['environment_id']}: {one['error']}") for one in found["refusals"]]
        if found["refusals_left_out"]:
            facts.append(("and by", f"{found['refusals_left_out']} more"))
    else:
        facts += [
            ("state", found["state"]),
            ("refused because", found["error"]),
            ("in force there", found["reported_digest"]),
            ("answered", found["answered_at"]),
        ]
    print_facts(facts)
    click.echo(f"\n{found['document'].rstrip()}")

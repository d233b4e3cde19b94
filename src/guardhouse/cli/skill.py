"""`guardhouse skill`: skills that the hub keeps and brings to runners. Wiring only."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from guardhouse.cli.client import ClientError, HubClient, decode_reply, hub_options, print_json
from guardhouse.cli.exit_codes import ExitCode
from guardhouse.cli.paging import read_pages
from guardhouse.cli.skill_pack import pack_directory
from guardhouse.cli.tables import plain_text, print_facts, print_table
from guardhouse.limits import SKILL_ARCHIVE_MAX_BYTES

__all__ = ["skill"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_SKILL = click.argument("skill")
_PATH: Final = "/api/v1/skills"
_CHUNK_BYTES: Final = 256 * 1024


def _path(skill: str, rest: str = "") -> str:
    return f"{_PATH}/{quote(skill, safe='')}{rest}"


def _read(source: str) -> bytes:
    """Return the archive at ``source``, or one made of the directory there."""
    path = Path(source)
    try:
        if path.is_dir():
            return pack_directory(path)
        with path.open("rb") as file:
            data = file.read(SKILL_ARCHIVE_MAX_BYTES + 1)
    except OSError as error:
        raise ClientError(f"cannot read {source!r}: {error.strerror}", exit_code=ExitCode.USAGE) from error
    if len(data) > SKILL_ARCHIVE_MAX_BYTES:
        raise ClientError(f"{source!r} is over {SKILL_ARCHIVE_MAX_BYTES} bytes", exit_code=ExitCode.USAGE)
    return data


def _upload(client: HubClient, path: str, data: bytes, **query: str | None) -> dict[str, Any]:
    def chunks() -> Iterator[bytes]:
        for at in range(0, len(data), _CHUNK_BYTES):
            yield data[at : at + _CHUNK_BYTES]

    with client.open_stream("POST", path, query=query, content=chunks()) as reply:
        return decode_reply(reply.read())


@click.group()
def skill() -> None:
    """Upload skills, bind them to environments, and see which runner has which version."""


@skill.command()
@click.argument("source", type=click.Path(exists=True))
@click.option("--team", help="For this team; without it for the account.")
@click.option("--env", "environments", multiple=True, metavar="ENVIRONMENT", help="Bind it to this one; repeatable.")
@click.option("--tag", "tags", multiple=True, help="Bind it to environments that have all of these; repeatable.")
@click.option("--automatic", is_flag=True, help="Bind it to every environment that its scope reaches.")
@click.option("--replace", metavar="SKILL", help="A new version of this skill, which becomes the current one.")
@_JSON
@hub_options
def add(
    client: HubClient,
    *,
    source: str,
    team: str | None,
    environments: tuple[str, ...],
    tags: tuple[str, ...],
    automatic: bool,
    replace: str | None,
    as_json: bool,
) -> None:
    """Upload a skill: a zip, tar or tar.gz archive with SKILL.md at its top, or a directory that has one.

    Without --env, --tag or --automatic it is stored and goes nowhere yet ('guardhouse skill bind').
    """
    bindings = _bindings(environments, tags, automatic=True if automatic else None)
    if replace is not None and (bindings or team):
        raise click.UsageError("a new version is bound as the skill is; use 'guardhouse skill bind'")
    data = _read(source)
    if replace is not None:
        made = _upload(client, _path(replace, "/versions"), data)
    else:
        made = _upload(client, _PATH, data, team=team)
        if bindings:
            made["skill"] = client.request("PATCH", _path(made["skill"]["id"]), body=bindings)
    if as_json:
        print_json(made)
        return
    found = made["skill"]
    what = "is" if made["is_new"] else "was there already as"
    click.echo(plain_text(f"{found['name']} {what} version {found['current']['number']} ({found['id']})"))
    for note in made["notes"]:
        click.echo(plain_text(f"guardhouse: note: {note}"), err=True)


def _bindings(environments: tuple[str, ...], tags: tuple[str, ...], *, automatic: bool | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if environments:
        found["environments"] = list(environments)
    if tags:
        found["tags"] = list(tags)
    if automatic is not None:
        found["automatic"] = automatic
    return found


@skill.command("list")
@_JSON
@hub_options
def list_(client: HubClient, *, as_json: bool) -> None:
    """List skills, by name."""
    skills, _ = read_pages(client, _PATH, "skills")
    if as_json:
        print_json({"skills": skills})
        return
    rows = [
        (
            one["name"],
            "yes" if one["enabled"] else "no",
            str(one["current"]["number"]),
            _bound(one),
            one["current"]["description"].partition("\n")[0],
        )
        for one in skills
    ]
    print_table(("name", "enabled", "version", "bound to", "description"), rows, flexible=4)


def _bound(found: dict[str, Any]) -> str:
    words = ["every environment"] if found["automatic"] else []
    if found["tags"]:
        words.append("tags " + "+".join(found["tags"]))
    if found["environment_ids"]:
        words.append(f"{len(found['environment_ids'])} environments")
    return ", ".join(words) or "nothing"


@skill.command()
@_SKILL
@_JSON
@hub_options
def show(client: HubClient, *, skill: str, as_json: bool) -> None:
    """Show one skill, and how it stands in each environment."""
    found = client.request("GET", _path(skill))
    copies, _ = read_pages(client, _path(skill, "/environments"), "copies")
    if as_json:
        print_json({**found, "copies": copies})
        return
    current = found["current"]
    print_facts(
        [
            ("id", found["id"]),
            ("name", found["name"]),
            ("description", current["description"]),
            ("enabled", "yes" if found["enabled"] else "no"),
            ("version", f"{current['number']} of {found['versions']} ({current['version'] or 'unnamed'})"),
            ("checksum", current["checksum"]),
            ("size", f"{current['size']} bytes, {current['files']} files, {current['unpacked_size']} bytes unpacked"),
            ("allowed tools", ", ".join(current["allowed_tools"])),
            ("team", found["team_id"]),
            ("bound to", _bound(found)),
            ("updated", found["updated_at"]),
        ]
    )
    if copies:
        rows = [
            (one["environment_name"], one["state"], str(one["version"] or ""), one["changed_at"], one["error"])
            for one in copies
        ]
        print_table(("environment", "state", "version", "since", "error"), rows, flexible=4)


@skill.command()
@_SKILL
@_JSON
@hub_options
def versions(client: HubClient, *, skill: str, as_json: bool) -> None:
    """List a skill's versions, newest first."""
    found = client.request("GET", _path(skill, "/versions"))
    if as_json:
        print_json(found)
        return
    rows = [
        (
            f"{one['number']}{' *' if one['is_current'] else ''}",
            one["version"],
            one["created_at"],
            one["created_by"],
            one["checksum"],
        )
        for one in found["versions"]
    ]
    print_table(("number", "version", "uploaded", "by", "checksum"), rows, flexible=4)


@skill.command()
@_SKILL
@click.option("--env", "environments", multiple=True, metavar="ENVIRONMENT", help="These environments; repeatable.")
@click.option("--tag", "tags", multiple=True, help="Environments that have all of these tags; repeatable.")
@click.option("--automatic/--not-automatic", "automatic", default=None, help="Every one that its scope reaches.")
@click.option("--none", "is_none", is_flag=True, help="Nothing: it is taken away everywhere.")
@_JSON
@hub_options
def bind(
    client: HubClient,
    *,
    skill: str,
    environments: tuple[str, ...],
    tags: tuple[str, ...],
    automatic: bool | None,
    is_none: bool,
    as_json: bool,
) -> None:
    """Say which environments get a skill; each option replaces what it said before."""
    body = _bindings(environments, tags, automatic=automatic)
    if is_none == bool(body):
        raise click.UsageError("give --none, or what to bind to: --env, --tag, --automatic")
    _change(client, skill, body or {"environments": [], "tags": [], "automatic": False}, as_json=as_json)


def _change(client: HubClient, skill: str, body: dict[str, Any], *, as_json: bool) -> None:
    found = client.request("PATCH", _path(skill), body=body)
    if as_json:
        print_json(found)
    else:
        number = found["current"]["number"]
        state = "" if found["enabled"] else ", disabled"
        click.echo(plain_text(f"{found['name']}: version {number}, bound to {_bound(found)}{state}"))


@skill.command()
@_SKILL
@_JSON
@hub_options
def enable(client: HubClient, *, skill: str, as_json: bool) -> None:
    """Bring a skill to the environments that it is bound to."""
    _change(client, skill, {"enabled": True}, as_json=as_json)


@skill.command()
@_SKILL
@_JSON
@hub_options
def disable(client: HubClient, *, skill: str, as_json: bool) -> None:
    """Take a skill away everywhere; its versions and bindings stay."""
    _change(client, skill, {"enabled": False}, as_json=as_json)


@skill.command()
@_SKILL
@click.argument("number", type=click.IntRange(1))
@_JSON
@hub_options
def use(client: HubClient, *, skill: str, number: int, as_json: bool) -> None:
    """Make version NUMBER the current one: a way back, and forth again."""
    _change(client, skill, {"current": number}, as_json=as_json)


@skill.command()
@_SKILL
@click.argument("number", type=click.IntRange(1))
@click.argument("file", type=click.Path(dir_okay=False))
@hub_options
def fetch(client: HubClient, *, skill: str, number: int, file: str) -> None:
    """Write version NUMBER's zip archive to the new file FILE; - is stdout."""
    with client.open_stream("GET", _path(skill, f"/versions/{number}/archive"), query={}) as reply:
        data = reply.read()
    if file == "-":
        sys.stdout.buffer.write(data)
        return
    try:
        with open(file, "xb", opener=lambda path, flags: os.open(path, flags, 0o644)) as made:
            made.write(data)
    except OSError as error:
        raise ClientError(f"cannot write {file!r}: {error.strerror}", exit_code=ExitCode.USAGE) from error


@skill.command()
@click.argument("environment")
@click.option("--again", is_flag=True, help="Ask its runner anew what it has, and try again what failed.")
@_JSON
@hub_options
def status(client: HubClient, *, environment: str, again: bool, as_json: bool) -> None:
    """Show how every skill stands in ENVIRONMENT; exit status 1 where one failed or was refused."""
    path = f"/api/v1/environments/{quote(environment, safe='')}/skills"
    found = client.request("POST", f"{path}/sync") if again else client.request("GET", path)
    if as_json:
        print_json(found)
    else:
        rows = [
            (one["name"], one["state"], str(one["version"] or ""), one["changed_at"], one["error"])
            for one in found["skills"]
        ]
        print_table(("skill", "state", "version", "since", "error"), rows, flexible=4)
    if not again and any(one["state"] in {"failed", "refused"} for one in found["skills"]):
        sys.exit(ExitCode.FAILED)


@skill.command()
@_SKILL
@click.option("--version", "number", type=click.IntRange(1), help="Only this version, which is not the current one.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@hub_options
def remove(client: HubClient, *, skill: str, number: int | None, yes: bool) -> None:
    """Remove a skill with all its versions, from runners too; or with --version one version."""
    what = f"skill {plain_text(skill)}" + ("" if number is None else f", version {number}")
    if not yes:
        click.confirm(f"Remove {what}?", abort=True, err=True)
    client.request("DELETE", _path(skill, "" if number is None else f"/versions/{number}"))

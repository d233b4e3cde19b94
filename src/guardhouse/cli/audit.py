"""`guardhouse audit`: search, export and verify the hub's audit log. Wiring only."""

import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import click

from guardhouse.cli.client import HubClient, hub_options, print_json
from guardhouse.cli.exit_codes import ExitCode
from guardhouse.cli.tables import print_facts, print_table
from guardhouse.errors import SetupError

__all__ = ["audit"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def audit() -> None:
    """Search, export and verify the hub's audit log."""


def _search_options(command: Any) -> Any:
    for name, text in (
        ("until", "Before this time (ISO 8601)."),
        ("since", "From this time on (ISO 8601)."),
        ("executed", "Part of what really ran."),
        ("command", "Part of the command that was asked for."),
        ("task", "Of this task."),
        ("environment", "Of this environment, by id."),
        ("target", "Done to this id."),
        ("action", "Start of the action, as 'task.' or 'token.create'."),
        ("actor", "By this id of a person or a token."),
        ("person", "By this person (id or address), also through their API tokens."),
    ):
        command = click.option(f"--{name}", metavar="TEXT", help=text)(command)
    return command


@audit.command("list")
@_search_options
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="At most so many.")
@click.option("--before", type=click.IntRange(1), metavar="SEQ", help="Older than this record: the next page.")
@_JSON
@hub_options
def list_(client: HubClient, *, as_json: bool, **query: Any) -> None:
    """List what was done, newest first."""
    _show(client, query, as_json=as_json)


@audit.command()
@click.argument("text")
@_search_options
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="At most so many.")
@click.option("--before", type=click.IntRange(1), metavar="SEQ", help="Older than this record: the next page.")
@_JSON
@hub_options
def search(client: HubClient, *, as_json: bool, **query: Any) -> None:
    """List what was done where TEXT is in the command, in what really ran or in the details."""
    _show(client, query, as_json=as_json)


def _show(client: HubClient, query: dict[str, Any], *, as_json: bool) -> None:
    found = client.request("GET", "/api/v1/audit", query=query)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["seq"],
            one["at"],
            one["actor"],
            one["action"],
            one["target"] or "",
            one["executed"] or one["command"] or "",
        )
        for one in found["events"]
    ]
    print_table(("seq", "time", "who", "action", "target", "command or what ran"), rows, flexible=5)
    if found["next_before"] is not None:
        click.echo(f"more: --before {found['next_before']}", err=True)


@audit.command()
@_JSON
@hub_options
def key(client: HubClient, *, as_json: bool) -> None:
    """Print the public key that the audit log is signed with; keep it where the hub's host cannot change it."""
    found = client.request("GET", "/api/v1/audit/key")
    if as_json:
        print_json(found)
    else:
        click.echo(found["public_key"])


@audit.command()
@click.option("--out", type=click.File("wb", lazy=False), default="-", metavar="FILE", help="Standard output without.")
@click.option("--after", type=click.IntRange(0), default=0, metavar="SEQ", help="Only records behind this one.")
@hub_options
def export(client: HubClient, *, out: BinaryIO, after: int) -> None:
    """Export the audit log as lines of JSON with its signatures, oldest first."""
    for chunk in client.chunks("/api/v1/audit/export", query={"after": after}):
        out.write(chunk)
    out.flush()


@audit.command()
@click.option(
    "--database",
    envvar="GUARDHOUSE_HUB_DATABASE",
    show_envvar=True,
    metavar="URL",
    help="With --state-dir: the store lies at postgresql://USER@HOST/NAME.",
)
@click.option("--file", "file", type=click.Path(path_type=Path), help="Verify this export.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="Verify the store in this hub's state directory.")
@click.option(
    "--public-key",
    metavar="KEY",
    help="The hub's key as 'guardhouse audit key' printed it, or a file with it; without, the log vouches for itself.",
)
@_JSON
@click.pass_context
def verify(
    context: click.Context,
    *,
    file: Path | None,
    state_dir: Path | None,
    database: str | None,
    public_key: str | None,
    as_json: bool,
) -> None:
    """Find changed, lost, moved, repeated and cut off records, in a file, in a store, or in what the hub exports.

    Without --file and --state-dir the whole log is fetched from the hub. Ends with status 1 when something is wrong.
    """
    if file is not None and state_dir is not None:
        raise click.UsageError("give --file or --state-dir, not both")
    if file is None and state_dir is None:
        with tempfile.NamedTemporaryFile(prefix="guardhouse-audit-") as fetched:
            context.invoke(_fetch, out=fetched)
            fetched.flush()
            _verify(Path(fetched.name), None, public_key, as_json=as_json)
    else:
        _verify(file, state_dir, public_key, as_json=as_json, database=database)


@click.command()
@hub_options
def _fetch(client: HubClient, *, out: BinaryIO) -> None:
    for chunk in client.chunks("/api/v1/audit/export", query={}):
        out.write(chunk)


def _verify(
    file: Path | None,
    state_dir: Path | None,
    public_key: str | None,
    *,
    as_json: bool,
    database: str | None = None,
) -> None:
    from guardhouse.hub.audit.chain import key_id_of, parse_public_key
    from guardhouse.hub.audit.export import read_export, read_store
    from guardhouse.hub.audit.verify import verify as verify_source

    pinned = _read_public_key(public_key)
    source, own = read_export(file) if file is not None else read_store(state_dir or Path(), database_url=database)
    chosen = pinned or own
    if chosen is None:
        raise SetupError("no public key is known: give --public-key, as 'guardhouse audit key' prints it")
    try:
        raw = parse_public_key(chosen)
    except ValueError as error:
        raise SetupError(str(error)) from error
    report = verify_source(source, raw, is_pinned=pinned is not None)
    if as_json:
        print_json(
            {
                "good": report.is_good,
                "records": report.records,
                "first_seq": report.first_seq,
                "last_seq": report.last_seq,
                "signed_to": report.signed_to,
                "checkpoints": report.checkpoints,
                "key_id": report.key_id,
                "key_is_pinned": report.key_is_pinned,
                "key_changes": [
                    {"seq": one.seq, "old_key_id": key_id_of(one.old), "key_id": key_id_of(one.new)}
                    for one in report.key_changes
                ],
                "problem_count": report.problem_count,
                "problems": [{"kind": one.kind, "seq": one.seq, "text": one.text} for one in report.problems],
            }
        )
    else:
        for one in report.problems:
            click.echo(f"{one.kind}: {one.text}")
        if report.problem_count > len(report.problems):
            click.echo(f"and {report.problem_count - len(report.problems)} further problems")
        print_facts(
            [
                ("records", f"{report.records} ({report.first_seq} to {report.last_seq})"),
                ("signed to", report.signed_to),
                ("checkpoints", report.checkpoints),
                ("key", f"{report.key_id} ({'pinned' if report.key_is_pinned else 'not pinned: give --public-key'})"),
                *(("changed to", f"{key_id_of(one.new)} at record {one.seq}") for one in report.key_changes),
                (
                    "result",
                    "good"
                    if report.is_good
                    else f"{report.problem_count} problem{'s' if report.problem_count > 1 else ''}",
                ),
            ]
        )
    if not report.is_good:
        sys.exit(ExitCode.FAILED)


def _read_public_key(given: str | None) -> str | None:
    if given is None:
        return None
    path = Path(given)
    try:
        return path.read_text(encoding="ascii").strip() if path.is_file() else given
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"cannot read the public key {given!r}: {error}") from error

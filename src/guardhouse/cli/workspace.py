"""`guardhouse workspace`: what a workspace holds, and its saved outputs cleared away. Arguments to library calls only.

Works on the directory itself, as its owner; no runner and no hub takes part. Runs in the `guardhouse` command.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click

from guardhouse.cli.exit_codes import ExitCode
from guardhouse.cli.tables import plain_text, print_facts, print_table
from guardhouse.runner.bounds import WorkspaceBounds, parse_age, parse_size
from guardhouse.runner.config import ConfigError, resolve_workspace_bounds
from guardhouse.workspace import (
    Temporaries,
    Workspace,
    expire_outputs,
    expire_uploads,
    list_skills,
    measure,
    open_workspace,
    remove_leftovers,
)

__all__ = ["workspace"]


class _Plain(click.ParamType[float]):
    """A text as `runner.bounds` reads it."""

    def __init__(self, name: str, parse: Callable[[str], float]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds or bytes."""
        try:
            return self._parse(str(value))
        except ValueError as error:
            self.fail(f"{str(value)!r} {error}", param, ctx)


_CONFIG: Final = click.option(
    "--config",
    "config_file",
    metavar="FILE",
    default=None,
    help="The runner's configuration file, for its quotas and ages. [environment: GUARDHOUSE_CONFIG]",
)


def _bounds(config_file: str | None) -> WorkspaceBounds:
    """Return the runner's bounds: of the file and of GUARDHOUSE_* variables, else the defaults."""
    name = config_file or os.environ.get("GUARDHOUSE_CONFIG") or None
    try:
        text = None if name is None else Path(name).read_text(encoding="utf-8")
        return resolve_workspace_bounds(os.environ, file_text=text, file_name=name or "")
    except (ConfigError, OSError, UnicodeDecodeError) as error:
        click.echo(f"guardhouse workspace: {error}", err=True)
        raise SystemExit(ExitCode.USAGE) from error


@click.group()
def workspace() -> None:
    """Show and clean a workspace."""


@workspace.command()
@click.argument("directory", type=click.Path(path_type=Path))
@_CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(directory: Path, config_file: str | None, *, as_json: bool) -> None:
    """Print how much DIRECTORY holds beside its quotas, what Guardhouse keeps in its .work/, and its skills."""
    bounds = _bounds(config_file)
    with _opened(directory) as opened:
        usage = measure(opened)
        skills = list_skills(opened)
        method = opened.method.value
    if as_json:
        told = {
            "directory": str(directory.absolute()),
            "resolved_by": method,
            "size_bytes": usage.size_bytes,
            "entries": usage.entries,
            "quota_bytes": bounds.quota_bytes,
            "quota_files": bounds.quota_files,
            "upload_size_bytes": usage.upload_size_bytes,
            "output_max_age_s": bounds.spill_max_age_s,
            "output_max_size_bytes": bounds.spill_max_bytes,
            "work_size_bytes": usage.work_size_bytes,
            "work_entries": usage.work_entries,
            "unreadable": usage.problem_count,
            "skills": [
                {
                    "path": os.fsdecode(skill.path),
                    "name": "" if skill.manifest is None else skill.manifest.name,
                    "version": "" if skill.manifest is None else skill.manifest.version,
                    "checksum": skill.checksum,
                    "problem": skill.problem,
                }
                for skill in skills
            ],
        }
        click.echo(json.dumps(told))
        return
    print_facts(
        [
            ("directory", directory.absolute()),
            ("paths resolved by", method),
            ("size", f"{usage.size_bytes} bytes in {usage.entries} entries"),
            ("quota", f"{bounds.quota_bytes or 'any'} bytes in {bounds.quota_files or 'any'} entries"),
            ("unfinished uploads", f"{usage.upload_size_bytes} bytes" if usage.upload_size_bytes else None),
            (".work/", f"{usage.work_size_bytes} bytes in {usage.work_entries} entries"),
            ("outputs kept", f"{bounds.spill_max_age_s:g} s, {bounds.spill_max_bytes} bytes"),
            ("unreadable places", usage.problem_count or None),
        ]
    )
    if skills:
        click.echo()
        rows = [
            (
                os.fsdecode(s.path),
                s.manifest.name if s.manifest else "",
                s.manifest.version if s.manifest else "",
                s.problem,
            )
            for s in skills
        ]
        print_table(["skill", "name", "version", "problem"], rows, flexible=3)


@workspace.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--max-age",
    type=_Plain("age", parse_age),
    default=None,
    help="Remove outputs older than this. Default: configured.",
)
@click.option(
    "--max-size",
    type=_Plain("size", parse_size),
    default=None,
    help="Keep at most so much, newest first. Default: configured.",
)
@click.option("--all", "everything", is_flag=True, help="Remove every saved output.")
@_CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def clean(
    directory: Path,
    max_age: float | None,
    max_size: float | None,
    config_file: str | None,
    *,
    everything: bool,
    as_json: bool,
) -> None:
    """Remove saved outputs, unfinished uploads and what killed workers left in DIRECTORY; never anybody else's file."""
    now_s = time.time()
    bounds = _bounds(config_file)
    stale_s = bounds.stale_after_s
    max_age_s = bounds.spill_max_age_s if max_age is None else max_age
    max_bytes = bounds.spill_max_bytes if max_size is None else int(max_size)
    with _opened(directory) as opened:
        # Every output is older than an instant from now on.
        outputs, size = expire_outputs(
            opened,
            max_age_s=1e-3 if everything else max_age_s,
            max_bytes=0 if everything else max_bytes,
            now_s=now_s + 1 if everything else now_s,
        )
        temporaries = Temporaries(opened)
        kept = temporaries.sweep().kept
        left = expire_uploads(opened, older_than_s=stale_s, now_s=now_s)
        swept = remove_leftovers(opened, older_than_s=stale_s, now_s=now_s)
        left += swept.count
        kept += swept.kept
    if as_json:
        names = [os.fsdecode(path) for path in kept]
        click.echo(json.dumps({"outputs": outputs, "size_bytes": size, "leftovers": left, "kept": names}))
        return
    click.echo(f"removed {outputs} outputs of {size} bytes and {left} left-over files")
    for path in kept:
        click.echo(f"kept as {plain_text(os.fsdecode(path))}: a file that an unfinished write had taken the place of")


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[Workspace]:
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        click.echo(f"cannot open workspace {plain_text(directory)}: {error.strerror}; name its directory", err=True)
        raise SystemExit(ExitCode.NOT_FOUND) from error
    try:
        yield open_workspace(fd, root_path=str(directory.absolute()))
    finally:
        os.close(fd)

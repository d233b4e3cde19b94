"""`guardhouse workspace`: what a workspace holds, and its saved outputs cleared away. Arguments to library calls only.

Works on the directory itself, as its owner; no runner and no hub takes part. Runs in the `guardhouse` command.
"""

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from guardhouse.cli.exit_codes import ExitCode
from guardhouse.cli.tables import plain_text, print_facts, print_table
from guardhouse.worker.settings import FilesSettings
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

_AGE: Final = re.compile(r"\A(\d{1,9})([smhd]?)\Z")
_AGE_UNITS_S: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_SIZE: Final = re.compile(r"\A(\d{1,15})([kMG]?)\Z")
_SIZE_UNITS: Final = {"": 1, "k": 1024, "M": 1024**2, "G": 1024**3}


class _Age(click.ParamType[float]):
    """Seconds, or a number with s, m, h or d behind it."""

    name = "age"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        found = _AGE.match(str(value))
        if found is None:
            self.fail(f"{value!r} is no age such as 90, 30m, 12h or 7d", param, ctx)
        return float(int(found[1]) * _AGE_UNITS_S[found[2]])


class _Size(click.ParamType[int]):
    """Bytes, or a number with k, M or G behind it."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bytes."""
        found = _SIZE.match(str(value))
        if found is None:
            self.fail(f"{value!r} is no size such as 500000, 64M or 2G", param, ctx)
        return int(found[1]) * _SIZE_UNITS[found[2]]


@click.group()
def workspace() -> None:
    """Show and clean a workspace."""


@workspace.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(directory: Path, *, as_json: bool) -> None:
    """Print how much DIRECTORY holds, what Guardhouse keeps in its .work/, and its skills."""
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
            (".work/", f"{usage.work_size_bytes} bytes in {usage.work_entries} entries"),
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
@click.option("--max-age", type=_Age(), default="7d", show_default=True, help="Remove outputs older than this.")
@click.option("--max-size", type=_Size(), default="1G", show_default=True, help="Keep at most so much, newest first.")
@click.option("--all", "everything", is_flag=True, help="Remove every saved output.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def clean(directory: Path, *, max_age: float, max_size: int, everything: bool, as_json: bool) -> None:
    """Remove saved outputs and what killed workers left in DIRECTORY; never a file of anybody else."""
    now_s = time.time()
    stale_s = FilesSettings().stale_after_s
    with _opened(directory) as opened:
        # Every output is older than an instant from now on.
        outputs, size = expire_outputs(
            opened,
            max_age_s=1e-3 if everything else max_age,
            max_bytes=0 if everything else max_size,
            now_s=now_s + 1 if everything else now_s,
        )
        temporaries = Temporaries(opened)
        temporaries.sweep()
        left = expire_uploads(opened, older_than_s=stale_s, now_s=now_s)
        left += remove_leftovers(opened, older_than_s=stale_s, now_s=now_s)
    if as_json:
        click.echo(json.dumps({"outputs": outputs, "size_bytes": size, "leftovers": left}))
    else:
        click.echo(f"removed {outputs} outputs of {size} bytes and {left} left-over files")


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

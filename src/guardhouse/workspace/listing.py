"""What a directory holds: sorted, bounded, with what was left out and what could not be seen.

Runs in the files worker.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from guardhouse.limits import LIST_MAX_ENTRIES, NAMES_MAX_BYTES
from guardhouse.workspace.entry import Entry, cost_of
from guardhouse.workspace.glob_pattern import GlobPattern
from guardhouse.workspace.handle import PathLike, Workspace, parse_path
from guardhouse.workspace.walk import Problem, Walk

__all__ = ["Listing", "list_directory", "plain_path"]


@dataclass(frozen=True, slots=True)
class Listing:
    """Entries in byte order, a directory before its content.

    ``left_out`` counts the entries beyond the bound. ``problems`` are the first 100 of ``problem_count`` places that
    could not be read.
    """

    entries: list[Entry]
    left_out: int
    problems: list[Problem]
    problem_count: int


def list_directory(
    workspace: Workspace,
    path: PathLike = b".",
    *,
    recursive: bool = False,
    ignore: Sequence[PathLike] = (),
    max_entries: int = LIST_MAX_ENTRIES,
    max_name_bytes: int = NAMES_MAX_BYTES,
    tick: Callable[[], None] = lambda: None,
) -> Listing:
    """List the directory ``path``; links are shown as links and never followed below it.

    Args:
        workspace: the handle.
        path: directory; "" and "." are the workspace itself.
        recursive: everything below, in any depth.
        ignore: globs on the base name; a directory that matches is left out with all below it.
        max_entries: entries answered; the rest is counted.
        max_name_bytes: bytes of names and targets answered, as a message holds them; the rest is counted.
        tick: called now and then; may raise to stop.

    Raises:
        PathEscapesWorkspace, WorkspaceRefusal: ``path`` is outside or no directory, or a glob is invalid.
    """
    start = plain_path(parse_path(workspace, path or b"."))
    patterns = [GlobPattern(pattern) for pattern in ignore]

    def ignored(entry: Entry) -> bool:
        name = entry.path.rpartition(b"/")[2]
        return any(pattern.matches(name) for pattern in patterns)

    depth = None if recursive else 1
    walk = Walk(workspace, start, max_depth=depth, enter=lambda entry: not (patterns and ignored(entry)), tick=tick)
    entries: list[Entry] = []
    left_out = 0
    name_bytes = 0
    for walked in walk.entries():
        entry = walked.entry
        if patterns and ignored(entry):
            continue
        name_bytes += cost_of(entry.path)
        if entry.target is not None:
            name_bytes += cost_of(entry.target)
        if len(entries) >= max_entries or name_bytes > max_name_bytes:
            left_out += 1
        else:
            entries.append(entry)
    return Listing(entries, left_out, walk.problems, walk.problem_count)


def plain_path(path: bytes) -> bytes:
    """Return ``path`` without "." components and doubled slashes; ".." stays, since links decide what it means."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    return b"/".join(parts) or b"."

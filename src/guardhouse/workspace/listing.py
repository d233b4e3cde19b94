"""What a directory holds: sorted, bounded, with what was left out and what could not be seen.

Runs in the files worker.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Final, NamedTuple

from guardhouse.limits import LIST_MAX_ENTRIES, NAMES_MAX_BYTES
from guardhouse.workspace.entry import Kind, cost_of
from guardhouse.workspace.glob_pattern import GlobPattern
from guardhouse.workspace.handle import PathLike, Workspace, parse_path
from guardhouse.workspace.walk import Problem, Run, Walk, read_target

__all__ = ["Listed", "Listing", "list_directory", "plain_path"]


class Listed(NamedTuple):
    """One entry of a listing: its path relative to the workspace, what it is, its size, and of a link the target."""

    path: bytes
    kind: Kind
    size: int
    target: bytes | None = None


# As calling the class, without a step of Python for each of 100,000 entries.
_listed: Final[Callable[[Iterable[object]], Listed]] = partial(tuple.__new__, Listed)


@dataclass(frozen=True, slots=True)
class Listing:
    """Entries in byte order, a directory before its content.

    ``left_out`` counts the entries beyond the bound. ``problems`` are the first 100 of ``problem_count`` places that
    could not be read.
    """

    entries: list[Listed]
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

    def enter(path: bytes) -> bool:
        name = path[path.rfind(b"/") + 1 :]
        return not any(pattern.matches(name) for pattern in patterns)

    depth = None if recursive else 1
    walk = Walk(workspace, start, max_depth=depth, enter=enter, tick=tick)
    room = _Room(max_entries, max_name_bytes)
    for run in walk.runs():
        ignored = {name for pattern in patterns for name in pattern.matching(b"", run.names)}
        room.take(run, ignored)
    return Listing(room.entries, room.left_out, walk.problems, walk.problem_count)


class _Room:
    """What a listing has and may still take."""

    def __init__(self, max_entries: int, max_name_bytes: int) -> None:
        self.entries: list[Listed] = []
        self.left_out = 0
        self._max_entries = max_entries
        self._name_bytes_left = max_name_bytes

    def take(self, run: Run, ignored: set[bytes]) -> None:
        """Add a run's entries as far as there is room, and count the others."""
        prefix = run.prefix
        if not ignored and self._takes_all(run):
            paths = [prefix + name for name in run.names]
            sizes = [
                found.st_size if kind is Kind.FILE else 0 for kind, found in zip(run.kinds, run.stats, strict=True)
            ]
            self.entries += map(_listed, zip(paths, run.kinds, sizes, repeat(None)))
            return
        for name, kind, found in zip(run.names, run.kinds, run.stats, strict=True):
            if name in ignored:
                continue
            target = read_target(run.parent, name) if kind is Kind.SYMLINK else None
            self._name_bytes_left -= cost_of(prefix + name) + (0 if target is None else cost_of(target))
            if len(self.entries) >= self._max_entries or self._name_bytes_left < 0:
                self.left_out += 1
                continue
            has_size = kind is Kind.FILE or kind is Kind.SYMLINK
            self.entries.append(Listed(prefix + name, kind, found.st_size if has_size else 0, target))

    def _takes_all(self, run: Run) -> bool:
        """Take the room for all of ``run`` where its names are plain, no links are in it, and there is room."""
        if Kind.SYMLINK in run.kinds:
            return False
        names = b"".join(run.names)
        cost = len(names) + len(run.names) * len(run.prefix)
        if cost_of(names) != len(names) or cost_of(run.prefix) != len(run.prefix):
            return False
        if len(self.entries) + len(run.names) > self._max_entries or cost > self._name_bytes_left:
            return False
        self._name_bytes_left -= cost
        return True


def plain_path(path: bytes) -> bytes:
    """Return ``path`` without "." components and doubled slashes; ".." stays, since links decide what it means."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    return b"/".join(parts) or b"."

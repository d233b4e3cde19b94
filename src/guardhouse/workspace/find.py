"""Find paths by glob: sorted, bounded, links shown and not followed except where the pattern itself names them.

Runs in the files worker.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from guardhouse.limits import GLOB_MAX_MATCHES, NAMES_MAX_BYTES
from guardhouse.workspace.entry import Kind, cost_of
from guardhouse.workspace.errors import Code, WorkspaceRefusal, escapes
from guardhouse.workspace.glob_pattern import GlobPattern
from guardhouse.workspace.handle import PathLike, Workspace, open_beneath, parse_path
from guardhouse.workspace.place import WORK_DIRECTORY
from guardhouse.workspace.walk import Problem, Walk

__all__ = ["Found", "find_paths"]

_META: Final = frozenset(b"*?[{\\")


@dataclass(frozen=True, slots=True)
class Found:
    """Paths that match, in byte order, and what a bound left out or could not be seen."""

    matches: list[bytes]
    left_out: int
    problems: list[Problem]
    problem_count: int


def find_paths(
    workspace: Workspace,
    pattern: PathLike,
    *,
    max_matches: int = GLOB_MAX_MATCHES,
    max_name_bytes: int = NAMES_MAX_BYTES,
    tick: Callable[[], None] = lambda: None,
) -> Found:
    """Return the files, directories and links whose path matches ``pattern``.

    `.work/` is looked into only by a pattern that begins with `.work/`. A pattern that ends in "/" matches directories.

    Raises:
        PathEscapesWorkspace: the pattern is absolute and elsewhere, or goes up.
        WorkspaceRefusal: INVALID: it cannot be compiled.
    """
    glob = parse_path(workspace, pattern)
    parts = [part for part in glob.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise escapes(glob, "leaves it at '..'; write a glob from the workspace down")
    compiled = GlobPattern(b"/".join(parts))
    directories_only = glob.endswith(b"/")
    literal = next((i for i, part in enumerate(parts) if not _META.isdisjoint(part)), len(parts))
    if literal == len(parts):
        return _literal(workspace, b"/".join(parts) or b".", directories_only=directories_only)
    start = b"/".join(parts[:literal]) or b"."
    rest = parts[literal:]
    unbounded = any(b"**" in part or b"{" in part for part in rest)

    def enter(path: bytes) -> bool:
        return not (start == b"." and path == WORK_DIRECTORY)

    walk = Walk(workspace, start, max_depth=None if unbounded else len(rest), types_only=True, enter=enter, tick=tick)
    matches: list[bytes] = []
    left_out = 0
    name_bytes = 0
    try:
        for run in walk.runs():
            names = run.names
            if directories_only:
                names = [name for name, kind in zip(names, run.kinds, strict=True) if kind is Kind.DIRECTORY]
            for name in compiled.matching(run.prefix, names):
                path = run.prefix + name
                name_bytes += cost_of(path)
                if len(matches) >= max_matches or name_bytes > max_name_bytes:
                    left_out += 1
                else:
                    matches.append(path)
    except WorkspaceRefusal as refusal:
        # Nothing to find where the pattern's own directory is not there.
        if refusal.code not in (Code.NOT_FOUND, Code.NOT_DIRECTORY):
            raise
    return Found(sorted(matches), left_out, walk.problems, walk.problem_count)


def _literal(workspace: Workspace, path: bytes, *, directories_only: bool) -> Found:
    flags = os.O_PATH | (os.O_DIRECTORY if directories_only else 0)
    try:
        os.close(open_beneath(workspace, path, flags, follow=directories_only))
    except WorkspaceRefusal as refusal:
        if refusal.code not in (Code.NOT_FOUND, Code.NOT_DIRECTORY):
            raise
        return Found([], 0, [], 0)
    return Found([path], 0, [], 0)

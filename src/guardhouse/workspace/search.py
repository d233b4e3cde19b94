"""Search the content of files: which are looked into, which are skipped and counted, and where it stops.

Runs in the files worker.
"""

import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from guardhouse.limits import GREP_LINE_MAX_BYTES, GREP_MAX_MATCHES, NAMES_MAX_BYTES
from guardhouse.workspace.entry import Kind
from guardhouse.workspace.errors import Code, WorkspaceRefusal, refusal_of
from guardhouse.workspace.glob_pattern import GlobPattern
from guardhouse.workspace.handle import PathLike, Workspace, open_beneath, parse_path
from guardhouse.workspace.line_search import BinaryFile, Line, LinePattern, compile_pattern, matching_lines, read_small
from guardhouse.workspace.listing import plain_path
from guardhouse.workspace.place import WORK_DIRECTORY
from guardhouse.workspace.read import open_regular
from guardhouse.workspace.walk import Problem, Run, Walk

__all__ = ["Hit", "Searched", "search_files"]

_FILE_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
# Beyond the bound lines are only counted; this many are enough to say "a great many".
_COUNTED_MAX: Final = 1_000_000
# What a line costs beside its own bytes: a million empty ones around a match would be a million objects.
_HIT_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Hit:
    """A line of a file; ``content`` is at most GREP_LINE_MAX_BYTES long and says when it was cut."""

    path: bytes
    line: Line


@dataclass(slots=True)
class Searched:
    """What a search found.

    Attributes:
        hits: matching and surrounding lines, by path and number.
        left_out: matching lines beyond the bound; ``counting_stopped`` says that there may be more still.
        files: regular files looked into.
        binary_skipped: files that hold a NUL byte; what stands before it is searched when it is not near the start.
        problems: first 100 of ``problem_count`` places that could not be read.
    """

    hits: list[Hit] = field(default_factory=list)
    left_out: int = 0
    counting_stopped: bool = False
    files: int = 0
    binary_skipped: int = 0
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0


def search_files(
    workspace: Workspace,
    pattern: str,
    *,
    path: PathLike = b".",
    include: Sequence[PathLike] = (),
    context: int = 0,
    case: str = "smart",
    max_matches: int = GREP_MAX_MATCHES,
    max_content_bytes: int = NAMES_MAX_BYTES,
    only: Collection[bytes] | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Searched:
    """Search the lines of every regular file below ``path``; links below it are not followed.

    Args:
        workspace: the handle.
        pattern: RE2 expression; a match never crosses a line.
        path: directory to search, or one file. `.work/` is searched only when it, or something in it, is named here.
        include: globs, on the base name or, with a slash, on the path relative to the workspace; empty is every file.
        context: lines shown before and after each match.
        case: as compile_pattern.
        max_matches: matching lines answered; the others are counted.
        max_content_bytes: bytes of paths and lines answered.
        only: paths as a walk from ``path`` names them; the others below it hold neither a match nor a NUL byte.
        tick: called now and then; may raise to stop.

    Raises:
        PathEscapesWorkspace, WorkspaceRefusal: the path, the pattern or a glob is refused.
    """
    compiled = compile_pattern(pattern, case=case)
    globs = [GlobPattern(glob) for glob in include]
    start = plain_path(parse_path(workspace, path or b"."))
    searched = Searched()
    one = _OneFile(compiled, context, searched, _Budget(max_matches, max_content_bytes), tick)

    def enter(below: bytes) -> bool:
        return not (start == b"." and below == WORK_DIRECTORY)

    if _is_file(workspace, start):
        fd = open_regular(workspace, start, verb="search")
        try:
            one.search(fd, os.fstat(fd).st_size, start)
        finally:
            os.close(fd)
        return searched
    walk = Walk(workspace, start, types_only=True, enter=enter, tick=tick)
    for run in walk.runs():
        device = os.fstat(run.parent.root_fd).st_dev
        for at in _included(globs, run):
            path_of_file = run.prefix + run.names[at]
            if only is not None and path_of_file not in only:
                searched.files += 1
                continue
            opened = _open(run, at, device, searched)
            if opened is None:
                continue
            fd, size = opened
            try:
                one.search(fd, size, path_of_file)
            finally:
                os.close(fd)
            if searched.counting_stopped:
                break
        if searched.counting_stopped:
            break
    searched.problems.extend(walk.problems)
    searched.problem_count += walk.problem_count
    return searched


@dataclass(slots=True)
class _Budget:
    """What may still be answered."""

    matches: int
    content_bytes: int

    def has_room(self) -> bool:
        return self.matches > 0 and self.content_bytes > 0


def _is_file(workspace: Workspace, path: bytes) -> bool:
    fd = open_beneath(workspace, path, os.O_PATH)
    try:
        return not stat.S_ISDIR(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def _included(globs: list[GlobPattern], run: Run) -> list[int]:
    """Return which entries of ``run`` are files that the globs let be searched."""
    files = [at for at, kind in enumerate(run.kinds) if kind is Kind.FILE]
    if not globs:
        return files
    wanted = {name for glob in globs for name in glob.matching(run.prefix if b"/" in glob.pattern else b"", run.names)}
    return [at for at in files if run.names[at] in wanted]


def _open(run: Run, at: int, device: int, searched: Searched) -> tuple[int, int] | None:
    """Return the descriptor and the size of what is a regular file still; ``device`` is its directory's."""
    parent, name = run.parent, run.names[at]
    if parent.rules is None:
        try:
            fd = os.open(name, _FILE_FLAGS | os.O_NOFOLLOW, dir_fd=parent.root_fd)
        except OSError:
            pass  # the way below finds the words for it
        else:
            found = os.fstat(fd)
            # The very file that the directory listed, so neither a mount over its name nor something put there since.
            if found.st_ino == run.scanned[at].inode() and found.st_dev == device and stat.S_ISREG(found.st_mode):
                return fd, found.st_size
            os.close(fd)
    try:
        fd = open_beneath(parent, name, _FILE_FLAGS, follow=False)
    except WorkspaceRefusal as refusal:
        if refusal.code is not Code.NOT_FOUND:
            _note(searched, run.prefix + name, str(refusal))
        return None
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode):
        return fd, found.st_size
    os.close(fd)  # replaced meanwhile by something that is not searched
    return None


@dataclass(slots=True)
class _OneFile:
    """What is the same for each file of a search."""

    pattern: LinePattern
    context: int
    searched: Searched
    budget: _Budget
    tick: Callable[[], None]

    def search(self, fd: int, size: int, path: bytes) -> None:
        """Search one open file, read from its start."""
        searched = self.searched
        searched.files += 1
        try:
            head = read_small(fd, size)
            if len(head) == size and self.pattern.is_absent(head):
                self.tick()
                return
            lines = matching_lines(
                fd, self.pattern, size=size, head=head, context=self.context, wants_context=self.budget.has_room,
                tick=self.tick,
            )  # fmt: skip
            _collect(lines, path, searched, self.budget)
        except BinaryFile:
            searched.binary_skipped += 1
        except OSError as error:
            _note(searched, path, str(refusal_of(error, path)))


def _collect(lines: Iterator[Line], path: bytes, searched: Searched, budget: _Budget) -> None:
    for line in lines:
        if not budget.has_room():
            searched.left_out += not line.is_context
            if searched.left_out >= _COUNTED_MAX:
                searched.counting_stopped = True
                return
            continue
        content = _cut(line.content)
        budget.matches -= not line.is_context
        budget.content_bytes -= len(path) + len(content) + _HIT_BYTES
        searched.hits.append(Hit(path, Line(line.number, content, line.is_context)))


def _cut(content: bytes) -> bytes:
    if len(content) <= GREP_LINE_MAX_BYTES:
        return content
    kept = content[:GREP_LINE_MAX_BYTES].decode("utf-8", "ignore").encode() or content[:GREP_LINE_MAX_BYTES]
    return kept + b" [... %d more bytes in this line]" % (len(content) - len(kept))


def _note(searched: Searched, path: bytes, reason: str) -> None:
    searched.problem_count += 1
    if len(searched.problems) < 100:
        searched.problems.append(Problem(path, reason))

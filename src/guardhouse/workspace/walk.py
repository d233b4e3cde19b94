"""Everything below a directory, in order, without recursion and without following a link.

Keeps few descriptors however deep the tree is, goes on past what it may not read, and reports it. Gives a directory's
entries out in runs, since a step of Python for each of 100,000 files is what a walk costs. Knows no patterns. Runs in
the files worker.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter
from stat import S_ISREG
from typing import Final, NamedTuple

from guardhouse.workspace.descent import Descent
from guardhouse.workspace.entry import Entry, Kind, entry_of, kind_of
from guardhouse.workspace.errors import WorkspaceRefusal, refusal_of
from guardhouse.workspace.handle import Workspace, open_beneath, open_placed

__all__ = ["Problem", "Run", "Walk", "Walked", "read_target"]

_TOP_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK
_CHILD_FLAGS: Final = _TOP_FLAGS | os.O_NOFOLLOW
_PROBLEMS_KEPT: Final = 100
_PROBLEM_PATHS_MAX_BYTES: Final = 256 * 1024
_CHUNK: Final = 256
# What is known of a directory's entries at once, some 900 bytes of each; of a larger one a part at a time.
_AT_ONCE: Final = 65_536
# Names of one directory, 200 bytes each, that are put in order at all; the worker has 512 MiB.
_ENTRIES_MAX: Final = 1_000_000
_text_name: Final = attrgetter("name")


@dataclass(frozen=True, slots=True)
class Problem:
    """A place that a walk could not see."""

    path: bytes
    reason: str


class Run(NamedTuple):
    """Entries of one directory that follow each other, in byte order; the lists are parallel.

    Attributes:
        parent: the handle on the directory: use names below it at once, before the next run.
        prefix: what to put before a name for its path: the directory's with a slash, b"" for the workspace itself.
        names: base names.
        kinds: what they are.
        stats: what stat says of each; empty where only kinds were asked for.
        scanned: as the directory itself tells of them.
    """

    parent: Workspace
    prefix: bytes
    names: list[bytes]
    kinds: list[Kind]
    stats: list[os.stat_result]
    scanned: list["os.DirEntry[str]"]


class Walked(NamedTuple):
    """An entry and the handle on the directory that it was found in: use ``name`` below ``parent``, at once."""

    entry: Entry
    parent: Workspace
    name: bytes


class _Contents(NamedTuple):
    """A directory's entries as the parallel lists of a Run."""

    names: list[bytes]
    kinds: list[Kind]
    stats: list[os.stat_result]
    scanned: list["os.DirEntry[str]"]

    def part(self, start: int, end: int) -> "_Contents":
        """Return the entries from ``start`` up to ``end``."""
        return _Contents(self.names[start:end], self.kinds[start:end], self.stats[start:end], self.scanned[start:end])

    def add(self, more: "_Contents") -> None:
        """Put further entries behind these."""
        self.names.extend(more.names)
        self.kinds.extend(more.kinds)
        self.stats.extend(more.stats)
        self.scanned.extend(more.scanned)

    def those(self, wanted: Callable[[bytes], bool]) -> "_Contents":
        """Return the entries whose name is wanted."""
        kept = [at for at, name in enumerate(self.names) if wanted(name)]
        if len(kept) == len(self.names):
            return self
        return _Contents(
            [self.names[at] for at in kept],
            [self.kinds[at] for at in kept],
            [self.stats[at] for at in kept] if self.stats else [],
            [self.scanned[at] for at in kept],
        )


_NOTHING: Final = _Contents([], [], [], [])


@dataclass(slots=True)
class _Frame:
    """A directory that a walk is in.

    Attributes:
        contents: what it holds, of a large one the part that is being read.
        below: its path from the top.
        parent: the handle on it.
        at: how far `contents` is read.
        rest: what follows `contents`, not looked at yet; last first.
        rest_fd: a descriptor of the directory for as long as there is a rest, this frame's own; -1 otherwise.
    """

    contents: _Contents
    below: bytes
    parent: Workspace
    at: int = 0
    rest: list["os.DirEntry[str]"] = field(default_factory=list)
    rest_fd: int = -1

    def close(self) -> None:
        """Close the descriptor for the rest."""
        if self.rest_fd >= 0:
            os.close(self.rest_fd)
            self.rest_fd = -1


@dataclass(slots=True)
class Walk:
    """One walk: iterate `runs` or `entries`, then read `problems`.

    Attributes:
        workspace: the handle.
        start: relative path of the directory to begin at; links in it are followed, links below it are not.
        max_depth: levels below ``start`` to descend; None is all.
        types_only: leave sizes, modes and times out of the entries, which saves a call for each.
        places: make the resolved paths of the handles yielded right even where no rule needs them.
        enter: asked once for the path of each directory met; False keeps the walk out of it.
        tick: called for each directory and every 256 entries; may raise to stop.
        problems: the first places that could not be read: at most 100, and 256 KiB of their paths.
        problem_count: all of them.
    """

    workspace: Workspace
    start: bytes
    max_depth: int | None = None
    types_only: bool = False
    places: bool = False
    enter: Callable[[bytes], bool] = lambda _path: True
    tick: Callable[[], None] = lambda: None
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0
    _problem_bytes: int = 0
    _prefix: bytes = b""
    _top_place: bytes = b""

    def entries(self) -> Iterator[Walked]:
        """Yield what is below ``start`` in byte order of the names, a directory before its content.

        Raises:
            PathEscapesWorkspace, WorkspaceRefusal: ``start`` itself cannot be opened as a directory.
        """
        for run in self.runs():
            for at, name in enumerate(run.names):
                path, kind = run.prefix + name, run.kinds[at]
                if self.types_only:
                    entry = Entry(path, kind, 0, 0, 0, 0)
                else:
                    target = read_target(run.parent, name) if kind is Kind.SYMLINK else None
                    entry = entry_of(path, run.stats[at], target=target)
                yield Walked(entry, run.parent, name)

    def runs(self) -> Iterator[Run]:
        """Yield what `entries` does, in its order, many at a time; a run that is not its directory's last ends with the
        directory that the walk goes into next.

        Raises:
            PathEscapesWorkspace, WorkspaceRefusal: as `entries`.
        """
        self._prefix = b"" if self.start in (b".", b"") else self.start.rstrip(b"/") + b"/"
        top = self._open_top()
        descent = Descent(top)
        # One frame for each directory on the way down.
        frames: list[_Frame] = []
        try:
            frames.append(self._frame(top, b"", self.workspace.at(top, self._top_place)))
            while frames:
                frame = frames[-1]
                goes_down = self.max_depth is None or len(frames) < self.max_depth
                run, child = self._next_run(frame, goes_down=goes_down)
                if run.names:
                    yield run
                if child is None:
                    if not self._read_on(frame):
                        frames.pop()
                        self._go_back(frames, descent)
                    continue
                if not self.enter(run.prefix + child):
                    continue
                self.tick()
                below = frame.below + b"/" + child if frame.below else child
                try:
                    fd = open_beneath(frame.parent, child, _CHILD_FLAGS, follow=False)
                except WorkspaceRefusal as refusal:
                    self._note(below, str(refusal))
                    continue
                descent.push(len(frames), fd)
                frames.append(self._frame(fd, below, self.workspace.at(fd, self._place_of(below))))
        finally:
            for frame in frames:
                frame.close()
            descent.close()
            os.close(top)

    def _next_run(self, frame: _Frame, *, goes_down: bool) -> tuple[Run, bytes | None]:
        """Return what follows in the frame's directory, and the directory at its end that the walk may go into."""
        contents, at = frame.contents, frame.at
        prefix = self._prefix + frame.below + b"/" if frame.below else self._prefix
        end, child = len(contents.names), None
        if goes_down:
            with suppress(ValueError):  # there is none
                end = contents.kinds.index(Kind.DIRECTORY, at) + 1
                child = contents.names[end - 1]
        frame.at = end
        part = contents if at == 0 and end == len(contents.names) else contents.part(at, end)
        return Run(frame.parent, prefix, part.names, part.kinds, part.stats, part.scanned), child

    def _go_back(self, frames: list[_Frame], descent: Descent) -> None:
        """Make the last frame's handle usable again: its descriptor may have been closed on the way down."""
        while frames:
            frame = frames[-1]
            try:
                fd = descent.directory(len(frames) - 1, frame.below)
            except OSError as error:
                self._note(frame.below, str(refusal_of(error, self._prefix + frame.below)))
                frames.pop().close()
                continue
            frame.parent = self.workspace.at(fd, self._place_of(frame.below))
            return

    def _open_top(self) -> int:
        if self.workspace.rules is None and not self.places:
            return open_beneath(self.workspace, self.start, _TOP_FLAGS)
        opened = open_placed(self.workspace, self.start, _TOP_FLAGS)
        self._top_place = opened.place
        return opened.fd

    def _frame(self, fd: int, below: bytes, parent: Workspace) -> _Frame:
        """Return the frame for the directory ``fd``, its entries in byte order, without what a rule keeps from being
        read.
        """
        frame = _Frame(_NOTHING, below, parent)
        try:
            scanned = _scanned(fd)
            if len(scanned) > _AT_ONCE:
                # An entry is looked at through the very descriptor it was read from, and a walk may close its own.
                frame.rest_fd = os.dup(fd)
                scanned = _scanned(frame.rest_fd)
        except OSError as error:
            frame.close()
            self._note(below, str(refusal_of(error, self._prefix + below or b".")))
            return frame
        if len(scanned) > _ENTRIES_MAX:
            self._note(below, f"more than {_ENTRIES_MAX} entries in one directory; the others are not seen")
            scanned.pop()
        # Characters and bytes are in one order, but for names that are not UTF-8.
        is_plain = all(map(str.isascii, map(_text_name, scanned)))
        scanned.sort(key=_text_name if is_plain else _byte_name, reverse=len(scanned) > _AT_ONCE)
        if frame.rest_fd >= 0:
            frame.rest = scanned
            self._read_on(frame)
        elif scanned:
            frame.contents = self._look_at(scanned, below)
        return frame

    def _read_on(self, frame: _Frame) -> bool:
        """Take the next part of the rest as the frame's contents; False, and nothing is left open, without a rest."""
        if not frame.rest:
            frame.close()
            return False
        part = frame.rest[: -_AT_ONCE - 1 : -1]
        del frame.rest[-_AT_ONCE:]
        frame.contents, frame.at = self._look_at(part, frame.below), 0
        return True

    def _look_at(self, scanned: list["os.DirEntry[str]"], below: bytes) -> _Contents:
        contents = _Contents([], [], [], [])
        for start in range(0, len(scanned), _CHUNK):
            self.tick()
            chunk = scanned[start : start + _CHUNK]
            try:
                found = _looked_at(chunk, types_only=self.types_only)
            except OSError:
                found = self._looked_at_singly(chunk, below)
            contents.add(found)
        if self.workspace.rules is None:
            return contents
        return contents.those(lambda name: self._may_read(below + b"/" + name if below else name))

    def _looked_at_singly(self, chunk: "list[os.DirEntry[str]]", below: bytes) -> _Contents:
        """Do what `_looked_at` does where something in ``chunk`` cannot be looked at."""
        contents = _Contents([], [], [], [])
        for entry in chunk:
            try:
                one = _looked_at([entry], types_only=self.types_only)
            except FileNotFoundError:
                continue  # removed between the two calls: it is not there
            except OSError as error:
                name = below + b"/" + _byte_name(entry) if below else _byte_name(entry)
                self._note(name, str(refusal_of(error, self._prefix + name)))
                continue
            contents.add(one)
        return contents

    def _place_of(self, below: bytes) -> bytes:
        """Return the resolved path: only the start can hold links, what is below it was walked."""
        return self._top_place + b"/" + below if self._top_place and below else self._top_place or below

    def _may_read(self, below: bytes) -> bool:
        if self.workspace.rules is None:
            return True
        try:
            self.workspace.rules.check_read(self._place_of(below))
        except WorkspaceRefusal as refusal:
            self._note(below, str(refusal))
            return False
        return True

    def _note(self, below: bytes, reason: str) -> None:
        self.problem_count += 1
        path = self._prefix + below or b"."
        self._problem_bytes += len(path)
        if len(self.problems) < _PROBLEMS_KEPT and self._problem_bytes <= _PROBLEM_PATHS_MAX_BYTES:
            self.problems.append(Problem(path, reason))


def _scanned(fd: int) -> list["os.DirEntry[str]"]:
    with os.scandir(fd) as scanning:
        return list(islice(scanning, _ENTRIES_MAX + 1))


def _byte_name(entry: "os.DirEntry[str]") -> bytes:
    return os.fsencode(entry.name)


def _looked_at(chunk: "list[os.DirEntry[str]]", *, types_only: bool) -> _Contents:
    """Return what the entries of ``chunk`` are.

    Raises:
        OSError: one of them cannot be looked at.
    """
    # No name holds a slash, so one conversion serves for all of them.
    names = os.fsencode("/".join(map(_text_name, chunk))).split(b"/")
    if types_only:
        kinds = [
            Kind.FILE if entry.is_file(follow_symlinks=False) else _other_kind_in_directory(entry) for entry in chunk
        ]
        return _Contents(names, kinds, [], chunk)
    stats = [entry.stat(follow_symlinks=False) for entry in chunk]
    kinds = [Kind.FILE if S_ISREG(found.st_mode) else kind_of(found.st_mode) for found in stats]
    return _Contents(names, kinds, stats, chunk)


def _other_kind_in_directory(entry: "os.DirEntry[str]") -> Kind:
    # The directory itself tells the type on every usual file system; where it does not, DirEntry asks stat.
    if entry.is_dir(follow_symlinks=False):
        return Kind.DIRECTORY
    if entry.is_symlink():
        return Kind.SYMLINK
    return kind_of(entry.stat(follow_symlinks=False).st_mode)


def read_target(parent: Workspace, name: bytes) -> bytes | None:
    """Return the text of the link ``name`` in ``parent``; None where it was replaced meanwhile."""
    try:
        return os.readlink(name, dir_fd=parent.root_fd)
    except OSError:
        return None

"""Everything below a directory, in order, without recursion and without following a link.

Keeps few descriptors however deep the tree is, goes on past what it may not read, and reports it. Knows no patterns.
Runs in the files worker.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from guardhouse.workspace.descent import Descent
from guardhouse.workspace.entry import Entry, Kind, entry_of, kind_of
from guardhouse.workspace.errors import WorkspaceRefusal, refusal_of
from guardhouse.workspace.handle import Workspace, open_beneath, open_placed

__all__ = ["Problem", "Walk", "Walked"]

_TOP_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK
_CHILD_FLAGS: Final = _TOP_FLAGS | os.O_NOFOLLOW
_PROBLEMS_KEPT: Final = 100
_PROBLEM_PATHS_MAX_BYTES: Final = 256 * 1024
# Name, kind, and stat's answer; None where only the kind is asked for.
_Child = tuple[bytes, Kind, os.stat_result | None]


@dataclass(frozen=True, slots=True)
class Problem:
    """A place that a walk could not see."""

    path: bytes
    reason: str


class Walked(NamedTuple):
    """An entry and the handle on the directory that it was found in: use ``name`` below ``parent``, at once."""

    entry: Entry
    parent: Workspace
    name: bytes


class _Frame(NamedTuple):
    """A directory that a walk is in: what is left of it, its path from the top, the handle on it."""

    children: Iterator[_Child]
    below: bytes
    parent: Workspace


@dataclass(slots=True)
class Walk:
    """One walk: iterate `entries`, then read `problems`.

    Attributes:
        workspace: the handle.
        start: relative path of the directory to begin at; links in it are followed, links below it are not.
        max_depth: levels below ``start`` to descend; None is all.
        types_only: leave sizes, modes and times out of the entries, which saves a call for each.
        places: make the resolved paths of the handles yielded right even where no rule needs them.
        enter: asked once for each directory met; False keeps the walk out of it.
        tick: called for each directory and every 256 entries; may raise to stop.
        problems: the first places that could not be read: at most 100, and 256 KiB of their paths.
        problem_count: all of them.
    """

    workspace: Workspace
    start: bytes
    max_depth: int | None = None
    types_only: bool = False
    places: bool = False
    enter: Callable[[Entry], bool] = lambda _entry: True
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
        self._prefix = b"" if self.start in (b".", b"") else self.start.rstrip(b"/") + b"/"
        top = self._open_top()
        descent = Descent(top)
        has_rules = self.workspace.rules is not None
        try:
            # One frame for each directory on the way down: what is left of it, its path from the top, its handle.
            frames = [_Frame(iter(self._children(top, b"")), b"", self.workspace.at(top, self._top_place))]
            while frames:
                children, above, parent = frames[-1]
                prefix = self._prefix + above + b"/" if above else self._prefix
                for name, kind, found in children:
                    below = above + b"/" + name if above else name
                    if has_rules and not self._may_read(below):
                        continue
                    if found is None:
                        entry = Entry(prefix + name, kind, 0, 0, 0, 0)
                    else:
                        entry = entry_of(prefix + name, found, target=_target(kind, name, parent))
                    yield Walked(entry, parent, name)
                    if kind is not Kind.DIRECTORY or (self.max_depth is not None and len(frames) >= self.max_depth):
                        continue
                    if not self.enter(entry):
                        continue
                    self.tick()
                    try:
                        fd = open_beneath(parent, name, _CHILD_FLAGS, follow=False)
                    except WorkspaceRefusal as refusal:
                        self._note(below, str(refusal))
                        continue
                    descent.push(len(frames), fd)
                    frames.append(
                        _Frame(iter(self._children(fd, below)), below, self.workspace.at(fd, self._place_of(below)))
                    )
                    break
                else:
                    frames.pop()
                    self._go_back(frames, descent)
        finally:
            descent.close()
            os.close(top)

    def _go_back(self, frames: list["_Frame"], descent: Descent) -> None:
        """Make the last frame's handle usable again: its descriptor may have been closed on the way down."""
        while frames:
            children, above, _ = frames[-1]
            try:
                fd = descent.directory(len(frames) - 1, above)
            except OSError as error:
                self._note(above, str(refusal_of(error, self._prefix + above)))
                frames.pop()
                continue
            frames[-1] = _Frame(children, above, self.workspace.at(fd, self._place_of(above)))
            return

    def _open_top(self) -> int:
        if self.workspace.rules is None and not self.places:
            return open_beneath(self.workspace, self.start, _TOP_FLAGS)
        opened = open_placed(self.workspace, self.start, _TOP_FLAGS)
        self._top_place = opened.place
        return opened.fd

    def _children(self, fd: int, below: bytes) -> list[_Child]:
        """Return the entries of the directory ``fd`` in byte order."""
        children: list[_Child] = []
        try:
            with os.scandir(fd) as scanned:
                found = list(scanned)
        except OSError as error:
            self._note(below, str(refusal_of(error, self._prefix + below or b".")))
            return children
        found.sort(key=_text_name)
        if not all(entry.name.isascii() for entry in found):
            # Characters and bytes are in one order, but for names that are not UTF-8.
            found.sort(key=_byte_name)
        for number, entry in enumerate(found):
            if not number % 256:
                self.tick()
            try:
                children.append(_child(entry, types_only=self.types_only))
            except FileNotFoundError:
                continue  # removed between the two calls: it is not there
            except OSError as error:
                name = below + b"/" + _byte_name(entry) if below else _byte_name(entry)
                self._note(name, str(refusal_of(error, self._prefix + name)))
        return children

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


def _text_name(entry: "os.DirEntry[str]") -> str:
    return entry.name


def _byte_name(entry: "os.DirEntry[str]") -> bytes:
    return os.fsencode(entry.name)


def _child(entry: "os.DirEntry[str]", *, types_only: bool) -> _Child:
    name = os.fsencode(entry.name)
    if types_only:
        # The directory itself tells the type on every usual file system; where it does not, DirEntry asks stat.
        if entry.is_file(follow_symlinks=False):
            return name, Kind.FILE, None
        if entry.is_dir(follow_symlinks=False):
            return name, Kind.DIRECTORY, None
        if entry.is_symlink():
            return name, Kind.SYMLINK, None
    found = entry.stat(follow_symlinks=False)
    return name, kind_of(found.st_mode), found


def _target(kind: Kind, name: bytes, parent: Workspace) -> bytes | None:
    if kind is not Kind.SYMLINK:
        return None
    try:
        return os.readlink(name, dir_fd=parent.root_fd)
    except OSError:  # replaced meanwhile: shown as the link that was seen, without its target
        return None

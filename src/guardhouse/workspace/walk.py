"""Everything below a directory, in order, without recursion and without following a link.

Keeps few descriptors however deep the tree is, goes on past what it may not read, and reports it. Knows no patterns.
Runs in the files worker.
"""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from guardhouse.workspace.descent import Descent
from guardhouse.workspace.entry import Entry, entry_of, kind_of
from guardhouse.workspace.errors import WorkspaceRefusal, refusal_of
from guardhouse.workspace.handle import Workspace, open_beneath, open_placed

__all__ = ["Problem", "Walk", "Walked"]

_TOP_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK
_CHILD_FLAGS: Final = _TOP_FLAGS | os.O_NOFOLLOW
_PROBLEMS_KEPT: Final = 100
_PROBLEM_PATHS_MAX_BYTES: Final = 256 * 1024
# Path from the top, st_mode (the type alone where only types are asked for), and all of stat's answer.
_Child = tuple[bytes, int, os.stat_result | None]


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
        try:
            # Depth first: what is on the stack below an entry are its later siblings and those of its ancestors.
            todo = [(1, below, mode, found) for below, mode, found in reversed(self._children(top, b""))]
            parent, parent_names = self.workspace.at(top, self._top_place), b""
            while todo:
                depth, below, mode, found = todo.pop()
                above, _, name = below.rpartition(b"/")
                try:
                    parent_fd = descent.directory(depth - 1, above)
                except OSError as error:
                    self._note(above, str(refusal_of(error, self._prefix + above)))
                    continue
                if not self._may_read(below):
                    continue
                if parent_names != above or parent.root_fd != parent_fd:
                    parent, parent_names = self.workspace.at(parent_fd, self._place_of(above)), above
                entry = self._entry(below, name, mode, found, parent_fd)
                yield Walked(entry, parent, name)
                if not stat.S_ISDIR(mode) or (self.max_depth is not None and depth >= self.max_depth):
                    continue
                if not self.enter(entry):
                    continue
                self.tick()
                try:
                    fd = open_beneath(parent, name, _CHILD_FLAGS, follow=False)
                except WorkspaceRefusal as refusal:
                    self._note(below, str(refusal))
                    continue
                descent.push(depth, fd)
                depth += 1
                todo.extend((depth, *child) for child in reversed(self._children(fd, below)))
        finally:
            descent.close()
            os.close(top)

    def _open_top(self) -> int:
        if self.workspace.rules is None and not self.places:
            return open_beneath(self.workspace, self.start, _TOP_FLAGS)
        opened = open_placed(self.workspace, self.start, _TOP_FLAGS)
        self._top_place = opened.place
        return opened.fd

    def _children(self, fd: int, below: bytes) -> list[_Child]:
        """Return the entries of the directory ``fd`` in byte order, by their path from the top."""
        children: list[_Child] = []
        prefix = below + b"/" if below else b""
        try:
            with os.scandir(fd) as scanned:
                found = sorted((os.fsencode(entry.name), entry) for entry in scanned)
        except OSError as error:
            self._note(below, str(refusal_of(error, self._prefix + below or b".")))
            return children
        for number, (name, entry) in enumerate(found):
            if not number % 256:
                self.tick()
            try:
                children.append(_child(prefix + name, name, entry, fd, types_only=self.types_only))
            except FileNotFoundError:
                continue  # removed between the two calls: it is not there
            except OSError as error:
                self._note(prefix + name, str(refusal_of(error, self._prefix + prefix + name)))
        return children

    def _entry(self, below: bytes, name: bytes, mode: int, found: os.stat_result | None, parent_fd: int) -> Entry:
        path = self._prefix + below
        target = None
        if stat.S_ISLNK(mode) and not self.types_only:
            try:
                target = os.readlink(name, dir_fd=parent_fd)
            except OSError:  # replaced meanwhile: shown as the link that was seen, without its target
                target = None
        return Entry(path, kind_of(mode), 0, 0, 0, 0) if found is None else entry_of(path, found, target=target)

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


def _child(below: bytes, name: bytes, entry: "os.DirEntry[str]", fd: int, *, types_only: bool) -> _Child:
    if types_only:
        # The directory itself tells the type on every usual file system; where it does not, DirEntry asks stat.
        if entry.is_symlink():
            return below, stat.S_IFLNK, None
        if entry.is_dir(follow_symlinks=False):
            return below, stat.S_IFDIR, None
        if entry.is_file(follow_symlinks=False):
            return below, stat.S_IFREG, None
    found = os.stat(name, dir_fd=fd, follow_symlinks=False)
    return below, found.st_mode, found

"""Everything below a directory, in order, without recursion and without following a link.

Keeps few descriptors however deep the tree is, goes on past what it may not read, and reports it. Knows no patterns.
Runs in the files worker.
"""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from guardhouse.workspace.descent import Descent
from guardhouse.workspace.entry import Entry, entry_of
from guardhouse.workspace.errors import WorkspaceRefusal, refusal_of
from guardhouse.workspace.handle import Workspace, open_beneath, open_placed

__all__ = ["Problem", "Walk", "Walked"]

_TOP_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK
_CHILD_FLAGS: Final = _TOP_FLAGS | os.O_NOFOLLOW
_PROBLEMS_KEPT: Final = 100


@dataclass(frozen=True, slots=True)
class Problem:
    """A place that a walk could not see."""

    path: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Walked:
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
        enter: asked once for each directory met; False keeps the walk out of it.
        tick: called for each directory and every 256 entries; may raise to stop.
        problems: the first 100 places that could not be read.
        problem_count: all of them.
    """

    workspace: Workspace
    start: bytes
    max_depth: int | None = None
    enter: Callable[[Entry], bool] = lambda _entry: True
    tick: Callable[[], None] = lambda: None
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0
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
            todo = [(1, name, found) for name, found in reversed(self._children(top, b""))]
            while todo:
                depth, below, found = todo.pop()
                parent_names, _, name = below.rpartition(b"/")
                try:
                    parent_fd = descent.directory(depth - 1, parent_names)
                except OSError as error:
                    self._note(parent_names, str(refusal_of(error, self._prefix + parent_names)))
                    continue
                if not self._may_read(below):
                    continue
                parent = self.workspace.at(parent_fd, self._place_of(parent_names))
                entry = self._entry(below, name, found, parent_fd)
                yield Walked(entry, parent, name)
                if not stat.S_ISDIR(found.st_mode) or (self.max_depth is not None and depth >= self.max_depth):
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
                children = self._children(fd, below)
                todo.extend((depth + 1, child, found) for child, found in reversed(children))
        finally:
            descent.close()
            os.close(top)

    def _open_top(self) -> int:
        if self.workspace.rules is None:
            return open_beneath(self.workspace, self.start, _TOP_FLAGS)
        opened = open_placed(self.workspace, self.start, _TOP_FLAGS)
        self._top_place = opened.place
        return opened.fd

    def _children(self, fd: int, below: bytes) -> list[tuple[bytes, os.stat_result]]:
        """Return the sorted entries of the directory ``fd``, by their path from the top."""
        children: list[tuple[bytes, os.stat_result]] = []
        prefix = below + b"/" if below else b""
        try:
            names = sorted(os.fsencode(name) for name in os.listdir(fd))
        except OSError as error:
            self._note(below, str(refusal_of(error, self._prefix + below or b".")))
            return children
        for number, name in enumerate(names):
            if not number % 256:
                self.tick()
            try:
                children.append((prefix + name, os.stat(name, dir_fd=fd, follow_symlinks=False)))
            except FileNotFoundError:
                continue  # removed between the two calls: it is not there
            except OSError as error:
                self._note(prefix + name, str(refusal_of(error, self._prefix + prefix + name)))
        return children

    def _entry(self, below: bytes, name: bytes, found: os.stat_result, parent_fd: int) -> Entry:
        target = None
        if stat.S_ISLNK(found.st_mode):
            try:
                target = os.readlink(name, dir_fd=parent_fd)
            except OSError:  # replaced meanwhile: shown as the link that was seen, without its target
                target = None
        return entry_of(self._prefix + below, found, target=target)

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
        if len(self.problems) < _PROBLEMS_KEPT:
            self.problems.append(Problem(self._prefix + below or b".", reason))

"""Everything below a directory, in order, without recursion and without following a link.

Keeps few descriptors however deep the tree is, goes on past what it may not read, and reports it. Knows no patterns.
Runs in the files worker.
"""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from guardhouse.workspace.entry import Entry, entry_of
from guardhouse.workspace.errors import WorkspaceRefusal, refusal_of
from guardhouse.workspace.handle import Workspace, open_beneath

__all__ = ["Problem", "Walk", "Walked"]

# Directories kept open on the way down; below that they are opened again from the root by name.
_OPEN_KEPT: Final = 64
_OPEN_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_PROBLEMS_KEPT: Final = 100


@dataclass(frozen=True, slots=True)
class Problem:
    """A place that a walk could not see."""

    path: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Walked:
    """An entry and the open directory that it was found in: use ``name`` relative to ``parent_fd``, at once."""

    entry: Entry
    parent_fd: int
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

    def entries(self) -> Iterator[Walked]:
        """Yield what is below ``start`` in byte order of the names, a directory before its content.

        Raises:
            PathEscapesWorkspace, WorkspaceRefusal: ``start`` itself cannot be opened as a directory.
        """
        prefix = b"" if self.start in (b".", b"") else self.start.rstrip(b"/") + b"/"
        top = open_beneath(self.workspace, self.start, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)
        chain: list[tuple[int, int]] = [(0, top)]
        try:
            # Depth first, so that the directories kept open are always ancestors of the next one.
            todo = [(1, child) for child in reversed(self._children(top, prefix))]
            while todo:
                depth, (path, found) = todo.pop()
                _shorten(chain, depth - 1)
                if not chain or chain[-1][0] != depth - 1:
                    parent = self._open_again(path)
                    if parent is None:
                        continue
                    chain.append((depth - 1, parent))
                parent_fd = chain[-1][1]
                name = path.rsplit(b"/", 1)[-1]
                entry = self._entry(path, name, found, parent_fd)
                yield Walked(entry, parent_fd, name)
                if not stat.S_ISDIR(found.st_mode) or (self.max_depth is not None and depth >= self.max_depth):
                    continue
                if not self.enter(entry):
                    continue
                self.tick()
                fd = self._open_child(path, name, parent_fd)
                if fd is None:
                    continue
                chain.append((depth, fd))
                if len(chain) > _OPEN_KEPT:
                    os.close(chain.pop(0)[1])
                todo.extend((depth + 1, child) for child in reversed(self._children(fd, path + b"/")))
        finally:
            for _, fd in chain:
                os.close(fd)

    def _children(self, fd: int, prefix: bytes) -> list[tuple[bytes, os.stat_result]]:
        children: list[tuple[bytes, os.stat_result]] = []
        try:
            names = sorted(os.fsencode(name) for name in os.listdir(fd))
        except OSError as error:
            self._report(prefix.rstrip(b"/") or b".", error)
            return children
        for number, name in enumerate(names):
            if not number % 256:
                self.tick()
            try:
                children.append((prefix + name, os.stat(name, dir_fd=fd, follow_symlinks=False)))
            except FileNotFoundError:
                continue  # removed between the two calls: it is not there
            except OSError as error:
                self._report(prefix + name, error)
        return children

    def _entry(self, path: bytes, name: bytes, found: os.stat_result, parent_fd: int) -> Entry:
        target = None
        if stat.S_ISLNK(found.st_mode):
            try:
                target = os.readlink(name, dir_fd=parent_fd)
            except OSError:  # replaced meanwhile: shown as the link that was seen, without its target
                target = None
        return entry_of(path, found, target=target)

    def _open_child(self, path: bytes, name: bytes, parent_fd: int) -> int | None:
        child = Workspace(
            parent_fd, None, self.workspace.method, self.workspace.cross_mounts, self.workspace.root_mount
        )
        try:
            return open_beneath(child, name, _OPEN_FLAGS, follow=False)
        except WorkspaceRefusal as refusal:
            self._note(path, str(refusal))
            return None

    def _open_again(self, path: bytes) -> int | None:
        """Open the directory that ``path`` is in once more, by name from the root."""
        parent = path.rpartition(b"/")[0] or b"."
        try:
            return open_beneath(self.workspace, parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)
        except WorkspaceRefusal as refusal:
            self._note(path, str(refusal))
            return None

    def _report(self, path: bytes, error: OSError) -> None:
        self._note(path, str(refusal_of(error, path)))

    def _note(self, path: bytes, reason: str) -> None:
        self.problem_count += 1
        if len(self.problems) < _PROBLEMS_KEPT:
            self.problems.append(Problem(path, reason))


def _shorten(chain: list[tuple[int, int]], depth: int) -> None:
    while chain and chain[-1][0] > depth:
        os.close(chain.pop()[1])

"""Move and remove inside the workspace: names change, nothing outside is ever reached, other mounts are left alone.

Runs in the files worker.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from itertools import islice

from guardhouse.kernel import files as kernel
from guardhouse.workspace.descent import Descent
from guardhouse.workspace.errors import Code, WorkspaceRefusal, refusal_of, shown
from guardhouse.workspace.handle import PathLike, Workspace, open_beneath, parse_path
from guardhouse.workspace.listing import plain_path
from guardhouse.workspace.place import WORK_DIRECTORY, open_place
from guardhouse.workspace.walk import Walk, Walked

__all__ = ["check_tree_rules", "move_path", "remove_path", "remove_tree"]

_NAMES_AT_ONCE = 256
_OPEN_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK


def move_path(workspace: Workspace, path: PathLike, target: PathLike, *, overwrite: bool = False) -> None:
    """Rename ``path`` to ``target``; parents of the target are made, a link is moved as the link that it is.

    A relative link keeps its text: where it points to after the move is resolved, and confined, when it is used.

    Raises:
        PathEscapesWorkspace: one of them lies outside.
        WorkspaceRefusal: EXISTS when something is there and ``overwrite`` is not set; NOT_FOUND; PROTECTED; …
    """
    source = parse_path(workspace, path)
    destination = parse_path(workspace, target)
    with open_place(workspace, _named(source)) as old:
        if old.found is None:
            raise refusal_of(FileNotFoundError(errno.ENOENT, ""), source)
        check_tree_rules(old.workspace, old.name, old.found)
        with open_place(workspace, _named(destination), make_parents=True) as new:
            try:
                if overwrite:
                    os.rename(old.name, new.name, src_dir_fd=old.dir_fd, dst_dir_fd=new.dir_fd)
                else:
                    kernel.renameat2(old.dir_fd, old.name, new.dir_fd, new.name, flags=kernel.RENAME_NOREPLACE)
            except OSError as error:
                raise refusal_of(error, destination) from error
            os.fsync(new.dir_fd)
        os.fsync(old.dir_fd)


def remove_path(
    workspace: Workspace,
    path: PathLike,
    *,
    recursive: bool = False,
    protect: bool = True,
    tick: Callable[[], None] = lambda: None,
) -> int:
    """Remove what ``path`` names: a link itself, never what it points to; return how many entries are gone.

    Args:
        workspace: the handle.
        path: never the workspace itself.
        recursive: remove a directory with all that is in it.
        protect: refuse places in `.work/` and those that the rules keep from being changed.
        tick: called now and then; may raise to stop, which leaves the rest.

    Raises:
        PathEscapesWorkspace: it lies outside.
        WorkspaceRefusal: NOT_EMPTY for a directory with content unless ``recursive``; PROTECTED; NOT_FOUND; …
    """
    relative = parse_path(workspace, path)
    with open_place(workspace, _named(relative), protect=protect) as place:
        if place.found is None:
            raise refusal_of(FileNotFoundError(errno.ENOENT, ""), relative)
        try:
            if not stat.S_ISDIR(place.found.st_mode):
                os.unlink(place.name, dir_fd=place.dir_fd)
                return 1
            if not recursive:
                os.rmdir(place.name, dir_fd=place.dir_fd)
                return 1
        except OSError as error:
            raise refusal_of(error, relative) from error
        return remove_tree(place.workspace, place.name, tick=tick)


def remove_tree(parent: Workspace, name: bytes, *, tick: Callable[[], None] = lambda: None) -> int:
    """Remove the directory ``name`` in the handle ``parent`` and all below it; return how many entries are gone.

    Links are removed, not followed; another mount inside is refused and stays, as does what a rule keeps.

    Raises:
        WorkspaceRefusal: what the file system says; what was removed before stays removed.
    """
    _check_changes(parent, name, tick)
    removed = 0
    descent = Descent(parent.root_fd)
    try:
        # Each directory twice: first its files go and its directories are put on the stack above it, then it is empty.
        todo: list[tuple[int, bytes, bool]] = [(1, name, False)]
        while todo:
            depth, below, emptied = todo.pop()
            above, _, base = below.rpartition(b"/")
            parent_fd = descent.directory(depth - 1, above)
            if emptied:
                os.rmdir(base, dir_fd=parent_fd)
                removed += 1
                continue
            tick()
            fd = open_beneath(parent.at(parent_fd, b""), base, _OPEN_FLAGS, follow=False, reading=False)
            descent.push(depth, fd)
            todo.append((depth, below, True))
            directories, gone = _unlink_files(fd, tick)
            removed += gone
            todo.extend((depth + 1, below + b"/" + directory, False) for directory in directories)
    except OSError as error:
        raise refusal_of(error, name) from error
    finally:
        descent.close()
    return removed


def _unlink_files(fd: int, tick: Callable[[], None]) -> tuple[list[bytes], int]:
    """Unlink everything in ``fd`` that is no directory; return the directories and how many entries are gone."""
    gone = 0
    while True:
        directories: list[bytes] = []
        before = gone
        # A part at a time: the names of ten million files fill the memory that the worker has.
        with os.scandir(fd) as scanning:
            while names := [os.fsencode(entry.name) for entry in islice(scanning, _NAMES_AT_ONCE)]:
                tick()
                for name in names:
                    try:
                        if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                            directories.append(name)
                            continue
                        os.unlink(name, dir_fd=fd)
                        gone += 1
                    except FileNotFoundError:
                        continue
        # Some file systems pass over a name when others vanish while they are listed.
        if gone - before < _NAMES_AT_ONCE:
            return directories, gone


def check_tree_rules(parent: Workspace, name: bytes, found: os.stat_result) -> None:
    """Raise when a rule keeps ``name`` in ``parent``, or anything below it, from being read or changed.

    Whatever gets another name this way is under other rules afterwards, so none of the present ones may speak of it.

    Raises:
        WorkspaceRefusal: RULE.
    """
    if parent.rules is None:
        return
    parent.rules.check_read(_place(parent, name))
    parent.rules.check_write(_place(parent, name))
    if stat.S_ISDIR(found.st_mode):
        for walked in _walk_all(parent, name, lambda: None):
            parent.rules.check_read(_place(walked.parent, walked.name))
            parent.rules.check_write(_place(walked.parent, walked.name))


def _check_changes(parent: Workspace, name: bytes, tick: Callable[[], None]) -> None:
    if parent.rules is None:
        return
    parent.rules.check_write(_place(parent, name))
    for walked in _walk_all(parent, name, tick):
        parent.rules.check_write(_place(walked.parent, walked.name))


def _walk_all(parent: Workspace, name: bytes, tick: Callable[[], None]) -> Iterator[Walked]:
    """Walk what is below ``name``, shut to reading or not; the handles yielded know their places."""
    unruled = Workspace(parent.root_fd, None, parent.method, parent.cross_mounts, parent.root_mount, None, parent.place)
    return Walk(unruled, name, types_only=True, places=True, tick=tick).entries()


def _place(parent: Workspace, name: bytes) -> bytes:
    return parent.place + b"/" + name if parent.place else name


def _named(path: bytes) -> bytes:
    """Return ``path`` without a slash at its end, refusing the workspace itself."""
    plain = plain_path(path)
    if plain == b".":
        raise WorkspaceRefusal(f"{shown(path)} is the workspace itself; name something in it", code=Code.INVALID)
    if plain == WORK_DIRECTORY:
        return plain
    return path.rstrip(b"/")

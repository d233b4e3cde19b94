"""Where a new name is to stand: the open directory that will hold it, with missing parents made below the handle.

Knows links at the end of a path (a write goes through them, as an editor's does), `.work/`, and directories
that vanish meanwhile. Knows nothing of contents. Runs in the files worker.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from guardhouse.workspace.errors import Code, PathEscapesWorkspace, WorkspaceRefusal, escapes, refusal_of, shown
from guardhouse.workspace.handle import Opened, Workspace, open_beneath, open_placed, parse_path

__all__ = ["UPLOADS", "WORK_DIRECTORY", "Place", "check_unprotected", "open_directory", "open_place"]

WORK_DIRECTORY: Final = b".work"
"""Guardhouse's own directory at the top of the workspace: operations read it and never change it."""
UPLOADS: Final = b".work/uploads"
"""Where parts of unfinished uploads are gathered."""
PARENT_MODE: Final = 0o755
_LINKS_MAX: Final = 40
_RACE_RETRIES: Final = 64
_NAME_MAX: Final = 255
_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Place:
    """A name in an open directory of the workspace.

    Attributes:
        dir_fd: the directory, readable, owned by open_place's `with` block.
        name: one component, never "." or "..".
        path: relative path by which it was reached, links at its end replaced by what they say.
        workspace: the handle confined to ``dir_fd``.
        found: what stands there now, links not followed; None when nothing does.
    """

    dir_fd: int
    name: bytes
    path: bytes
    workspace: Workspace
    found: os.stat_result | None


@contextmanager
def open_place(
    workspace: Workspace,
    path: bytes,
    *,
    make_parents: bool = False,
    through_links: bool = False,
    protect: bool = True,
) -> Iterator[Place]:
    """Open the directory in which ``path`` names something, or will.

    Args:
        workspace: the handle.
        path: relative path, as parse_path returns it.
        make_parents: make missing directories on the way (mode 0755).
        through_links: when a link stands at ``path``, mean the place that it points to, if that is in the workspace.
        protect: refuse places in `.work/` and those that the rules keep from being changed.

    Raises:
        PathEscapesWorkspace: the path, or the link at its end, leaves.
        WorkspaceRefusal: INVALID when the path ends in no name; PROTECTED inside `.work/`; or what the file
        system says.
    """
    asked = path
    links = 0
    while True:
        parent, name = _split(path, asked)
        try:
            make = name if make_parents and not links else None
            opened = _open_parent(workspace, parent, make_for=make, protect=protect)
        except PathEscapesWorkspace as refusal:
            if not links:
                raise
            raise escapes(asked, f"leaves it at a link to {shown(path)}") from refusal
        dir_fd = opened.fd
        try:
            if protect:
                check_unprotected(workspace, dir_fd, name, asked)
            try:
                found: os.stat_result | None = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            except FileNotFoundError:
                found = None
            if through_links and found is not None and stat.S_ISLNK(found.st_mode):
                links += 1
                if links > _LINKS_MAX:
                    raise refusal_of(OSError(errno.ELOOP, ""), asked)
                path = _through(workspace, parent, os.readlink(name, dir_fd=dir_fd), asked)
                continue
            if protect and workspace.rules is not None:
                workspace.rules.check_write(opened.place + b"/" + name if opened.place else name)
            yield Place(dir_fd, name, path, workspace.at(dir_fd, opened.place), found)
            return
        except OSError as error:
            raise refusal_of(error, asked) from error
        finally:
            os.close(dir_fd)


def open_directory(workspace: Workspace, path: bytes) -> int:
    """Open the directory ``path`` of Guardhouse's own, made where it is missing; the caller owns the descriptor.

    Raises:
        PathEscapesWorkspace, WorkspaceRefusal: it lies outside, or cannot be made.
    """
    return _open_parent(workspace, path, make_for=b"", protect=False).fd


def check_unprotected(workspace: Workspace, dir_fd: int, name: bytes, asked: bytes) -> None:
    """Raise when ``name`` in ``dir_fd`` is `.work` or stands below it, by whatever links it was reached.

    Raises:
        WorkspaceRefusal: PROTECTED.
    """
    try:
        guarded = os.stat(WORK_DIRECTORY, dir_fd=workspace.root_fd, follow_symlinks=False)
    except FileNotFoundError:
        guarded = None
    root = os.fstat(workspace.root_fd)
    here = os.fstat(dir_fd)
    if os.path.samestat(here, root):
        if name == WORK_DIRECTORY:
            raise _protected(asked)
        return
    if guarded is None:
        return
    # Upwards by identity, not by name: a link to .work/outputs has another name and the same ancestors.
    fd = os.dup(dir_fd)
    try:
        while not os.path.samestat(here, root):
            if os.path.samestat(here, guarded):
                raise _protected(asked)
            parent_fd = os.open(b"..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = parent_fd
            above = os.fstat(fd)
            if os.path.samestat(above, here):
                return  # the top of a file system: the directory was moved out of the workspace meanwhile
            here = above
    finally:
        os.close(fd)


def _protected(asked: bytes) -> WorkspaceRefusal:
    return WorkspaceRefusal(
        f"{shown(asked)} is in '.work/', which Guardhouse keeps for itself; read it, and clear it with"
        " 'guardhouse workspace clean'",
        code=Code.PROTECTED,
    )


def _split(path: bytes, asked: bytes) -> tuple[bytes, bytes]:
    parent, _, name = path.rpartition(b"/")
    if name in (b"", b".", b".."):
        what = "ends in '/'" if name == b"" else f"ends in '{name.decode()}'"
        raise WorkspaceRefusal(f"path names no file: {shown(asked)} {what}", code=Code.INVALID)
    if len(name) > _NAME_MAX:
        raise refusal_of(OSError(errno.ENAMETOOLONG, ""), asked)
    return (parent or b"."), name


def _through(workspace: Workspace, parent: bytes, target: bytes, asked: bytes) -> bytes:
    if target.startswith(b"/"):
        try:
            return parse_path(workspace, target)
        except PathEscapesWorkspace as refusal:
            raise escapes(asked, f"leaves it at a link to {shown(target)}") from refusal
    return target if parent == b"." else parent + b"/" + target


def _open_parent(workspace: Workspace, path: bytes, *, make_for: bytes | None, protect: bool) -> Opened:
    """Open a directory; with ``make_for``, the name that it is to hold, make what is missing of it."""
    for _ in range(_RACE_RETRIES):
        try:
            if workspace.rules is None:
                return Opened(open_beneath(workspace, path, _DIRECTORY_FLAGS), b"")
            return open_placed(workspace, path, _DIRECTORY_FLAGS, reading=False)
        except WorkspaceRefusal as refusal:
            if make_for is None or refusal.code is not Code.NOT_FOUND:
                raise
        _make_directories(workspace, path, make_for, protect=protect)
    raise WorkspaceRefusal(
        f"directories of {shown(path)} are being changed by somebody else; try again", code=Code.CONFLICT
    )


def _make_directories(workspace: Workspace, path: bytes, make_for: bytes, *, protect: bool) -> None:
    """Make what is missing of ``path``, or stop where somebody else interferes: the caller looks again."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    fd, place, missing = _deepest_existing(workspace, parts)
    try:
        if protect and workspace.rules is not None:
            workspace.rules.check_write(b"/".join([*([place] if place else []), *missing, make_for]))
        if b".." in missing:
            raise refusal_of(FileNotFoundError(errno.ENOENT, ""), path)
        for part in missing:
            if protect:
                check_unprotected(workspace, fd, part, path)
            try:
                os.mkdir(part, PARENT_MODE, dir_fd=fd)
            except FileExistsError:
                if stat.S_ISLNK(os.stat(part, dir_fd=fd, follow_symlinks=False).st_mode):
                    # A link that points nowhere: nothing is made through it.
                    raise refusal_of(FileNotFoundError(errno.ENOENT, ""), path) from None
            child = os.open(part, _DIRECTORY_FLAGS | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = child
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            raise refusal_of(error, path) from error
    finally:
        os.close(fd)


def _deepest_existing(workspace: Workspace, parts: list[bytes]) -> tuple[int, bytes, list[bytes]]:
    """Open the longest prefix of ``parts`` that exists; return it, its place (for rules only), and what is missing."""
    low, high = 0, len(parts) - 1  # parts[:low] exists, parts[:high + 1] does not
    best = _open_parent(workspace, b".", make_for=None, protect=False)
    while low < high:
        middle = (low + high + 1) // 2
        try:
            found = _open_parent(workspace, b"/".join(parts[:middle]), make_for=None, protect=False)
        except WorkspaceRefusal as refusal:
            if refusal.code is not Code.NOT_FOUND:
                os.close(best.fd)
                raise
            high = middle - 1
        else:
            os.close(best.fd)
            best, low = found, middle
    return best.fd, best.place, parts[low:]

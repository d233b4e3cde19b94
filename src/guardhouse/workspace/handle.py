"""The workspace as one directory handle, and the one way to open anything below it.

Two ways to resolve a path are held to the same tests. `Method.OPENAT2` lets the kernel do it (RESOLVE_BENEATH, no magic
links, no crossing of mounts). `Method.CAREFUL` walks component by component with O_NOFOLLOW, reads links
itself, and goes back up only over the directories that it came through; it serves kernels without openat2,
paths longer than PATH_MAX, absolute links that point back into the workspace, and it says where a refused
path leaves. Neither can yield a descriptor outside the workspace, whatever is swapped meanwhile. Knows
nothing of what is done with the files. Runs in the files worker.
"""

import errno
import os
import stat
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from guardhouse.errors import SetupError
from guardhouse.kernel import files as kernel
from guardhouse.workspace.errors import Code, WorkspaceRefusal, escapes, refusal_of, shown
from guardhouse.workspace.rules import PathRules

__all__ = [
    "Method",
    "Opened",
    "PathLike",
    "Workspace",
    "open_beneath",
    "open_placed",
    "open_workspace",
    "parse_path",
]

PathLike = str | bytes

PATH_MAX_BYTES: Final = 1024 * 1024
"""Longest path accepted from outside: 5,000 levels of 200 bytes; the kernel's own PATH_MAX is 4096."""
_KERNEL_PATH_MAX: Final = 4095
# MAXSYMLINKS of the kernel (include/linux/namei.h).
_LINKS_MAX: Final = 40
# Directories kept open while walking, so that ".." goes back over them. The worker's RLIMIT_NOFILE is 256.
_CHAIN_KEPT: Final = 100
_SWAP_RETRIES: Final = 64


class Method(StrEnum):
    """How a path is resolved below the handle."""

    OPENAT2 = "openat2"
    CAREFUL = "careful"


@dataclass(frozen=True, slots=True)
class Workspace:
    """An open workspace. ``root_fd`` stays owned by whoever opened it.

    Attributes:
        root_fd: descriptor of the directory, O_PATH or readable.
        root_path: absolute path by which agents and commands know this directory; None when there is none.
        method: how paths are resolved.
        cross_mounts: whether other mounts below the directory belong to the workspace.
        root_mount: mount id of the directory, or its device number where the kernel does not tell mounts apart.
        rules: what may not be read or changed; None is no rule.
        place: of a handle below another, that directory's resolved path in the workspace; b"" for the workspace itself.
    """

    root_fd: int
    root_path: bytes | None
    method: Method
    cross_mounts: bool
    root_mount: int
    rules: PathRules | None = None
    place: bytes = b""

    def at(self, dir_fd: int, place: bytes) -> "Workspace":
        """Return the handle confined to ``dir_fd``, a directory of this workspace whose resolved path is ``place``."""
        return Workspace(dir_fd, None, self.method, self.cross_mounts, self.root_mount, self.rules, place)

    def without_rules(self) -> "Workspace":
        """Return the handle for Guardhouse's own accounting, which sees everything and shows none of it."""
        return Workspace(self.root_fd, self.root_path, self.method, self.cross_mounts, self.root_mount)


@dataclass(frozen=True, slots=True)
class Opened:
    """A descriptor, the caller's to close, and the resolved path of what it is: no links, no dots, b"" for the root."""

    fd: int
    place: bytes


def open_workspace(
    root_fd: int,
    *,
    root_path: PathLike | None = None,
    method: Method | None = None,
    cross_mounts: bool = False,
    rules: PathRules | None = None,
) -> Workspace:
    """Return the workspace behind ``root_fd``, having chosen once how paths are resolved.

    Args:
        root_fd: an open directory; stays the caller's to close.
        root_path: its absolute path as agents write it; absolute paths outside it are refused.
        method: fixes the way; None takes openat2 where the kernel has it.
        cross_mounts: let paths go into other mounts below the directory (an operator's volumes).
        rules: what may not be read or changed.

    Raises:
        SetupError: ``root_fd`` is no directory, ``root_path`` is not absolute, or openat2 was asked for and is missing.
    """
    if not stat.S_ISDIR(os.fstat(root_fd).st_mode):
        raise SetupError("the workspace handle is not a directory; point workspace at one")
    root: bytes | None = None
    if root_path is not None:
        root = os.path.normpath(_as_bytes(root_path))
        if not root.startswith(b"/") or root.startswith(b"//"):
            raise SetupError(f"workspace path {shown(root)} is not absolute")
    has = kernel.has_openat2(root_fd)
    if method is Method.OPENAT2 and not has:
        raise SetupError("openat2 was asked for, but this kernel has none (Linux 5.6) or a filter forbids it")
    chosen = method or (Method.OPENAT2 if has else Method.CAREFUL)
    return Workspace(root_fd, root, chosen, cross_mounts, _mount_of(root_fd), rules)


def parse_path(workspace: Workspace, path: PathLike) -> bytes:
    """Return ``path`` relative to the workspace, unresolved; "." for the workspace itself.

    Raises:
        PathEscapesWorkspace: it is absolute and not under the workspace's own path.
        WorkspaceRefusal: INVALID for an empty path, a NUL or text that no file name can hold; NAME_TOO_LONG.
    """
    raw = _as_bytes(path)
    if not raw:
        raise WorkspaceRefusal("path is empty; '.' is the workspace itself", code=Code.INVALID)
    if b"\0" in raw:
        raise WorkspaceRefusal(f"path holds a NUL byte: {shown(raw)}", code=Code.INVALID)
    if len(raw) > PATH_MAX_BYTES:
        raise WorkspaceRefusal(
            f"name too long: path of {len(raw)} bytes, at most {PATH_MAX_BYTES} are read", code=Code.NAME_TOO_LONG
        )
    if raw.startswith(b"/"):
        return _below_root(workspace, raw, raw)
    return raw


def open_beneath(workspace: Workspace, path: bytes, flags: int, *, follow: bool = True, reading: bool = True) -> int:
    """Open what ``path`` names inside the workspace; never anything outside it.

    Args:
        workspace: the handle.
        path: relative path, as parse_path returns it.
        flags: open(2) flags without O_CREAT; O_CLOEXEC is always set.
        follow: whether a symbolic link as the last component is followed; without it, O_PATH opens the link itself and
            every other way is refused.
        reading: whether the rules for reading apply; a directory opened only to change an entry is not read.

    Returns:
        A new descriptor, owned by the caller.

    Raises:
        PathEscapesWorkspace: the path leaves, with the component at which it does.
        WorkspaceRefusal: RULE, or whatever else the file system says.
    """
    if not follow:
        flags |= os.O_NOFOLLOW
    # A rule is about the place, which only the careful way can tell of the very thing that it opened.
    if workspace.rules is None and workspace.method is Method.OPENAT2 and len(path) <= _KERNEL_PATH_MAX:
        resolve = kernel.RESOLVE_BENEATH | kernel.RESOLVE_NO_MAGICLINKS
        if not workspace.cross_mounts:
            resolve |= kernel.RESOLVE_NO_XDEV
        try:
            return kernel.openat2(workspace.root_fd, path, flags, resolve=resolve)
        except OSError as error:
            # EXDEV and ELOOP do not say where or why. The careful way does, and admits an absolute link into
            # the workspace.
            if error.errno not in (errno.EXDEV, errno.ELOOP, errno.EAGAIN):
                raise refusal_of(error, path) from error
    return open_placed(workspace, path, flags, follow=follow, reading=reading).fd


def open_placed(workspace: Workspace, path: bytes, flags: int, *, follow: bool = True, reading: bool = True) -> Opened:
    """Do what open_beneath does, the careful way, and tell where the thing really is.

    Raises:
        PathEscapesWorkspace, WorkspaceRefusal: as open_beneath.
    """
    if not follow:
        flags |= os.O_NOFOLLOW
    try:
        return _open_carefully(workspace, path, flags, follow=follow, reading=reading)
    except OSError as error:
        raise refusal_of(error, path) from error


def _as_bytes(path: PathLike) -> bytes:
    if isinstance(path, bytes):
        return path
    try:
        return path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise WorkspaceRefusal(
            f"path is not text that a file name can hold: {path[:100]!r}", code=Code.INVALID
        ) from error


def _below_root(workspace: Workspace, absolute: bytes, asked: bytes) -> bytes:
    root = workspace.root_path
    if root is not None:
        if root == b"/":
            return absolute.lstrip(b"/") or b"."
        if absolute == root or absolute.startswith(root + b"/"):
            return absolute[len(root) :].lstrip(b"/") or b"."
    known = f"not under {shown(root)}" if root is not None else "this workspace has relative paths only"
    raise escapes(asked, f"leaves it at {shown(absolute)}, which is absolute and {known}")


def _mount_of(fd: int) -> int:
    mount = kernel.mount_id(fd)
    return os.fstat(fd).st_dev if mount is None else mount


class _Chain:
    """The directories from the root to where a walk stands; only they can be gone back to."""

    def __init__(self, root_fd: int) -> None:
        self._fds = [root_fd]
        self._closed = 1
        self.names: list[bytes] = []

    @property
    def top(self) -> int:
        return self._fds[-1]

    def push(self, fd: int, name: bytes) -> None:
        self._fds.append(fd)
        self.names.append(name)
        if len(self._fds) - self._closed > _CHAIN_KEPT:
            os.close(self._fds[self._closed])
            self._closed += 1

    def up(self) -> bool:
        """Go to the parent; False at the root, which has none."""
        if len(self._fds) == 1:
            return False
        os.close(self._fds.pop())
        self.names.pop()
        if 1 < len(self._fds) == self._closed:
            raise WorkspaceRefusal(
                f"path goes back up by '..' over more than the {_CHAIN_KEPT} directories that are kept open for it;"
                " write it without",
                code=Code.INVALID,
            )
        return True

    def close(self) -> None:
        for fd in self._fds[self._closed :]:
            os.close(fd)
        del self._fds[1:]
        self.names.clear()
        self._closed = 1


def _open_carefully(workspace: Workspace, path: bytes, flags: int, *, follow: bool, reading: bool) -> Opened:
    """Resolve ``path`` one component at a time; see the module's docstring.

    Raises:
        PathEscapesWorkspace: it leaves.
        OSError: whatever else, with the errno that openat2 would give.
    """
    todo = deque(path.split(b"/"))
    chain = _Chain(workspace.root_fd)
    links = 0
    swaps = 0
    try:
        while True:
            name = todo.popleft() if todo else b"."
            if name in (b"", b".") and todo:
                continue
            if name == b".." and not chain.up():
                raise escapes(path, "leaves it at '..'")
            if name in (b"", b".", b".."):
                if todo:
                    continue
                place = _checked_place(workspace, chain.names, reading=reading)
                return Opened(os.open(b".", flags | os.O_CLOEXEC, dir_fd=chain.top), place)
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=chain.top)
            try:
                found = os.fstat(fd)
                if not workspace.cross_mounts and _mount_of(fd) != workspace.root_mount:
                    raise escapes(path, f"crosses into another mount at {shown(name)}")
                if stat.S_ISLNK(found.st_mode) and (todo or follow):
                    links += 1
                    if links > _LINKS_MAX:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                    _follow(workspace, path, name, os.readlink(b"", dir_fd=fd), todo, chain)
                    continue
                if todo:
                    if not stat.S_ISDIR(found.st_mode):
                        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                    chain.push(fd, name)
                    fd = -1
                    continue
                place = _checked_place(workspace, [*chain.names, name], reading=reading)
                if flags & os.O_PATH and not (flags & os.O_DIRECTORY and not stat.S_ISDIR(found.st_mode)):
                    fd, result = -1, fd
                    return Opened(result, place)
                opened = _reopen(name, flags, chain.top, follow=follow)
                if opened is not None:
                    return Opened(opened, place)
                # The name became a link between the two looks at it; look again.
                swaps += 1
                if swaps > _SWAP_RETRIES:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                todo.appendleft(name)
            finally:
                if fd >= 0:
                    os.close(fd)
    finally:
        chain.close()


def _checked_place(workspace: Workspace, names: list[bytes], *, reading: bool) -> bytes:
    place = b"/".join([workspace.place, *names] if workspace.place else names)
    if reading and workspace.rules is not None:
        workspace.rules.check_read(place)
    return place


def _follow(workspace: Workspace, path: bytes, name: bytes, target: bytes, todo: deque[bytes], chain: _Chain) -> None:
    """Put a link's target in front of the components that are still to do."""
    if target.startswith(b"/"):
        # An absolute target counts only by its text: a magic link's text is looked up like any other, never followed.
        try:
            target = _below_root(workspace, target, path)
        except WorkspaceRefusal as refusal:
            raise escapes(path, f"leaves it at the link {shown(name)} -> {shown(target)}") from refusal
        chain.close()
    if not target:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    todo.extendleft(reversed(target.split(b"/")))


def _reopen(name: bytes, flags: int, parent_fd: int, *, follow: bool) -> int | None:
    """Open ``name`` for use in ``parent_fd``; None when it has meanwhile become a link that should be followed."""
    try:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    except OSError as error:
        if error.errno == errno.ELOOP and follow:
            return None
        if error.errno == errno.ENOTDIR and follow and flags & os.O_DIRECTORY and _is_link(name, parent_fd):
            return None
        raise


def _is_link(name: bytes, parent_fd: int) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode)

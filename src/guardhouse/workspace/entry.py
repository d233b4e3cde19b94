"""What stands at a path: its kind, size and times, taken from the inode and never from its content.

Knows stat(2). Knows nothing of how a path is resolved below the handle beyond asking for it. Runs in the files worker.
"""

import os
import stat
from enum import StrEnum
from typing import Final, NamedTuple

from guardhouse.workspace.handle import PathLike, Workspace, open_beneath, parse_path

__all__ = ["Entry", "Kind", "cost_of", "entry_of", "kind_of", "stat_path"]


class Kind(StrEnum):
    """What an entry of a directory is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    CHARACTER_DEVICE = "character_device"
    BLOCK_DEVICE = "block_device"
    UNKNOWN = "unknown"


_KINDS: Final = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
    stat.S_IFCHR: Kind.CHARACTER_DEVICE,
    stat.S_IFBLK: Kind.BLOCK_DEVICE,
}


class Entry(NamedTuple):
    """One thing in the workspace.

    Attributes:
        path: bytes of its path relative to the workspace, as asked for or as walked; never resolved through links.
        kind: what it is; a link is a link here, whatever it points to.
        size: bytes for a file, length of the target for a link, 0 for everything else.
        mode: permission bits, setuid, setgid and sticky included.
        mtime_ns: last change of content, nanoseconds since the epoch.
        links: number of hard links; above 1, another name of the same file may lie outside the workspace.
        target: of a link, the text that it holds.
        occupied: bytes that it takes on the disk, at most ``size``: the holes of a sparse file do not count.
    """

    path: bytes
    kind: Kind
    size: int
    mode: int
    mtime_ns: int
    links: int
    target: bytes | None = None
    occupied: int = 0


def cost_of(name: bytes) -> int:
    """Return how many bytes ``name`` may take in a message: JSON escapes and base64 are longer than the name."""
    try:
        if name.decode("utf-8").isprintable():
            return len(name)
    except UnicodeDecodeError:
        pass
    return 6 * len(name)


def kind_of(mode: int) -> Kind:
    """Return the kind in ``st_mode``."""
    return _KINDS.get(stat.S_IFMT(mode), Kind.UNKNOWN)


def entry_of(path: bytes, found: os.stat_result, *, target: bytes | None = None) -> Entry:
    """Return the entry that ``found`` describes."""
    mode = found.st_mode
    kind = _KINDS.get(stat.S_IFMT(mode), Kind.UNKNOWN)
    if kind is not Kind.FILE and kind is not Kind.SYMLINK:
        return Entry(path, kind, 0, stat.S_IMODE(mode), found.st_mtime_ns, found.st_nlink, target)
    size = found.st_size
    occupied = found.st_blocks * 512
    if occupied > size:
        occupied = size
    return Entry(path, kind, size, stat.S_IMODE(mode), found.st_mtime_ns, found.st_nlink, target, occupied)


def stat_path(workspace: Workspace, path: PathLike, *, follow: bool = False) -> Entry:
    """Return what ``path`` is; with ``follow``, what the link at its end points to, inside the workspace.

    Raises:
        PathEscapesWorkspace, WorkspaceRefusal: as open_beneath.
    """
    relative = parse_path(workspace, path)
    fd = open_beneath(workspace, relative, os.O_PATH, follow=follow)
    try:
        found = os.fstat(fd)
        target = os.readlink(b"", dir_fd=fd) if stat.S_ISLNK(found.st_mode) else None
        return entry_of(relative, found, target=target)
    finally:
        os.close(fd)

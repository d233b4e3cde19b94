"""Read a part of a regular file: by bytes, bounded, and honest about sizes that change or lie.

Knows files whose size says 0 although they have content (as /proc's do), files that grow while they are read,
and everything that would block or never end. Runs in the files worker.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from guardhouse.kernel import files as kernel
from guardhouse.limits import READ_MAX_BYTES
from guardhouse.workspace.entry import kind_of
from guardhouse.workspace.errors import Code, WorkspaceRefusal, refusal_of, shown
from guardhouse.workspace.handle import PathLike, Workspace, open_beneath, parse_path

__all__ = ["FileChunk", "FilePart", "open_regular", "read_chunk", "read_file"]

_CHUNK_BYTES: Final = 16 * 1024 * 1024
_SMALL_BYTES: Final = 4_096
_HASHED_BYTES: Final = 1024 * 1024
_REPLACED_TRIES: Final = 4


@dataclass(frozen=True, slots=True)
class FilePart:
    """Bytes of a file from ``offset`` on.

    Attributes:
        content: the bytes; shorter than asked where the file ends or ``bounded``.
        offset: where they start.
        total_size: bytes in the whole file, as of the end of the read; at least ``offset + len(content)`` unless the
            offset lies past the end.
        checksum: SHA-256 (hex) of the whole file; None where it changed meanwhile, or is over the bound and not
            answered whole.
        bounded: the answer stops at our bound although more was asked for and is there; read on at
            ``offset + len(content)``.
    """

    content: bytes
    offset: int
    total_size: int
    bounded: bool
    checksum: str | None = None


def open_regular(workspace: Workspace, path: bytes, *, verb: str = "read") -> int:
    """Open the regular file at ``path`` for reading; never blocks and never touches a device.

    Raises:
        PathEscapesWorkspace: it lies outside.
        WorkspaceRefusal: DIRECTORY, SPECIAL, or what the file system says.
    """
    # Look before opening: opening a device or a FIFO already does something to it.
    probe = open_beneath(workspace, path, os.O_PATH)
    try:
        _check_regular(os.fstat(probe).st_mode, path, verb)
    finally:
        os.close(probe)
    fd = open_beneath(workspace, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        # The name may point elsewhere by now; what counts is what was opened, and O_NONBLOCK kept a FIFO from blocking.
        _check_regular(os.fstat(fd).st_mode, path, verb)
    except WorkspaceRefusal:
        os.close(fd)
        raise
    return fd


def read_file(
    workspace: Workspace,
    path: PathLike,
    *,
    offset: int = 0,
    limit: int = 0,
    max_bytes: int = READ_MAX_BYTES,
    tick: Callable[[], None] = lambda: None,
) -> FilePart:
    """Return up to ``limit`` bytes of ``path`` from ``offset`` on.

    Args:
        workspace: the handle.
        path: path from outside.
        offset: in bytes; past the end gives no content and the size.
        limit: in bytes; 0 or less means the rest of the file.
        max_bytes: bound on one answer, whatever ``limit`` says; reaching it shows in ``bounded``.
        tick: called between chunks; may raise to stop.

    Raises:
        PathEscapesWorkspace, WorkspaceRefusal: as open_regular; INVALID for a negative offset.
    """
    relative = parse_path(workspace, path)
    if offset < 0:
        raise WorkspaceRefusal(f"offset is {offset}; it counts bytes from 0", code=Code.INVALID)
    for _ in range(_REPLACED_TRIES - 1):
        part, was_replaced = _read_once(workspace, relative, offset, limit, max_bytes, tick)
        if not was_replaced:
            return part
    return _read_once(workspace, relative, offset, limit, max_bytes, tick)[0]


def _read_once(
    workspace: Workspace, relative: bytes, offset: int, limit: int, max_bytes: int, tick: Callable[[], None]
) -> tuple[FilePart, bool]:
    """Return the part, and whether it has no checksum because another file got the name meanwhile: read that one."""
    fd = open_regular(workspace, relative)
    try:
        wanted = min(limit, max_bytes) if limit > 0 else max_bytes
        before = os.fstat(fd)
        content, ended = _read_from(fd, offset, wanted, tick)
        seen = offset + len(content) if content else 0
        total = max(os.fstat(fd).st_size, seen)
        if total == 0 and offset > 0:
            # A file of /proc's kind says 0 and has content all the same: only reading tells how much.
            counted, _ = _read_from(fd, 0, min(offset, max_bytes), tick)
            total = len(counted)
        left = not ended and (total > seen or os.fstat(fd).st_size == 0)
        bounded = left and len(content) == max_bytes and not 0 < limit <= max_bytes
        is_whole = offset == 0 and (ended or len(content) == before.st_size > 0)
        checksum = _checksum(fd, content if is_whole else None, before, max_bytes, tick)
        was_replaced = checksum is None and before.st_nlink > 0 == os.fstat(fd).st_nlink
        return FilePart(content, offset, total, bounded, checksum), was_replaced
    except OSError as error:
        raise refusal_of(error, relative) from error
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class FileChunk:
    """A piece of a file that is read in many.

    Attributes:
        content: shorter than asked only at the end of the file.
        total_size: of the file now.
        identity: names the file itself; given again, it keeps the pieces from being of two files.
        ended: the file has no more at this moment.
    """

    content: bytes
    total_size: int
    identity: str
    ended: bool


def read_chunk(
    workspace: Workspace,
    path: PathLike,
    *,
    offset: int,
    limit: int,
    identity: str = "",
    tick: Callable[[], None] = lambda: None,
) -> FileChunk:
    """Return ``limit`` bytes of ``path`` from ``offset`` on, of the file that ``identity`` names if it is given.

    Raises:
        PathEscapesWorkspace, WorkspaceRefusal: as open_regular; CONFLICT when another file stands at ``path`` now, or
            this one has shrunk to less than ``offset``.
    """
    relative = parse_path(workspace, path)
    fd = open_regular(workspace, relative)
    try:
        found = os.fstat(fd)
        now = f"{found.st_dev}:{found.st_ino}:{kernel.birth_ns(fd)}"
        if identity and now != identity:
            raise WorkspaceRefusal(
                f"{shown(relative)} was replaced by another file while it was read; read it again from the start",
                code=Code.CONFLICT,
            )
        if 0 < found.st_size < offset:
            raise WorkspaceRefusal(
                f"{shown(relative)} has shrunk to {found.st_size} bytes meanwhile; read it again from the start",
                code=Code.CONFLICT,
            )
        content, ended = _read_from(fd, offset, limit, tick)
        return FileChunk(content, max(os.fstat(fd).st_size, offset + len(content)), now, ended)
    except OSError as error:
        raise refusal_of(error, relative) from error
    finally:
        os.close(fd)


def _checksum(
    fd: int, whole: bytes | None, before: os.stat_result, max_bytes: int, tick: Callable[[], None]
) -> str | None:
    """Return the SHA-256 of the file: of ``whole`` where that is all of it, else read again up to ``max_bytes``."""
    digest = hashlib.sha256()
    size = 0
    if whole is not None:
        digest.update(whole)
        size = len(whole)
    elif 0 < before.st_size <= max_bytes:
        while part := os.pread(fd, _HASHED_BYTES, size):
            tick()
            digest.update(part)
            size += len(part)
    else:
        return None
    after = os.fstat(fd)
    same = (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_size, after.st_mtime_ns, after.st_ctime_ns
    )  # fmt: skip
    # A file of /proc's kind says 0 whatever it holds; what was read is all that is known of it.
    return digest.hexdigest() if same and size == (before.st_size or size) else None


def _read_from(fd: int, offset: int, wanted: int, tick: Callable[[], None]) -> tuple[bytes, bool]:
    """Return at most ``wanted`` bytes and whether the end of the file was met."""
    parts: list[bytes] = []
    got = 0
    # One call for a whole small file; a file that says 0, or grows, is read in pieces all the same.
    room = max(min(os.fstat(fd).st_size - offset + 1, _CHUNK_BYTES), _SMALL_BYTES)
    while got < wanted:
        tick()
        try:
            part = os.pread(fd, min(room, wanted - got), offset + got)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EOVERFLOW) and offset > 0 and not got:
                return b"", True  # an offset that no file can have lies past the end of this one
            raise
        except OverflowError:
            return b"", True
        if not part:
            return b"".join(parts), True
        parts.append(part)
        got += len(part)
    return b"".join(parts), False


def _check_regular(mode: int, path: bytes, verb: str) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise WorkspaceRefusal(f"cannot {verb} a directory: {shown(path)}", code=Code.DIRECTORY)
    raise WorkspaceRefusal(
        f"not a regular file: {shown(path)} is a {kind_of(mode).replace('_', ' ')}", code=Code.SPECIAL
    )

"""Put a finished file over exactly the one that was looked at, and over no other: a compare and swap of names.

Between the look and the rename somebody else may have put another file there; a plain rename would lose it. Two names
are exchanged instead, and what came out is compared with what was expected. Knows nothing of contents. Runs in the
files worker.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from guardhouse.kernel import files as kernel
from guardhouse.workspace.errors import Code, WorkspaceRefusal, shown

__all__ = ["is_same_file", "one_at_a_time", "replace_exactly"]

_ROUNDS: Final = 64
_LOCK_WAIT_S: Final = 2.0
_LOCK_AGAIN_S: Final = 0.005
_CANNOT: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})


@contextmanager
def one_at_a_time(dir_fd: int) -> Iterator[None]:
    """Let one writer that compares be in the directory ``dir_fd`` at a time, for as long as all of them ask here.

    Without it one of two could read what the other takes back. Whoever does not ask, or keeps the lock for longer than
    two seconds, is met by the exchange alone.
    """
    try:
        fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError:  # a directory that may be written and not read
        yield
        return
    try:
        until = time.monotonic() + _LOCK_WAIT_S
        with suppress(OSError):  # a file system without locks
            while not _has_locked(fd) and time.monotonic() < until:
                time.sleep(_LOCK_AGAIN_S)
        yield
    finally:
        os.close(fd)


def _has_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_same_file(one: os.stat_result, other: os.stat_result) -> bool:
    """Say whether both are the same file with, as far as size and time tell, the same content."""
    return (one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns) == (
        other.st_dev, other.st_ino, other.st_size, other.st_mtime_ns
    )  # fmt: skip


def replace_exactly(dir_fd: int, temporary: bytes, name: bytes, found: os.stat_result | None, *, asked: bytes) -> None:
    """Give ``temporary`` the name ``name`` if that is still the file ``found``, or still nobody's where it is None.

    On a file system that cannot exchange names it is a plain rename.

    Raises:
        WorkspaceRefusal: CONFLICT: another file stands there; it is there still.
        OSError: the file system refused.
    """
    try:
        if found is None:
            kernel.renameat2(dir_fd, temporary, dir_fd, name, flags=kernel.RENAME_NOREPLACE)
            return
        ours = _look(dir_fd, temporary)
        kernel.renameat2(dir_fd, temporary, dir_fd, name, flags=kernel.RENAME_EXCHANGE)
    except (FileExistsError, FileNotFoundError):
        raise _conflict(asked) from None
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        return
    came_out = _look(dir_fd, temporary)
    if not is_same_file(came_out, found):
        _put_back(dir_fd, temporary, name, ours, came_out)
        raise _conflict(asked)
    os.unlink(temporary, dir_fd=dir_fd)


def _put_back(dir_fd: int, temporary: bytes, name: bytes, ours: os.stat_result, theirs: os.stat_result) -> None:
    """Exchange until what comes out is what was put in before: then nobody else has been there since.

    What comes out instead was put there later still, so it is what belongs there.
    """
    for _ in range(_ROUNDS):
        try:
            kernel.renameat2(dir_fd, temporary, dir_fd, name, flags=kernel.RENAME_EXCHANGE)
        except FileNotFoundError:
            return  # removed meanwhile, which is the last word
        came_out = _look(dir_fd, temporary)
        if (came_out.st_dev, came_out.st_ino) == (ours.st_dev, ours.st_ino):
            return
        ours, theirs = theirs, came_out


def _look(dir_fd: int, name: bytes) -> os.stat_result:
    return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)


def _conflict(asked: bytes) -> WorkspaceRefusal:
    return WorkspaceRefusal(
        f"{shown(asked)} has changed: somebody else wrote it in the meantime; read it again", code=Code.CONFLICT
    )

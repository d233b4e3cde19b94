"""Put what is finished over exactly the one that was looked at, and over no other: a compare and swap of names.

Between the look and the rename somebody else may have put another file there; a plain rename would lose it. Two names
are exchanged instead, and what came out is compared with what was expected. While it is out it stands under a name that
says what it is and where it belongs (temporary_name), so that a kill at any moment loses it no more than a lost race
does: `settle_swap`, at the next start, puts it back. Knows nothing of contents. Runs in the files worker.
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final

from guardhouse.kernel import files as kernel
from guardhouse.workspace.errors import Code, WorkspaceRefusal, shown
from guardhouse.workspace.temporary_name import SwapName, identity_of, kept_name, parse_swap_name

__all__ = ["exchange_exactly", "is_fresh", "is_same_file", "one_at_a_time", "settle_swap", "take_free_name"]

_ROUNDS: Final = 64
_LOCK_WAIT_S: Final = 2.0
_LOCK_AGAIN_S: Final = 0.005
_CANNOT: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
# The coarsest clock of a file system that is in use (FAT): within it, a second change may leave the time as it is.
_CLOCK_STEP_NS: Final = 2_000_000_000


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


def is_fresh(found: os.stat_result) -> bool:
    """Say whether ``found`` was changed so lately that one more change need not show in its time."""
    return time.time_ns() - found.st_mtime_ns < _CLOCK_STEP_NS


def take_free_name(dir_fd: int, temporary: bytes, name: bytes, *, asked: bytes) -> None:
    """Give ``temporary`` the name ``name``, which must be nobody's.

    Raises:
        WorkspaceRefusal: CONFLICT: something stands there.
        OSError: the file system refused.
    """
    try:
        try:
            kernel.renameat2(dir_fd, temporary, dir_fd, name, flags=kernel.RENAME_NOREPLACE)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            # A second name is never given over an existing one, by no file system.
            os.link(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
            os.unlink(temporary, dir_fd=dir_fd)
    except FileExistsError:
        raise _conflict(asked) from None


def exchange_exactly(
    dir_fd: int,
    swap: bytes,
    name: bytes,
    *,
    fd: int,
    is_meant: Callable[[bytes], bool],
    asked: bytes,
    remove: Callable[[], None] | None = None,
    instead: Callable[[], None] | None = None,
) -> None:
    """Exchange what is finished, at ``swap``, with what stands at ``name``, and take it back unless that is what was
    meant.

    Args:
        dir_fd: the directory of both.
        swap: a name by temporary_name.swap_name; it is nobody's afterwards, but for an OSError.
        name: where it goes; something stands there.
        fd: descriptor of what ``swap`` names.
        is_meant: asked of a name whether what has it now is what is to be replaced.
        asked: the path for messages.
        remove: removes what ``swap`` names; None for files.
        instead: puts it there where the file system cannot exchange names, right after a look; None is one rename.

    Raises:
        WorkspaceRefusal: CONFLICT: something else stands there; it is there still.
        OSError: the file system refused.
    """
    remove = remove or partial(os.unlink, swap, dir_fd=dir_fd)
    try:
        kernel.renameat2(dir_fd, swap, dir_fd, name, flags=kernel.RENAME_EXCHANGE)
    except FileNotFoundError:
        _drop(remove)
        raise _conflict(asked) from None
    except OSError as error:
        if error.errno in _CANNOT and is_meant(name):
            (instead or partial(os.rename, swap, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd))()
            return
        _drop(remove)
        if error.errno in _CANNOT:
            raise _conflict(asked) from None
        raise
    if is_meant(swap):
        remove()
        return
    _put_back(dir_fd, swap, name, os.fstat(fd), remove, fd=fd)
    raise _conflict(asked)


def settle_swap(dir_fd: int, swap: bytes, *, remove: Callable[[], None] | None = None) -> bytes | None:
    """End what the exchange of a process that is gone left under the name ``swap``.

    Our own content goes. What came out and was what was meant goes too: the exchange was over but for that. Anything
    else is somebody's: it gets its name back where our content has that name, and a name that a person finds otherwise.

    Args:
        dir_fd: its directory.
        swap: a name by temporary_name.swap_name.
        remove: as exchange_exactly.

    Returns:
        The name that a person finds it by; None where it has none of its own.

    Raises:
        OSError: the file system refused; all is as it was, or nearer to its end.
    """
    remove = remove or partial(os.unlink, swap, dir_fd=dir_fd)
    said = parse_swap_name(swap)
    if said is None or identity_of(_look(dir_fd, swap)) in (said.ours, said.found):
        remove()
        return None
    holder = _holder(dir_fd, said)
    if holder is None:
        return _keep(dir_fd, swap)
    return _put_back(dir_fd, swap, holder, _look(dir_fd, holder), remove)


def _holder(dir_fd: int, said: SwapName) -> bytes | None:
    """Return the name that our content has in the directory: the one that it was put under."""
    for text in os.listdir(dir_fd):
        name = os.fsencode(text)
        with suppress(FileNotFoundError):
            if name.startswith(said.name) and identity_of(_look(dir_fd, name)) == said.ours:
                return name
    return None


def _put_back(
    dir_fd: int,
    swap: bytes,
    name: bytes,
    ours: os.stat_result,
    remove: Callable[[], None],
    *,
    fd: int | None = None,
) -> bytes | None:
    """Exchange until what comes out is what was put in before: then nobody else has been there since.

    What comes out instead was put there later still, so it is what belongs there. Returns as settle_swap.
    """
    put_in = ours
    for _ in range(_ROUNDS):
        holding = _look(dir_fd, swap)
        try:
            kernel.renameat2(dir_fd, swap, dir_fd, name, flags=kernel.RENAME_EXCHANGE)
        except FileNotFoundError:
            # Ours was removed, which is the last word on what it stood for; or moved away, and then nobody meant this.
            is_removed = fd is not None and put_in is ours and not os.fstat(fd).st_nlink
            if not is_removed or stat.S_ISDIR(holding.st_mode):
                return _keep(dir_fd, swap)
            remove()
            return None
        came_out = _look(dir_fd, swap)
        if (came_out.st_dev, came_out.st_ino) == (put_in.st_dev, put_in.st_ino):
            remove()
            return None
        put_in = holding
    return _keep(dir_fd, swap)


def _drop(remove: Callable[[], None]) -> None:
    with suppress(OSError):  # gone already; or it stays, and the next start removes it
        remove()


def _keep(dir_fd: int, swap: bytes) -> bytes | None:
    said = parse_swap_name(swap)
    if said is None:
        return None
    name = kept_name(said)
    kernel.renameat2(dir_fd, swap, dir_fd, name, flags=kernel.RENAME_NOREPLACE)
    return name


def _look(dir_fd: int, name: bytes) -> os.stat_result:
    return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)


def _conflict(asked: bytes) -> WorkspaceRefusal:
    return WorkspaceRefusal(
        f"{shown(asked)} has changed: somebody else wrote it in the meantime; read it again", code=Code.CONFLICT
    )

"""Names for files that are not finished, and how those of a killed worker are found again.

Each worker holds a lock on one small record in `.work/tmp/` and writes there which temporary names it is about
to use. The record of a worker that is gone can be locked by the next one, which removes what it names; what came out of
an exchange of names that was not over it puts back. Runs in the files worker.
"""

import fcntl
import os
import secrets
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final

from guardhouse.workspace.change import remove_path, remove_tree
from guardhouse.workspace.entry import Kind
from guardhouse.workspace.errors import WorkspaceRefusal, refusal_of
from guardhouse.workspace.handle import Workspace, open_beneath
from guardhouse.workspace.place import Place, open_directory, open_place
from guardhouse.workspace.replace import one_at_a_time, settle_swap
from guardhouse.workspace.temporary_name import TEMPORARY_PREFIX, is_temporary, parse_swap_name
from guardhouse.workspace.walk import Walk

__all__ = ["Swept", "Temporaries", "remove_leftovers"]

_RECORDS: Final = b".work/tmp"
_LENGTH: Final = struct.Struct(">I")
_RECORD_MAX_BYTES: Final = 2 * 1024 * 1024
# A command can put as much there as it likes: a start is not to take long, and the next one takes the rest.
_RECORDS_AT_ONCE: Final = 1_000
_NAMES_IN_RECORD: Final = 2


@dataclass(frozen=True, slots=True)
class Swept:
    """What was cleared: how many records or names, and the paths at which somebody's content was kept."""

    count: int = 0
    kept: tuple[bytes, ...] = ()

    def __add__(self, other: "Swept") -> "Swept":
        return Swept(self.count + other.count, self.kept + other.kept)


class Temporaries:
    """The temporary names of one process in one workspace.

    Where `.work/tmp/` cannot be written, names are given all the same, and a kill may leave one file behind.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._record_fd: int | None = None
        self._record_name = b"worker-" + secrets.token_hex(8).encode()

    def name_in(self, directory: bytes) -> bytes:
        """Return a new name to be used in ``directory`` (its relative path), having put it on record."""
        name = TEMPORARY_PREFIX + secrets.token_hex(8).encode()
        self.record(directory, name)
        return name

    def record(self, directory: bytes, *names: bytes) -> None:
        """Put on record that ``names`` in ``directory`` are in use, and no others are."""
        if self._record_fd is None:
            self._record_fd = self._open_record()
        if self._record_fd < 0:
            return
        paths = [directory + b"/" + name for name in names]
        entries = b"".join(_LENGTH.pack(len(path)) + path for path in paths)
        # On a full disk nothing is recorded: the write itself will say so.
        with suppress(OSError):
            os.pwrite(self._record_fd, entries + _LENGTH.pack(0), 0)

    def sweep(self) -> Swept:
        """Clear what workers that are gone left behind; the count is of records."""
        found = Swept()
        try:
            dir_fd = open_beneath(self._workspace, _RECORDS, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)
        except WorkspaceRefusal:
            return found
        try:
            with os.scandir(dir_fd) as scanning:
                names = [os.fsencode(entry.name) for entry in islice(scanning, _RECORDS_AT_ONCE)]
            for name in names:
                if name.startswith(b"worker-") and name != self._record_name:
                    found += self._sweep_record(dir_fd, name)
        finally:
            os.close(dir_fd)
        return found

    @classmethod
    @contextmanager
    def lent(cls, temporaries: "Temporaries | None", workspace: Workspace) -> Iterator["Temporaries"]:
        """Yield ``temporaries``, or where the caller has none, some of its own for this one change."""
        if temporaries is not None:
            yield temporaries
            return
        own = cls(workspace)
        try:
            yield own
        finally:
            own.close()

    def close(self) -> None:
        """Take back the record; nothing is unfinished now."""
        if self._record_fd is None or self._record_fd < 0:
            return
        os.close(self._record_fd)
        self._record_fd = None
        try:
            dir_fd = open_beneath(self._workspace, _RECORDS, os.O_RDONLY | os.O_DIRECTORY)
        except WorkspaceRefusal:
            return
        try:
            os.unlink(self._record_name, dir_fd=dir_fd)
        except OSError:  # somebody cleared `.work/` meanwhile
            return
        finally:
            os.close(dir_fd)

    def _open_record(self) -> int:
        try:
            dir_fd = open_directory(self._workspace, _RECORDS)
        except WorkspaceRefusal:
            return -1
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(self._record_name, flags, 0o600, dir_fd=dir_fd)
        except OSError:
            return -1
        finally:
            os.close(dir_fd)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd

    def _sweep_record(self, dir_fd: int, name: bytes) -> Swept:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
        except OSError:
            return Swept()
        kept: tuple[bytes, ...] = ()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in islice(_recorded(os.read(fd, _RECORD_MAX_BYTES)), _NAMES_IN_RECORD):
                # The record lies in the workspace, so a command may have written it: only names of ours are cleared.
                if is_temporary(path.rpartition(b"/")[2]):
                    kept += _clear(self._workspace, path).kept
            os.unlink(name, dir_fd=dir_fd)
        except OSError:  # locked by a worker that lives, or no record of ours
            return Swept(0, kept)
        finally:
            os.close(fd)
        return Swept(1, kept)


def _recorded(data: bytes) -> Iterator[bytes]:
    """Yield the paths in a record: each behind its length, a length of 0 behind the last."""
    at = 0
    while at + _LENGTH.size <= len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if not 0 < length <= len(data) - at:
            return
        yield data[at : at + length]
        at += length


def remove_leftovers(
    workspace: Workspace, *, older_than_s: float, now_s: float, tick: Callable[[], None] = lambda: None
) -> Swept:
    """Walk the whole workspace for temporary names older than ``older_than_s`` and clear them, with what is below."""
    walk = Walk(workspace, b".", tick=tick)
    before_s = now_s - older_than_s
    stale = [
        walked.entry.path
        for walked in walk.entries()
        if is_temporary(walked.name)
        and (
            parse_swap_name(walked.name) is not None
            or (walked.entry.kind in (Kind.FILE, Kind.DIRECTORY) and walked.entry.mtime_ns / 1e9 < before_s)
        )
    ]
    cleared = Swept()
    for path in stale:
        cleared += _clear(workspace, path, before_s=before_s)
    return cleared


def _clear(workspace: Workspace, path: bytes, *, before_s: float | None = None) -> Swept:
    """Remove what has the temporary name ``path``; of an exchange, what is ours, and the rest gets a name again.

    Args:
        workspace: the handle, without rules.
        path: relative, its name a temporary one.
        before_s: leave an exchange alone that has gone on since then (Unix time): another worker may be at it.
    """
    try:
        if parse_swap_name(path.rpartition(b"/")[2]) is None:
            return Swept(remove_path(workspace, path, recursive=True, protect=False))
        with open_place(workspace, path, protect=False) as place, one_at_a_time(place.dir_fd):
            # The time at which it got this name, not that of its content, which may be somebody's and old.
            if place.found is None or (before_s is not None and place.found.st_ctime >= before_s):
                return Swept()
            try:
                kept = settle_swap(place.dir_fd, place.name, remove=partial(_remove_swap, place))
            except OSError as error:
                raise refusal_of(error, path) from error
            return Swept(1, () if kept is None else ((path.rpartition(b"/")[0] or b".") + b"/" + kept,))
    except WorkspaceRefusal:  # gone already, or not ours to remove
        return Swept()


def _remove_swap(place: Place) -> None:
    """Remove what came out of an exchange, or was to go into one: a file, or the directory of a skill."""
    if stat.S_ISDIR(os.stat(place.name, dir_fd=place.dir_fd, follow_symlinks=False).st_mode):
        remove_tree(place.workspace, place.name)
    else:
        os.unlink(place.name, dir_fd=place.dir_fd)

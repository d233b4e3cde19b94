"""Names for files that are not finished, and how those of a killed worker are found again.

Each worker holds a lock on one small record in `.work/tmp/` and writes there which temporary name it is about
to use. The record of a worker that is gone can be locked by the next one, which removes what it names. Runs
in the files worker.
"""

import fcntl
import os
import secrets
import struct
from collections.abc import Callable
from typing import Final

from guardhouse.workspace.change import remove_path
from guardhouse.workspace.entry import Kind
from guardhouse.workspace.errors import WorkspaceRefusal
from guardhouse.workspace.handle import Workspace, open_beneath
from guardhouse.workspace.place import open_directory
from guardhouse.workspace.walk import Walk

__all__ = ["TEMPORARY_PREFIX", "Temporaries", "remove_leftovers"]

TEMPORARY_PREFIX: Final = b".guardhouse-tmp-"
_RECORDS: Final = b".work/tmp"
_LENGTH: Final = struct.Struct(">I")
_RECORD_MAX_BYTES: Final = 2 * 1024 * 1024


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
        if self._record_fd is None:
            self._record_fd = self._open_record()
        if self._record_fd >= 0:
            path = directory + b"/" + name
            try:
                os.pwrite(self._record_fd, _LENGTH.pack(len(path)) + path, 0)
            except OSError:  # a full disk: the write itself will say so
                return name
        return name

    def sweep(self) -> int:
        """Remove what workers that are gone left behind; return how many records were found."""
        found = 0
        try:
            dir_fd = open_beneath(self._workspace, _RECORDS, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)
        except WorkspaceRefusal:
            return 0
        try:
            for text in os.listdir(dir_fd):
                name = os.fsencode(text)
                if name.startswith(b"worker-") and name != self._record_name:
                    found += self._sweep_record(dir_fd, name)
        finally:
            os.close(dir_fd)
        return found

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

    def _sweep_record(self, dir_fd: int, name: bytes) -> int:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
        except OSError:
            return 0
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            data = os.read(fd, _RECORD_MAX_BYTES)
            path = data[_LENGTH.size :][: _LENGTH.unpack_from(data)[0]] if len(data) >= _LENGTH.size else b""
            # The record lies in the workspace, so a command may have written it: only names of ours are removed.
            if path.rpartition(b"/")[2].startswith(TEMPORARY_PREFIX):
                _remove(self._workspace, path)
            os.unlink(name, dir_fd=dir_fd)
        except OSError:  # locked by a worker that lives, or no record of ours
            return 0
        finally:
            os.close(fd)
        return 1


def remove_leftovers(
    workspace: Workspace, *, older_than_s: float, now_s: float, tick: Callable[[], None] = lambda: None
) -> int:
    """Walk the whole workspace for temporary names older than ``older_than_s`` and remove them; return how many."""
    walk = Walk(workspace, b".", tick=tick)
    stale = [
        walked.entry.path
        for walked in walk.entries()
        if walked.name.startswith(TEMPORARY_PREFIX)
        and walked.entry.kind in (Kind.FILE, Kind.DIRECTORY)
        and walked.entry.mtime_ns / 1e9 < now_s - older_than_s
    ]
    return sum(_remove(workspace, path) for path in stale)


def _remove(workspace: Workspace, path: bytes) -> int:
    try:
        return remove_path(workspace, path, recursive=True, protect=False)
    except WorkspaceRefusal:  # gone already, or not ours to remove
        return 0

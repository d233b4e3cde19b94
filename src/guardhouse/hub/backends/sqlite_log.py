"""The length of SQLite's write-ahead log, kept such that the disk always has room to take it over.

SQLite takes the log over into the database by itself, as far as no reader still needs it: a backup, or another program
that holds a transaction open, lets it grow for as long. A disk that the log alone has filled would stay full for ever,
since taking it over needs room in the database first. So writes are refused before, and accepted again by themselves
when the reader has ended. Runs in the hub, in the thread that writes.

Source: https://www.sqlite.org/wal.html, "Avoiding Excessively Large WAL Files".
"""

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from guardhouse.hub.backends.interface import BUSY_TIMEOUT_MS

__all__ = ["AT_EASE_BYTES", "LOG_MAX_BYTES", "LogKeeper", "free_bytes"]

_log = structlog.get_logger("guardhouse.hub.database")

_MIB: Final = 1024 * 1024
# Up to here nobody looks: twice what SQLite takes over by itself (1,000 pages of 4 KiB). The file is cut to it.
AT_EASE_BYTES: Final = 8 * _MIB
# From here on the hub asks for the log to be taken over and begun anew, and says so where it cannot.
LOG_MAX_BYTES: Final = 64 * _MIB
# What must stay free beside a copy of the whole log: for the largest batch of writes, and for the keys and audit.head.
RESERVE_BYTES: Final = 16 * _MIB
# A reader that is about to end is waited for so long, so often.
WAIT_MS: Final = 50
TRY_EVERY_S: Final = 5.0
TRY_EVERY_SCARCE_S: Final = 1.0
SAY_EVERY_S: Final = 60.0


def free_bytes(path: Path) -> int:
    """Return what the file system of ``path`` has left for an ordinary account."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


class LogKeeper:
    """Watches the log of one database file."""

    def __init__(
        self, database: Path, *, free: Callable[[Path], int] = free_bytes, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._log_path = database.with_name(f"{database.name}-wal")
        self._free = free
        self._clock_s = clock_s
        self._next_try_s = self._next_word_s = -float("inf")

    @property
    def size_bytes(self) -> int:
        """The log's size now; 0 where there is none."""
        try:
            return self._log_path.stat().st_size
        except FileNotFoundError:
            return 0

    def tend(self, driver: sqlite3.Connection) -> None:
        """Let the log be taken over where it has grown long; outside of a transaction only.

        Raises:
            sqlite3.OperationalError: it cannot be now, and the disk would have no room to do it later.
        """
        size = self.size_bytes
        if size <= AT_EASE_BYTES:
            return
        is_scarce = self._is_scarce(size)
        now_s = self._clock_s()
        if (is_scarce or size > LOG_MAX_BYTES) and now_s >= self._next_try_s:
            self._next_try_s = now_s + (TRY_EVERY_SCARCE_S if is_scarce else TRY_EVERY_S)
            _take_over(driver)
            size = self.size_bytes
            is_scarce = size > AT_EASE_BYTES and self._is_scarce(size)
            if size > LOG_MAX_BYTES and now_s >= self._next_word_s:
                self._next_word_s = now_s + SAY_EVERY_S
                _log.warning("store_log_held", path=str(self._log_path), bytes=size, hint=_HINT)
        if is_scarce:
            # Everybody may ask /readyz, so there is no path in it.
            raise sqlite3.OperationalError(
                f"{self._log_path.name} has grown to {_mib(size)} MiB, since somebody still reads an older state, and"
                f" the disk has only {_mib(self._free(self._log_path.parent))} MiB left, which it needs; {_HINT}"
            )

    def _is_scarce(self, size: int) -> bool:
        return self._free(self._log_path.parent) < size + RESERVE_BYTES


_HINT: Final = "end what reads it (a backup, a program with hub.db open), or make room; it goes on by itself then"


def _mib(size: int) -> str:
    return f"{size / _MIB:.0f}"


def _take_over(driver: sqlite3.Connection) -> None:
    """Copy the log into the database and cut it to nothing, as far as readers and the disk let it."""
    driver.execute(f"PRAGMA busy_timeout={WAIT_MS}")
    try:
        # A disk that is full: what is to be written next fails with the same words, or finds room in the log.
        with suppress(sqlite3.OperationalError):
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        driver.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")

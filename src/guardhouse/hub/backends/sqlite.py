"""The embedded store: one SQLite file in WAL mode, in the hub's state directory.

A lock on the state directory keeps other hubs away, so this knows of none. Runs in the hub.
"""

import sqlite3
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool, StaticPool

from guardhouse.errors import SetupError
from guardhouse.hub.backends.interface import BUSY_TIMEOUT_MS, READERS
from guardhouse.hub.backends.sqlite_log import AT_EASE_BYTES, LogKeeper

__all__ = ["SqliteBackend"]


class SqliteBackend:
    """A database file at ``path``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = _engine(path, begin="BEGIN IMMEDIATE", readers=None)
        self.readers = _engine(path, begin="BEGIN", readers=READERS)
        # The level of PRAGMA synchronous that the writer's connection was last given.
        self._level = ""
        self._log = LogKeeper(path)

    @property
    def label(self) -> str:
        """The file's path."""
        return repr(str(self._path))

    @property
    def log_bytes(self) -> int:
        """The size of the write-ahead log."""
        return self._log.size_bytes

    def exists(self) -> bool:
        """Return whether the file is there."""
        return self._path.exists()

    def connect_writer(self) -> Connection:
        """Return the connection that writes; the file is made where it is missing."""
        # mode 0600 before the first page is written: the directory is 0700, this is the second lock.
        self._path.touch(mode=0o600, exist_ok=True)
        self._level = ""
        return self._writer.connect()

    def take(self, connection: Connection) -> None:
        """Do nothing: whoever holds the state directory's lock has the store."""

    def prepare(self, connection: Connection, *, durable: bool) -> None:
        """Choose between syncing the log at each commit and at checkpoints (sqlite.org/pragma.html); tend the log.

        Raises:
            sqlite3.OperationalError: the log holds so much that the disk would have no room to take it over.
        """
        # Both outside a transaction only.
        self._log.tend(_driver(connection))
        level = "FULL" if durable else "NORMAL"
        if level != self._level:
            _driver(connection).execute(f"PRAGMA synchronous={level}")
            self._level = level

    def mark(self, connection: Connection, *, durable: bool) -> str | None:
        """Return None: a COMMIT that fails here has stored nothing."""

    def outcome(self, connection: Connection, mark: str) -> bool:
        """Never asked, since `mark` gives nothing to ask about."""
        del connection, mark
        return False

    def close(self) -> None:
        """Close the file."""
        self.readers.dispose()
        self._writer.dispose()


def _driver(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        raise SetupError(f"the store's driver is {type(driver).__name__}, not sqlite3")
    return driver


def _engine(path: Path, *, begin: str, readers: int | None) -> Engine:
    url = f"sqlite+pysqlite:///{path}"
    arguments = {"check_same_thread": False, "isolation_level": None, "timeout": BUSY_TIMEOUT_MS / 1000}
    if readers is None:
        engine = create_engine(url, poolclass=StaticPool, connect_args=arguments)
    else:
        engine = create_engine(url, poolclass=QueuePool, pool_size=readers, connect_args=arguments)

    def prepare(connection: sqlite3.Connection, record: object) -> None:
        del record
        for pragma in ("journal_mode=WAL", "foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT_MS}", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(f"PRAGMA journal_size_limit={AT_EASE_BYTES}")
        # Deleted output is overwritten with zeros: it may hold what somebody wanted gone.
        connection.execute("PRAGMA secure_delete=FAST")

    def start(connection: Connection) -> None:
        _driver(connection).execute(begin)

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", start)
    return engine

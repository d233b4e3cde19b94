"""SQLite behind one writer and a few readers: transactions in threads, several writes in one fsync.

Every write is a function of a connection. The writer, a thread of its own, takes all that wait, runs them in one
transaction and tells each its outcome after the commit, so that the price of an fsync is shared and the order of
writes is the order of calls. Knows nothing of the tables. Runs in the hub.
"""

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import structlog
import trio
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import QueuePool, StaticPool

from guardhouse.errors import GuardhouseError, SetupError
from guardhouse.hub.migrate import migrate_to_newest

__all__ = ["NEWS", "Database", "StoreUnavailable"]

_log = structlog.get_logger("guardhouse.hub.database")

T = TypeVar("T")

BUSY_TIMEOUT_MS: Final = 10_000
READERS: Final = 4
# One transaction takes at most so many writes, so that the first of them is not kept waiting for the last.
BATCH_MAX: Final = 256
# A write that nobody waits for waits this long for one that somebody does, and shares its transaction.
SOON_S: Final = 0.05
# Where in `Connection.info` an operation leaves the growing number that `Database.until_news` waits for.
NEWS: Final = "guardhouse_news"


class StoreUnavailable(GuardhouseError):  # noqa: N818 - a state of the disk, told to the client as 503
    """The database could not be written: a full disk, a failing one. Nothing was stored; trying again is safe."""


class _Write(Generic[T]):
    """One write that waits for its commit."""

    __slots__ = ("durable", "error", "finished", "is_awaited", "operation", "value")

    def __init__(self, operation: Callable[[Connection], T], *, durable: bool, is_awaited: bool) -> None:
        self.operation = operation
        self.durable = durable
        self.is_awaited = is_awaited
        self.finished = trio.Event()
        self.value: T | None = None
        self.error: Exception | None = None


class Database:
    """An opened store. `run` must be running in a nursery while writes are made."""

    def __init__(self, path: Path) -> None:
        """Open or create the database at ``path`` and bring it to the newest step.

        Raises:
            SetupError: the file is no database, is damaged, or was written by a newer hub.
        """
        self._writer = _engine(path, begin="BEGIN IMMEDIATE", readers=None)
        self._readers = _engine(path, begin="BEGIN", readers=READERS)
        self._reader_limit = trio.CapacityLimiter(READERS)
        # One connection for the writer's life, and the level of PRAGMA synchronous that it was last given.
        self._connection: Connection | None = None
        self._level = ""
        self._pending: deque[_Write[Any]] = deque()
        # The newest number that was committed, and what wakes who waits for a higher one; of the event loop.
        self._news = 0
        self._has_news = trio.Event()
        # Guards what follows it, which both the event loop and the writer's thread use.
        self._wake = threading.Condition()
        self._is_awaited = False
        self._closing = False
        try:
            # mode 0600 before the first page is written: the directory is 0700, this is the second lock.
            path.touch(mode=0o600, exist_ok=True)
            with self._writer.begin() as connection:
                migrate_to_newest(connection)
        except DBAPIError as error:
            raise SetupError(
                f"cannot open the database {str(path)!r}: {error.orig}; restore it from a backup"
            ) from error

    async def read(self, operation: Callable[[Connection], T]) -> T:
        """Return what ``operation`` finds in one consistent view; it must not write.

        Raises:
            StoreUnavailable: the disk is failing.
        """

        def call() -> T:
            try:
                with self._readers.begin() as connection:
                    return operation(connection)
            except (OperationalError, sqlite3.OperationalError) as error:
                raise StoreUnavailable(f"the store cannot be read: {_reason(error)}; check the hub's disk") from error

        return await trio.to_thread.run_sync(call, limiter=self._reader_limit)

    async def write(self, operation: Callable[[Connection], T], *, durable: bool = True) -> T:
        """Run ``operation`` in a transaction and return its value after the commit.

        Args:
            operation: may run twice when another write of the same batch fails, so it touches nothing but the
                connection.
            durable: the commit has reached the disk before this returns; otherwise a power cut (not a crash of the
                process) may take it back.

        Raises:
            StoreUnavailable: the disk is full or failing.
            Exception: whatever ``operation`` raises; nothing of it is stored then.
        """
        write = self._enqueue(operation, durable=durable, is_awaited=True)
        await write.finished.wait()
        if write.error is not None:
            raise write.error
        return write.value  # type: ignore[return-value]

    def write_soon(self, operation: Callable[[Connection], object]) -> None:
        """Put ``operation`` in line, before all later writes; nobody waits for it, a failure is logged."""
        self._enqueue(operation, durable=False, is_awaited=False)

    def _enqueue(self, operation: Callable[[Connection], T], *, durable: bool, is_awaited: bool) -> _Write[T]:
        write: _Write[T] = _Write(operation, durable=durable, is_awaited=is_awaited)
        with self._wake:
            if self._closing:
                raise StoreUnavailable("the hub is shutting down; try again in a moment")
            is_first = not self._pending
            self._pending.append(write)
            if is_awaited and not self._is_awaited:
                self._is_awaited = True
                self._wake.notify()
            elif is_first:
                self._wake.notify()
        return write

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit what is written, until `close`; what was in line by then is committed too."""
        task_status.started()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._keep_writing, trio.lowlevel.current_trio_token())

    def close(self) -> None:
        """Let `run` end after what is in line."""
        with self._wake:
            self._closing = True
            self._wake.notify()

    def _keep_writing(self, token: trio.lowlevel.TrioToken) -> None:
        """Be the writer's thread: it stays awake between batches, and hands outcomes to the event loop."""
        while batch := self._next_batch():
            self._commit(batch)
            news = self._connection.info.get(NEWS, 0) if self._connection is not None else 0
            token.run_sync_soon(self._tell, batch, news)
        self._dispose()

    def _next_batch(self) -> list[_Write[Any]]:
        """Wait for what is to be written and return it, in its order; empty when all is written after `close`."""
        with self._wake:
            while not self._closing and not self._is_awaited:
                if not self._wake.wait(SOON_S if self._pending else None):
                    break
            batch = [self._pending.popleft() for _ in range(min(BATCH_MAX, len(self._pending)))]
            self._is_awaited = any(write.is_awaited for write in self._pending)
            return batch

    def _tell(self, batch: list[_Write[Any]], news: int) -> None:
        """Give each write of a committed batch its outcome; on the event loop."""
        for write in batch:
            if write.error is not None and (isinstance(write.error, StoreUnavailable) or not write.is_awaited):
                _log.warning("write_failed", error=str(write.error))
            write.finished.set()
        if news > self._news:
            self._news = news
            self.nudge()

    @property
    def changed(self) -> trio.Event:
        """An event that the next news, or `nudge`, sets; take it before looking."""
        return self._has_news

    def nudge(self) -> None:
        """Wake who waits for `changed` for something that is not stored."""
        self._has_news.set()
        self._has_news = trio.Event()

    @property
    def news(self) -> int:
        """The newest number that was committed."""
        return self._news

    async def until_news(self, number: int) -> int:
        """Wait until an operation that left ``number`` or a higher one was committed, and return the newest.

        A number of a write that failed may be heard too: look before you believe it.
        """
        while self._news < number:
            await self._has_news.wait()
        return self._news

    def _dispose(self) -> None:
        self._let_go()
        self._readers.dispose()
        self._writer.dispose()

    def _commit(self, batch: list[_Write[Any]]) -> None:
        if len(batch) > 1:
            try:
                self._commit_together(batch)
            except Exception as error:  # noqa: BLE001 - each write is tried again alone and keeps its own error
                _log.debug("batch_split", writes=len(batch), error=str(error))
            else:
                return
        for write in batch:
            try:
                self._commit_together([write])
            except (OperationalError, sqlite3.OperationalError) as error:
                write.error = StoreUnavailable(f"the store cannot be written: {_reason(error)}; check the hub's disk")
            except Exception as error:  # noqa: BLE001 - it belongs to whoever asked for this write
                write.error = error

    def _commit_together(self, batch: list[_Write[Any]]) -> None:
        connection = self._connection
        if connection is None:
            connection = self._connection = self._writer.connect()
            self._level = ""
        try:
            # Outside a transaction only: FULL syncs the log at commit, NORMAL at checkpoints (sqlite.org/pragma.html).
            level = "FULL" if any(write.durable for write in batch) else "NORMAL"
            if level != self._level:
                _driver(connection).execute(f"PRAGMA synchronous={level}")
                self._level = level
            with connection.begin():
                for write in batch:
                    write.value = write.operation(connection)
        except BaseException:
            self._let_go()
            raise

    def _let_go(self) -> None:
        """Give the writer's connection back; that ends whatever a failed transaction left open."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()


def _driver(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        raise SetupError(f"the store's driver is {type(driver).__name__}, not sqlite3")
    return driver


def _reason(error: Exception) -> str:
    return str(error.orig) if isinstance(error, DBAPIError) else str(error)


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
        # Deleted output is overwritten with zeros: it may hold what somebody wanted gone.
        connection.execute("PRAGMA secure_delete=FAST")

    def start(connection: Connection) -> None:
        _driver(connection).execute(begin)

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", start)
    return engine

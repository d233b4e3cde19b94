"""The store behind one writer and a few readers: transactions in threads, several writes in one fsync.

Every write is a function of a connection. The writer, a thread of its own, takes all that wait, runs them in one
transaction and tells each its outcome after the commit, so that the price of an fsync is shared and the order of
writes is the order of calls. Knows nothing of the tables; `guardhouse.hub.backends` knows SQLite and PostgreSQL. Runs
in the hub.
"""

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

import structlog
import trio
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from guardhouse.errors import GuardhouseError, SetupError
from guardhouse.hub.backends import Backend, StoreTaken
from guardhouse.hub.backends.interface import READERS
from guardhouse.hub.migrate import migrate_to_newest

__all__ = ["NEWS", "Database", "StoreUnavailable"]

_log = structlog.get_logger("guardhouse.hub.database")

T = TypeVar("T")

# What a failing disk or an unreachable server looks like; SQLite's own error comes from statements run on the driver.
_FAILURES: Final = (OperationalError, InterfaceError, sqlite3.OperationalError)
# A commit that was never answered is asked about for so long; then the hub ends rather than guess.
OUTCOME_WAIT_S: Final = 30.0
OUTCOME_POLL_S: Final = 0.25
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

    def __init__(self, backend: Backend) -> None:
        """Open or create the database of ``backend`` and bring it to the newest step.

        Raises:
            SetupError: there is none to be had, it is damaged, another hub uses it, or a newer hub wrote it.
        """
        self._backend = backend
        self._reader_limit = trio.CapacityLimiter(READERS)
        # One connection for the writer's life, or until it breaks.
        self._connection: Connection | None = None
        self._pending: deque[_Write[Any]] = deque()
        # The newest number that was committed, and what wakes who waits for a higher one; of the event loop.
        self._news = 0
        self._has_news = trio.Event()
        # Who waits for a number, so that what is nothing to them yet does not wake them.
        self._awaited_news: list[tuple[int, trio.Event]] = []
        # What the store said when a write failed; whoever sees one stored again takes it back. Of the event loop.
        self.failed_write: str | None = None
        # Guards what follows it, which both the event loop and the writer's thread use.
        self._wake = threading.Condition()
        self._is_awaited = False
        self._closing = False
        try:
            self._connection = backend.connect_writer()
            with self._connection.begin():
                migrate_to_newest(self._connection)
                backend.take(self._connection)
        except DBAPIError as error:
            self.dispose()
            raise SetupError(
                f"cannot open the database {backend.label}: {_reason(error)}; check that it can be reached and"
                " written, or restore it from a backup"
            ) from error
        except BaseException:  # whatever ends this, the engine is disposed of
            self.dispose()
            raise

    async def read(self, operation: Callable[[Connection], T]) -> T:
        """Return what ``operation`` finds in one consistent view; it must not write.

        Raises:
            StoreUnavailable: the disk is failing.
        """

        def call() -> T:
            try:
                with self._backend.readers.begin() as connection:
                    return operation(connection)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                # The server was restarted since this connection was used last; the next one is new.
                with self._backend.readers.begin() as connection:
                    return operation(connection)

        try:
            return await trio.to_thread.run_sync(call, limiter=self._reader_limit)
        except _FAILURES as error:
            raise StoreUnavailable(f"the store cannot be read: {_reason(error)}; check the database") from error

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
        return write.value  # type: ignore[return-value]  # set by now, since there is no error

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
        """Commit what is written, until `close`; what was in line by then is committed too.

        Raises:
            StoreTaken: another hub has the store; whatever this one still remembers must not be used.
        """
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
            try:
                self._commit(batch)
            except StoreTaken:
                self.dispose()
                raise
            news = self._connection.info.get(NEWS, 0) if self._connection is not None else 0
            token.run_sync_soon(self._tell, batch, news)
        self.dispose()

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
            if isinstance(write.error, StoreUnavailable):
                self.failed_write = str(write.error)
            if write.error is not None and (isinstance(write.error, StoreUnavailable) or not write.is_awaited):
                _log.warning("write_failed", error=str(write.error))
            write.finished.set()
        if news > self._news:
            self._news = news
            for number, reached in self._awaited_news:
                if number <= news:
                    reached.set()
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
    def writes_in_line(self) -> int:
        """How many writes wait for the writer's thread."""
        return len(self._pending)

    @property
    def log_bytes(self) -> int:
        """How long SQLite's write-ahead log is; 0 on PostgreSQL."""
        return self._backend.log_bytes

    @property
    def news(self) -> int:
        """The newest number that was committed."""
        return self._news

    async def until_news(self, number: int) -> int:
        """Wait until an operation that left ``number`` or a higher one was committed, and return the newest.

        A number of a write that failed may be heard too: look before you believe it.
        """
        if self._news < number:
            reached = trio.Event()
            self._awaited_news.append((number, reached))
            try:
                await reached.wait()
            finally:
                self._awaited_news.remove((number, reached))
        return self._news

    def dispose(self) -> None:
        """Close every connection, of a database that nothing is run on any more."""
        self._let_go()
        self._backend.close()

    def _commit(self, batch: list[_Write[Any]]) -> None:
        if len(batch) > 1:
            try:
                self._commit_together(batch)
            except StoreTaken:
                raise
            except Exception as error:  # noqa: BLE001 - each write is tried again alone and keeps its own error
                _log.debug("batch_split", writes=len(batch), error=str(error))
            else:
                return
        for write in batch:
            try:
                self._commit_together([write])
            except StoreTaken:
                raise
            except _FAILURES as error:
                write.error = StoreUnavailable(f"the store cannot be written: {_reason(error)}; check the database")
            except Exception as error:  # noqa: BLE001 - it belongs to whoever asked for this write
                write.error = error

    def _commit_together(self, batch: list[_Write[Any]]) -> None:
        try:
            self._commit_once(batch)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            # Nothing of it is stored; the server that broke the connection may be there again.
            self._commit_once(batch)

    def _commit_once(self, batch: list[_Write[Any]]) -> None:
        """Run a batch in one transaction; after an error nothing of it is stored."""
        connection = self._connection
        if connection is None:
            connection = self._connection = self._backend.connect_writer()
        durable = any(write.durable for write in batch)
        try:
            self._backend.prepare(connection, durable=durable)
            transaction = connection.begin()
            mark = self._backend.mark(connection, durable=durable)
            for write in batch:
                write.value = write.operation(connection)
        except BaseException:  # whatever it was, nothing of the batch is stored
            self._roll_back()
            raise
        try:
            transaction.commit()
        except BaseException as error:  # raised again unless the server did commit
            self._let_go()
            if mark is None or not isinstance(error, DBAPIError) or not self._was_committed(mark):
                raise

    def _was_committed(self, mark: str) -> bool:
        """Return whether the server committed what it never answered; ask until it can be asked."""
        end_s = time.monotonic() + OUTCOME_WAIT_S
        while True:
            try:
                connection = self._connection = self._backend.connect_writer()
                with connection.begin():
                    return self._backend.outcome(connection, mark)
            except DBAPIError as error:
                self._let_go()
                if time.monotonic() >= end_s:
                    raise StoreTaken(
                        f"the connection to {self._backend.label} broke at a commit and nobody can say since whether"
                        f" it was stored ({_reason(error)}); the hub ends, and goes on from the store at its next start"
                    ) from error
            time.sleep(OUTCOME_POLL_S)

    def _roll_back(self) -> None:
        """Undo the open transaction; a connection that cannot is closed, which undoes it too."""
        if self._connection is None:
            return
        try:
            self._connection.rollback()
        except (DBAPIError, sqlite3.Error):
            self._let_go()
        else:
            if self._connection.invalidated:
                self._let_go()

    def _let_go(self) -> None:
        """Give the writer's connection back; that ends whatever a failed transaction left open."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with suppress(DBAPIError, sqlite3.Error):
                connection.close()


def _reason(error: BaseException) -> str:
    return " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split())

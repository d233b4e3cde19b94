"""The store in a PostgreSQL database: a session lock that lets one hub write, and certainty about every commit.

The writer's connection holds an advisory lock, so that nothing is written by a hub that does not hold it. When that
connection breaks, the next one takes the lock again and looks whether another hub had the store in between. Knows
nothing of what is stored. Runs in the hub.
"""

import ipaddress
import secrets
import time
from typing import Any, Final

import psycopg
import structlog
from psycopg import pq
from psycopg.abc import Buffer
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.string import StrDumper, StrDumperUnknown
from sqlalchemy import Connection, Engine, String, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import NullPool, QueuePool

from guardhouse.errors import SetupError
from guardhouse.hub.backends.interface import BUSY_TIMEOUT_MS, READERS, StoreTaken

__all__ = ["PostgresqlBackend", "connection_parameters"]

_log = structlog.get_logger("guardhouse.hub.database")

CONNECT_TIMEOUT_S: Final = 10
# A hub that was killed may hold the lock until the server notices that its connection is gone.
LOCK_WAIT_S: Final = 5.0
LOCK_POLL_S: Final = 0.1
# pg_current_xact_id() and pg_xact_status() came with 13 (postgresql.org/docs/13/functions-info.html).
SERVER_VERSION_LEAST: Final = 130_000
SCHEMES: Final = ("postgresql://", "postgres://")
_LOCK: Final = "hashtextextended('guardhouse.hub.store.' || current_schema(), 0)"


@compiles(String, "postgresql")
def _string_without_length(element: Any, compiler: Any, **arguments: Any) -> str:
    """Render VARCHAR without its length, as SQLite takes it: the doors check what comes in, once for both."""
    del element, compiler, arguments
    return "VARCHAR"


def connection_parameters(url: str) -> dict[str, Any]:
    """Return libpq's parameters of ``url``.

    Raises:
        SetupError: it is no PostgreSQL address, or would cross a network without proof of who answers.
    """
    if not url.startswith(SCHEMES):
        raise SetupError(
            f"--database {url.partition(':')[0]!r}… is no address of a PostgreSQL database; write"
            " postgresql://USER@HOST/NAME, or leave it out for the SQLite file in the state directory"
        )
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        # libpq's message may repeat the password.
        raise SetupError("--database: libpq cannot read this address; see postgresql.org, 'Connection URIs'") from error
    defaults = {
        option.keyword.decode(): option.val.decode() for option in pq.Conninfo.get_defaults() if option.val is not None
    }
    effective = {**defaults, **given}
    hosts = str(effective.get("hostaddr") or effective.get("host") or "").split(",")
    if not all(_is_local(host) for host in hosts) and effective.get("sslmode") not in {"verify-ca", "verify-full"}:
        raise SetupError(
            f"--database: {', '.join(hosts)} is another host and sslmode is {effective.get('sslmode', 'prefer')!r}:"
            " whoever is in between could read and change everything; add ?sslmode=verify-full&sslrootcert=FILE"
        )
    return given


def _is_local(host: str) -> bool:
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _TextDumper(StrDumper):
    """Text in which U+FFFD stands for NUL, which PostgreSQL's text cannot hold."""

    def dump(self, obj: str) -> Buffer | None:
        return super().dump(obj.replace("\x00", "\ufffd"))


class _UnknownTextDumper(StrDumperUnknown):
    """The same where the server works the type out."""

    def dump(self, obj: str) -> Buffer | None:
        return super().dump(obj.replace("\x00", "\ufffd"))


class PostgresqlBackend:
    """A database at a libpq address."""

    def __init__(self, url: str) -> None:
        """Check ``url``; nothing is connected yet.

        Raises:
            SetupError: see `connection_parameters`.
        """
        self._parameters = connection_parameters(url)
        self._holder = secrets.token_hex(16)
        self._has_taken = False
        # The writer's session as the server knows it: process and start.
        self._session: tuple[int, Any] | None = None
        self._writer = self._engine(is_reader=False)
        self.readers = self._engine(is_reader=True)

    @property
    def label(self) -> str:
        """Host and name of the database."""
        name = self._parameters.get("dbname") or self._parameters.get("user") or "default"
        return f"postgresql://{self._parameters.get('host') or 'local socket'}/{name}"

    @property
    def log_bytes(self) -> int:
        """0: the server keeps its log short by itself."""
        return 0

    def exists(self) -> bool:
        """Return whether a hub was started here before: it has made its first API token."""
        try:
            with self.readers.begin() as connection:
                if connection.execute(text("SELECT to_regclass('api_tokens')")).scalar() is None:
                    return False
                return bool(connection.execute(text("SELECT EXISTS (SELECT 1 FROM api_tokens)")).scalar())
        except OperationalError as error:
            raise SetupError(f"cannot reach {self.label}: {error.orig}; check --database and the server") from error

    def connect_writer(self) -> Connection:
        """Return a connection that holds the store's lock; see `Backend.connect_writer`."""
        connection = self._writer.connect()
        try:
            self._lock(connection)
            if self._has_taken:
                holder = connection.execute(text("SELECT holder FROM store_holders WHERE id = 1")).scalar()
                if holder != self._holder:
                    raise StoreTaken(
                        f"another hub has used {self.label} since this one lost its connection; this one ends,"
                        " start it again if it is the right one"
                    )
            query = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
            pid, started = connection.execute(text(query)).one()
            self._session = (pid, started)
            connection.rollback()
        except BaseException:  # whatever ends this, cancellation too, ends the connection
            connection.close()
            raise
        return connection

    def _lock(self, connection: Connection) -> None:
        if self._session is not None:
            # A network that was cut leaves our own session behind, with its lock, until the server notices.
            query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = :pid AND backend_start = :start"
            connection.execute(text(query), dict(zip(("pid", "start"), self._session, strict=True)))
        end_s = time.monotonic() + LOCK_WAIT_S
        while not connection.execute(text(f"SELECT pg_try_advisory_lock({_LOCK})")).scalar():
            if time.monotonic() >= end_s:
                kind = StoreTaken if self._has_taken else SetupError
                raise kind(f"another hub uses {self.label}; stop it first: one hub at a time writes a store")
            time.sleep(LOCK_POLL_S)

    def take(self, connection: Connection) -> None:
        """Write this process's name into the store."""
        connection.execute(text("DELETE FROM store_holders"))
        connection.execute(text("INSERT INTO store_holders (id, holder) VALUES (1, :holder)"), {"holder": self._holder})
        self._has_taken = True

    def prepare(self, connection: Connection, *, durable: bool) -> None:
        """Do nothing: `mark` says it in the transaction, at the price of one round trip for both."""

    def mark(self, connection: Connection, *, durable: bool) -> str | None:
        """Return the transaction's number; a commit that need not be durable does not wait for the disk."""
        setting = "" if durable else ", set_config('synchronous_commit', 'off', true)"
        row = connection.exec_driver_sql(f"SELECT pg_current_xact_id()::text{setting}").one()
        return str(row[0])

    def outcome(self, connection: Connection, mark: str) -> bool:
        """Return whether transaction ``mark`` was committed."""
        status = connection.execute(text("SELECT pg_xact_status(CAST(:mark AS xid8))"), {"mark": mark}).scalar()
        _log.warning("commit_outcome_asked", transaction=mark, status=status)
        if status not in {"committed", "aborted"}:
            raise StoreTaken(
                f"{self.label} answers {status!r} when asked whether transaction {mark} was committed; the hub ends,"
                " and goes on from the store at its next start"
            )
        return bool(status == "committed")

    def close(self) -> None:
        """Close the connections; the lock ends with the writer's."""
        self.readers.dispose()
        self._writer.dispose()

    def _engine(self, *, is_reader: bool) -> Engine:
        def connect() -> psycopg.Connection[Any]:
            return self._connect(is_reader=is_reader)

        if is_reader:
            return create_engine("postgresql+psycopg://", creator=connect, poolclass=QueuePool, pool_size=READERS)
        return create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)

    def _connect(self, *, is_reader: bool) -> psycopg.Connection[Any]:
        given = {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "guardhouse-hub", **self._parameters}
        connection = psycopg.connect(autocommit=True, **given)
        try:
            self._check(connection)
            connection.adapters.register_dumper(str, _TextDumper)
            connection.adapters.register_dumper(str, _UnknownTextDumper)
            connection.execute("SELECT set_config('lock_timeout', %s, false)", [str(BUSY_TIMEOUT_MS)])
            # A hub whose host is gone gives its lock up in half a minute, not in two hours (TCP only).
            for name, value in (("idle", "15"), ("interval", "5"), ("count", "3")):
                connection.execute("SELECT set_config(%s, %s, false)", [f"tcp_keepalives_{name}", value])
            # A server may be set to answer commits before they are on its disk: ours must be there.
            if connection.execute("SHOW synchronous_commit").fetchone() == ("off",):
                connection.execute("SET synchronous_commit TO on")
            connection.autocommit = False
            if is_reader:
                connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                connection.read_only = True
        except BaseException:  # whatever ends this, cancellation too, ends the connection
            connection.close()
            raise
        return connection

    def _check(self, connection: psycopg.Connection[Any]) -> None:
        if connection.info.server_version < SERVER_VERSION_LEAST:
            raise SetupError(
                f"{self.label} is PostgreSQL {connection.info.server_version // 10_000}; the hub needs 13 or later"
            )
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise SetupError(
                f"{self.label} has encoding {encoding}; make a database with UTF8: createdb --encoding=UTF8 NAME"
            )

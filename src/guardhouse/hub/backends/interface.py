"""What `guardhouse.hub.database` needs of a database, and the error that ends a hub which lost its own.

Knows no driver. Runs in the hub.
"""

from typing import Final, Protocol

from sqlalchemy import Connection, Engine

from guardhouse.errors import SetupError

__all__ = ["BUSY_TIMEOUT_MS", "READERS", "Backend", "StoreTaken"]

# How long a statement waits for a lock that somebody else holds, on either database.
BUSY_TIMEOUT_MS: Final = 10_000
READERS: Final = 4


class StoreTaken(SetupError):  # noqa: N818 - what happened, told to whoever starts the hub
    """The store is another hub's now, or its state cannot be known: what this process remembers must not be used."""


class Backend(Protocol):
    """One database. ``readers`` gives connections whose transactions are one consistent view and cannot write."""

    readers: Engine

    @property
    def label(self) -> str:
        """What messages call it; never with a password."""

    @property
    def log_bytes(self) -> int:
        """How long the log is that the hub itself has to keep short; 0 where the server does."""

    def exists(self) -> bool:
        """Return whether a hub has stored something here before.

        Raises:
            SetupError: it cannot be asked.
        """

    def connect_writer(self) -> Connection:
        """Return the one connection that writes; while it lives, no other hub can have one.

        Raises:
            SetupError: another hub has it, or the database is none that the hub can use.
            StoreTaken: this process had it before, and another hub since.
            sqlalchemy.exc.DBAPIError: it cannot be reached.
        """

    def take(self, connection: Connection) -> None:
        """Note in the store, in the caller's transaction, that this process writes it from here on."""

    def prepare(self, connection: Connection, *, durable: bool) -> None:
        """Set, outside of a transaction, whether the next commits wait for the disk.

        Raises:
            sqlite3.OperationalError: the disk has no room for them.
        """

    def mark(self, connection: Connection, *, durable: bool) -> str | None:
        """Return, inside of a transaction, what `outcome` knows it by; None where a failed commit stored nothing."""

    def outcome(self, connection: Connection, mark: str) -> bool:
        """Return whether a transaction was committed whose commit was never answered."""

    def close(self) -> None:
        """Close every connection that is not in use."""

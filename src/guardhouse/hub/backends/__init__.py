"""The databases that the store can lie in: one module each, behind one small interface.

`guardhouse.hub.database` does the rest. Runs in the hub and in the commands that open its store.
"""

from pathlib import Path

from guardhouse.hub.backends.interface import Backend, StoreTaken
from guardhouse.hub.backends.postgresql import PostgresqlBackend
from guardhouse.hub.backends.sqlite import SqliteBackend

__all__ = ["Backend", "PostgresqlBackend", "SqliteBackend", "StoreTaken", "choose_backend"]


def choose_backend(file: Path, url: str | None) -> Backend:
    """Return where the store lies: at ``url``, or without one in the SQLite file ``file``.

    Raises:
        SetupError: ``url`` is no address that the hub takes.
    """
    return SqliteBackend(file) if url is None else PostgresqlBackend(url)

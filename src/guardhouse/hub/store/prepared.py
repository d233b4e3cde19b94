"""SQL that is rendered once and run many times, for the few statements that are on the way of every task.

SQLAlchemy builds, compares and binds an expression in about a millisecond, several times what the database takes to
run it. A `PreparedStatement` keeps the rendered text, so the schema stays the one source of names and a run costs what
the driver costs. SQLite's is in this process and is called directly: making SQLAlchemy's cursor, context and result
takes twice as long as the statement. Knows no table. Runs in the hub's store threads.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Compiled, Connection
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.dml import Insert, Update

__all__ = ["PreparedStatement", "run_text"]

_NOTHING: Final[Mapping[str, Any]] = {}


def run_text(connection: Connection, text: str, values: Mapping[str, Any] = _NOTHING) -> Any:
    """Run a statement by its text and return what has ``rowcount`` and, of a SELECT, ``fetchone``.

    Raises:
        DBAPIError: as SQLAlchemy raises it.
    """
    if connection.dialect.name != "sqlite" or not connection.in_transaction():
        # It begins a transaction where there is none, and notices that a server has gone.
        return connection.exec_driver_sql(text, dict(values))
    driver = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        return connection.exec_driver_sql(text, dict(values))
    try:
        return driver.execute(text, values)
    except sqlite3.Error as error:
        raise DBAPIError.instance(text, dict(values), error, sqlite3.Error, dialect=connection.dialect) from error


def _dialect(name: str) -> Dialect:
    match name:
        case "sqlite":
            return sqlite.dialect(paramstyle="named")
        case "postgresql":
            return postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's constructor has no types
        case _:
            raise ValueError(f"no statement is prepared for {name!r}: the store is SQLite or PostgreSQL")


class PreparedStatement:
    """One INSERT or UPDATE whose parameters are given by name at each run."""

    def __init__(self, statement: Insert | Update, *, columns: Sequence[str]) -> None:
        """Take ``statement``, which sets ``columns``; a value that it holds itself stays as it is."""
        self._statement = statement.inline() if isinstance(statement, Insert) else statement
        self._columns = list(columns)
        self._texts: dict[str, str] = {}
        compiled = self._compile("sqlite")
        self._names = frozenset(compiled.params)
        self._constants = {
            name: value for name, value in compiled.params.items() if name not in columns and value is not None
        }

    def _compile(self, dialect: str) -> Compiled:
        compiled = self._statement.compile(dialect=_dialect(dialect), column_keys=self._columns)
        self._texts[dialect] = str(compiled)
        return compiled

    def run(self, connection: Connection, **values: Any) -> int:
        """Run it with ``values`` and return how many rows it was about; each named parameter must be given, no other.

        Raises:
            ValueError: a parameter is missing or unknown.
            DBAPIError: as SQLAlchemy raises it.
        """
        if values.keys() | self._constants.keys() != self._names:
            odd = sorted((values.keys() | self._constants.keys()) ^ self._names)
            raise ValueError(f"parameters of a prepared statement are missing or unknown: {', '.join(odd)}")
        name = connection.dialect.name
        if name not in self._texts:
            self._compile(name)
        rows: int = run_text(connection, self._texts[name], {**self._constants, **values}).rowcount
        return rows

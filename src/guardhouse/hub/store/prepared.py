"""SQL that is rendered once and run many times, for the few statements that are on the way of every task.

SQLAlchemy builds, compares and binds an expression in about a millisecond, several times what the database takes to
run it. A `PreparedStatement` keeps the rendered text, so the schema stays the one source of names and a run costs what
the driver costs. Knows no table. Runs in the hub's store threads.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Compiled, Connection, CursorResult
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.dml import Insert, Update

__all__ = ["PreparedStatement"]


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

    def run(self, connection: Connection, **values: Any) -> CursorResult[Any]:
        """Run it with ``values``; each named parameter must be given, and nothing else.

        Raises:
            ValueError: a parameter is missing or unknown.
        """
        if values.keys() | self._constants.keys() != self._names:
            odd = sorted((values.keys() | self._constants.keys()) ^ self._names)
            raise ValueError(f"parameters of a prepared statement are missing or unknown: {', '.join(odd)}")
        name = connection.dialect.name
        if name not in self._texts:
            self._compile(name)
        return connection.exec_driver_sql(self._texts[name], {**self._constants, **values})

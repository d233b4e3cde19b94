"""SQL that is rendered once and run many times, for the few statements that are on the way of every task.

SQLAlchemy builds, compares and binds an expression in about a millisecond, several times what SQLite takes to run it.
A `PreparedStatement` keeps the rendered text, so the schema stays the one source of names and a run costs what the
driver costs. Knows no table. Runs in the hub's store threads.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, CursorResult
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.dml import Insert, Update

__all__ = ["PreparedStatement"]


class PreparedStatement:
    """One INSERT or UPDATE whose parameters are given by name at each run."""

    def __init__(self, statement: Insert | Update, *, columns: Sequence[str]) -> None:
        """Render ``statement``, which sets ``columns``; a value that it holds itself stays as it is."""
        compiled = statement.compile(
            dialect=sqlite.dialect(paramstyle="named"),
            column_keys=list(columns),
        )
        self.text = str(compiled)
        self._names = frozenset(compiled.params)
        self._constants = {
            name: value for name, value in compiled.params.items() if name not in columns and value is not None
        }

    def run(self, connection: Connection, **values: Any) -> CursorResult[Any]:
        """Run it with ``values``; each named parameter must be given, and nothing else.

        Raises:
            ValueError: a parameter is missing or unknown.
        """
        if values.keys() | self._constants.keys() != self._names:
            odd = sorted((values.keys() | self._constants.keys()) ^ self._names)
            raise ValueError(f"parameters of a prepared statement are missing or unknown: {', '.join(odd)}")
        return connection.exec_driver_sql(self.text, {**self._constants, **values})

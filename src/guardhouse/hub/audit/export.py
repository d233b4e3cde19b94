"""The audit log as NDJSON, and back: a line a record, checkpoints where they belong, a signed last line.

docs/hub.md "Audit" has the form. `iter_export_lines` runs in the hub's store threads, `read_export` and `read_store` in
`guardhouse audit verify`.
"""

import base64
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from guardhouse.errors import SetupError
from guardhouse.hub.audit.chain import GENESIS, AuditRecord, AuditSigner, Checkpoint, ExportEnd
from guardhouse.hub.audit.keeper import read_head_file
from guardhouse.hub.audit.verify import AuditSource
from guardhouse.hub.backends import PostgresqlBackend
from guardhouse.hub.store import audit

__all__ = ["end_line", "iter_export_lines", "read_export", "read_store", "record_line", "start_line"]

K = TypeVar("K", AuditRecord, Checkpoint, ExportEnd)

LINE_MAX_BYTES: Final = 4 * 1024 * 1024


class ExportStart(msgspec.Struct, frozen=True, kw_only=True):
    """The first line: where the file begins, and the key that it names itself."""

    kind: Literal["export"] = "export"
    version: int = 1
    first_seq: int
    previous: str
    public_key: str
    key_id: str


def record_line(record: AuditRecord) -> bytes:
    """Return one record as a line of an export: its canonical JSON with ``kind`` and ``hash`` added."""
    body = record.body()
    return body[:-1] + f',"hash":"{record.hash.hex()}","kind":"record"}}\n'.encode()


def iter_export_lines(connection: Connection, *, after: int, until: int) -> Iterator[bytes]:
    """Yield the lines of records behind ``after`` up to ``until``, with their checkpoints."""
    checkpoints = iter(audit.list_checkpoints(connection, after=after, until=until))
    checkpoint = next(checkpoints, None)
    for record in audit.iter_audit_records(connection, after=after, until=until):
        yield record_line(record)
        while checkpoint is not None and checkpoint.seq <= record.seq:
            yield checkpoint_line(checkpoint)
            checkpoint = next(checkpoints, None)


def checkpoint_line(one: Checkpoint) -> bytes:
    """Return a checkpoint as a line of an export."""
    return _line(
        kind="checkpoint",
        seq=one.seq,
        at_ms=one.at_ms,
        hash=one.hash.hex(),
        previous=one.previous,
        key_id=one.key_id,
        signature=base64.b64encode(one.signature).decode(),
    )


def end_line(one: ExportEnd) -> bytes:
    """Return the last line of an export."""
    return _line(
        kind="end",
        first_seq=one.first_seq,
        last_seq=one.last_seq,
        at_ms=one.at_ms,
        hash=one.hash.hex(),
        key_id=one.key_id,
        signature=base64.b64encode(one.signature).decode(),
    )


def _line(**values: int | str) -> bytes:
    return msgspec.json.encode(values, order="sorted") + b"\n"


def start_line(signer: AuditSigner, *, first_seq: int, previous: bytes) -> bytes:
    """Return the first line of an export."""
    start = ExportStart(
        first_seq=first_seq, previous=previous.hex(), public_key=signer.public_text, key_id=signer.key_id
    )
    return msgspec.json.encode(start, order="sorted") + b"\n"


def read_export(path: Path) -> tuple[AuditSource, str | None]:
    """Return what an exported file holds, and the public key that it names itself.

    Raises:
        SetupError: the file cannot be read.
    """
    start: dict[str, Any] = {}
    end: ExportEnd | None = None
    checkpoints: list[Checkpoint] = []
    unreadable: list[str] = []
    for number, line in _lines(path):
        found = _parse_line(line)
        if found is None:
            unreadable.append(f"line {number} is none of an export")
        elif isinstance(found, Checkpoint):
            checkpoints.append(found)
        elif isinstance(found, ExportEnd):
            if end is not None:
                unreadable.append(f"line {number} is a second last line")
            end = found
        elif isinstance(found, dict):
            if number == 1:
                start = found
            else:
                unreadable.append(f"line {number} is a second first line")
    if not start:
        unreadable.append("line 1 is not the first line of an export")

    def records() -> Iterable[AuditRecord]:
        for _, line in _lines(path):
            found = _parse_line(line)
            if isinstance(found, AuditRecord):
                yield found

    try:
        previous = bytes.fromhex(str(start.get("previous", "")))
    except ValueError:
        previous = b""
    first_seq = start.get("first_seq")
    source = AuditSource(
        records=records,
        checkpoints=checkpoints,
        end=end,
        needs_end=True,
        first_previous=previous if first_seq != 1 else GENESIS,
        first_seq=first_seq if isinstance(first_seq, int) else 1,
        unreadable=unreadable,
    )
    key = start.get("public_key")
    return source, key if isinstance(key, str) else None


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(LINE_MAX_BYTES):
                number += 1
                if line.strip():
                    yield number, line
    except OSError as error:
        raise SetupError(f"cannot read {str(path)!r}: {error.strerror}") from error


def _parse_line(line: bytes) -> AuditRecord | Checkpoint | ExportEnd | dict[str, Any] | None:
    try:
        value = msgspec.json.decode(line)
        if not isinstance(value, dict):
            return None
        kind = value.pop("kind", None)
        if kind == "export":
            return value
        value["hash"] = bytes.fromhex(value["hash"])
        if kind == "record":
            value["detail"] = msgspec.json.encode(value["detail"], order="sorted").decode()
            # The very bytes count: a line that says the same in other words was not written by a hub.
            record = _strict(value, AuditRecord)
            return record if record_line(record).rstrip(b"\n") == line.rstrip(b"\n") else None
        value["signature"] = base64.b64decode(value["signature"], validate=True)
        if kind == "checkpoint":
            return _strict(value, Checkpoint)
        return _strict(value, ExportEnd) if kind == "end" else None
    except (msgspec.DecodeError, ValueError, KeyError, TypeError):
        return None


def _strict(value: dict[str, Any], kind: type[K]) -> K:
    if set(value) != set(kind.__struct_fields__):
        raise ValueError("missing or unknown members")
    return msgspec.convert(value, kind, builtin_types=(bytes,))


def _open_sqlite(database: Path) -> Callable[[str], Iterator[Any]]:
    """Return what runs a query in one view of a file that a running hub may write to."""
    connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
    connection.execute("BEGIN")
    connection.execute("SELECT 1 FROM audit_events LIMIT 1").fetchall()

    def query(statement: str) -> Iterator[Any]:
        with closing(connection.cursor()) as cursor:
            yield from cursor.execute(statement)

    return query


def _open_postgresql(url: str) -> Callable[[str], Iterator[Any]]:
    """Return what runs a query in one view of a database that a running hub may write to."""
    connection = PostgresqlBackend(url).readers.connect()
    connection.begin()

    def query(statement: str) -> Iterator[Any]:
        with connection.execution_options(yield_per=500).exec_driver_sql(statement) as found:
            yield from found

    return query


def read_store(state_dir: Path, *, database_url: str | None = None) -> tuple[AuditSource, str | None]:
    """Return what a hub's store holds, and the public key of the key that lies in its state directory.

    The database is only read; the hub may run meanwhile.

    Args:
        state_dir: holds the keys, and without ``database_url`` the database.
        database_url: where the store lies in PostgreSQL.

    Raises:
        SetupError: there is no such store.
    """
    database = state_dir / "hub.db"
    if database_url is None and not database.is_file():
        raise SetupError(f"no hub's database is in {str(state_dir)!r}; give the hub's --state-dir, or --database")
    fields = AuditRecord.__struct_fields__
    label = repr(str(database))
    if database_url is not None:
        label = PostgresqlBackend(database_url).label

    def rows(table: str, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        columns = ", ".join(f'"{name}"' for name in names)
        for row in query(f"SELECT {columns} FROM {table} ORDER BY seq"):  # noqa: S608 - names are our own
            yield dict(zip(names, row, strict=True))

    try:
        query = _open_sqlite(database) if database_url is None else _open_postgresql(database_url)
        checkpoints = [
            msgspec.convert(row, Checkpoint, builtin_types=(bytes,))
            for row in rows("audit_checkpoints", Checkpoint.__struct_fields__)
        ]
    except (DBAPIError, sqlite3.Error, msgspec.ValidationError) as error:
        raise SetupError(f"cannot read the audit log of {label}: {error}") from error

    unreadable: list[str] = []

    def records() -> Iterable[AuditRecord]:
        try:
            for row in rows("audit_events", fields):
                try:
                    yield msgspec.convert(row, AuditRecord, builtin_types=(bytes,))
                except msgspec.ValidationError as error:
                    text = f"record {row.get('seq')} is none: {error}"
                    if text not in unreadable:
                        unreadable.append(text)
        except (DBAPIError, sqlite3.Error) as error:
            raise SetupError(f"cannot read the audit log of {label}: {error}") from error

    # A record that cannot be read at all is found here, before the verification lists what is missing.
    for _ in records():
        pass
    head = read_head_file(state_dir / "audit.head")
    key_file = state_dir / "audit.key"
    key = AuditSigner(key_file.read_bytes()).public_text if key_file.is_file() else None
    source = AuditSource(
        records=records, checkpoints=checkpoints, heads=[head] if head is not None else [], unreadable=unreadable
    )
    return source, key

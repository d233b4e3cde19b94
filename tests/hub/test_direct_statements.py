"""Statements that go to SQLite directly fail as SQLAlchemy's do, and records follow what is stored, not what was."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, OperationalError

from guardhouse.hub.audit.chain import GENESIS, link_hash
from guardhouse.hub.backends import SqliteBackend
from guardhouse.hub.migrate import migrate_to_newest
from guardhouse.hub.store import audit
from guardhouse.hub.store.prepared import run_text
from guardhouse.hub.transport.task_group import _Line


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    backend = SqliteBackend(tmp_path / "hub.db")
    writer = backend.connect_writer()
    with writer.begin():
        migrate_to_newest(writer)
    yield writer
    writer.close()
    backend.close()


def _record(connection: Connection, target: str) -> int:
    return audit.record_audit_event(connection, at_ms=1, actor="hub", action="test.note", target=target, address=None)


def test_records_follow_what_was_committed(connection: Connection) -> None:
    """A record that was rolled back leaves no number and no hash behind, in whichever transaction the next one is."""
    with connection.begin() as transaction:
        assert (_record(connection, "lost"), _record(connection, "lost too")) == (1, 2)
        transaction.rollback()
    with connection.begin():
        assert (_record(connection, "a"), _record(connection, "b")) == (1, 2)
    with connection.begin():
        assert _record(connection, "c") == 3
    with connection.begin():
        previous = GENESIS
        for record in audit.iter_audit_records(connection):
            assert record.hash == link_hash(previous, record.body())
            previous = record.hash
        assert audit.read_audit_head(connection) == (3, previous)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        pytest.param("INSERT INTO t VALUES (:one)", IntegrityError, id="a constraint"),
        pytest.param("INSERT INTO nowhere VALUES (:one)", OperationalError, id="no such table"),
    ],
)
def test_an_error_is_sqlalchemys(connection: Connection, text: str, kind: type[Exception]) -> None:
    """So that the writer tells a conflict from a broken disk; what the transaction did before can be rolled back."""
    with connection.begin():
        connection.exec_driver_sql("CREATE TABLE t (one INTEGER UNIQUE)")
        assert run_text(connection, "INSERT INTO t VALUES (:one)", {"one": 1}).rowcount == 1
    transaction = connection.begin()
    assert run_text(connection, "UPDATE t SET one = :two", {"two": 1}).rowcount == 1
    run_text(connection, "INSERT INTO t VALUES (:one)", {"one": 2})
    with pytest.raises(kind):
        run_text(connection, text, {"one": 2})
    transaction.rollback()
    assert [tuple(row) for row in connection.exec_driver_sql("SELECT one FROM t")] == [(1,)]


def test_outside_of_a_transaction_a_statement_begins_one(connection: Connection) -> None:
    """Nothing is stored that nobody commits."""
    connection.exec_driver_sql("CREATE TABLE t (one INTEGER)")
    connection.commit()
    assert not connection.in_transaction()
    run_text(connection, "INSERT INTO t VALUES (:one)", {"one": 1})
    assert connection.in_transaction()
    connection.rollback()
    assert connection.exec_driver_sql("SELECT count(*) FROM t").scalar() == 0


def _piece(body: bytes, *, more: bool) -> dict[str, object]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_an_application_takes_what_arrived_in_its_order() -> None:
    """The end of a body comes with its last piece where that waits still, else by itself; a disconnect always does."""

    async def run() -> None:
        line = _Line(3)
        await line.put(_piece(b"one", more=True))
        await line.put(_piece(b"", more=False))
        await line.put({"type": "http.disconnect"})
        assert await line.take() == _piece(b"one", more=False)
        assert await line.take() == {"type": "http.disconnect"}
        await line.put(_piece(b"two", more=True))
        assert await line.take() == _piece(b"two", more=True)
        await line.put(_piece(b"", more=False))
        assert await line.take() == _piece(b"", more=False)

    trio.run(run)


def test_a_full_line_holds_up_who_puts() -> None:
    """Nothing is lost, nothing changes places, and no more than the limit is ever in memory."""

    async def run() -> None:
        line, taken = _Line(2), []

        async def put_all() -> None:
            for number in range(50):
                await line.put(_piece(b"%d" % number, more=True))

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(put_all)
                await trio.testing.wait_all_tasks_blocked()
                assert len(line._events) == 2
                for _ in range(50):
                    taken.append((await line.take())["body"])
        assert taken == [b"%d" % number for number in range(50)]

    trio.run(run)

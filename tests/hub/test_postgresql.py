"""What only a database server can do to a hub: go away, cut a connection at a commit, let another hub in."""

import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from tests.support.postgresql import find_programs, running_cluster
from tests.support.runner_stub import connect_v1

from guardhouse.errors import SetupError
from guardhouse.hub.audit.chain import parse_public_key
from guardhouse.hub.audit.export import read_store
from guardhouse.hub.audit.verify import verify
from guardhouse.hub.backends import PostgresqlBackend, StoreTaken
from guardhouse.hub.backends.postgresql import connection_parameters
from guardhouse.hub.config import HubConfig
from guardhouse.hub.database import Database
from guardhouse.hub.schema import METADATA
from guardhouse.hub.server import open_hub


@pytest.fixture
def store_url(cluster) -> Iterator[str]:
    url = cluster.new_database()
    yield url
    cluster.drop(url)


@pytest.fixture(autouse=True)
def short_wait(monkeypatch) -> None:
    monkeypatch.setattr("guardhouse.hub.backends.postgresql.LOCK_WAIT_S", 1.0)


def cut_connections(cluster, url: str) -> None:
    name = re.search(r"@/(\w+)", url)[1]
    cluster.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")


async def test_the_migrations_make_the_tables_that_the_code_knows(cluster):
    """From nothing, on PostgreSQL too; and numbers that grow for years have 64 bits there."""
    backend = PostgresqlBackend(cluster.new_database(is_empty=True))
    Database(backend).dispose()
    with backend.readers.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
        query = "SELECT DISTINCT data_type FROM information_schema.columns WHERE column_name = 'seq'"
        assert connection.execute(text(query)).scalars().all() == ["bigint"]
    backend.close()


async def test_second_hub_on_the_same_database_is_refused(start_hub, store_url, tmp_path):
    """Another host's hub, with a directory of its own, does not get the store; after the first one it does not either
    without the key that the tokens are sealed with.
    """
    async with start_hub() as hub:
        await hub.environment()
        with pytest.raises(SetupError, match=r"sealing key .* is missing"):
            async with open_hub(HubConfig(state_dir=tmp_path / "other", database=store_url, port=0)):
                pass
        (tmp_path / "other" / "sealing.key").write_bytes((hub.state_dir / "sealing.key").read_bytes())
        (tmp_path / "other" / "sealing.key").chmod(0o600)
        with pytest.raises(SetupError, match="another hub uses postgresql://"):
            async with open_hub(HubConfig(state_dir=tmp_path / "other", database=store_url, port=0)):
                pass
        assert (await hub.http.get("/readyz")).status_code == 200


async def test_a_key_of_another_store_is_refused(start_hub, store_url, tmp_path):
    """Not found out when somebody asks for a token, but at the start."""
    async with start_hub() as hub:
        await hub.environment()
    (hub.state_dir / "sealing.key").write_bytes(b"k" * 32)
    with pytest.raises(ExceptionGroup) as caught:
        async with start_hub():
            pass
    assert caught.group_contains(SetupError, match="sealing.key does not open")


async def test_cut_connections_are_not_noticed(start_hub, cluster, store_url):
    """A server that was restarted, or an administrator who ends sessions: the next write and read open new ones."""
    async with start_hub() as hub:
        created = await hub.environment()
        async with connect_v1(hub.url, created["token"]) as runner:
            await hub.until_online()
            for number in range(3):
                await trio.to_thread.run_sync(cut_connections, cluster, store_url)
                started = await hub.start(f"echo {number}")
                task = await runner.expect("task.request")
                await trio.to_thread.run_sync(cut_connections, cluster, store_url)
                await runner.result(task["task_id"], exit_code=number)
                assert (await hub.result(started["id"]))["exit_code"] == number
                await trio.to_thread.run_sync(cut_connections, cluster, store_url)
                assert (await hub.http.get("/api/v1/tasks")).json()["tasks"][0]["id"] == started["id"]


async def test_a_server_that_is_away_is_503_and_then_forgotten(start_hub, tmp_path):
    """While it is stopped nothing is stored or acknowledged; when it is back, all goes on."""
    with running_cluster(find_programs()) as own:
        async with start_hub(database=own.new_database()) as hub:
            created = await hub.environment()
            async with connect_v1(hub.url, created["token"]) as runner:
                await hub.until_online()
                started = await hub.start()
                await runner.expect("task.request")
                await trio.to_thread.run_sync(own.stop)
                reply = await hub.http.post("/api/v1/environments", json={"name": "web-2"})
                assert (reply.status_code, reply.json()["error"]["code"]) == (503, "store_unavailable")
                assert reply.json()["error"]["retryable"]
                assert (await hub.http.get("/readyz")).status_code == 503
                assert (await hub.http.get("/api/v1/environments")).status_code == 503
                await runner.result(started["id"], exit_code=4)
                assert (await runner.expect_closed()).code == 1013
            await trio.to_thread.run_sync(own.start)
            held = {"task_id": started["id"], "state": "finished"}
            async with connect_v1(hub.url, created["token"], tasks=[held]) as runner:
                await runner.result(started["id"], exit_code=4)
                await runner.expect("task.result.ack")
                assert (await hub.result(started["id"]))["exit_code"] == 4


async def test_a_hub_that_lost_its_store_ends(cluster, store_url):
    """Another hub that took the store in between makes everything that this one remembers worthless."""
    first = await trio.to_thread.run_sync(lambda: Database(PostgresqlBackend(store_url)))
    await trio.to_thread.run_sync(cut_connections, cluster, store_url)
    second = await trio.to_thread.run_sync(lambda: Database(PostgresqlBackend(store_url)))

    async def write() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(first.run)
            await first.write(lambda connection: connection.execute(text("DELETE FROM accounts")))

    for is_running in (True, False):
        if not is_running:
            second.dispose()
        with pytest.raises(ExceptionGroup) as caught:
            await write()
        assert caught.group_contains(StoreTaken, match="another hub")
        assert len(cluster.execute("SELECT id FROM accounts", database=re.search(r"@/(\w+)", store_url)[1])) == 1


class CuttingProxy:
    """Stands between hub and server; once `armed`, it cuts a connection at its COMMIT, before or after it arrived."""

    def __init__(self, directory: Path, upstream: Path) -> None:
        self._upstream = str(upstream / ".s.PGSQL.5432")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / ".s.PGSQL.5432"))
        self._listener.listen()
        self.armed: str | None = None
        self.cuts = 0

    async def run(self) -> None:
        await trio.serve_listeners(self._serve, [trio.SocketListener(trio.socket.from_stdlib_socket(self._listener))])

    async def _serve(self, client: trio.SocketStream) -> None:
        server = await trio.open_unix_socket(self._upstream)
        async with client, server, trio.open_nursery() as nursery:

            async def back() -> None:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    async for data in server:
                        await client.send_all(data)
                nursery.cancel_scope.cancel()

            nursery.start_soon(back)
            with suppress(trio.BrokenResourceError):
                async for data in client:
                    if self.armed is not None and b"COMMIT" in data:
                        if self.armed == "after":
                            nursery.cancel_scope.shield = True
                            await self._commit_unheard(server, data)
                        self.armed, self.cuts = None, self.cuts + 1
                        break
                    await server.send_all(data)
            nursery.cancel_scope.cancel()

    async def _commit_unheard(self, server: trio.SocketStream, data: bytes) -> None:
        """Let the commit happen, without its answer reaching the client: the server ends when its client does."""
        await server.send_all(data)
        await server.send_eof()


@pytest.mark.parametrize("armed", ["before", "after"])
async def test_a_commit_that_is_never_answered(cluster, store_url, tmp_path_factory, armed):
    """Whether it arrived or not, the hub finds out, and the write is there exactly once."""
    directory = Path(tempfile.mkdtemp(prefix="gh-cut-", dir="/tmp"))
    proxy = CuttingProxy(directory, cluster.directory)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(proxy.run)
            url = store_url.replace(str(cluster.directory), str(directory))
            database = await trio.to_thread.run_sync(lambda: Database(PostgresqlBackend(url)))
            await nursery.start(database.run)
            insert = text("INSERT INTO notifications VALUES (:id, 'x', 'x', 'x', 1, 1, 0)")
            for number in range(3):
                proxy.armed = armed
                await database.write(lambda connection, n=number: connection.execute(insert, {"id": f"n{n}"}))
                assert proxy.cuts == number + 1
            found = await database.read(
                lambda connection: connection.execute(text("SELECT id FROM notifications")).all()
            )
            assert sorted(row[0] for row in found) == ["n0", "n1", "n2"]
            database.close()
            nursery.cancel_scope.cancel()
    finally:
        shutil.rmtree(directory)


async def test_text_that_a_server_would_refuse(hub_on_postgresql):
    """NUL bytes and long words do to a request what they do with SQLite."""
    hub = hub_on_postgresql
    await hub.environment()
    assert (await hub.http.get("/api/v1/environments/a%00b")).status_code == 404
    assert (await hub.http.get("/api/v1/tasks", params={"text": "a\0b"})).status_code == 200
    reply = await hub.http.get("/api/v1/audit", params={"actor": "x" * 5_000, "text": "\0"})
    assert reply.status_code in {200, 400}


@pytest.fixture
async def hub_on_postgresql(start_hub):
    async with start_hub() as hub:
        yield hub


async def test_the_audit_log_is_verified_where_it_lies(start_hub, cluster, store_url):
    """In the database, by the command; and a record that somebody changed there is named."""
    async with start_hub() as hub:
        for number in range(3):
            await hub.environment(f"web-{number}")
    state = str(hub.state_dir)
    words = [sys.executable, "-m", "guardhouse", "audit", "verify", "--state-dir", state, "--database", store_url]
    good = await trio.run_process(words, capture_stdout=True)
    assert b"good" in good.stdout
    name = re.search(r"@/(\w+)", store_url)[1]
    cluster.execute("UPDATE audit_events SET actor = 'tok_other' WHERE seq = 3", database=name)
    source, key = read_store(hub.state_dir, database_url=store_url)
    report = verify(source, parse_public_key(key), is_pinned=False)
    assert {(one.kind, one.seq) for one in report.problems} == {("changed", 3)}
    bad = await trio.run_process(words, capture_stdout=True, check=False)
    assert bad.returncode == 1


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://db/hub", "is no address of a PostgreSQL database"),
        ("postgresql://hub:secret@db.example.com/hub", "sslmode is 'prefer'"),
        ("postgresql://hub:secret@db.example.com/hub?sslmode=require", "sslmode is 'require'"),
        ("postgresql://hub:secret@localhost,10.0.0.8/hub", "is another host"),
        ("postgresql://hub:secret@localhost/hub?hostaddr=10.0.0.8", "is another host"),
        ("postgresql://hub:secret@/hub?nonsense=1", "libpq cannot read this address"),
    ],
)
def test_addresses_that_are_refused(url, said):
    """Without proof of who answers no password and no output crosses a network; messages never hold the password."""
    with pytest.raises(SetupError, match=re.escape(said)) as caught:
        connection_parameters(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://hub@/hub",
        "postgresql://hub:secret@127.0.0.1:5433/hub",
        "postgres://hub@[::1]/hub",
        "postgresql://hub:secret@db.example.com/hub?sslmode=verify-full&sslrootcert=/etc/ssl/ca.pem",
    ],
)
def test_addresses_that_are_taken(url):
    """The twin: this host, or a server that proves who it is."""
    label = PostgresqlBackend(url).label
    assert label.endswith("/hub")
    assert "secret" not in label


def test_a_password_in_the_arguments_is_refused(tmp_path):
    """Every account of the host reads arguments; the environment is the hub's own."""
    words = [sys.executable, "-m", "guardhouse", "hub", "--state-dir", str(tmp_path / "state"), "--database"]
    found = subprocess.run([*words, "postgresql://hub:secret@/hub"], capture_output=True, text=True, timeout=60)
    assert found.returncode == 2
    assert "GUARDHOUSE_HUB_DATABASE" in found.stderr
    assert "secret" not in found.stderr


async def test_a_server_that_is_not_there_is_named(tmp_path):
    """One line, without a traceback, that says what to look at."""
    config = HubConfig(state_dir=tmp_path / "state", database=f"postgresql://hub@/hub?host={tmp_path}", port=0)
    with pytest.raises(SetupError, match="cannot reach postgresql://"):
        async with open_hub(config):
            pass


KEEPER = """
import sys, time
from pathlib import Path
from tests.support.postgresql import Cluster, find_programs
cluster = Cluster(Path(sys.argv[1]), find_programs())
cluster.create()
cluster.start()
print(cluster._process.pid, flush=True)
time.sleep(600)
"""


def test_a_server_of_the_tests_ends_with_them():
    """Kill -9 of the process that started it leaves no server behind."""
    if find_programs() is None:
        pytest.skip("no PostgreSQL server is installed here: initdb and postgres (Debian: postgresql)")
    with tempfile.TemporaryDirectory(prefix="gh-pg-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        keeper = subprocess.Popen(
            [sys.executable, "-c", KEEPER, directory],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        try:
            assert keeper.stdout is not None
            server = os.pidfd_open(int(keeper.stdout.readline()))
        finally:
            keeper.kill()
            keeper.wait()
        try:
            ended, _, _ = select.select([server], [], [], 60)
            assert ended, "the server outlives who started it"
        finally:
            os.close(server)

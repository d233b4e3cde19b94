"""What a hub that is stopped or killed still knows, and what it then does with tasks in flight."""

import os
import signal
import sqlite3
import subprocess
import sys

import httpx2
import psycopg
import pytest
import trio
from tests.support.runner_stub import connect_plain, connect_v1

from guardhouse.errors import SetupError
from guardhouse.hub.backends import SqliteBackend
from guardhouse.hub.backends.sqlite_log import AT_EASE_BYTES, LOG_MAX_BYTES, LogKeeper
from guardhouse.hub.config import HubConfig
from guardhouse.hub.sealing import change_sealing_key
from guardhouse.hub.server import open_hub


async def test_everything_survives_a_restart(start_hub):
    """Environment, token, task, result and output are there again, under the same owner token."""
    async with start_hub() as hub:
        created = await hub.environment(tags=["a", "b"])
        async with connect_v1(hub.url, created["token"]) as runner:
            await hub.until_online()
            started = await hub.start("echo kept")
            task = await runner.expect("task.request")
            await runner.output(task["task_id"], b"kept\n")
            await runner.result(task["task_id"], stdout_bytes=5, stderr_bytes=0)
            before = await hub.result(started["id"])
    async with start_hub() as hub:
        assert (await hub.http.get(f"/api/v1/tasks/{started['id']}")).json() == before
        shown = await hub.status()
        assert (shown["tags"], shown["status"], shown["version"]) == (["a", "b"], "offline", "9.9.9")
        assert "runner is not back yet" in shown["status_reason"]
        token = (await hub.http.get("/api/v1/environments/web-1/token")).json()["token"]
        assert token == created["token"]
        output = await hub.http.get(f"/api/v1/tasks/{started['id']}/output")
        assert '"data":"kept\\n"' in output.text


async def test_v1_task_in_flight_goes_on_over_a_restart(start_hub):
    """A running task is resumed where its output stopped; the request is not sent again."""
    async with start_hub() as hub:
        created = await hub.environment()
        async with connect_v1(hub.url, created["token"]) as runner:
            await hub.until_online()
            started = await hub.start("long")
            task = await runner.expect("task.request")
            await runner.send("task.accepted", {"task_id": task["task_id"]})
            await runner.output(task["task_id"], b"first ")

            async def has_output() -> bool:
                return (await hub.result(started["id"], wait_s=0))["stdout_bytes"] == 6

            await hub.until(has_output)
    held = {"task_id": started["id"], "state": "running", "stdout_first": 0, "stdout_next": 12}
    async with start_hub() as hub:
        assert (await hub.result(started["id"], wait_s=0))["state"] == "running"
        async with connect_v1(hub.url, created["token"], tasks=[held]) as runner:
            assert runner.resume["tasks"] == [{"task_id": started["id"], "disposition": "continue", "stdout_offset": 6}]
            await runner.output(started["id"], b"second", offset=6, seq=1)
            await runner.result(started["id"], stdout_bytes=12, stderr_bytes=0)
            assert (await hub.result(started["id"]))["state"] == "succeeded"
            assert not [frame for frame in runner.heard if frame["type"] == "task.request"]
            output = await hub.http.get(f"/api/v1/tasks/{started['id']}/output", params={"stream": "stdout"})
            assert [line[:60] for line in output.text.splitlines()[:2]] == [
                '{"stream":"stdout","offset":0,"data":"first "}',
                '{"stream":"stdout","offset":6,"data":"second"}',
            ]


@pytest.mark.parametrize(
    ("memory_id", "state"),
    [
        pytest.param("mem_stub", "succeeded", id="whole memory: sent again"),
        pytest.param("mem_new", "lost", id="lost memory: never sent again"),
    ],
)
async def test_request_that_may_not_have_arrived(start_hub, memory_id, state):
    """A request goes out a second time only when the runner certainly never saw it."""
    async with start_hub() as hub:
        created = await hub.environment()
        async with connect_v1(hub.url, created["token"]):
            await hub.until_online()
            started = await hub.start("once")
    async with (
        start_hub() as hub,
        connect_v1(hub.url, created["token"], memory_id=memory_id) as runner,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(runner.serve)
        found = await hub.result(started["id"])
        assert found["state"] == state
        requests = [frame for frame in runner.heard if frame["type"] == "task.request"]
        assert len(requests) == (state == "succeeded")
        nursery.cancel_scope.cancel()


async def test_plain_task_is_lost_with_its_reason(start_hub, monkeypatch):
    """A plain runner keeps no results: its task is lost once it has been gone for the limit."""
    monkeypatch.setattr("guardhouse.hub.tasks.sweep.PLAIN_LOST_AFTER_S", 0.0)
    async with start_hub() as hub:
        created = await hub.environment()
        async with connect_plain(hub.url, created["token"]) as runner:
            await hub.until_online()
            started = await hub.start("sleep 100")
            await runner.expect("task.request")

        async def is_offline() -> bool:
            return (await hub.status())["status"] == "offline"

        await hub.until(is_offline)
        await hub.hub.services.board.deadlines.sweep()
        found = await hub.result(started["id"])
        assert found["state"] == "lost"
        assert "keeps no results" in found["state_reason"]


async def test_plain_task_that_may_not_have_arrived(start_hub, monkeypatch):
    """It says so at once, is not sent again, and ends as lost, not as late; what answers ends as its runner said."""
    async with start_hub() as hub:
        created = await hub.environment()
        async with connect_plain(hub.url, created["token"]) as runner:
            await hub.until_online()
            silent, answered = await hub.start("x"), await hub.start("y")
            await runner.expect("task.request")
    # Also where the hub that knew of the connection's end is gone.
    hub.store.execute("UPDATE tasks SET state_reason = NULL")
    monkeypatch.setattr("guardhouse.hub.tasks.sweep.RESULT_GRACE_S", -1_000.0)
    async with start_hub() as hub, connect_plain(hub.url, created["token"]) as runner:
        await hub.until_online()
        found = await hub.result(silent["id"], wait_s=0)
        assert (found["state"], found["finished"]) == ("sent", False)
        assert "cannot say whether the request arrived" in found["state_reason"]
        await runner.output(answered["id"], b"it runs")

        async def runs() -> bool:
            found = await hub.result(answered["id"], wait_s=0)
            return (found["state"], found["state_reason"]) == ("running", None)

        await hub.until(runs)
        await runner.result(answered["id"], exit_code=3)
        assert (await hub.result(answered["id"]))["exit_code"] == 3
        await hub.hub.services.board.deadlines.sweep()
        assert (await runner.expect("task.cancel"))["task_id"] == silent["id"]
        monkeypatch.setattr("guardhouse.hub.tasks.sweep.CANCEL_GRACE_S", 0.0)
        await hub.hub.services.board.deadlines.sweep()
        found = await hub.result(silent["id"])
        assert (found["state"], found["error_code"]) == ("lost", "lost")
        assert "two minutes" in found["state_reason"]
        assert not [frame for frame in runner.heard if frame["type"] == "task.request"]


async def test_plain_task_ends_over_a_reconnect(hub):
    """A plain runner that comes back in time may still answer what it was given before."""
    created = await hub.environment()
    async with connect_plain(hub.url, created["token"]) as runner:
        await hub.until_online()
        started = await hub.start("sleep 1")
        await runner.expect("task.request")

    async def is_offline() -> bool:
        return (await hub.status())["status"] == "offline"

    await hub.until(is_offline)
    async with connect_plain(hub.url, created["token"]) as runner:
        await runner.result(started["id"], stdout="late")
        assert (await hub.result(started["id"]))["state"] == "succeeded"


async def test_result_of_another_environments_task_is_not_taken(hub):
    """A runner cannot end a task that was given to another."""
    mine, other = await hub.environment("web-1"), await hub.environment("web-2")
    async with connect_plain(hub.url, mine["token"]) as runner, connect_plain(hub.url, other["token"]) as thief:
        await hub.until_online("web-1")
        await hub.until_online("web-2")
        started = await hub.start()
        await runner.expect("task.request")
        await thief.result(started["id"], exit_code=66)
        await thief.heartbeat()
        assert not (await hub.result(started["id"], wait_s=0.2))["finished"]
        await runner.result(started["id"], exit_code=0)
        assert (await hub.result(started["id"]))["exit_code"] == 0


def start_process(state_dir) -> tuple[subprocess.Popen[bytes], str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.hub_process", str(state_dir)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    return process, process.stdout.readline().decode().strip()


async def test_killed_hub_keeps_what_it_acknowledged(tmp_path):
    """Kill -9 right after the acknowledgement: the next hub has the result."""
    state_dir = tmp_path / "state"

    process, url = await trio.to_thread.run_sync(start_process, state_dir)
    try:
        token = (state_dir / "owner.token").read_text().strip()
        headers = {"authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=30) as http:
            created = (await http.post("/api/v1/environments", json={"name": "web-1"})).json()
            async with connect_v1(url, created["token"]) as runner:
                body = {"environment_id": "web-1", "operation": "bash", "args": {"command": "x"}}
                started = (await http.post("/api/v1/tasks", json=body)).json()
                task = await runner.expect("task.request")
                await runner.result(task["task_id"], exit_code=7)
                await runner.expect("task.result.ack")
                process.send_signal(signal.SIGKILL)
                process.wait()
                await runner.expect_closed()
        process, url = await trio.to_thread.run_sync(start_process, state_dir)
        async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=30) as http:
            found = (await http.get(f"/api/v1/tasks/{started['id']}")).json()
            assert (found["state"], found["exit_code"]) == ("succeeded", 7)
    finally:
        process.kill()
        process.wait()


async def test_second_hub_on_the_same_state_is_refused(hub):
    """Two hubs never write to one database."""
    with pytest.raises(SetupError, match="another hub uses state directory"):
        async with open_hub(HubConfig(state_dir=hub.state_dir, port=0)):
            pass


async def test_missing_key_beside_a_database_is_refused(start_hub, tmp_path):
    """A lost sealing key is named, not silently replaced by one that opens nothing."""
    async with start_hub():
        pass
    (tmp_path / "state" / "sealing.key").unlink()
    with pytest.raises(SetupError, match=r"sealing key .* is missing beside an existing database"):
        async with start_hub():
            pass


async def test_secrets_are_private_and_absent_from_the_database(start_hub, tmp_path):
    """Files are 0600 in a directory of 0700, and no token stands readable in the database or its log."""
    async with start_hub(is_new=True) as hub:
        created = await hub.environment()
    state = tmp_path / "state"
    assert state.stat().st_mode & 0o777 == 0o700
    owner = (state / "owner.token").read_text().strip()
    for file in state.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
        if file.name != "owner.token":
            assert created["token"].encode() not in file.read_bytes()
            assert owner.encode() not in file.read_bytes()


async def test_newer_database_is_refused(start_hub, tmp_path, store_url):
    """A hub does not touch a database that a newer one has changed."""
    async with start_hub():
        pass
    opened = psycopg.connect(store_url) if store_url else sqlite3.connect(tmp_path / "state" / "hub.db")
    with opened as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SetupError, match="'9999', which this version does not know"):
        async with start_hub():
            pass


async def test_full_disk_is_said_and_survived(start_hub, monkeypatch):
    """While nothing can be stored, requests answer 503 and results are not acknowledged; later all is well."""
    from sqlalchemy.exc import OperationalError

    from guardhouse.hub.database import Database

    commit = Database._commit_together

    def full(self, batch):
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

    async with start_hub() as hub:
        created = await hub.environment()
        async with connect_v1(hub.url, created["token"]) as runner:
            await hub.until_online()
            started = await hub.start()
            await runner.expect("task.request")
            monkeypatch.setattr(Database, "_commit_together", full)
            reply = await hub.http.post("/api/v1/environments", json={"name": "web-2"})
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "store_unavailable")
            await runner.result(started["id"], exit_code=4)
            closed = await runner.expect_closed()
            assert closed is not None
            assert closed.code == 1013
            assert started["id"] not in runner.acked
        monkeypatch.setattr(Database, "_commit_together", commit)
        held = {"task_id": started["id"], "state": "finished"}
        async with connect_v1(hub.url, created["token"], tasks=[held]) as runner:
            await runner.result(started["id"], exit_code=4)
            await runner.expect("task.result.ack")
            assert (await hub.result(started["id"]))["exit_code"] == 4


async def test_the_sealing_key_can_be_changed(start_hub, store_url):
    """Under a new key every token is shown as before, the runner's still opens, and the deed is recorded."""
    async with start_hub() as hub:
        created = await hub.environment()
    config = HubConfig(state_dir=hub.state_dir, database=store_url)
    old = (hub.state_dir / "sealing.key").read_bytes()
    assert await trio.to_thread.run_sync(change_sealing_key, config) == 1
    assert (hub.state_dir / "sealing.key").read_bytes() != old
    assert not (hub.state_dir / "sealing.key.next").exists()
    async with start_hub() as hub:
        assert (await hub.http.get("/api/v1/environments/web-1/token")).json()["token"] == created["token"]
        events = (await hub.http.get("/api/v1/audit", params={"action": "sealing_key"})).json()["events"]
        assert events[0]["detail"]["tokens"] == 1
        async with connect_plain(hub.url, created["token"]):
            await hub.until_online()


@pytest.mark.parametrize("reached_the_store", [True, False])
async def test_a_change_of_the_sealing_key_that_was_cut_short(start_hub, store_url, reached_the_store):
    """Whichever of the two keys opens the store is taken at the next start."""
    async with start_hub() as hub:
        created = await hub.environment()
    old = (hub.state_dir / "sealing.key").read_bytes()
    if reached_the_store:
        await trio.to_thread.run_sync(change_sealing_key, HubConfig(state_dir=hub.state_dir, database=store_url))
        (hub.state_dir / "sealing.key").rename(hub.state_dir / "sealing.key.next")
        (hub.state_dir / "sealing.key").write_bytes(old)
        (hub.state_dir / "sealing.key").chmod(0o600)
    else:
        (hub.state_dir / "sealing.key.next").write_bytes(b"n" * 32)
        (hub.state_dir / "sealing.key.next").chmod(0o600)
    async with start_hub() as hub:
        assert (await hub.http.get("/api/v1/environments/web-1/token")).json()["token"] == created["token"]
        assert not (hub.state_dir / "sealing.key.next").exists()


def test_a_log_that_grew_is_cut_when_its_reader_has_ended(tmp_path):
    """SQLite keeps the file at its largest for ever; ours is asked to begin anew, and a reader only delays that."""
    backend = SqliteBackend(tmp_path / "hub.db")
    writer = backend.connect_writer()
    with writer.begin():
        writer.exec_driver_sql("CREATE TABLE made (data BLOB)")
    with backend.readers.begin() as reader:
        reader.exec_driver_sql("SELECT count(*) FROM made").fetchall()
        while backend.log_bytes <= LOG_MAX_BYTES:
            backend.prepare(writer, durable=False)
            with writer.begin():
                writer.exec_driver_sql("INSERT INTO made VALUES (zeroblob(4000000))")
        # There is room on this disk: it is written on, whoever reads.
        backend.prepare(writer, durable=False)
        assert backend.log_bytes > LOG_MAX_BYTES
    keeper = LogKeeper(tmp_path / "hub.db")
    driver = writer.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    keeper.tend(driver)
    assert backend.log_bytes < AT_EASE_BYTES
    writer.close()
    backend.close()

"""A hub on a disk of its own that is really full: what it answers, what it keeps, and that it goes on by itself."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio
from tests.support.runner_stub import connect_v1

from guardhouse.hub.audit.chain import parse_public_key
from guardhouse.hub.audit.export import read_export
from guardhouse.hub.audit.verify import verify

DISK_MIB = 12
# Where the log of a database that somebody reads may take 8 MiB, and not much more.
READ_DISK_MIB = 30
READER = """\
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
print(connection.execute("SELECT count(*) FROM tasks").fetchone(), flush=True)
sys.stdin.read()
"""
MOUNTED = 'mount -t tmpfs -o "size=$1m,mode=700" none "$2" && exec "$3" -m tests.support.hub_process "$2"'


class SmallDisk:
    """A hub whose state directory is a small file system that only it sees."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, state: Path) -> None:
        self.process = process
        self.url = url
        self.state = state
        # The same directory as the hub sees it, through its own mount namespace.
        self.inside = Path(f"/proc/{process.pid}/root{state}")

    def fill(self) -> None:
        """Write until nothing more fits."""
        with (self.inside / "filling").open("wb", buffering=0) as file:
            for size in (65_536, 1_024, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    continue

    def empty(self) -> None:
        (self.inside / "filling").unlink()

    @property
    def log_bytes(self) -> int:
        return (self.inside / "hub.db-wal").stat().st_size

    @contextmanager
    def read(self) -> Iterator[None]:
        """Hold a transaction open that reads, as a backup does, in a process that sees the disk."""
        program = [sys.executable, "-c", READER, str(self.state / "hub.db")]
        enter = ["nsenter", f"--target={self.process.pid}", "--user", "--mount", "--preserve-credentials"]
        with subprocess.Popen([*enter, *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
            assert reader.stdout is not None
            try:
                assert reader.stdout.readline()
                yield
            finally:
                reader.kill()


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SmallDisk]:
    size_mib = getattr(request, "param", DISK_MIB)
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    process = subprocess.Popen(
        ["unshare", "-r", "-m", "sh", "-c", MOUNTED, "sh", str(size_mib), str(state), sys.executable],
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "log").open("wb"),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        assert url, (tmp_path / "log").read_text()
        yield SmallDisk(process, url, state)
    finally:
        process.kill()
        process.wait()


async def ready(http: httpx2.AsyncClient, status: int) -> dict[str, Any]:
    """Ask until the hub says that it is ready (200) or not (503), and return what it says."""
    with trio.fail_after(60):
        while True:
            reply = await http.get("/readyz")
            if reply.status_code == status:
                return reply.json()
            await trio.sleep(0.05)


async def test_a_full_disk_is_said_and_survived(small_disk, tmp_path):
    """503 in words while it is full, nothing half-written, nothing acknowledged; with space again all goes on."""
    disk = small_disk
    headers = {"authorization": f"Bearer {(disk.inside / 'owner.token').read_text().strip()}"}
    async with httpx2.AsyncClient(base_url=disk.url, headers=headers, timeout=60) as http:
        created = (await http.post("/api/v1/environments", json={"name": "web-1"})).json()
        async with connect_v1(disk.url, created["token"]) as runner:
            body = {"environment_id": "web-1", "operation": "bash", "args": {"command": "x"}, "queue_s": 60}
            started = (await http.post("/api/v1/tasks", json=body)).json()
            task = await runner.expect("task.request", within_s=30)
            before = {path.name for path in disk.inside.iterdir()}
            disk.fill()
            made, refused = [], None
            while refused is None:
                # What SQLite's log has room for yet is stored, and counts.
                reply = await http.post("/api/v1/environments", json={"name": f"more-{len(made)}", "tags": ["x" * 60]})
                if reply.status_code == 201:
                    made.append(reply.json()["name"])
                else:
                    refused = reply
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
            assert refused.json()["error"]["retryable"]
            assert "full" in refused.json()["error"]["message"]
            assert "cannot be written" in (await ready(http, 503))["reason"]
            assert (await http.get("/healthz")).status_code == 200
            # Reading goes on.
            assert (await http.get("/api/v1/environments/web-1")).json()["name"] == "web-1"
            await runner.result(task["task_id"], exit_code=4)
            closed = await runner.expect_closed()
            assert closed is not None
            assert closed.code == 1013
            assert started["id"] not in runner.acked
            assert {path.name for path in disk.inside.iterdir()} == {*before, "filling"}
        disk.empty()
        assert (await ready(http, 200))["reason"] is None
        async with connect_v1(
            disk.url, created["token"], tasks=[{"task_id": started["id"], "state": "finished"}]
        ) as runner:
            await runner.result(started["id"], exit_code=4)
            await runner.expect("task.result.ack", within_s=30)
        found = (await http.get(f"/api/v1/tasks/{started['id']}/result", params={"wait_s": 30})).json()
        assert (found["state"], found["exit_code"]) == ("succeeded", 4)
        listed = (await http.get("/api/v1/environments", params={"limit": 500})).json()["environments"]
        assert {one["name"] for one in listed} == {"web-1", *made}
        export = tmp_path / "export"
        export.write_bytes((await http.get("/api/v1/audit/export")).content)
    source, key = read_export(export)
    report = verify(source, parse_public_key(key), is_pinned=False)
    assert (report.problems, report.signed_to) == ([], report.last_seq)
    assert re.search("write_failed.*full", (tmp_path / "log").read_text())


@pytest.mark.parametrize("small_disk", [READ_DISK_MIB], indirect=True)
async def test_a_log_that_a_reader_holds_never_fills_the_disk(small_disk):
    """Writes are refused while the log could still be taken over, and go on by themselves once the reader has ended."""
    disk = small_disk
    headers = {"authorization": f"Bearer {(disk.inside / 'owner.token').read_text().strip()}"}
    async with httpx2.AsyncClient(base_url=disk.url, headers=headers, timeout=60) as http:
        await http.post("/api/v1/environments", json={"name": "web-1"})
        body = {"environment_id": "web-1", "operation": "bash", "args": {"command": "x" * 60_000}, "queue_s": 3_600}
        accepted = []
        with disk.read():
            refused = None
            while refused is None:
                reply = await http.post("/api/v1/tasks", json=body)
                if reply.status_code == 202:
                    accepted.append(reply.json()["id"])
                else:
                    refused = reply.json()["error"]
            assert refused["code"] == "store_unavailable"
            assert "hub.db-wal has grown to" in refused["message"]
            assert "end what reads it" in refused["message"]
            reason = (await ready(http, 503))["reason"]
            assert "end what reads it" in reason
            assert str(disk.state) not in reason, "anybody may ask /readyz"
            found = os.statvfs(disk.inside)
            assert found.f_bavail * found.f_frsize > disk.log_bytes, "there is room to take it over"
            assert (await http.get(f"/api/v1/tasks/{accepted[0]}")).status_code == 200
        assert (await ready(http, 200))["reason"] is None
        assert disk.log_bytes < 8 * 1024 * 1024, "it was taken over and cut"
        assert (await http.post("/api/v1/tasks", json=body)).status_code == 202
        listed = (await http.get("/api/v1/tasks", params={"limit": 500})).json()["tasks"]
        assert set(accepted) <= {one["id"] for one in listed}

"""A backup that was made while the hub ran is the hub again, on either database; a damaged one is nothing at all."""

import gzip
import json
import sys
from collections.abc import Iterator
from functools import partial

import msgspec
import pytest
import trio
from tests.support.runner_stub import connect_v1

from guardhouse.errors import SetupError
from guardhouse.hub.audit.chain import parse_public_key
from guardhouse.hub.audit.export import read_store
from guardhouse.hub.audit.verify import verify
from guardhouse.hub.backup import make_backup, restore_backup
from guardhouse.hub.backup.archive import BackupHeader, End, Rows, Writer, read_frames
from guardhouse.hub.config import HubConfig
from guardhouse.hub.server import open_hub


@pytest.fixture
def other_database(cluster) -> Iterator[str]:
    url = cluster.new_database(is_empty=True)
    yield url
    cluster.drop(url)


async def with_history(hub) -> tuple[dict, dict]:
    """A hub that has done something: an environment, a task with output that is no text, a person."""
    created = await hub.environment(tags=["a"])
    assert (await hub.http.post("/api/v1/people", json={"email": "max@example.com"})).status_code == 201
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        started = await hub.start("echo kept")
        task = await runner.expect("task.request")
        await runner.output(task["task_id"], b"kept \xff\x00\n")
        await runner.result(task["task_id"], stdout_bytes=8, stderr_bytes=0)
        return created, await hub.result(started["id"])


async def backed_up(hub, path, *, with_keys=True):
    config = HubConfig(state_dir=hub.state_dir, database=hub.store.url)
    return await trio.to_thread.run_sync(lambda: make_backup(config, path, with_keys=with_keys))


async def restored(path, state_dir, *, database=None, **more):
    config = HubConfig(state_dir=state_dir, database=database)
    return await trio.to_thread.run_sync(lambda: restore_backup(config, path, **more))


async def test_a_backup_is_the_hub_again_on_either_database(start_hub, other_database, tmp_path):
    """From either to PostgreSQL and on to SQLite: the same tasks, output, tokens and audit log, which verifies."""
    async with start_hub() as hub:
        created, task = await with_history(hub)
        made = await backed_up(hub, tmp_path / "first")
        key = (await hub.http.get("/api/v1/audit/key")).json()["public_key"]
    assert (tmp_path / "first").stat().st_mode & 0o777 == 0o600
    assert made.rows["tasks"] == 1
    for number, (source, database) in enumerate((("first", other_database), ("second", None))):
        state_dir = tmp_path / f"state-{number}"
        found = await restored(tmp_path / source, state_dir, database=database)
        assert found.audit.is_good
        assert found.rows["tasks"] == number + 1
        async with open_hub(HubConfig(state_dir=state_dir, database=database, port=0)) as again:
            http = hub.http.__class__(base_url=again.url, headers=hub.http.headers, timeout=60)
            async with http, connect_v1(again.url, created["token"]) as runner:
                assert (await http.get(f"/api/v1/tasks/{task['id']}")).json() == task
                output = await http.get(f"/api/v1/tasks/{task['id']}/output")
                assert json.loads(output.text.splitlines()[0])["data_b64"] == "a2VwdCD/AAo="
                shown = (await http.get("/api/v1/environments/web-1/token")).json()["token"]
                assert shown == created["token"]
                body = {"environment_id": "web-1", "operation": "bash", "args": {"command": "new"}, "queue_s": 60}
                new = (await http.post("/api/v1/tasks", json=body)).json()
                request = await runner.expect("task.request")
                await runner.output(request["task_id"], b"more")
                await runner.result(request["task_id"], stdout_bytes=4, stderr_bytes=0)
                done = await http.get(f"/api/v1/tasks/{new['id']}/result", params={"wait_s": 30})
                assert done.json()["state"] == "succeeded"
                events = (await http.get("/api/v1/audit", params={"action": "hub.restore"})).json()["events"]
                assert events[0]["detail"]["audit_is_good"]
                if number == 0:
                    config = HubConfig(state_dir=state_dir, database=database)
                    await trio.to_thread.run_sync(partial(make_backup, config, tmp_path / "second", with_keys=True))
        source_of, _ = read_store(state_dir, database_url=database)
        assert verify(source_of, parse_public_key(key), is_pinned=True).is_good


async def test_a_backup_without_keys_gives_no_token_away(start_hub, tmp_path):
    """It is restored only where the keys are; with them everything is as it was."""
    async with start_hub() as hub:
        created = await hub.environment()
        await backed_up(hub, tmp_path / "backup", with_keys=False)
    sealing, audit = ((hub.state_dir / name).read_bytes() for name in ("sealing.key", "audit.key"))
    content = gzip.decompress((tmp_path / "backup").read_bytes())
    assert not any(secret in content for secret in (sealing, audit, created["token"].encode()))
    with pytest.raises(SetupError, match=r"holds no keys and .*sealing.key' is missing"):
        await restored(tmp_path / "backup", tmp_path / "other")
    for name, key in (("sealing.key", b"x" * 32), ("audit.key", audit)):
        (tmp_path / "other" / name).write_bytes(key)
        (tmp_path / "other" / name).chmod(0o600)
    with pytest.raises(SetupError, match="was not sealed with this hub's key"):
        await restored(tmp_path / "backup", tmp_path / "other")
    assert not (tmp_path / "other" / "hub.db").exists()
    (tmp_path / "other" / "sealing.key").write_bytes(sealing)
    assert (await restored(tmp_path / "backup", tmp_path / "other")).audit.is_good


async def test_damaged_and_foreign_backups_are_refused(start_hub, tmp_path):
    """Cut off, one bit changed, something behind it, a newer form, no backup: nothing is put in place."""
    async with start_hub() as hub:
        await hub.environment()
        await backed_up(hub, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    content = gzip.decompress(whole)
    first = int.from_bytes(content[:4], "big")
    header = msgspec.msgpack.decode(content[4 : 4 + first], type=BackupHeader)

    def with_header(**values: object) -> bytes:
        changed = msgspec.msgpack.encode(msgspec.structs.replace(header, **values))
        return gzip.compress(len(changed).to_bytes(4, "big") + changed + content[4 + first :])

    cases = {
        "empty": (b"", "cut off"),
        "no gzip": (b"SQLite format 3\0" * 10, "is no backup"),
        "other gzip": (gzip.compress(b"\0\0\0\1\xc0"), "is no backup"),
        "newer form": (with_header(version=2), "this version reads form 1"),
        "newer step": (with_header(step="9999"), "checksum differs"),
        "one bit": (gzip.compress(content[:2000] + bytes([content[2000] ^ 1]) + content[2001:]), ""),
        "one bit of the file": (whole[:900] + bytes([whole[900] ^ 4]) + whole[901:], ""),
        "something behind": (gzip.compress(content + b"\0"), "checksum differs"),
        "a second file behind": (whole + whole, "checksum differs"),
        "without its end": (gzip.compress(content[:-60]), "cut off"),
        **{f"cut at {n}": (whole[: len(whole) * n // 8], "cut off") for n in range(1, 8)},
    }
    for name, (data, said) in cases.items():
        (tmp_path / "case").write_bytes(data)
        with pytest.raises(SetupError, match=said):
            await restored(tmp_path / "case", tmp_path / "target")
        assert not (tmp_path / "target" / "hub.db").exists(), name
        assert not (tmp_path / "target" / "sealing.key").exists(), name
    assert (await restored(tmp_path / "whole", tmp_path / "target")).audit.is_good


async def test_what_is_refused_late_leaves_nothing_behind(start_hub, tmp_path):
    """Another hub's key, a row that fits no table, a log that does not verify: neither keys nor half a store stay."""
    async with start_hub() as hub:
        await hub.environment()
        await backed_up(hub, tmp_path / "good")
        hub.store.execute("UPDATE audit_events SET actor = 'nobody' WHERE seq = 1")
        await backed_up(hub, tmp_path / "forged")
    with gzip.open(tmp_path / "unfit", "wb") as file:
        writer = Writer(file)
        for frame in read_frames(tmp_path / "good"):
            if isinstance(frame, Rows):
                writer.write(Rows(rows=[[*row, "one more"] for row in frame.rows]))
            elif not isinstance(frame, End):
                writer.write(frame)
        writer.end()
    foreign = tmp_path / "foreign"
    foreign.mkdir(mode=0o700)
    (foreign / "audit.key").touch(mode=0o600)
    (foreign / "audit.key").write_bytes(b"k" * 32)
    for name, target, said, kept in (
        ("good", foreign, "is another key than the backup's", {"audit.key", "hub.lock"}),
        ("unfit", tmp_path / "new", "does not fit table", {"hub.lock"}),
        ("forged", tmp_path / "new", "does not verify", {"hub.lock"}),
    ):
        with pytest.raises(SetupError, match=said):
            await restored(tmp_path / name, target)
        assert {path.name for path in target.iterdir()} == kept
    assert (await restored(tmp_path / "forged", tmp_path / "new", accept_broken_audit=True)).rows["environments"] == 1


async def test_nothing_is_overwritten(start_hub, tmp_path):
    """Neither a file by a backup nor a store by a restore; and a running hub's directory is its own."""
    async with start_hub() as hub:
        await hub.environment()
        await backed_up(hub, tmp_path / "backup")
        with pytest.raises(SetupError, match="a backup never overwrites"):
            await backed_up(hub, tmp_path / "backup")
        with pytest.raises(SetupError, match="another hub uses state directory"):
            await restored(tmp_path / "backup", hub.state_dir, database=hub.store.url)
    before = hub.store.dump()
    with pytest.raises(SetupError, match="a restore never overwrites"):
        await restored(tmp_path / "backup", hub.state_dir, database=hub.store.url)
    assert hub.store.dump() == before
    assert not list(tmp_path.glob(".backup.*"))


async def test_a_restore_to_an_earlier_state_stays_visible(start_hub, tmp_path):
    """Where audit.head is left beside it, the log says that records are missing; whoever rolls back cannot hide it."""
    async with start_hub() as hub:
        await backed_up(hub, tmp_path / "backup")
        await hub.environment()
    for path in hub.state_dir.glob("hub.db*"):
        path.unlink()
    if hub.store.url is not None:
        hub.store.execute("DROP SCHEMA public CASCADE")
        hub.store.execute("CREATE SCHEMA public")
    await restored(tmp_path / "backup", hub.state_dir, database=hub.store.url)
    async with start_hub() as hub:
        events = (await hub.http.get("/api/v1/audit", params={"action": "audit.gap"})).json()["events"]
        assert len(events) == 1


async def test_the_commands(start_hub, tmp_path, request):
    """One command each, on either database, with JSON for programs; what is restored is a hub that serves."""
    async with start_hub() as hub:
        await hub.environment()
        words = [sys.executable, "-m", "guardhouse", "hub"]
        where = ["--state-dir", str(hub.state_dir), *(["--database", hub.store.url] if hub.store.url else [])]
        target = request.getfixturevalue("other_database") if hub.store.url else None
        there = ["--state-dir", str(tmp_path / "new"), *(["--database", target] if target else [])]
        made = await trio.run_process(
            [*words, "backup", str(tmp_path / "b"), *where, "--with-keys", "--json"], capture_stdout=True
        )
        assert json.loads(made.stdout)["rows"]["environments"] == 1
    found = await trio.run_process([*words, "restore", str(tmp_path / "b"), *there, "--json"], capture_stdout=True)
    assert json.loads(found.stdout)["audit"]["good"]
    config = HubConfig(state_dir=tmp_path / "new", database=target, port=0)
    async with open_hub(config) as new, hub.http.__class__(base_url=new.url, headers=hub.http.headers) as http:
        assert (await http.get("/api/v1/environments/web-1")).status_code == 200
    again = await trio.run_process([*words, "restore", str(tmp_path / "b"), *there], capture_stderr=True, check=False)
    assert again.returncode == 125
    assert b"a restore never overwrites" in again.stderr

"""The audit chain: every tampering with the stored or exported log is found and named."""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text
from tests.hub.support import Store
from tests.support.runner_stub import connect_v1

from guardhouse.errors import SetupError
from guardhouse.hub.audit.chain import GENESIS, AuditSigner, canonical_json, link_hash, parse_public_key
from guardhouse.hub.audit.export import read_export, read_store
from guardhouse.hub.audit.syslog import parse_syslog
from guardhouse.hub.audit.verify import Report, verify
from guardhouse.hub.bootstrap import initialise
from guardhouse.hub.config import HubConfig

EXECS = {
    "ran": [
        {"index": 0, "parent": None, "path": "/usr/bin/bash", "argv": ["bash", "-c", "x"]},
        {"index": 1, "parent": 0, "path": "/usr/bin/rm", "argv": ["rm", "-rf", "my dir"]},
    ],
    "refused": [{"parent": 0, "path": "/usr/bin/curl", "argv": ["curl", "http://x"], "because": "no rule allows it"}],
    "left_out": 0,
}


async def some_history(hub) -> None:
    """A dozen records: environments made, a task run, a token looked at."""
    for number in range(4):
        await hub.environment(f"web-{number}")
    created = (await hub.http.get("/api/v1/environments/web-0/token")).json()
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online("web-0")
        started = await hub.start("cleanup --now", environment="web-0")
        task = await runner.expect("task.request", within_s=30)
        result = {"stdout": "", "stderr": "", "exit_code": 0, "execs": EXECS, "decision": {"verdict": "allow"}}
        await runner.result(task["task_id"], stdout_bytes=0, stderr_bytes=0, result=result)
        assert (await hub.result(started["id"], wait_s=30))["state"] == "succeeded"
    for number in range(4):
        assert (await hub.http.delete(f"/api/v1/environments/web-{number}")).status_code == 204


@dataclass
class History:
    """What one hub left, made once for all tests of this file: its store, an export, its public key."""

    store: Store
    export: bytes
    public_key: str


_made: dict[tuple[Path, bool], History] = {}


@pytest.fixture
async def history(request, start_hub, store_url, tmp_path_factory) -> History:
    key = (tmp_path_factory.getbasetemp(), store_url is not None)
    if key not in _made:
        async with start_hub() as hub:
            await some_history(hub)
            export = (await hub.http.get("/api/v1/audit/export")).content
            public_key = (await hub.http.get("/api/v1/audit/key")).json()["public_key"]
        kept = tmp_path_factory.mktemp("history")
        shutil.copytree(hub.state_dir, kept / "state")
        url = store_url and request.getfixturevalue("cluster").new_database(like=store_url)
        _made[key] = History(Store(kept / "state", url), export, public_key)
    return _made[key]


@pytest.fixture
async def store(request, history, tmp_path) -> AsyncIterator[Store]:
    """A copy of the store of a hub that has stopped, with a signed chain of 15 to 20 records."""
    shutil.copytree(history.store.state_dir, tmp_path / "copy")
    if history.store.url is None:
        yield Store(tmp_path / "copy", None)
        return
    cluster = request.getfixturevalue("cluster")
    url = cluster.new_database(like=history.store.url)
    yield Store(tmp_path / "copy", url)
    cluster.drop(url)


def verified(store: Store) -> Report:
    source, key = read_store(store.state_dir, database_url=store.url)
    return verify(source, parse_public_key(key), is_pinned=False)


def tamper(store: Store, *statements: str) -> Report:
    for statement in statements:
        store.execute(statement)
    return verified(store)


def said(report: Report) -> set[tuple[str, int | None]]:
    return {(one.kind, one.seq) for one in report.problems}


async def test_an_untouched_chain_is_good_and_signed_to_its_end(store):
    """The twin of all that follows: nothing is found in a log that nobody touched."""
    report = verified(store)
    assert report.problems == []
    assert report.records >= 12
    assert report.signed_to == report.last_seq == report.records


async def test_a_changed_record_is_named(store):
    """Whoever changes any column of a record changes what its hash says."""
    for column, value in (
        ("actor", "'tok_other'"),
        ("detail", '\'{"name":"other"}\''),
        ("detail", "detail || ' '"),
        ("at_ms", "at_ms + 1"),
        ("target", "NULL"),
        ("command", "'ls'"),
        ("executed", "'ls'"),
        ("hash", "zeroblob(32)"),
    ):
        before = store.execute(f"SELECT {column} FROM audit_events WHERE seq = 5")[0][0]
        if column == "hash" and store.url is not None:
            value = "decode(repeat('00', 32), 'hex')"
        report = tamper(store, f"UPDATE audit_events SET {column} = {value} WHERE seq = 5")
        assert ("changed", 5) in said(report), (column, report.problems)
        store.execute(f"UPDATE audit_events SET {column} = ? WHERE seq = 5", before)
    assert verified(store).is_good


async def test_a_lost_record_is_named(store):
    """A record deleted in the middle leaves its number."""
    report = tamper(store, "DELETE FROM audit_events WHERE seq IN (5, 6)")
    assert said(report) == {("lost", 5)}
    assert "records 5 to 6" in report.problems[0].text


async def test_the_first_record_cannot_go_unnoticed(store):
    """The chain begins with record 1."""
    assert ("lost", 1) in said(tamper(store, "DELETE FROM audit_events WHERE seq = 1"))


async def test_a_moved_record_is_named(store):
    """A record that was given another number is known by its hash."""
    last = verified(store).last_seq
    report = tamper(store, f"UPDATE audit_events SET seq = {last + 1} WHERE seq = 5")
    assert {("lost", 5), ("moved", last + 1)} <= said(report)


async def test_two_exchanged_records_are_named(store):
    """Two records that changed places are both moved."""
    report = tamper(
        store,
        "UPDATE audit_events SET seq = -5 WHERE seq = 5",
        "UPDATE audit_events SET seq = 5 WHERE seq = 8",
        "UPDATE audit_events SET seq = 8 WHERE seq = -5",
    )
    assert {("moved", 5), ("moved", 8)} <= said(report)


async def test_a_repeated_record_is_named(store):
    """A copy of a record under a further number repeats it."""
    last = verified(store).last_seq
    columns = "account_id, at_ms, actor, action, target, address, environment, task, command, executed, detail, hash"
    report = tamper(
        store,
        f"INSERT INTO audit_events (seq, {columns}) SELECT {last + 1}, {columns} FROM audit_events WHERE seq = 5",
    )
    assert ("repeated", last + 1) in said(report)


async def test_a_cut_off_end_is_named(store):
    """Records deleted at the end are missed by the checkpoint that covers them."""
    last = verified(store).last_seq
    report = tamper(store, f"DELETE FROM audit_events WHERE seq > {last - 3}")
    assert ("truncated", last - 2) in said(report)


async def test_a_cut_off_end_with_its_checkpoints_is_named(store):
    """Who also deletes the checkpoints is contradicted by the one in the state directory."""
    last = verified(store).last_seq
    report = tamper(
        store,
        f"DELETE FROM audit_events WHERE seq > {last - 3}",
        f"DELETE FROM audit_checkpoints WHERE seq > {last - 3}",
    )
    assert {("truncated", last - 2), ("checkpoint", last)} <= said(report)


def rewritten(store: Store) -> None:
    """Change record 5 and compute every hash after it anew, as somebody would who knows the form."""
    store.execute("UPDATE audit_events SET actor = 'tok_other' WHERE seq = 5")
    source, _ = read_store(store.state_dir, database_url=store.url)
    hashes, previous = {}, GENESIS
    for record in source.records():
        previous = hashes[record.seq] = link_hash(previous, record.body())
    for seq, value in hashes.items():
        store.execute("UPDATE audit_events SET hash = ? WHERE seq = ?", value, seq)


@pytest.mark.one_store("what a cut SQLite file does")
async def test_a_log_that_was_cut_in_the_middle_of_a_record(start_hub, tmp_path):
    """A copy whose write-ahead log ends within a record is named by what was signed; a cut database file is refused."""
    copy = tmp_path / "copy"
    copy.mkdir(mode=0o700)
    async with start_hub() as hub:
        await hub.environment()
        await hub.http.get("/api/v1/audit/export")
        last = (await hub.http.get("/api/v1/audit", params={"limit": 1})).json()["events"][0]["seq"]
        for name in ("hub.db", "hub.db-wal", "audit.key", "audit.head"):
            shutil.copyfile(hub.state_dir / name, copy / name)
    log = copy / "hub.db-wal"
    # Two thirds of it, and within a frame: 24 bytes of header and 24 before each page (sqlite.org/fileformat2.html).
    os.truncate(log, log.stat().st_size * 2 // 3 // 4120 * 4120 + 1_000)
    report = verified(Store(copy, None))
    assert "truncated" in {one.kind for one in report.problems}, report.problems
    assert report.problems[-1].seq == report.last_seq + 1 <= last
    log.unlink()
    database = copy / "hub.db"
    shutil.copyfile(hub.state_dir / "hub.db", database)
    os.truncate(database, database.stat().st_size // 2)
    with pytest.raises(SetupError, match="cannot read the audit log"):
        verified(Store(copy, None))


async def test_a_chain_written_anew_is_named(store):
    """Who computes all hashes anew still lacks the key that signed them."""
    rewritten(store)
    report = verified(store)
    assert any(one.kind == "changed" and "not the one that the hub signed" in one.text for one in report.problems)


async def test_a_forged_checkpoint_is_named(store):
    """A checkpoint signed with another key, or changed, is none."""
    rewritten(store)
    source, _ = read_store(store.state_dir, database_url=store.url)
    last = list(source.records())[-1]
    forged = AuditSigner(b"x" * 32).checkpoint(seq=last.seq, at_ms=1, hash_=last.hash, previous=None)
    store.execute("DELETE FROM audit_checkpoints")
    store.execute(
        "INSERT INTO audit_checkpoints (seq, at_ms, hash, previous, key_id, signature) VALUES (?, 1, ?, ?, ?, ?)",
        *(last.seq, last.hash, "", AuditSigner((store.state_dir / "audit.key").read_bytes()).key_id),
        forged.signature,
    )
    (store.state_dir / "audit.head").unlink()
    assert any("false signature" in one.text for one in verified(store).problems)


async def test_a_lost_checkpoint_is_named(start_hub):
    """Checkpoints hang together too."""
    for _ in range(3):
        async with start_hub() as hub:
            await hub.environment(f"web-{hub.hub.services.started_ms}")
    seqs = [row[0] for row in hub.store.execute("SELECT seq FROM audit_checkpoints ORDER BY seq")]
    assert len(seqs) >= 4
    report = tamper(hub.store, f"DELETE FROM audit_checkpoints WHERE seq = {seqs[2]}")
    assert ("checkpoint", seqs[3]) in said(report)


async def test_a_starting_hub_notices_what_was_cut_off(start_hub):
    """The hole stays visible: the numbers of the lost records are never used again."""
    async with start_hub() as hub:
        await hub.environment()
    last = verified(hub.store).last_seq
    tamper(
        hub.store,
        f"DELETE FROM audit_events WHERE seq > {last - 1}",
        f"DELETE FROM audit_checkpoints WHERE seq > {last - 1}",
    )
    async with start_hub() as hub:
        events = (await hub.http.get("/api/v1/audit", params={"action": "audit.gap"})).json()["events"]
        assert events[0]["detail"]["signed_seq"] == last
    report = verified(hub.store)
    assert said(report) == {("gap", last)}


async def test_a_lost_key_is_refused(start_hub, tmp_path):
    """A hub does not go on signing with another key as if nothing had happened."""
    async with start_hub():
        pass
    (tmp_path / "state" / "audit.key").unlink()
    with pytest.raises(SetupError, match=r"audit key '.*audit\.key' is missing"):
        async with start_hub():
            pass
    assert not (tmp_path / "state" / "audit.key").exists()
    (tmp_path / "state" / "audit.key").write_bytes(secrets.token_bytes(32))
    (tmp_path / "state" / "audit.key").chmod(0o600)
    with pytest.raises(ExceptionGroup) as caught:
        async with start_hub():
            pass
    assert caught.group_contains(SetupError, match="restore audit.key from the backup", depth=1)


# Exports.


async def exported(hub, path: Path, *, after: int = 0) -> Path:
    reply = await hub.http.get("/api/v1/audit/export", params={"after": after})
    assert reply.headers["content-type"] == "application/x-ndjson"
    path.write_bytes(reply.content)  # noqa: ASYNC240 - a small file
    return path


def check(path: Path) -> Report:
    source, key = read_export(path)
    return verify(source, parse_public_key(key), is_pinned=False)


async def test_exports_verify_whole_and_in_parts(hub, tmp_path):
    """An export is good by itself, also one that goes on where another ended."""
    await some_history(hub)
    whole = check(await exported(hub, tmp_path / "whole"))
    assert whole.problems == []
    assert whole.signed_to == whole.last_seq
    part = check(await exported(hub, tmp_path / "part", after=5))
    assert part.problems == []
    assert part.first_seq == 6
    assert (await hub.http.get("/api/v1/audit/export", params={"after": 10**9})).status_code == 404


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        pytest.param(lambda lines: lines[:5] + lines[6:], "lost", id="a line is missing"),
        pytest.param(lambda lines: [*lines[:5], lines[6], lines[5], *lines[7:]], "moved", id="two are exchanged"),
        pytest.param(lambda lines: [*lines[:6], lines[5], *lines[6:]], "repeated", id="one stands twice"),
        pytest.param(lambda lines: lines[:-1], "truncated", id="the last line is missing"),
        pytest.param(lambda lines: [*lines[:-6], lines[-1]], "truncated", id="cut before the last line"),
        pytest.param(lambda lines: [*lines[:7], lines[7][:60]], "truncated", id="cut in the middle of a record"),
        pytest.param(lambda lines: [*lines[:7], lines[7][:60]], "unreadable", id="the half record is named"),
        pytest.param(
            lambda lines: [line.replace(b"web-1", b"web-9") for line in lines], "changed", id="a value is changed"
        ),
        pytest.param(
            lambda lines: [line.replace(b'"at_ms":', b'"at_ms": ') for line in lines], "unreadable", id="a blank more"
        ),
        pytest.param(lambda lines: lines[1:], "unreadable", id="the first line is missing"),
    ],
)
async def test_tampered_exports_are_named(history, tmp_path, change, kind):
    """Each way to change a file is found."""
    path = tmp_path / "export"
    lines = history.export.splitlines(keepends=True)
    path.write_bytes(b"".join(change(lines)))
    source, _ = read_export(path)
    report = verify(source, parse_public_key(history.public_key), is_pinned=True)
    assert kind in {one.kind for one in report.problems}, report.problems


async def test_the_command_verifies_and_finds(history, tmp_path):
    """`guardhouse audit verify` ends with 0 for a good file and 1, naming the record, for another."""
    path, key = tmp_path / "export", history.public_key
    path.write_bytes(history.export)

    async def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return await trio.to_thread.run_sync(
            lambda: subprocess.run(
                [sys.executable, "-m", "guardhouse", "audit", "verify", *arguments],
                capture_output=True,
                text=True,
                check=False,
            )
        )

    good = await run("--file", str(path), "--public-key", key)
    assert (good.returncode, "good" in good.stdout) == (0, True), good
    database = ["--database", history.store.url] if history.store.url else []
    assert (await run("--state-dir", str(history.store.state_dir), *database)).returncode == 0
    other = AuditSigner(b"y" * 32).public_text
    assert (await run("--file", str(path), "--public-key", other)).returncode == 1
    path.write_bytes(path.read_bytes().replace(b"web-1", b"web-9"))
    bad = await run("--file", str(path), "--public-key", key, "--json")
    assert bad.returncode == 1
    assert json.loads(bad.stdout)["problems"][0]["kind"] == "changed"


# What is recorded, and how it is found.


async def test_what_really_ran_is_found(hub):
    """A search by what was executed finds the task, by what was asked too."""
    await some_history(hub)

    async def actions(**query) -> list[str]:
        return [one["action"] for one in (await hub.http.get("/api/v1/audit", params=query)).json()["events"]]

    assert await actions(executed="rm -rf 'my dir'") == ["task.exec"]
    assert await actions(text="curl http") == ["task.exec"]
    assert await actions(command="cleanup") == ["task.exec", "task.end", "task.create"]
    assert await actions(action="environment.delete", limit=2) == ["environment.delete"] * 2
    assert await actions(actor="runner", action="task.") == ["task.exec", "task.end"]
    assert await actions(since="2001-01-01T00:00:00Z", until="2002-01-01T00:00:00Z") == []
    assert (await hub.http.get("/api/v1/audit", params={"since": "yesterday"})).status_code == 400
    ended = (await hub.http.get("/api/v1/audit", params={"action": "task.end"})).json()["events"][0]
    assert (ended["detail"]["state"], ended["detail"]["decision"]) == ("succeeded", {"verdict": "allow"})


def test_every_action_is_in_the_manual():
    """Whoever searches the log finds in docs/hub.md each word that the hub writes into it."""
    words = set()
    for path in Path("src/guardhouse/hub").rglob("*.py"):
        words |= set(re.findall(r'action="([a-z_]+\.[a-z_.]+)"', path.read_text()))
    manual = Path("docs/hub.md").read_text()
    table = manual.partition("| action | when |")[2].partition("\n\n")[0]
    shown = set()
    for row in table.splitlines():
        before = ""
        for word in re.findall(r"`([a-z_.]+)`", row.partition("|")[2].partition("|")[0]):
            # ".delete" after "team.member.add" is "team.member.delete".
            before = before.rpartition(".")[0] + word if word.startswith(".") else word
            shown.add(before)
    assert len(words) > 40
    assert words <= shown, sorted(words - shown)


def test_canonical_form_is_one():
    """Order, blanks, floats and unpaired surrogates make no second form of one value."""
    assert canonical_json({"b": 1, "a": [1.5, "\ud800", ("x",)]}) == '{"a":["1.5","\\\\ud800",["x"]],"b":1}'


def test_records_of_before_are_chained_by_the_migration(tmp_path):
    """What a hub of the first version recorded stands in the chain after the upgrade."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "sealing.key").write_bytes(b"k" * 32)
    (state / "sealing.key").chmod(0o600)
    config = Config()
    config.set_main_option("script_location", str(Path("src/guardhouse/hub/migrations").resolve()))
    engine = create_engine(f"sqlite:///{state / 'hub.db'}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for seq in (1, 2, 4):
            connection.execute(
                text(
                    "INSERT INTO audit_events (seq, account_id, at_ms, actor, action, detail)"
                    " VALUES (:seq, 'acc_main', 5, 'tok_x', 'team.create', :detail)"
                ),
                {"seq": seq, "detail": '{"name":"é","n":1.5}'},
            )
    engine.dispose()
    initialise(HubConfig(state_dir=state)).close()
    report = verified(Store(state, None))
    assert (report.problems, report.records) == ([], 3)


# Syslog.


def test_bad_targets_are_refused():
    """A target that cannot be meant is named before the hub starts."""
    for wrong in ("logs", "http://x", "unix:log", "udp://x/y", "udp://:514", "tcp://x:99999"):
        with pytest.raises(SetupError, match="audit-syslog"):
            parse_syslog(wrong)


async def test_records_reach_a_datagram_collector(start_hub, tmp_path):
    """Over a socket each record is one RFC 5424 message that holds the exported line."""
    path = str(tmp_path / "log")
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        await sock.bind(path)
        async with start_hub(audit_syslog=f"unix:{path}") as hub:
            await hub.environment()
            with trio.fail_after(30):
                while True:
                    message = await sock.recv(65_536)
                    if b"environment.create" in message:
                        break
    assert message.startswith(b"<110>1 20")
    assert json.loads(message.partition(b"\xef\xbb\xbf")[2])["action"] == "environment.create"


async def test_a_collector_that_was_away_gets_everything_once(start_hub):
    """Over TCP the hub goes on where it stopped, over its own restart too."""
    seqs: list[int] = []

    async def serve(stream: trio.SocketStream) -> None:
        buffer = b""
        async for chunk in stream:
            buffer += chunk
            while True:
                size, blank, rest = buffer.partition(b" ")
                if not blank or len(rest) < int(size):
                    break
                seqs.append(json.loads(rest[: int(size)].partition(b"\xef\xbb\xbf")[2])["seq"])
                buffer = rest[int(size) :]

    async def heard(seq: int) -> None:
        with trio.fail_after(30):
            while not seqs or seqs[-1] < seq:  # noqa: ASYNC110 - filled by another task
                await trio.sleep(0.02)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        for _ in range(2):
            async with start_hub(audit_syslog=f"tcp://127.0.0.1:{port}") as hub:
                await hub.environment(f"web-{hub.hub.services.started_ms}")
                newest = (await hub.http.get("/api/v1/audit", params={"limit": 1})).json()["events"][0]["seq"]
                await heard(newest)

                async def stored(newest: int = newest, hub=hub) -> bool:
                    rows = hub.store.execute("SELECT seq FROM audit_positions")
                    return bool(rows) and rows[0][0] >= newest

                await hub.until(stored, within_s=30)
        nursery.cancel_scope.cancel()
    assert seqs == list(range(1, len(seqs) + 1))

"""A change of the key that signs the audit log: what verifies over it, with which key, and what does not."""

import base64
import json
import subprocess
import sys

import msgspec
import pytest
import trio
from tests.hub.support import Store

from guardhouse.errors import SetupError
from guardhouse.hub.audit.chain import AuditRecord, AuditSigner, Checkpoint, link_hash
from guardhouse.hub.audit.export import read_export, read_store
from guardhouse.hub.audit.keys import KEY_CHANGE, change_detail
from guardhouse.hub.audit.rotate import KeyChanged, change_audit_key
from guardhouse.hub.audit.verify import AuditSource, Report, verify
from guardhouse.hub.backup import make_backup, restore_backup
from guardhouse.hub.config import HubConfig

OLD, NEW, THIRD = (AuditSigner(letter * 32) for letter in (b"o", b"n", b"t"))


class Log:
    """A log made by hand: records one after the other, and checkpoints of whatever key."""

    def __init__(self) -> None:
        self.records: list[AuditRecord] = []
        self.checkpoints: list[Checkpoint] = []
        self.hash = bytes(32)

    def record(self, action: str = "hub.start", detail: dict[str, object] | None = None) -> int:
        text = msgspec.json.encode(detail or {}, order="sorted").decode()
        nothing = dict.fromkeys(("target", "address", "environment", "task", "command", "executed"))
        made = AuditRecord(
            seq=len(self.records) + 1,
            account_id="acc",
            at_ms=1,
            actor="hub",
            action=action,
            detail=text,
            hash=b"",
            **nothing,
        )
        self.hash = link_hash(self.hash, made.body())
        self.records.append(msgspec.structs.replace(made, hash=self.hash))
        return made.seq

    def signed(self, signer: AuditSigner) -> "Log":
        """Add a record and a checkpoint of ``signer`` behind it."""
        self.record()
        return self.checkpoint(signer)

    def checkpoint(self, signer: AuditSigner) -> "Log":
        previous = self.checkpoints[-1] if self.checkpoints else None
        seq = len(self.records)
        self.checkpoints.append(signer.checkpoint(seq=seq, at_ms=1, hash_=self.hash, previous=previous))
        return self

    def change(self, old: AuditSigner, new: AuditSigner, *, by: AuditSigner | None) -> "Log":
        """Add the record of a change, and a checkpoint of ``by`` at it."""
        self.record(KEY_CHANGE, change_detail(old=old.public_key, new=new.public_key, was_lost=by is None))
        return self if by is None else self.checkpoint(by)

    def verified(self, believed: AuditSigner) -> Report:
        source = AuditSource(records=lambda: self.records, checkpoints=self.checkpoints)
        return verify(source, believed.public_key, is_pinned=True)


def two_changes() -> Log:
    log = Log().signed(OLD).change(OLD, NEW, by=OLD).signed(NEW)
    return log.signed(NEW).change(NEW, THIRD, by=NEW).signed(THIRD)


@pytest.mark.parametrize("believed", [OLD, NEW, THIRD])
def test_any_key_of_the_line_vouches_for_all(believed):
    """Whoever kept the first key, the newest or one between verifies the whole log with it."""
    report = two_changes().verified(believed)
    assert report.problems == []
    assert report.signed_to == report.last_seq == 6
    assert [one.seq for one in report.key_changes] == [2, 5]


@pytest.mark.parametrize(
    ("log", "believed", "words"),
    [
        pytest.param(
            Log().signed(OLD).change(OLD, NEW, by=None).signed(NEW), OLD, "nobody vouches", id="no word of the old key"
        ),
        pytest.param(
            Log().signed(OLD).change(OLD, NEW, by=NEW).signed(NEW), OLD, "nobody vouches", id="the new key's own word"
        ),
        pytest.param(
            Log().signed(OLD).change(OLD, NEW, by=OLD).signed(NEW).signed(OLD),
            NEW,
            "at 4 is signed with key",
            id="the old key signs on",
        ),
        pytest.param(
            Log().signed(OLD).change(THIRD, NEW, by=THIRD).signed(NEW),
            NEW,
            "at 1 is signed with key",
            id="a line that never was",
        ),
        pytest.param(
            Log().signed(OLD).change(OLD, NEW, by=OLD), NEW, "nothing is signed with the key", id="the new never signed"
        ),
        pytest.param(two_changes(), AuditSigner(b"x" * 32), "is signed with key", id="a key of another log"),
    ],
)
def test_a_key_that_nobody_vouches_for_is_named(log, believed, words):
    """A key is believed only for the word of one that is believed already."""
    report = log.verified(believed)
    assert any(one.kind == "key" and words in one.text for one in report.problems), report.problems


def test_words_behind_a_hole_name_no_key():
    """A record whose predecessor is gone cannot be checked, so its words make no key believed."""
    log = Log().signed(OLD).signed(OLD).change(OLD, NEW, by=OLD).signed(NEW)
    forged = msgspec.structs.replace(
        log.records[2],
        detail=msgspec.json.encode(
            change_detail(old=OLD.public_key, new=THIRD.public_key, was_lost=False), order="sorted"
        ).decode(),
    )
    log.records[1:3] = [forged]
    report = log.verified(OLD)
    assert report.key_changes == []
    assert {one.kind for one in report.problems} >= {"lost", "key"}


def rotated(hub, store_url: str | None, *, is_lost: bool = False) -> KeyChanged:
    return change_audit_key(HubConfig(state_dir=hub.state_dir, database=store_url), is_lost=is_lost)


def verified(store: Store, key: str | None = None) -> Report:
    source, own = read_store(store.state_dir, database_url=store.url)
    raw = base64.b64decode(key or own)
    return verify(source, raw, is_pinned=key is not None)


async def test_a_hub_changes_its_key(start_hub, store_url, tmp_path):
    """The log verifies with the old key and with the new one; store, export and a backup of it alike."""
    async with start_hub() as hub:
        await hub.environment()
        old = (await hub.http.get("/api/v1/audit/key")).json()["public_key"]
        with pytest.raises(SetupError, match="another hub uses state directory"):
            await trio.to_thread.run_sync(rotated, hub, store_url)
    made = await trio.to_thread.run_sync(rotated, hub, store_url)
    assert verified(hub.store, made.public_key).problems == []
    async with start_hub() as hub:
        assert (await hub.http.get("/api/v1/audit/key")).json()["public_key"] == made.public_key
        await hub.environment("web-2")
        export = tmp_path / "export"
        export.write_bytes((await hub.http.get("/api/v1/audit/export")).content)
        events = (await hub.http.get("/api/v1/audit", params={"action": "audit_key"})).json()["events"]
    assert [one["action"] for one in events] == ["audit_key.begin", "audit_key.rotate"]
    source, own = read_export(export)
    assert own == made.public_key
    for key in (old, made.public_key):
        for report in (verified(hub.store, key), verify(source, base64.b64decode(key), is_pinned=True)):
            assert report.problems == []
            assert report.signed_to == report.last_seq
            assert [one.seq for one in report.key_changes] == [made.seq]
    config = HubConfig(state_dir=hub.state_dir, database=store_url)
    backup = tmp_path / "backup"
    await trio.to_thread.run_sync(lambda: make_backup(config, backup, with_keys=True))
    elsewhere = HubConfig(state_dir=tmp_path / "elsewhere")
    restored = await trio.to_thread.run_sync(lambda: restore_backup(elsewhere, backup))
    assert restored.audit.problems == []


@pytest.mark.parametrize("reached_the_store", [True, False])
async def test_a_change_that_was_cut_short(start_hub, store_url, tmp_path, reached_the_store):
    """Whichever of the two keys signed last is taken at the next start, and nothing of the log is lost."""
    async with start_hub():
        pass
    files = [tmp_path / "state" / name for name in ("audit.key", "audit.key.next", "audit.head")]
    before = {path: path.read_bytes() for path in files if path.exists()}
    if reached_the_store:
        config = HubConfig(state_dir=tmp_path / "state", database=store_url)
        await trio.to_thread.run_sync(lambda: change_audit_key(config, is_lost=False))
        files[0].rename(files[1])
        for path, content in before.items():
            path.write_bytes(content)
            path.chmod(0o600)
    else:
        files[1].write_bytes(b"n" * 32)
        files[1].chmod(0o600)
    config = HubConfig(state_dir=tmp_path / "state", database=store_url)
    with pytest.raises(SetupError, match="a change of a key was cut short"):
        await trio.to_thread.run_sync(lambda: make_backup(config, tmp_path / "backup", with_keys=True))
    async with start_hub() as hub:
        assert not files[1].exists()
        assert (files[0].read_bytes() == before[files[0]]) is not reached_the_store
    report = verified(hub.store)
    assert (report.problems, report.signed_to) == ([], report.last_seq)


async def test_a_key_that_is_lost_for_good(start_hub, store_url, tmp_path):
    """The hub goes on when it is told to; the log says for ever that nobody vouches for what came after."""
    async with start_hub() as hub:
        await hub.environment()
        old = (await hub.http.get("/api/v1/audit/key")).json()["public_key"]
    with pytest.raises(SetupError, match="leave --key-lost away"):
        await trio.to_thread.run_sync(lambda: rotated(hub, store_url, is_lost=True))
    (tmp_path / "state" / "audit.key").unlink()
    with pytest.raises(SetupError, match="is missing"):
        await trio.to_thread.run_sync(rotated, hub, store_url)
    made = await trio.to_thread.run_sync(lambda: rotated(hub, store_url, is_lost=True))
    async with start_hub() as hub:
        assert (await hub.status())["name"] == "web-1"
    with_new, with_old = verified(hub.store, made.public_key), verified(hub.store, old)
    assert [(one.kind, one.seq) for one in with_new.problems] == [("key", made.seq)]
    assert with_new.signed_to == with_new.last_seq
    assert with_old.signed_to < made.seq
    assert {one.kind for one in with_old.problems} == {"key"}


@pytest.mark.one_store("what is refused lies in the state directory, whichever the database")
async def test_a_backup_of_before_the_change(start_hub, tmp_path):
    """It belongs to the key of its time: with the new one it is refused, and so is what would hide the hole."""
    async with start_hub() as hub:
        await hub.environment()
    config, backup = HubConfig(state_dir=hub.state_dir), tmp_path / "backup"
    await trio.to_thread.run_sync(lambda: make_backup(config, backup, with_keys=False))
    old = (hub.state_dir / "audit.key").read_bytes()
    await trio.to_thread.run_sync(rotated, hub, None)
    for name in ("hub.db", "hub.db-wal", "hub.db-shm"):
        (hub.state_dir / name).unlink(missing_ok=True)
    with pytest.raises(SetupError, match="signed with key"):
        await trio.to_thread.run_sync(lambda: restore_backup(config, backup))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    for name in ("sealing.key", "audit.key"):
        (elsewhere / name).touch(mode=0o600)
        (elsewhere / name).write_bytes((hub.state_dir / name).read_bytes())
    accepted = await trio.to_thread.run_sync(
        lambda: restore_backup(HubConfig(state_dir=elsewhere), backup, accept_broken_audit=True)
    )
    assert {one.kind for one in accepted.audit.problems} == {"key"}
    (hub.state_dir / "audit.key").write_bytes(old)
    await trio.to_thread.run_sync(lambda: restore_backup(config, backup))
    with pytest.raises(ExceptionGroup) as caught:
        async with start_hub():
            pass
    assert caught.group_contains(SetupError, match="move audit.head away and keep it", depth=1)
    (hub.state_dir / "audit.head").rename(tmp_path / "audit.head.kept")
    async with start_hub() as hub:
        assert (await hub.status())["name"] == "web-1"


async def test_a_store_that_lost_signed_records_keeps_its_key(start_hub, store_url):
    """A hole is recorded by the key that knows of it, before another takes its place."""
    async with start_hub() as hub:
        await hub.environment()
    seq = verified(hub.store).last_seq
    for table in ("audit_events", "audit_checkpoints"):
        hub.store.execute(f"DELETE FROM {table} WHERE seq = {seq}")
    with pytest.raises(SetupError, match="start the hub once, which records the hole"):
        await trio.to_thread.run_sync(rotated, hub, store_url)


@pytest.mark.one_store("what the commands print; test_a_hub_changes_its_key asks the store")
async def test_the_commands(start_hub, tmp_path):
    """`hub rotate-audit-key` prints the key to keep, `audit verify` shows the change."""
    async with start_hub() as hub:
        pass

    async def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "guardhouse", *arguments, "--state-dir", str(hub.state_dir)]
        return await trio.to_thread.run_sync(
            lambda: subprocess.run(command, capture_output=True, text=True, check=False)
        )

    made = json.loads((await run("hub", "rotate-audit-key", "--json")).stdout)
    key = tmp_path / "hub-audit.pub"
    key.write_text(made["public_key"] + "\n")
    checked = await run("audit", "verify", "--public-key", str(key), "--json")
    assert checked.returncode == 0, checked
    found = json.loads(checked.stdout)
    assert found["key_changes"] == [{"seq": made["seq"], "old_key_id": made["old_key_id"], "key_id": made["key_id"]}]
    empty = HubConfig(state_dir=tmp_path / "empty")
    with pytest.raises(SetupError, match="no hub's store"):
        await trio.to_thread.run_sync(lambda: change_audit_key(empty, is_lost=False))

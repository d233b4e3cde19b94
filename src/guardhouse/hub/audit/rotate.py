"""Another key takes the place of the one that signs the audit log, with the old one's word for it in the log itself.

The new key is on the disk before the store changes and takes the old one's name after it; a crash in between leaves
both, and the next start looks which of them signed last. `guardhouse.hub.audit.keys` says what the records hold. Runs
in the hub, at start, and in `guardhouse hub rotate-audit-key`.
"""

import base64
import secrets
from dataclasses import dataclass
from functools import partial

import msgspec
import structlog
import trio
from sqlalchemy import Connection, select

from guardhouse.errors import SetupError
from guardhouse.hub.audit.chain import AuditSigner, Checkpoint, key_id_of
from guardhouse.hub.audit.keeper import read_head_file
from guardhouse.hub.audit.keys import KEY_CHANGE, change_detail
from guardhouse.hub.backends import choose_backend
from guardhouse.hub.clock import now_ms
from guardhouse.hub.config import HubConfig
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.schema import audit_events
from guardhouse.hub.state_dir import AUDIT_KEY_BYTES, StateDir, write_secret_file
from guardhouse.hub.store import audit

__all__ = ["KeyChanged", "change_audit_key", "open_audit_signer", "rotate_audit_key"]

_log = structlog.get_logger("guardhouse.hub.audit")


@dataclass(frozen=True)
class KeyChanged:
    """A change of the key: ids, the new public key in base64, and the record that it stands at."""

    old_key_id: str
    key_id: str
    public_key: str
    seq: int


async def open_audit_signer(state: StateDir, database: Database) -> AuditSigner:
    """Return what signs the audit log; finish a change of key that was cut short.

    Raises:
        SetupError: the key is missing, or open to others.
    """
    following = state.next_audit_key()
    if following is not None:
        last = await database.read(audit.last_checkpoint)
        if last is not None and last.key_id == AuditSigner(following).key_id:
            await trio.to_thread.run_sync(_write_head, state, last)
            state.adopt_next_audit_key()
            _log.warning("audit_key_changed", note="an earlier change of the key was finished")
        else:
            state.drop_next_audit_key()
            _log.warning("audit_key_kept", note="an earlier change of the key had not reached the store")
    return AuditSigner(state.audit_key())


def _write_head(state: StateDir, checkpoint: Checkpoint) -> None:
    write_secret_file(state.audit_head, msgspec.json.encode(checkpoint))


async def rotate_audit_key(state: StateDir, database: Database, *, is_lost: bool) -> KeyChanged:
    """Let a new key sign from here on, and the old one say so with its last checkpoint.

    Args:
        is_lost: there is no old key any more; the log then says for ever that nobody vouches for the new one.

    Raises:
        SetupError: the old key is missing without ``is_lost``, or is there with it; the store is not as it was signed
            last. Nothing is changed then.
        StoreUnavailable: the disk is full or failing; nothing is changed.
    """
    last = await database.read(audit.last_checkpoint)
    old = None
    if is_lost:
        if state.audit_key_file.exists():
            raise SetupError(
                f"{str(state.audit_key_file)!r} is there: leave --key-lost away; if it is another hub's, move it away"
                " first"
            )
        old_public_key = await database.read(_known_public_key) or b""
        if last is None or key_id_of(old_public_key) != last.key_id:
            raise SetupError("the store does not say which key its audit log was signed with; restore a backup")
    else:
        old = await open_audit_signer(state, database)
        old_public_key = old.public_key
        if last is not None and last.key_id != old.key_id:
            raise SetupError(
                f"the audit log was signed with key {last.key_id}, but audit.key is {old.key_id}; restore audit.key"
                " from the backup that the database is from"
            )
    head = read_head_file(state.audit_head)
    if head is not None and (last is None or head.seq > last.seq):
        raise SetupError(
            f"{str(state.audit_head)!r} says that {head.seq} audit records were signed, the store has"
            f" {last.seq if last else 0}: start the hub once, which records the hole"
        )
    seed = secrets.token_bytes(AUDIT_KEY_BYTES)
    new = AuditSigner(seed)
    write_secret_file(state.next_audit_key_file, seed)
    try:
        change = partial(_change, old=old, old_public_key=old_public_key, new=new)
        seq, made = await database.write(change)
    except (StoreUnavailable, SetupError):
        state.drop_next_audit_key()
        raise
    await trio.to_thread.run_sync(_write_head, state, made)
    state.adopt_next_audit_key()
    return KeyChanged(key_id_of(old_public_key), new.key_id, new.public_text, seq)


def _known_public_key(connection: Connection) -> bytes | None:
    """Return the public key that the hub's last start, or a change since, wrote into the log."""
    columns = audit_events.c
    query = select(columns.detail).where(columns.action.in_(("hub.start", "audit_key.begin")))
    detail = connection.execute(query.order_by(columns.seq.desc()).limit(1)).scalar_one_or_none()
    text = None if detail is None else msgspec.json.decode(detail).get("audit_public_key")
    return base64.b64decode(text) if isinstance(text, str) else None


def _change(
    connection: Connection, *, old: AuditSigner | None, old_public_key: bytes, new: AuditSigner
) -> tuple[int, Checkpoint]:
    at_ms = now_ms()
    detail = change_detail(old=old_public_key, new=new.public_key, was_lost=old is None)
    seq = audit.record_audit_event(
        connection, at_ms=at_ms, actor="hub", action=KEY_CHANGE, target=new.key_id, address=None, **detail
    )
    if old is not None:
        audit.store_checkpoint(connection, old, at_ms=at_ms)
    # Signed by the new key at once, so that whoever has only that one can verify the log from now on.
    audit.record_audit_event(
        connection,
        at_ms=at_ms,
        actor="hub",
        action="audit_key.begin",
        target=new.key_id,
        address=None,
        audit_public_key=new.public_text,
    )
    made = audit.store_checkpoint(connection, new, at_ms=at_ms)
    if made is None:
        raise SetupError("the store has a checkpoint behind its last record; 'guardhouse audit verify' says more")
    return seq, made


def change_audit_key(config: HubConfig, *, is_lost: bool) -> KeyChanged:
    """Change the key of a hub that does not run.

    Raises:
        SetupError: the hub runs, there is no store, or as `rotate_audit_key` says.
    """

    async def change() -> KeyChanged | SetupError:
        state = StateDir.open(config.state_dir)
        try:
            backend = choose_backend(state.database, config.database)
            if not backend.exists():
                return SetupError(f"no hub's store is at {backend.label}; give the hub's --state-dir or --database")
            database = Database(backend)
            async with trio.open_nursery() as nursery:
                await nursery.start(database.run)
                try:
                    return await rotate_audit_key(state, database, is_lost=is_lost)
                except StoreUnavailable as error:
                    return SetupError(str(error))
                except SetupError as error:
                    # Raised outside of the nursery, which would wrap it.
                    return error
                finally:
                    database.close()
        finally:
            state.close()

    found = trio.run(change)
    if isinstance(found, SetupError):
        raise found
    return found

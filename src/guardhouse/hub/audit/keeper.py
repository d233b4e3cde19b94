"""Signs where the chain stands, every minute and every so many records, and notices when the store lost some.

The newest checkpoint is also kept in the state directory, beside the database: a database that was cut back to an
earlier state then contradicts it. Runs in the hub.
"""

import base64
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog
import trio
from sqlalchemy import Connection, select

from guardhouse.errors import SetupError
from guardhouse.hub.audit.chain import AuditSigner, Checkpoint
from guardhouse.hub.clock import now_ms
from guardhouse.hub.clock_steps import ClockWatch, newest_record_ms
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.schema import audit_events
from guardhouse.hub.state_dir import write_secret_file
from guardhouse.hub.store import audit

__all__ = ["CHECKPOINT_EVERY_S", "CHECKPOINT_RECORDS", "AuditKeeper", "read_head_file"]

_log = structlog.get_logger("guardhouse.hub.audit")

CHECKPOINT_EVERY_S: Final = 60.0
CHECKPOINT_RECORDS: Final = 512


_OLDER_STORE: Final = (
    "; where that database is older than a change of the key, move audit.head away and keep it: it is the proof of what"
    " was recorded since"
)


def read_head_file(path: Path) -> Checkpoint | None:
    """Return the checkpoint in ``audit.head``, or None when there is no such file.

    Raises:
        SetupError: it is not what the hub writes there.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(content, type=Checkpoint)
    except msgspec.DecodeError as error:
        raise SetupError(f"{str(path)!r} is not what the hub wrote ({error}); restore it from the backup") from error


class AuditKeeper:
    """The chain's checkpoints. One for each hub."""

    def __init__(self, database: Database, signer: AuditSigner, head_file: Path) -> None:
        self._database = database
        self.signer = signer
        self._head_file = head_file
        self._signed_seq = 0

    async def check_store(self) -> None:
        """Refuse a store that has lost everything; must come before anything is written to it.

        Raises:
            SetupError: it has no audit record, and some were signed; or ``audit.head`` is broken.
        """
        head = read_head_file(self._head_file)
        last, _ = await self._database.read(audit.read_audit_head)
        if head is not None and last == 0:
            raise SetupError(
                f"the store is empty, and {str(self._head_file)!r} says that {head.seq} audit records were signed: the"
                " database was lost, emptied, or is another one; bring it back ('guardhouse hub restore' takes a"
                " backup), or move audit.head away to start anew with nothing"
            )

    async def start(self, clock: ClockWatch, *, version: str) -> None:
        """Compare store and clock with what was signed and recorded last, and record that the hub has started.

        Raises:
            SetupError: the store was signed by another key, or the file that holds the last checkpoint is broken.
        """
        head = read_head_file(self._head_file)
        stored = await self._database.read(audit.last_checkpoint)
        for one in (head, stored):
            if one is not None and one.key_id != self.signer.key_id:
                raise SetupError(
                    f"the audit log was signed with key {one.key_id}, but audit.key is {self.signer.key_id};"
                    " restore audit.key from the backup that the database is from"
                    f"{_OLDER_STORE if one is head else ''}"
                )
        newest = max((one for one in (head, stored) if one is not None), key=lambda one: one.seq, default=None)
        await self._database.write(partial(self._record_start, clock=clock, newest=newest, version=version))
        await self.checkpoint()

    def _record_start(
        self, connection: Connection, *, clock: ClockWatch, newest: Checkpoint | None, version: str
    ) -> None:
        at_ms = now_ms()
        last, _ = audit.read_audit_head(connection)
        recorded_ms = newest_record_ms(connection)
        if newest is not None:
            found = connection.execute(
                select(audit_events.c.hash).where(audit_events.c.seq == newest.seq)
            ).scalar_one_or_none()
            if found is None or bytes(found) != newest.hash:
                _log.error("audit_chain_broken", signed_seq=newest.seq, stored_seq=last)
                # The numbers of what is gone are not used again, so that the hole stays where everybody sees it.
                audit.record_audit_event(
                    connection,
                    at_ms=at_ms,
                    actor="hub",
                    action="audit.gap",
                    target=None,
                    address=None,
                    seq=max(last, newest.seq) + 1,
                    signed_seq=newest.seq,
                    signed_hash=newest.hash.hex(),
                    stored_seq=last,
                    reason="records that were signed are missing or were changed; was the database restored or edited?",
                )
        audit.record_audit_event(
            connection,
            at_ms=at_ms,
            actor="hub",
            action="hub.start",
            target=None,
            address=None,
            version=version,
            audit_public_key=base64.b64encode(self.signer.public_key).decode(),
        )
        clock.begin(connection, recorded_ms=recorded_ms)

    async def run(self) -> None:
        """Sign from time to time, for ever."""
        while True:
            with trio.move_on_after(CHECKPOINT_EVERY_S):
                await self._database.until_news(self._signed_seq + CHECKPOINT_RECORDS)
            await self.checkpoint()

    async def checkpoint(self) -> Checkpoint | None:
        """Sign where the chain stands now; None where nothing new is there. A failing disk is logged."""
        try:
            made = await self._database.write(partial(audit.store_checkpoint, signer=self.signer, at_ms=now_ms()))
            if made is not None:
                self._signed_seq = made.seq
                await trio.to_thread.run_sync(partial(write_secret_file, self._head_file, msgspec.json.encode(made)))
        except (StoreUnavailable, SetupError) as error:
            _log.error("audit_not_signed", error=str(error))
            return None
        return made

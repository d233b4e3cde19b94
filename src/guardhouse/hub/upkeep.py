"""What a hub does again and again while it serves: note uses of tokens, delete old rows, look at its certificate.

Runs in the hub.
"""

from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio
from sqlalchemy import Connection

from guardhouse.errors import SetupError
from guardhouse.hub.authorize import Credentials
from guardhouse.hub.clock import iso_time, now_ms
from guardhouse.hub.clock_steps import ClockWatch
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.store import approvals, fanouts, people, schedules, sessions, tasks, tokens
from guardhouse.hub.transport import certificate_notice, read_validity

__all__ = ["delete_old_tasks", "look_at_certificate", "store_uses", "watch_certificate"]

_log = structlog.get_logger("guardhouse.hub")

RETENTION_EVERY_S: Final = 3_600.0
RETENTION_BATCH: Final = 500
STORE_USES_EVERY_S: Final = 60.0
CERTIFICATE_EVERY_S: Final = 86_400.0


def look_at_certificate(certificate: Path) -> None:
    """Log when the hub's certificate is over, not yet valid, or over soon."""
    try:
        notice = certificate_notice(read_validity(certificate), now_ms=now_ms())
    except SetupError as error:
        _log.error("certificate_not_read", error=str(error))
        return
    if notice is not None:
        event, details = notice
        tell = _log.warning if event == "certificate_ends_soon" else _log.error
        tell(event, path=str(certificate), **details)


async def watch_certificate(certificate: Path) -> None:
    """Look at the certificate now and once a day, for ever."""
    while True:
        await trio.to_thread.run_sync(look_at_certificate, certificate)
        await trio.sleep(CERTIFICATE_EVERY_S)


async def store_uses(database: Database, credentials: Credentials) -> None:
    """Write down, once a minute and for ever, when API tokens and sign-ins were used last."""
    while True:
        await trio.sleep(STORE_USES_EVERY_S)
        tokens_used_ms, sign_ins_used_ms = credentials.take_uses()
        if not tokens_used_ms and not sign_ins_used_ms:
            continue

        def store(
            connection: Connection,
            tokens_ms: dict[str, int] = tokens_used_ms,
            sign_ins_ms: dict[str, int] = sign_ins_used_ms,
        ) -> None:
            tokens.touch_api_tokens(connection, tokens_ms)
            for sign_in_id, at_ms in sign_ins_ms.items():
                people.touch_sign_in(connection, sign_in_id, last_used_ms=at_ms)

        database.write_soon(store)


async def delete_old_tasks(database: Database, retention_days: int, clock: ClockWatch) -> None:
    """Delete finished tasks and answered questions older than the retention, for ever; one of 0 deletes none.

    Nothing while ``clock`` holds deletions.
    """
    while retention_days > 0:
        held_until_ms = clock.held_until_ms()
        if held_until_ms is not None:
            _log.warning("retention_held", until=iso_time(held_until_ms), because="the clock jumped ahead")
            await trio.sleep(RETENTION_EVERY_S)
            continue
        before_ms = now_ms() - retention_days * 86_400_000
        try:
            deleted = await database.write(
                partial(tasks.delete_old_tasks, before_ms=before_ms, limit=RETENTION_BATCH), durable=False
            )
            for delete in (
                approvals.delete_old_approvals,
                fanouts.delete_old_fanouts,
                schedules.delete_old_schedules,
            ):
                await database.write(partial(delete, before_ms=before_ms), durable=False)
            await database.write(
                partial(sessions.delete_old_sessions, before_ms=before_ms, limit=RETENTION_BATCH), durable=False
            )
        except StoreUnavailable as error:
            _log.warning("retention_failed", error=str(error))
            deleted = 0
        if deleted:
            _log.info("tasks_deleted", count=deleted, retention_days=retention_days)
        if deleted < RETENTION_BATCH:
            await trio.sleep(RETENTION_EVERY_S)

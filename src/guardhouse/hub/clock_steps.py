"""Whether the wall clock may be believed when something is to be deleted for its age: not soon after it jumped.

A clock that is set months ahead by mistake makes everything look old, and what is deleted does not come back when the
clock does. So a jump is recorded, and holds deletions until somebody had time to see it. Runs in the hub.
"""

from typing import Final

import msgspec
import structlog
import trio
from sqlalchemy import Connection, select

from guardhouse.hub.clock import Moment, iso_time, now_ms
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.schema import audit_events
from guardhouse.hub.store.audit import read_position, record_audit_event, store_position

__all__ = ["HOLD_MS", "STEP_MS", "ClockStep", "ClockWatch", "decide_held_until", "newest_record_ms"]

_log = structlog.get_logger("guardhouse.hub")

DAY_MS: Final = 86_400_000
# Far more than a clock is corrected by, and far less than anything is kept for.
STEP_MS: Final = DAY_MS
# A weekend, and a working day to see it in.
HOLD_MS: Final = 3 * DAY_MS
LOOK_EVERY_S: Final = 5.0
ACTION: Final = "clock.step"
# Written while no hub runs, of which the newest record may be: what it says of the time is the clock in question.
_OFFLINE: Final = frozenset({"hub.restore", "audit_key.rotate", "audit_key.begin", "sealing_key.rotate"})
_LOOK_BACK_RECORDS: Final = 20


class ClockStep(msgspec.Struct, frozen=True):
    """A jump of the wall clock: what it showed after (Unix ms), and by how much it was further than it should be."""

    at_ms: int
    by_ms: int


def decide_held_until(step: ClockStep | None, *, now_ms: int) -> int | None:
    """Return until when (Unix ms) the newest jump holds deletions at ``now_ms``; None where it holds none.

    Only a jump ahead makes things look older than they are. One that was taken back is recorded as the newest jump.
    """
    if step is None or step.by_ms < 0 or not step.at_ms - STEP_MS <= now_ms < step.at_ms + HOLD_MS:
        return None
    return step.at_ms + HOLD_MS


class ClockWatch:
    """Compares the wall clock with one that nobody sets, and at the start with the newest record of the store."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen = Moment()
        self._step: ClockStep | None = None

    def held_until_ms(self) -> int | None:
        """Return until when (Unix ms) nothing is deleted for its age, or None where it may be."""
        self.look()
        return decide_held_until(self._step, now_ms=now_ms())

    def look(self) -> None:
        """Notice a jump since the last one, and put its record in line."""
        by_ms = now_ms() - self._seen.clock_ms()
        if abs(by_ms) < STEP_MS:
            return
        step = ClockStep(at_ms=now_ms(), by_ms=by_ms)
        self._seen, self._step = Moment(), step
        _tell(step)
        try:
            self._database.write_soon(lambda connection: _record(connection, step, seen="running"))
        except StoreUnavailable:
            # The hub stops: the next start sees the jump by the newest record.
            _log.warning("clock_step_not_recorded")

    def begin(self, connection: Connection, *, recorded_ms: int | None) -> None:
        """Take up an earlier jump, and look for one since ``recorded_ms``, the newest record of the hub before."""
        self._seen, self._step = Moment(), _read(connection)
        if recorded_ms is None or abs(now_ms() - recorded_ms) < STEP_MS:
            return
        self._step = ClockStep(at_ms=now_ms(), by_ms=now_ms() - recorded_ms)
        _tell(self._step)
        _record(connection, self._step, seen="start")

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            await trio.sleep(LOOK_EVERY_S)
            self.look()


def _tell(step: ClockStep) -> None:
    held_until_ms = decide_held_until(step, now_ms=step.at_ms)
    _log.warning("clock_jumped", by_s=step.by_ms // 1000, deletions_held_until=iso_time(held_until_ms))


def _record(connection: Connection, step: ClockStep, *, seen: str) -> None:
    number = record_audit_event(
        connection,
        at_ms=step.at_ms,
        actor="hub",
        action=ACTION,
        target=None,
        address=None,
        by_s=step.by_ms // 1000,
        seen=seen,
        deletions_held_until=iso_time(decide_held_until(step, now_ms=step.at_ms)),
    )
    store_position(connection, ACTION, number)


class _Detail(msgspec.Struct):
    by_s: int


def _read(connection: Connection) -> ClockStep | None:
    number = read_position(connection, ACTION)
    query = select(audit_events.c.at_ms, audit_events.c.detail).where(audit_events.c.seq == number)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return ClockStep(at_ms=row.at_ms, by_ms=msgspec.json.decode(row.detail, type=_Detail).by_s * 1000)


def newest_record_ms(connection: Connection) -> int | None:
    """Return the time (Unix ms) of the newest audit record that a running hub wrote; None where there is none."""
    query = select(audit_events.c.action, audit_events.c.at_ms).order_by(audit_events.c.seq.desc())
    rows = connection.execute(query.limit(_LOOK_BACK_RECORDS))
    return next((row.at_ms for row in rows if row.action not in _OFFLINE), None)

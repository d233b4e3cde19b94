"""Runners that come and go, as audit records: bounded, so that one that flaps, or a stranger who knocks, fills no log.

Each environment may have `BURST` records at once and one a minute after that; so may each source of connections that
were refused before an environment was known, and all these sources together `STRANGERS_BURST` and ten a minute. What is
left out is counted, by action, and the count stands in the next record of the same environment or source, or after
`OMITTED_AFTER_S` in one of its own (`runner.omit`). Knows no sockets. Runs in the hub.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import structlog
import trio

from guardhouse.hub.clock import now_ms
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.source import source_of
from guardhouse.hub.store.audit import record_audit_event

__all__ = ["BURST", "OMITTED_AFTER_S", "STRANGERS_BURST", "PresenceLog"]

_log = structlog.get_logger("guardhouse.hub.gateway")

BURST: Final = 10
_REFILL_S: Final = 60.0
STRANGERS_BURST: Final = 100
_STRANGERS_REFILL_S: Final = 6.0
OMITTED_AFTER_S: Final = 600.0
_LOOK_S: Final = 60.0
# Beyond these the ones not heard of for longest are forgotten; what was left out of them is still counted.
KEYS_MAX: Final = 30_000
_REASON_MAX_CHARS: Final = 512


@dataclass
class _Bucket:
    """What one environment or source may still have recorded, and what was left out of it since ``omitted_ms``."""

    left: float
    at_ms: int
    environment: str | None
    address: str | None
    omitted: Counter[str] = field(default_factory=Counter)
    omitted_ms: int = 0

    def take(self, at_ms: int, *, size: float, refill_s: float) -> bool:
        """Count one record; False where there is no room for it."""
        self.left = min(size, self.left + max(0, at_ms - self.at_ms) / 1000 / refill_s)
        self.at_ms = at_ms
        if self.left < 1:
            return False
        self.left -= 1
        return True


class PresenceLog:
    """Writes the records of one hub."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._strangers = _Bucket(STRANGERS_BURST, 0, None, None)
        self._is_stopped = False

    def note(self, action: str, *, environment: str, address: str | None, **detail: Any) -> None:
        """Record what became of an environment's runner."""
        if not self._is_stopped:
            self._record(environment, action, environment=environment, address=address, detail=detail)

    def note_refused(
        self, *, environment: str | None, address: str | None, status: int, code: str, reason: str
    ) -> None:
        """Record that a connection was refused; ``environment`` where its credential was right and that is known."""
        if self._is_stopped:
            return
        detail = {"status": status, "code": code, "reason": reason[:_REASON_MAX_CHARS]}
        key = environment or f"source {source_of(address)}"
        self._record(key, "runner.refuse", environment=environment, address=address, detail=detail)

    def note_stop(self, *, runners: int) -> None:
        """Record that the hub stops, which ends every connection: one record, and none for each from now on."""
        if not self._is_stopped:
            for bucket in [*self._buckets.values(), self._strangers]:
                self._tell_omitted(bucket, now_ms())
            self._is_stopped = True
            self._write("hub.stop", actor="hub", target=None, environment=None, address=None, runners=runners)

    async def run(self) -> None:
        """Write down, for ever, what was left out a while ago."""
        while True:
            await trio.sleep(_LOOK_S)
            self.sweep(now_ms())

    def sweep(self, at_ms: int) -> None:
        """Write down what was left out at least `OMITTED_AFTER_S` ago, and forget who has a full bucket."""
        for key, bucket in list(self._buckets.items()):
            if bucket.omitted and at_ms - bucket.omitted_ms >= OMITTED_AFTER_S * 1000:
                self._tell_omitted(bucket, at_ms)
            if not bucket.omitted and at_ms - bucket.at_ms >= BURST * _REFILL_S * 1000:
                del self._buckets[key]
        if self._strangers.omitted and at_ms - self._strangers.omitted_ms >= OMITTED_AFTER_S * 1000:
            self._tell_omitted(self._strangers, at_ms)

    def _record(
        self, key: str, action: str, *, environment: str | None, address: str | None, detail: dict[str, Any]
    ) -> None:
        at_ms = now_ms()
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(BURST, at_ms, environment, address)
        self._buckets.move_to_end(key)
        self._forget_oldest(at_ms)
        if not bucket.take(at_ms, size=BURST, refill_s=_REFILL_S):
            _count(bucket, action, at_ms)
            return
        if environment is None and not self._strangers.take(at_ms, size=STRANGERS_BURST, refill_s=_STRANGERS_REFILL_S):
            _count(self._strangers, action, at_ms)
            return
        omitted, bucket.omitted = bucket.omitted, Counter()
        more = {"omitted": dict(omitted)} if omitted else {}
        self._write(
            action, actor="runner", target=environment, environment=environment, address=address, **detail, **more
        )

    def _forget_oldest(self, at_ms: int) -> None:
        while len(self._buckets) > KEYS_MAX:
            _, oldest = self._buckets.popitem(last=False)
            for action, count in oldest.omitted.items():
                _count(self._strangers, action, at_ms, count=count)

    def _tell_omitted(self, bucket: _Bucket, at_ms: int) -> None:
        omitted, bucket.omitted = bucket.omitted, Counter()
        if omitted:
            self._write(
                "runner.omit",
                actor="hub",
                target=bucket.environment,
                environment=bucket.environment,
                address=bucket.address,
                omitted=dict(omitted),
                for_s=(at_ms - bucket.omitted_ms) // 1000,
            )

    def _write(self, action: str, **values: Any) -> None:
        try:
            self._database.write_soon(partial(record_audit_event, at_ms=now_ms(), action=action, **values))
        except StoreUnavailable as error:
            _log.warning("presence_not_recorded", action=action, error=str(error))


def _count(bucket: _Bucket, action: str, at_ms: int, *, count: int = 1) -> None:
    if not bucket.omitted:
        bucket.omitted_ms = at_ms
    bucket.omitted[action] += count

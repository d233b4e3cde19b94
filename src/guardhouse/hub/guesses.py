"""How many wrong tokens one source may present: beyond it none is looked at, for as long as it takes.

A token that this source was let in with before is no guess, so that others behind the same address (a NAT, a proxy)
keep working while somebody guesses there. Pure: told the time. Runs in the hub.
"""

from collections import OrderedDict
from typing import Final

import structlog

__all__ = ["GUESSES_PER_HOUR", "GuessLimit"]

_log = structlog.get_logger("guardhouse.hub.guesses")

# FIGURES "Tokens": at most this many in any hour. A bucket of half of it, refilled with half of it an hour, is that.
GUESSES_PER_HOUR: Final = 200
_BUCKET: Final = GUESSES_PER_HOUR / 2
_REFILL_PER_MS: Final = _BUCKET / 3_600_000
# Beyond these many the ones not seen for longest are forgotten: whoever has more addresses has more guesses anyway.
SOURCES_MAX: Final = 10_000
KNOWN_MAX: Final = 10_000


class GuessLimit:
    """Counts wrong tokens by source."""

    def __init__(self) -> None:
        # Guesses that are left, and when that was computed (Unix ms).
        self._left: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._known: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    def wait_s(self, source: str, digest: bytes, *, now_ms: int) -> float:
        """Return 0 when the token with ``digest`` may be looked at, else for how many seconds it may not be."""
        if (source, digest) in self._known:
            return 0.0
        left = self._left_now(source, now_ms)
        return 0.0 if left >= 1 else (1 - left) / _REFILL_PER_MS / 1000

    def note_wrong(self, source: str, digest: bytes, *, now_ms: int) -> None:
        """Count a token that opened nothing."""
        self._known.pop((source, digest), None)
        left = self._left_now(source, now_ms) - 1
        self._left[source] = (left, now_ms)
        self._left.move_to_end(source)
        if len(self._left) > SOURCES_MAX:
            self._left.popitem(last=False)
        if left < 1:
            _log.warning("guesses_throttled", source=source, limit_per_hour=GUESSES_PER_HOUR)

    def note_right(self, source: str, digest: bytes) -> None:
        """Remember a token that was right."""
        self._known[(source, digest)] = None
        self._known.move_to_end((source, digest))
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)

    def _left_now(self, source: str, now_ms: int) -> float:
        found = self._left.get(source)
        if found is None:
            return _BUCKET
        left, at_ms = found
        return min(_BUCKET, left + max(0, now_ms - at_ms) * _REFILL_PER_MS)

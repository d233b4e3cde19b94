"""Wall-clock time as the hub stores it and as people read it, and what a clock that is set does not change.

Runs in the hub.
"""

import time
from datetime import UTC, datetime

__all__ = ["Moment", "iso_time", "now_ms", "parse_time", "relative_time", "steady_ms"]


def now_ms() -> int:
    """Return the wall clock in Unix milliseconds, UTC."""
    return time.time_ns() // 1_000_000


def steady_ms() -> int:
    """Return milliseconds by a clock that nobody sets, since some moment: for what is counted in memory only."""
    return time.monotonic_ns() // 1_000_000


class Moment:
    """Now, by the wall clock and by one that nobody sets: how long ago it was stays true when the wall clock is set."""

    __slots__ = ("_steady_ms", "_wall_ms")

    # A clock that is corrected bit by bit is not set: within this both agree.
    SAME_MS = 1_000

    def __init__(self) -> None:
        self._wall_ms = now_ms()
        self._steady_ms = steady_ms()

    def clock_ms(self) -> int:
        """Return what the wall clock would show now (Unix ms) had nobody set it since."""
        return self._wall_ms + steady_ms() - self._steady_ms

    def seen_now_ms(self) -> int:
        """Return when this moment was by the wall clock as it is set now (Unix ms)."""
        step_ms = now_ms() - self.clock_ms()
        return self._wall_ms if abs(step_ms) < self.SAME_MS else self._wall_ms + step_ms


def iso_time(at_ms: int | None) -> str | None:
    """Return ``at_ms`` as ISO 8601 with milliseconds and ``Z``, or None for None."""
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def relative_time(at_ms: int | None, *, now: int) -> str:
    """Return ``at_ms`` seen from ``now`` (both Unix ms) as the seed's list shows it: "just now", "2 minutes ago"."""
    if at_ms is None:
        return "never"
    seconds = max(0, now - at_ms) // 1000
    if seconds < 60:
        return "just now"
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"


def parse_time(text: str) -> int:
    """Return an ISO 8601 time with its zone, or whole Unix milliseconds, as Unix ms.

    Raises:
        ValueError: it is neither.
    """
    if text.isascii() and text.isdigit() and len(text) <= 15:
        return int(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no ISO 8601 time") from error
    if found.tzinfo is None:
        raise ValueError(f"{text!r} does not say its zone; end it with Z for UTC")
    return int(found.timestamp() * 1000)

"""Wall-clock time as the hub stores it and as people read it. Runs in the hub."""

import time
from datetime import UTC, datetime

__all__ = ["iso_time", "now_ms", "parse_time", "relative_time"]


def now_ms() -> int:
    """Return the wall clock in Unix milliseconds, UTC."""
    return time.time_ns() // 1_000_000


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

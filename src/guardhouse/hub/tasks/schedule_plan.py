"""What becomes of a task that is to start later, given the time: it waits, starts, or is too late. Pure.

Knows one time, one grace and whether a runner is there; knows no store and no clock. Runs in the hub.
"""

from dataclasses import dataclass
from enum import StrEnum

from guardhouse.hub.clock import iso_time

__all__ = ["Due", "ScheduleState", "Verdict", "decide_due"]


class ScheduleState(StrEnum):
    """Where it is. ``expired``: nobody was there in time; ``refused``: who asked may not any more, or it cannot run."""

    WAITING = "waiting"
    STARTED = "started"
    EXPIRED = "expired"
    REFUSED = "refused"
    CANCELLED = "cancelled"


class Verdict(StrEnum):
    """What to do now."""

    WAIT = "wait"
    START = "start"
    EXPIRE = "expire"


@dataclass(frozen=True)
class Due:
    """The verdict; with ``EXPIRE`` the reason, with ``WAIT`` when to look again (Unix ms)."""

    verdict: Verdict
    reason: str = ""
    look_again_ms: int = 0


def decide_due(
    *, run_at_ms: int, grace_ms: int, now_ms: int, is_online: bool, served_since_ms: int, looked_ms: int
) -> Due:
    """Return what to do with a schedule that waits. All times are Unix ms.

    Args:
        grace_ms: how late it may start, while its environment or the hub is away.
        is_online: whether a runner that takes tasks is connected.
        served_since_ms: when this hub began; before that it started nothing.
        looked_ms: when this was asked last, by the same clock; a clock that is set, or a host that is suspended, leaves
            a gap.
    """
    if now_ms < run_at_ms:
        return Due(Verdict.WAIT, look_again_ms=run_at_ms)
    end_ms = run_at_ms + grace_ms
    if now_ms <= end_ms and is_online:
        return Due(Verdict.START)
    if now_ms < end_ms:
        return Due(Verdict.WAIT, look_again_ms=end_ms)
    late_s = grace_ms / 1000
    if served_since_ms > end_ms:
        return Due(Verdict.EXPIRE, f"the hub did not run at its time, nor in the {late_s:g} s after it")
    if looked_ms < run_at_ms:
        gap = f"the hub's clock went from {iso_time(looked_ms)} to {iso_time(now_ms)}"
        return Due(Verdict.EXPIRE, f"{gap}: it was set, or the host stood still; more than {late_s:g} s late by then")
    return Due(Verdict.EXPIRE, f"its environment was not online at its time, nor in the {late_s:g} s after it")

"""When to dial again: full jitter under a cap that grows from 1 s to 5 min with the time without a connection.

Knows no clock and no socket: the supervisor hands it times, says how a connection went and asks for the next delay.
"""

from collections.abc import Callable
from typing import Final

from guardhouse.limits import RECONNECT_FIRST_S, RECONNECT_MAX_S

__all__ = ["STEADY_AFTER_S", "ReconnectSchedule"]

# A platform that accepts and drops at once must not be hammered: only a connection that held counts.
STEADY_AFTER_S: Final = 5.0
# For so long the cap grows as fast as the time away, after it by an eighth of that. Ten thousand runners without a hub
# for a minute dial 1,150 times a second in all; the longest cap is reached after 39 minutes, with 67 dials a second.
FAST_GROWTH_S: Final = 10.0
SLOW_GROWTH: Final = 1 / 8


class ReconnectSchedule:
    """Delays between attempts (AWS Architecture Blog, "Exponential Backoff And Jitter": full jitter).

    The cap grows with the time that the platform has been away: 11 s after ten seconds, and an eighth of what comes
    after. Doubled with each attempt, as in that article, it is far longer than a short outage for whoever draws a few
    short delays in it: of 1,000 runners that lost their hub for 3 s the last was away for 66 s (bench/README.md,
    "connected"). Grown in step with the time away for long, the last of a fleet that a busy hub takes a minute to let
    in would be in after two.
    """

    def __init__(self, random: Callable[[], float], *, now_s: float) -> None:
        """``random`` returns a number in [0, 1), as `random.random` does; ``now_s`` is on any clock that only rises."""
        self._random = random
        self._away_since_s = now_s

    def cap_s(self, now_s: float) -> float:
        """Return the longest that the next delay can be, in seconds."""
        away_s = max(0.0, now_s - self._away_since_s)
        fast_s = min(away_s, FAST_GROWTH_S)
        return min(RECONNECT_MAX_S, RECONNECT_FIRST_S + fast_s + (away_s - fast_s) * SLOW_GROWTH)

    def next_delay_s(self, now_s: float, *, retry_after_s: float = 0.0) -> float:
        """Return how long to wait before the next attempt.

        Args:
            now_s: the time, on the same clock.
            retry_after_s: how long the platform asked to be left alone (``Retry-After``). A proxy tells all runners
                the same, so runners spread over half as long again; more than `RECONNECT_MAX_S` is not heeded.
        """
        delay_s = self._random() * self.cap_s(now_s)
        return max(delay_s, min(RECONNECT_MAX_S, retry_after_s * (1 + self._random() / 2)))

    def connection_ended(self, now_s: float, *, welcomed: bool, lasted_s: float) -> None:
        """Start again from the first delay when the connection was a real one."""
        if welcomed and lasted_s >= STEADY_AFTER_S:
            self._away_since_s = now_s

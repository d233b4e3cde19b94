"""When to dial again: full jitter under a cap that doubles from 1 s to 5 min, for ever.

Knows no clock and no socket: the supervisor asks for the next delay and says how a connection went.
"""

from collections.abc import Callable
from typing import Final

from guardhouse.limits import RECONNECT_FIRST_S, RECONNECT_MAX_S

__all__ = ["STEADY_AFTER_S", "ReconnectSchedule"]

# A platform that accepts and drops at once must not be hammered: only a connection that held counts.
STEADY_AFTER_S: Final = 5.0


class ReconnectSchedule:
    """Delays between attempts (AWS Architecture Blog, "Exponential Backoff And Jitter": full jitter)."""

    def __init__(self, random: Callable[[], float]) -> None:
        """``random`` returns a number in [0, 1), as `random.random` does."""
        self._random = random
        self._failures = 0

    @property
    def cap_s(self) -> float:
        """The longest that the next delay can be, in seconds."""
        # 2**9 s is past the cap already; the bound keeps the number small after years of failures.
        return min(RECONNECT_MAX_S, RECONNECT_FIRST_S * 2.0 ** min(self._failures, 16))

    def next_delay_s(self, *, retry_after_s: float = 0.0) -> float:
        """Return how long to wait before the next attempt and count the failure that led here.

        Args:
            retry_after_s: how long the platform asked to be left alone (``Retry-After``). A proxy tells all runners
                the same, so runners spread over half as long again; more than `RECONNECT_MAX_S` is not heeded.
        """
        delay_s = self._random() * self.cap_s
        self._failures += 1
        return max(delay_s, min(RECONNECT_MAX_S, retry_after_s * (1 + self._random() / 2)))

    def connection_ended(self, *, welcomed: bool, lasted_s: float) -> None:
        """Start again from the first delay when the connection was a real one."""
        if welcomed and lasted_s >= STEADY_AFTER_S:
            self._failures = 0

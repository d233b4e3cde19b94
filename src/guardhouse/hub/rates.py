"""How many requests one caller may send: a token bucket for each, so that one program in a loop slows nobody else.

A caller is whoever is authenticated (a token, a person), and on public routes the source address. Wrong tokens have a
bucket of their own (`guardhouse.hub.guesses`). Pure: told the time. Runs in the hub.
"""

from collections import OrderedDict
from typing import Final

from guardhouse.errors import Refusal

__all__ = ["RateLimit", "TooManyRequests"]

# Beyond these many callers the ones not heard of for longest are forgotten, which fills their bucket.
CALLERS_MAX: Final = 20_000


class TooManyRequests(Refusal):
    """The caller's bucket is empty; ``wait_s`` seconds refill it for one request."""

    def __init__(self, message: str, *, wait_s: float) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class RateLimit:
    """One bucket a caller, of one minute's worth of requests."""

    def __init__(self, per_minute: int) -> None:
        """``per_minute`` is both the bucket and what refills it each minute; 0 limits nothing."""
        self._size = float(per_minute)
        self._per_ms = per_minute / 60_000
        self._left: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def take(self, caller: str, *, now_ms: int) -> None:
        """Count one request of ``caller``.

        Raises:
            TooManyRequests: it has sent too many; this one does not count.
        """
        if not self._size:
            return
        left, at_ms = self._left.get(caller, (self._size, now_ms))
        left = min(self._size, left + max(0, now_ms - at_ms) * self._per_ms)
        if left < 1:
            raise TooManyRequests(
                f"more than {self._size:.0f} requests a minute came from {caller}",
                wait_s=(1 - left) / self._per_ms / 1000,
            )
        self._left[caller] = (left - 1, now_ms)
        self._left.move_to_end(caller)
        if len(self._left) > CALLERS_MAX:
            self._left.popitem(last=False)

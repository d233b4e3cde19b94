"""How often one person's password may be tried wrongly before it is not looked at for a while. Pure: told the time.

Beside the limit by source (`guardhouse.hub.guesses`), which one attacker with many addresses passes. A lock is short,
so that nobody can shut a colleague out for long; sign-ins that stand are not touched. Runs in the hub.
"""

from collections import OrderedDict
from typing import Final

__all__ = ["Lockout"]

FREE_TRIES: Final = 5
FIRST_LOCK_MS: Final = 60_000
LONGEST_LOCK_MS: Final = 15 * 60_000
FORGOTTEN_AFTER_MS: Final = 24 * 3_600_000
KEPT_MAX: Final = 10_000


class Lockout:
    """Counts wrong passwords by address, of people that there are and that there are not."""

    def __init__(self) -> None:
        # Wrong tries in a row, and when the last one was (Unix ms).
        self._wrong: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def wait_s(self, email: str, *, now_ms: int) -> float:
        """Return 0 when a password for ``email`` may be looked at, else for how many seconds it may not be."""
        wrong, at_ms = self._wrong.get(email, (0, 0))
        if wrong < FREE_TRIES or now_ms - at_ms >= FORGOTTEN_AFTER_MS:
            return 0.0
        lock_ms: int = min(LONGEST_LOCK_MS, FIRST_LOCK_MS << min(wrong - FREE_TRIES, 10))
        return max(0, at_ms + lock_ms - now_ms) / 1000

    def note(self, email: str, *, right: bool, now_ms: int) -> bool:
        """Count a try that was looked at; return whether it locks."""
        wrong, at_ms = self._wrong.pop(email, (0, 0))
        if right:
            return False
        if now_ms - at_ms >= FORGOTTEN_AFTER_MS:
            wrong = 0
        self._wrong[email] = (wrong + 1, now_ms)
        if len(self._wrong) > KEPT_MAX:
            self._wrong.popitem(last=False)
        return wrong + 1 >= FREE_TRIES

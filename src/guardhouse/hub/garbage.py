"""When Python's collector of garbage looks through everything: not while a crowd of runners comes in.

Thousands of runners that come at once leave millions of objects that stay. By Python's own thresholds (700, 10, 10)
they are all looked through each time that a quarter more is there, in the end for a second and more, in which nothing
else is done (bench/README.md, "connected"). Runs in the hub.
"""

import gc
from collections.abc import Callable
from typing import Final

import trio

__all__ = ["FullCollections", "collect_less_often", "pace_full_collections"]

# Objects made before the young are looked through, and how many such looks make one at the middle generation.
_YOUNG: Final = 10_000
_MIDDLE: Final = 10
# Looks at the middle generation, of 100,000 new objects each, before everything may be looked through.
FULL_AFTER: Final = 20
# The same while a crowd comes: 10,000 runners are some 50. Who comes and goes at once may leave so much at most.
FULL_AFTER_IN_CROWD: Final = 200
# A crowd is over when nobody has waited for so long.
CALM_AFTER_S: Final = 5.0
# A hub that starts has its runners before it within seconds.
START_S: Final = 15.0
LOOK_EVERY_S: Final = 0.5


class FullCollections:
    """Says after how many looks at the middle generation everything may be looked through; knows no clock."""

    def __init__(self, now_s: float) -> None:
        """The hub starts at ``now_s``."""
        self._crowd_until_s = now_s + START_S

    def after(self, now_s: float, *, waiting: int) -> int:
        """Return that number while ``waiting`` connections wait to be served."""
        if waiting:
            self._crowd_until_s = max(self._crowd_until_s, now_s + CALM_AFTER_S)
        return FULL_AFTER_IN_CROWD if now_s < self._crowd_until_s else FULL_AFTER


def collect_less_often() -> None:
    """Set the process up: what was loaded by now is never garbage, and no full collection while the hub starts."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, FULL_AFTER_IN_CROWD)


async def pace_full_collections(waiting: Callable[[], int]) -> None:
    """Let full collections wait while a crowd comes in, for ever.

    Args:
        waiting: how many connections wait to be served now.
    """
    collections = FullCollections(trio.current_time())
    while True:
        gc.set_threshold(_YOUNG, _MIDDLE, collections.after(trio.current_time(), waiting=waiting()))
        await trio.sleep(LOOK_EVERY_S)

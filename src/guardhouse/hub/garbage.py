"""When Python's collector of garbage looks through everything: seldom, and not while a crowd of runners comes in.

Thousands of runners that come at once leave millions of objects that stay. By Python's own thresholds (700, 10, 10)
they are all looked through each time that a quarter more is there, in the end for a second and more, in which nothing
else is done (bench/README.md, "connected"). So, while a crowd comes, only what is young is looked through, and once it
is in, what its runners left is put aside (`gc.freeze`), where no later collection looks. A runner's connection that
ends may leave cycles there: after so many, and once a day, everything is looked through. Runs in the hub.
"""

import enum
import gc
from collections.abc import Callable
from time import perf_counter
from typing import Final

import structlog
import trio

__all__ = ["Action", "Collections", "collect_less_often", "pace_collections"]

_log = structlog.get_logger("guardhouse.hub")

# Objects made before the young are looked through, and how many such looks make one at the middle generation.
_YOUNG: Final = 10_000
_MIDDLE: Final = 10
# Looks at the middle generation, of 100,000 new objects each, before what is not put aside is looked through.
_OLD: Final = 20
# The same while a crowd comes: 10,000 runners are some 50. Who comes and goes at once may leave so much at most.
_OLD_IN_CROWD: Final = 200
# A crowd is over when nobody has waited for so long.
CALM_AFTER_S: Final = 5.0
# A hub that starts has its runners before it within seconds.
START_S: Final = 15.0
# Runners more than when it was put aside last. Whatever else is alive then, such as requests, must be little of it: its
# cycles stay until everything is looked through.
ARRIVED_MIN: Final = 500
# Connections of runners that ended: some 50 KiB each at most, of which nearly all is let go without the collector.
ENDED_MAX: Final = 1_000
EVERYTHING_EVERY_S: Final = 86_400.0
LOOK_EVERY_S: Final = 0.5


class Action(enum.Enum):
    """What to do about garbage now."""

    NOTHING = enum.auto()
    HURRY = enum.auto()  # a crowd comes: look through the young alone
    CALM_DOWN = enum.auto()  # it is in: look through the old as well
    PUT_ASIDE = enum.auto()
    COLLECT_EVERYTHING = enum.auto()


class Collections:
    """Decides; knows no clock."""

    def __init__(self, now_s: float) -> None:
        """The hub starts at ``now_s``."""
        self._crowd_until_s = now_s + START_S
        self._in_crowd = True
        self._everything_s = now_s
        self._ended_before = 0
        self._put_aside = 0

    def decide(self, now_s: float, *, waiting: int, connected: int, ended: int) -> Action:
        """Return what to do, asked for again and again.

        Args:
            now_s: the time, on a clock that only rises.
            waiting: connections that wait to be served.
            connected: runners that are.
            ended: runners' connections that have ended since the start.
        """
        if waiting:
            self._crowd_until_s = max(self._crowd_until_s, now_s + CALM_AFTER_S)
        if now_s < self._crowd_until_s:
            was_calm, self._in_crowd = not self._in_crowd, True
            return Action.HURRY if was_calm else Action.NOTHING
        was_crowd, self._in_crowd = self._in_crowd, False
        if ended - self._ended_before >= ENDED_MAX or now_s - self._everything_s >= EVERYTHING_EVERY_S:
            self._ended_before, self._everything_s, self._put_aside = ended, now_s, connected
            return Action.COLLECT_EVERYTHING
        if not was_crowd:
            return Action.NOTHING
        if connected - self._put_aside < ARRIVED_MIN:
            return Action.CALM_DOWN
        self._put_aside = connected
        return Action.PUT_ASIDE


def collect_less_often() -> None:
    """Set the process up: what was loaded by now is never garbage, and nothing old is looked through at the start."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD_IN_CROWD)


async def pace_collections(
    *, waiting: Callable[[], int], connected: Callable[[], int], ended: Callable[[], int]
) -> None:
    """Do what `Collections` decides, for ever.

    Args:
        waiting: how many connections wait to be served now.
        connected: how many runners are connected.
        ended: how many connections of runners have ended since the start.
    """
    collections = Collections(trio.current_time())
    while True:
        _do(collections.decide(trio.current_time(), waiting=waiting(), connected=connected(), ended=ended()))
        await trio.sleep(LOOK_EVERY_S)


def _do(action: Action) -> None:
    match action:
        case Action.HURRY:
            gc.set_threshold(_YOUNG, _MIDDLE, _OLD_IN_CROWD)
        case Action.CALM_DOWN:
            gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
        case Action.PUT_ASIDE:
            gc.collect(1)
            gc.freeze()
            gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
        case Action.COLLECT_EVERYTHING:
            began_s = perf_counter()
            gc.unfreeze()
            found = gc.collect()
            gc.freeze()
            gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
            _log.debug("garbage_collected", objects=found, took_s=round(perf_counter() - began_s, 2))
        case Action.NOTHING:
            pass

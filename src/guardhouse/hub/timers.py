"""One task for the timers of thousands of connections.

A trio task that only sleeps costs some kilobytes, and half a tenth of a millisecond to start; with several for each of
10,000 runners that is a part of what a connection costs (bench/README.md, "connected"). Runs in the hub.
"""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Final

import trio

__all__ = ["Timer", "Timers"]

# Calls may come so much late; those that are due together share a turn of the event loop.
GRANULARITY_S: Final = 0.25


class Timer:
    """One function that is called again and again, each time when it said; it must not block."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[float], float]) -> None:
        self._call: Callable[[float], float] | None = call

    def cancel(self) -> None:
        """Have it called no more, and let go of it at once."""
        self._call = None

    @property
    def is_cancelled(self) -> bool:
        """Whether it is called no more."""
        return self._call is None

    def fire(self, now_s: float) -> float:
        """Call it with the time, unless it was cancelled, and return when it wants to be called next."""
        return now_s if self._call is None else self._call(now_s)


class Timers:
    """Timers by the time when they are due. `run` in a nursery."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Timer]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._due)

    def add(self, call: Callable[[float], float], *, due_s: float) -> Timer:
        """Call ``call`` at ``due_s`` on trio's clock, and again at the times that it returns, until it is cancelled."""
        timer = Timer(call)
        heapq.heappush(self._due, (due_s, next(self._numbers), timer))
        return timer

    def fire_due(self, now_s: float) -> None:
        """Call each that is due, once."""
        again: list[tuple[float, int, Timer]] = []
        while self._due and self._due[0][0] <= now_s:
            _, number, timer = heapq.heappop(self._due)
            due_s = timer.fire(now_s)
            if not timer.is_cancelled:
                again.append((due_s, number, timer))
        for entry in again:
            heapq.heappush(self._due, entry)

    async def run(self) -> None:
        """Call what is due, for ever."""
        while True:
            await trio.sleep(GRANULARITY_S)
            self.fire_due(trio.current_time())

"""Which of the connections that wait is served next, and which not at all, when more come than can be served.

After a restart of the hub thousands of runners dial within seconds, and each gives up after some seconds without an
answer. Served in the order of their coming, all would get their turn when they have just given up. So, once the oldest
has waited for longer than `OVERLOADED_AFTER_S`, the newest is next ("adaptive LIFO", Maurer, "Fail at Scale", ACM Queue
13(8), 2015), and one that has waited for `WAIT_MAX_S` is dropped unread: it comes again when its own rule says so.

Sources (addresses) take turns, whatever each sends: a person, or an agent, does not wait behind a fleet of one
network, nor everybody behind one who floods the hub.

A pure data structure that is handed the time. Runs in the hub.
"""

import math
from collections import OrderedDict
from itertools import count
from typing import Final, Generic, TypeVar

__all__ = ["OVERLOADED_AFTER_S", "WAITING_MAX", "WAIT_MAX_S", "AcceptQueue", "places"]

C = TypeVar("C")

OVERLOADED_AFTER_S: Final = 1.0
# A runner of ours gives its TLS handshake and its upgrade some 10 s each; later the work would be for nobody.
WAIT_MAX_S: Final = 8.0
# More than a hub with a core of its own serves within `WAIT_MAX_S` (bench/README.md, "connected").
WAITING_MAX: Final = 4_096
# To begin with a connection is some milliseconds of work over several turns of the event loop: with so few at a time a
# turn stays short.
PLACES_MIN: Final = 2
PLACES_MAX: Final = 256
# Twice what one connection costs, so that new ones get as much of a busy event loop as all that it does besides.
PLACE_S: Final = 0.006


def places(turn_s: float) -> int:
    """Return how many connections are begun after a turn of the event loop that cost so much processor time."""
    return max(PLACES_MIN, min(PLACES_MAX, int(turn_s / PLACE_S)))


class AcceptQueue(Generic[C]):
    """Accepted connections that nothing was read from yet."""

    def __init__(self, limit: int = WAITING_MAX) -> None:
        """At most ``limit`` connections wait at a time."""
        self._limit = limit
        # Both by number, which is the order of their coming: of each its source, when it came, and the connection.
        self._waiting: dict[int, tuple[str, float, C]] = {}
        # The source whose turn is next comes first.
        self._turns: OrderedDict[str, OrderedDict[int, None]] = OrderedDict()
        self._numbers = count()
        # Since the start: connections that waited too long, and those that more than the limit pushed out.
        self.expired = 0
        self.pushed_out = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, connection: C, source: str, now_s: float) -> C | None:
        """Add a connection from ``source``; return one that has to be closed where that makes too many."""
        number = next(self._numbers)
        of_source = self._turns.get(source)
        if of_source is None:
            of_source = self._turns[source] = OrderedDict()
            if self._is_overloaded(now_s):
                self._turns.move_to_end(source, last=False)
        of_source[number] = None
        self._waiting[number] = (source, now_s, connection)
        if len(self._waiting) <= self._limit:
            return None
        self.pushed_out += 1
        # The oldest of its own source where that has more than a share, else the oldest of all.
        share = math.ceil(len(self._waiting) / len(self._turns))
        return self._remove(next(iter(self._waiting if len(of_source) <= share else of_source)))

    def take_expired(self, now_s: float) -> C | None:
        """Return a connection that has waited for too long, to be closed; None: there is none."""
        if self._waited_s(now_s) < WAIT_MAX_S:
            return None
        self.expired += 1
        return self._remove(next(iter(self._waiting)))

    def take(self, now_s: float) -> C | None:
        """Return the connection to be served next; None: nobody waits."""
        if not self._waiting:
            return None
        source, of_source = next(iter(self._turns.items()))
        number = next(reversed(of_source) if self._is_overloaded(now_s) else iter(of_source))
        self._turns.move_to_end(source)
        return self._remove(number)

    def _waited_s(self, now_s: float) -> float:
        """Return how long the oldest has waited."""
        for _, came_s, _ in self._waiting.values():
            return now_s - came_s
        return 0.0

    def _is_overloaded(self, now_s: float) -> bool:
        return self._waited_s(now_s) > OVERLOADED_AFTER_S

    def _remove(self, number: int) -> C:
        source, _, connection = self._waiting.pop(number)
        of_source = self._turns[source]
        del of_source[number]
        if not of_source:
            del self._turns[source]
        return connection

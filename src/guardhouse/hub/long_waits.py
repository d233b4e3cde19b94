"""Waits that somebody else may end early: what a request waits for when the hub is to stop.

A client that waits for a task would otherwise hold up the stop, and be cut off without a word in the end. Knows nothing
of what is waited for. Runs in the hub.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import trio

__all__ = ["LongWaits"]


class LongWaits:
    """The waits under way. Once ended they stay so: each later one is over at once."""

    def __init__(self) -> None:
        self._scopes: set[trio.CancelScope] = set()
        self.is_over = False

    def __len__(self) -> int:
        return len(self._scopes)

    @contextmanager
    def at_most(self, seconds: float = math.inf) -> Iterator[trio.CancelScope]:
        """Let the block wait for ``seconds``, or until `end`; as with `trio.move_on_after`, it is then left."""
        with trio.move_on_after(0 if self.is_over else seconds) as scope:
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    def end(self) -> None:
        """Let every block be left, for good."""
        self.is_over = True
        for scope in self._scopes:
            scope.cancel()

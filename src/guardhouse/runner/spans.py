"""How long each part of a task took, for the hub's trace of it. Runs in the runner.

The runner sends them with the result and exports nothing itself: a production host needs no way to a collector.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

from guardhouse.limits import SPANS_MAX
from guardhouse.wire.messages import Span

__all__ = ["TaskSpans"]

# The whole of what the runner did; every other span lies in it.
WHOLE: Final = "runner"


class TaskSpans:
    """The parts of one task, by a clock that is not set while it runs. ``is_wanted`` False keeps nothing."""

    def __init__(self, *, is_wanted: bool) -> None:
        self._is_wanted = is_wanted
        self._began_us = time.time_ns() // 1_000
        self._began_s = trio.current_time()
        self._spans: list[Span] = []

    def note(self, name: str, *, began_s: float, ended_s: float) -> None:
        """Add a part; both times are of `trio.current_time`."""
        if self._is_wanted and len(self._spans) < SPANS_MAX - 1:
            start_us = self._began_us + int((began_s - self._began_s) * 1e6)
            duration_us = max(0, int((ended_s - began_s) * 1e6))
            self._spans.append(Span(name=name, start_us=start_us, duration_us=duration_us))

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add what happens inside the block, however it ends."""
        began_s = trio.current_time()
        try:
            yield
        finally:
            self.note(name, began_s=began_s, ended_s=trio.current_time())

    def finish(self) -> tuple[Span, ...] | None:
        """Return the whole and its parts; None where nobody wants them."""
        if not self._is_wanted:
            return None
        duration_us = int((trio.current_time() - self._began_s) * 1e6)
        return (Span(name=WHOLE, start_us=self._began_us, duration_us=duration_us), *self._spans)

"""How fast one runner is read: so many frames a second for long, more at once, and beyond that more slowly.

Runs in the hub.
"""

from typing import Final

import trio

__all__ = ["FramePace"]

# Frames a second that a runner may send for long, and at once; beyond, it is read more slowly.
FRAMES_PER_S: Final = 2_000.0
FRAMES_BURST: Final = 4_000.0


class FramePace:
    """A bucket of frames that fills with time. One for each connection."""

    def __init__(self) -> None:
        self._frames = FRAMES_BURST
        self._refilled_s = trio.current_time()

    async def take(self, now_s: float) -> None:
        """Take one frame out of the bucket, and wait where it holds none."""
        self._frames = min(FRAMES_BURST, self._frames + (now_s - self._refilled_s) * FRAMES_PER_S) - 1
        self._refilled_s = now_s
        if self._frames < 0:
            await trio.sleep(-self._frames / FRAMES_PER_S)

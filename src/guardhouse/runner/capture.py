"""What is kept of a command's output: the first 10 MiB of each stream, and an exact count of the rest.

Bytes in, bytes out; knows no descriptor and no message. Runs in the runner and in `guardhouse try`.
"""

from typing import Final

from guardhouse.limits import CAPTURE_LIMIT_BYTES

__all__ = ["TAIL_BYTES", "Capture"]

TAIL_BYTES: Final = 16 * 1024


class Capture:
    """One stream. ``add`` says how much of a chunk is kept, so that what is streamed and what is kept agree.

    With ``limit_bytes`` None the stream only passes through: nothing is kept and nothing dropped.
    """

    def __init__(self, *, limit_bytes: int | None = CAPTURE_LIMIT_BYTES) -> None:
        if limit_bytes is not None and limit_bytes < 0:
            raise ValueError(f"limit_bytes must not be negative, got {limit_bytes}")
        self._limit_bytes = limit_bytes
        self._chunks: list[bytes] = []
        self._tail = b""
        self._came_bytes = 0
        self.kept_bytes = 0
        self.dropped_bytes = 0

    def add(self, chunk: bytes) -> bytes:
        """Keep as much of ``chunk`` as fits, count the rest as dropped, and return the part that was kept."""
        self._came_bytes += len(chunk)
        self._tail = chunk[-TAIL_BYTES:] if len(chunk) >= TAIL_BYTES else (self._tail + chunk)[-TAIL_BYTES:]
        if self._limit_bytes is None:
            return chunk
        room = self._limit_bytes - self.kept_bytes
        kept = chunk if len(chunk) <= room else chunk[:room]
        if kept:
            self._chunks.append(kept)
            self.kept_bytes += len(kept)
        self.dropped_bytes += len(chunk) - len(kept)
        return kept

    @property
    def is_full(self) -> bool:
        """Whether everything from now on is dropped."""
        return self._limit_bytes is not None and self.kept_bytes >= self._limit_bytes

    @property
    def content(self) -> bytes:
        """Everything kept, in order."""
        return b"".join(self._chunks)

    @property
    def tail(self) -> bytes:
        """Whole lines of the last 16 KiB that came, kept or not: where a program says why it gives up.

        Whole ones, since nobody finds a secret in a part of it.
        """
        if self._came_bytes <= TAIL_BYTES:
            return self._tail
        return self._tail.partition(b"\n")[2]

    def dropped_note(self, stream: str) -> str | None:
        """Say how much was left out, or None when nothing was."""
        if not self.dropped_bytes:
            return None
        return (
            f"[guardhouse: {self.dropped_bytes} bytes of {stream} were dropped past the limit of"
            f" {self._limit_bytes} bytes; let the command write to a file in the workspace to keep all]"
        )

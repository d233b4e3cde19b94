"""Count line ends fast: of a gigabyte with matches all over, numbering the lines is otherwise most of a search's time.

Knows bytes only. Runs in the files worker.
"""

from typing import Final

__all__ = ["count_line_ends"]

_SAMPLE_BYTES: Final = 1024
# `bytes.count` looks at every byte (0.6 to 2 GB/s on Python 3.11); `bytes.replace` leaps from line end to line end (12
# ns each, so 4 GB/s for lines of 60 bytes), and what it takes out was one. Shorter lines than this are better counted.
_LINE_MIN_BYTES: Final = 16


def count_line_ends(block: bytes | bytearray, start: int, end: int) -> int:
    """Return how many line ends stand in ``block`` from ``start`` up to ``end``."""
    sample_end = min(start + _SAMPLE_BYTES, end)
    counted = block.count(b"\n", start, sample_end)
    if sample_end == end:
        return counted
    if counted * _LINE_MIN_BYTES > _SAMPLE_BYTES:
        return counted + block.count(b"\n", sample_end, end)
    rest = block[sample_end:end]
    return counted + len(rest) - len(rest.replace(b"\n", b""))

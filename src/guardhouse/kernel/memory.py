"""How the C library keeps this process's memory. Knows no process but its own; runs in the launcher."""

import ctypes
from typing import Final

__all__ = ["use_one_arena"]

_M_ARENA_MAX: Final = -8  # malloc.h of glibc; mallopt(3)


def use_one_arena() -> None:
    """Let every thread allocate from the heap that there is, in place of some 50 KiB of its own that it touches.

    The threads of the launcher's children take turns by the interpreter's lock anyway, so nothing waits for another.
    """
    # A C library without mallopt (musl) has no such arenas.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)

"""Descriptors with a special nature: closing all of them, signals as a descriptor.

Runs in every process that the launcher makes.
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from typing import Final

from guardhouse.kernel.syscalls import declare

__all__ = ["close_all_but", "signal_descriptor"]

_LAST: Final = 0xFFFFFFFF
_SFD_NONBLOCK: Final = os.O_NONBLOCK
_SFD_CLOEXEC: Final = os.O_CLOEXEC
_SIGSET_BYTES: Final = 8  # the kernel's, not libc's

_close_range = declare("close_range", ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)
_signalfd4 = declare("signalfd4", ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)


def close_all_but(kept: Iterable[int]) -> None:
    """Close every descriptor of this process but ``kept``, known of or not."""
    first = 0
    for descriptor in sorted(set(kept)):
        if descriptor > first:
            _close_range(first, descriptor - 1, 0)
        first = descriptor + 1
    _close_range(first, _LAST, 0)


def signal_descriptor(signals: Iterable[int]) -> int:
    """Return a descriptor that is readable while one of ``signals``, which must be blocked, is pending."""
    bits = 0
    for number in signals:
        bits |= 1 << (number - 1)
    # SAFE: the kernel's signal set is one 64-bit word and its size is passed.
    return _signalfd4(-1, struct.pack("=Q", bits), _SIGSET_BYTES, _SFD_NONBLOCK | _SFD_CLOEXEC)

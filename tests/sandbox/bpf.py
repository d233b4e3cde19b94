"""A classic BPF interpreter for seccomp programs: just what libseccomp emits, and nothing it should not.

Written from linux/filter.h and kernel documentation, apart from the compiler, so that both cannot share a mistake.
"""

import functools
import struct

KILL_PROCESS, ERRNO, NOTIFY, TRACE, ALLOW = 0x80000000, 0x00050000, 0x7FC00000, 0x7FF00000, 0x7FFF0000
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003, "arm": 0x40000028}


def run(program: bytes, *, arch: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """Return the 32-bit value that the filter answers for one call."""
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("=iIQ6Q", struct.unpack("=i", struct.pack("=I", number & 0xFFFFFFFF))[0], arch, 0, *padded)
    code = _decode(program)
    accumulator = 0
    at = 0
    while True:
        operation, when_true, when_false, constant = code[at]
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("=I", data, constant)[0]
        elif operation == 0x06:
            return constant
        elif operation == 0x54:
            accumulator &= constant
        elif operation == 0x05:
            at += constant
        else:
            holds = {
                0x15: accumulator == constant,
                0x25: accumulator > constant,
                0x35: accumulator >= constant,
                0x45: bool(accumulator & constant),
            }[operation]
            at += when_true if holds else when_false


@functools.lru_cache(maxsize=64)
def _decode(program: bytes) -> list[tuple[int, int, int, int]]:
    return list(struct.iter_unpack("=HBBI", program))

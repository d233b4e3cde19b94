"""The raw door: system call numbers, and calling one from exactly the calling thread.

Knows numbers and errno, no meaning. glibc's own wrappers are avoided on purpose: its ``setresuid`` and relatives
signal every other thread to do the same, while the launcher confines one thread and must leave the rest alone.

Used by the rest of this package in the launcher, the init processes and the workers.
"""

import ctypes
import os
from collections.abc import Callable
from typing import Any, Final

from guardhouse.errors import SetupError

__all__ = ["ARCHITECTURE", "NUMBERS", "declare"]

ARCHITECTURE: Final = os.uname().machine

# (x86_64, aarch64): arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux 6.18.
_TABLE: Final[dict[str, tuple[int, int]]] = {
    "ioctl": (16, 29),
    "capget": (125, 90),
    "capset": (126, 91),
    "clone3": (435, 435),
    "execve": (59, 221),
    "execveat": (322, 281),
    "close_range": (436, 436),
    "get_robust_list": (274, 100),
    "gettid": (186, 178),
    "landlock_add_rule": (445, 445),
    "landlock_create_ruleset": (444, 444),
    "landlock_restrict_self": (446, 446),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "openat2": (437, 437),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "seccomp": (317, 277),
    "set_tid_address": (218, 96),
    "setgroups": (116, 159),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "setresgid": (119, 149),
    "setresuid": (117, 147),
    "signalfd4": (289, 74),
    "umount2": (166, 39),
    "unshare": (272, 97),
}

_COLUMN: Final = {"x86_64": 0, "aarch64": 1}

NUMBERS: Final[dict[str, int]] = (
    {name: row[_COLUMN[ARCHITECTURE]] for name, row in _TABLE.items()} if ARCHITECTURE in _COLUMN else {}
)

# PyDLL keeps the interpreter lock: these calls take microseconds, and giving the lock away and taking it back
# costs more than most of them. Calls that may wait are made elsewhere, through CDLL.
_LIBC: Final = ctypes.PyDLL(None, use_errno=True)


def declare(name: str, *argument_types: Any) -> Callable[..., int]:
    """Return a function that makes the system call ``name`` with arguments of these ctypes types.

    The function returns the call's result and raises OSError with its errno; it never waits for the interpreter
    lock, so it must not be used for a call that can block.

    On an architecture without a number the function exists and raises SetupError when called: importing this
    package stays possible everywhere.
    """
    number = NUMBERS.get(name)
    if number is None:

        def missing(*_arguments: Any) -> int:
            raise SetupError(f"system call {name!r} has no number for {ARCHITECTURE}; use x86_64 or aarch64")

        return missing

    # SAFE: each item access of a library gives a function object of its own, so the types set here belong to
    # this call alone. syscall(2) takes its arguments in registers on both architectures.
    function = _LIBC["syscall"]
    function.restype = ctypes.c_long
    function.argtypes = (ctypes.c_long, *argument_types)

    def call(*arguments: Any) -> int:
        result: int = function(number, *arguments)
        if result == -1:
            code = ctypes.get_errno()
            raise OSError(code, f"{name}: {os.strerror(code)}")
        return result

    return call

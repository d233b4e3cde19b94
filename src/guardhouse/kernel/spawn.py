"""Start a program from the calling thread as posix_spawn does: without copying the process's pages.

The new process has exactly three descriptors, every signal at its default and unblocked, and a session of its
own. It inherits what the thread has done to itself: namespaces, ids, Landlock, seccomp.

Runs in init processes, in the thread that confined itself.
"""

import ctypes
import os
from collections.abc import Sequence
from typing import Final

__all__ = ["spawn"]

_SETSIGDEF: Final = 0x04
_SETSIGMASK: Final = 0x08
_SETSID: Final = 0x80
_LAST_SIGNAL: Final = 64
_SIGKILL: Final = 9
_SIGSTOP: Final = 19

# glibc's types are 80, 336 and 128 bytes on both architectures; more does no harm.
_ACTIONS_BYTES: Final = 512
_ATTRIBUTES_BYTES: Final = 1024
_SIGSET_BYTES: Final = 128

# CDLL gives the interpreter lock away during the call: a denied call on the way to exec is answered by the main
# thread, which would otherwise wait for the lock for ever.
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def _check(code: int, what: str) -> None:
    # The posix_spawn family returns the error instead of setting errno.
    if code != 0:
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _all_signals() -> ctypes.Array[ctypes.c_char]:
    # SIGKILL and SIGSTOP cannot be set to anything.
    bits = ((1 << _LAST_SIGNAL) - 1) & ~(1 << (_SIGKILL - 1)) & ~(1 << (_SIGSTOP - 1))
    # 32 and 33 are glibc's own for threads; sigaction refuses them, so does posix_spawn.
    bits &= ~(0b11 << 31)
    return ctypes.create_string_buffer(bits.to_bytes(8, "little"), _SIGSET_BYTES)


_ALL_SIGNALS: Final = _all_signals()
_NO_SIGNALS: Final = ctypes.create_string_buffer(_SIGSET_BYTES)


def _vector(words: Sequence[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(words) + 1))(*words, None)


def spawn(
    path: bytes,
    arguments: Sequence[bytes],
    environment: Sequence[bytes],
    *,
    stdio: tuple[int, int, int],
) -> int:
    """Start ``path`` with ``stdio`` as its descriptors 0, 1 and 2 and no other; return its pid.

    Args:
        path: of the program, in the calling thread's view; no search is done.
        arguments: argv, the first included.
        environment: ``NAME=value`` entries.
        stdio: descriptors of 3 or more, so that none is overwritten before it is used.

    Raises:
        OSError: what exec (or an earlier step of the spawn) says.
    """
    actions = ctypes.create_string_buffer(_ACTIONS_BYTES)
    attributes = ctypes.create_string_buffer(_ATTRIBUTES_BYTES)
    pid = ctypes.c_int(0)
    _check(_LIBC.posix_spawn_file_actions_init(actions), "posix_spawn_file_actions_init")
    try:
        _check(_LIBC.posix_spawnattr_init(attributes), "posix_spawnattr_init")
        for target, source in enumerate(stdio):
            code = _LIBC.posix_spawn_file_actions_adddup2(actions, source, target)
            _check(code, "posix_spawn_file_actions_adddup2")
        # Not close-on-exec alone: a descriptor that some library forgot to mark must not get out either.
        _check(_LIBC.posix_spawn_file_actions_addclosefrom_np(actions, 3), "posix_spawn_file_actions_addclosefrom_np")
        _check(_LIBC.posix_spawnattr_setsigdefault(attributes, _ALL_SIGNALS), "posix_spawnattr_setsigdefault")
        _check(_LIBC.posix_spawnattr_setsigmask(attributes, _NO_SIGNALS), "posix_spawnattr_setsigmask")
        flags = ctypes.c_short(_SETSIGDEF | _SETSIGMASK | _SETSID)
        _check(_LIBC.posix_spawnattr_setflags(attributes, flags), "posix_spawnattr_setflags")
        # SAFE: every buffer is alive until the call returns, which is after the child's exec or its failure.
        code = _LIBC.posix_spawn(ctypes.byref(pid), path, actions, attributes, _vector(arguments), _vector(environment))
        _check(code, os.fsdecode(path))
    finally:
        _LIBC.posix_spawn_file_actions_destroy(actions)
        _LIBC.posix_spawnattr_destroy(attributes)
    return pid.value

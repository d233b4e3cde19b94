"""Seccomp: install a finished filter, and answer the calls that it hands over.

Knows no system call: filters are compiled elsewhere (`sandbox/`), this is the door that loads the bytes.
`install` runs in the thread that becomes a command; the notification calls run in its init process.
"""

import ctypes
import errno
import struct
from dataclasses import dataclass
from typing import Final

from guardhouse.kernel.syscalls import declare

__all__ = ["Notification", "answer_with_errno", "install", "install_for_process", "receive"]

_SET_MODE_FILTER: Final = 1
_FLAG_ALL_THREADS: Final = 1 << 0  # SECCOMP_FILTER_FLAG_TSYNC
_FLAG_NEW_LISTENER: Final = 1 << 3
_INSTRUCTION_BYTES: Final = 8  # struct sock_filter

# linux/seccomp.h: _IOWR('!', 0, struct seccomp_notif) and _IOWR('!', 1, struct seccomp_notif_resp).
_NOTIFICATION_BYTES: Final = 80
_RESPONSE_BYTES: Final = 24
_IOCTL_RECV: Final = 0xC0502100
_IOCTL_SEND: Final = 0xC0182101


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


_seccomp = declare("seccomp", ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p)
_ioctl = declare("ioctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


@dataclass(frozen=True, slots=True)
class Notification:
    """One call that waits for an answer: ``number`` of the system call, made by thread ``thread_id``."""

    cookie: int
    thread_id: int
    number: int


def install(program: bytes, *, listener: bool) -> int:
    """Load the filter for the calling thread and all it starts. Needs no_new_privs.

    Returns:
        The listener's descriptor (close-on-exec) when asked for, else 0.
    """
    structure = _Program(len(program) // _INSTRUCTION_BYTES, program)
    # SAFE: the kernel copies length * 8 bytes from ``program``, which outlives the call.
    return _seccomp(_SET_MODE_FILTER, _FLAG_NEW_LISTENER if listener else 0, ctypes.addressof(structure))


def install_for_process(program: bytes) -> None:
    """Load the filter for every thread of the calling process and all they start. Needs no_new_privs.

    Raises:
        OSError: ESRCH: a thread has a filter of its own that ours does not descend from.
    """
    structure = _Program(len(program) // _INSTRUCTION_BYTES, program)
    # SAFE: as in `install`.
    if _seccomp(_SET_MODE_FILTER, _FLAG_ALL_THREADS, ctypes.addressof(structure)) != 0:
        raise OSError(errno.ESRCH, "seccomp: a thread has another filter already")


def receive(listener_fd: int) -> Notification | None:
    """Return the next waiting call, or None when its maker has died meanwhile. Call it on a readable listener."""
    buffer = ctypes.create_string_buffer(_NOTIFICATION_BYTES)
    try:
        # SAFE: the kernel wants 80 zeroed bytes and fills them.
        _ioctl(listener_fd, _IOCTL_RECV, ctypes.addressof(buffer))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):
            return None
        raise
    cookie, thread_id, _flags, number = struct.unpack_from("=QIIi", buffer.raw)
    return Notification(cookie, thread_id, number)


def answer_with_errno(listener_fd: int, notification: Notification, code: int) -> None:
    """Fail the waiting call with errno ``code``. A caller that has died meanwhile needs no answer."""
    response = ctypes.create_string_buffer(struct.pack("=QqiI", notification.cookie, 0, -code, 0), _RESPONSE_BYTES)
    try:
        # SAFE: struct seccomp_notif_resp, 24 bytes.
        _ioctl(listener_fd, _IOCTL_SEND, ctypes.addressof(response))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise

"""Seccomp: install a finished filter, and answer the calls that it hands over.

Knows no system call: filters are compiled elsewhere (`sandbox/`), this is the door that loads the bytes.
`install` runs in the thread that becomes a command; the notification calls run in its init process, or in the monitor
outside where execs are among what is handed over.
"""

import ctypes
import errno
import struct
from dataclasses import dataclass
from typing import Final

from guardhouse.kernel.syscalls import ARCHITECTURE, declare

__all__ = [
    "NAMES_OF_ARCHITECTURES",
    "NATIVE_AUDIT_ARCH",
    "Notification",
    "answer_with_errno",
    "install",
    "install_for_process",
    "is_valid",
    "let_go_on",
    "receive",
]

_SET_MODE_FILTER: Final = 1
_FLAG_ALL_THREADS: Final = 1 << 0  # SECCOMP_FILTER_FLAG_TSYNC
_FLAG_NEW_LISTENER: Final = 1 << 3
_FLAG_WAIT_KILLABLE_RECV: Final = 1 << 5  # Linux 5.19
_INSTRUCTION_BYTES: Final = 8  # struct sock_filter

# linux/seccomp.h: _IOWR('!', 0, struct seccomp_notif) and _IOWR('!', 1, struct seccomp_notif_resp).
_NOTIFICATION_BYTES: Final = 80
_RESPONSE_BYTES: Final = 24
_IOCTL_RECV: Final = 0xC0502100
_IOCTL_SEND: Final = 0xC0182101
_IOCTL_ID_VALID: Final = 0x40082102  # _IOW('!', 2, __u64); before Linux 5.8 it was _IOR
_RESPONSE_CONTINUE: Final = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE, Linux 5.5

# linux/audit.h, what seccomp_data.arch holds for a call of the machine's own table.
NATIVE_AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}.get(ARCHITECTURE, 0)

# linux/audit.h, AUDIT_ARCH_*: what seccomp_data.arch holds, by the names that filters have.
NAMES_OF_ARCHITECTURES: Final = {0xC000003E: "x86_64", 0xC00000B7: "aarch64", 0x40000003: "i386"}


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


_seccomp = declare("seccomp", ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p)
_ioctl = declare("ioctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


@dataclass(frozen=True, slots=True)
class Notification:
    """One call that waits for an answer: ``number`` of the system call, made by thread ``thread_id``.

    Attributes:
        thread_id: in the pid namespace of who receives it.
        audit_arch: the table that the number is of (linux/audit.h).
        arguments: the six words in its registers, pointers as addresses of the caller's.
    """

    cookie: int
    thread_id: int
    number: int
    audit_arch: int
    arguments: tuple[int, ...]


def install(program: bytes, *, listener: bool, waits_killable: bool = False) -> int:
    """Load the filter for the calling thread and all it starts. Needs no_new_privs.

    Args:
        waits_killable: a call that the listener has received waits on whatever signals come but SIGKILL, where the
            kernel can do that; elsewhere a signal that is caught interrupts it, and it is handed over once more.

    Returns:
        The listener's descriptor (close-on-exec) when asked for, else 0.
    """
    structure = _Program(len(program) // _INSTRUCTION_BYTES, program)
    flags = _FLAG_NEW_LISTENER if listener else 0
    if listener and waits_killable:
        try:
            # SAFE: as below.
            return _seccomp(_SET_MODE_FILTER, flags | _FLAG_WAIT_KILLABLE_RECV, ctypes.addressof(structure))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
    # SAFE: the kernel copies length * 8 bytes from ``program``, which outlives the call.
    return _seccomp(_SET_MODE_FILTER, flags, ctypes.addressof(structure))


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
    # struct seccomp_notif: id, pid, flags, then struct seccomp_data: nr, arch, instruction_pointer, args[6].
    cookie, thread_id, _flags, number, audit_arch, _pointer, *arguments = struct.unpack_from("=QIIiIQ6Q", buffer.raw)
    return Notification(cookie, thread_id, number, audit_arch, tuple(arguments))


def is_valid(listener_fd: int, cookie: int) -> bool:
    """Tell whether a received call still waits: its thread lives, and its number is no other's since."""
    identifier = ctypes.c_uint64(cookie)
    try:
        # SAFE: the kernel reads eight bytes.
        _ioctl(listener_fd, _IOCTL_ID_VALID, ctypes.addressof(identifier))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return False
    return True


def answer_with_errno(listener_fd: int, notification: Notification, code: int) -> None:
    """Fail the waiting call with errno ``code``. A caller that has died meanwhile needs no answer."""
    _respond(listener_fd, struct.pack("=QqiI", notification.cookie, 0, -code, 0))


def let_go_on(listener_fd: int, notification: Notification) -> None:
    """Let the kernel make the call, with what its pointers show by then. A caller that has died needs no answer."""
    _respond(listener_fd, struct.pack("=QqiI", notification.cookie, 0, 0, _RESPONSE_CONTINUE))


def _respond(listener_fd: int, packed: bytes) -> None:
    response = ctypes.create_string_buffer(packed, _RESPONSE_BYTES)
    try:
        # SAFE: struct seccomp_notif_resp, 24 bytes.
        _ioctl(listener_fd, _IOCTL_SEND, ctypes.addressof(response))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise

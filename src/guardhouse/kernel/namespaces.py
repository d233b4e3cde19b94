"""New namespaces: for a new process (clone3) and for the calling thread (unshare).

Runs in the launcher (`clone_process`) and in init processes and their threads (`unshare`).
"""

import ctypes
import os
import signal
import struct
from collections.abc import Iterable
from typing import Final

from guardhouse.errors import InvariantError
from guardhouse.kernel.syscalls import declare

__all__ = ["NAMESPACE_FLAGS", "clone_process", "set_hostname", "unshare", "unshare_file_system_view"]

# linux/sched.h, by the names that a bundle uses.
NAMESPACE_FLAGS: Final[dict[str, int]] = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
_CLONE_FS: Final = 0x00000200
_CLONE_PIDFD: Final = 0x00001000
_CLONE_PARENT: Final = 0x00008000
_CLONE_CHILD_CLEARTID: Final = 0x00200000
_CLONE_CHILD_SETTID: Final = 0x01000000
_CLONE_INTO_CGROUP: Final = 0x200000000

_before_fork = ctypes.pythonapi.PyOS_BeforeFork
_after_fork_parent = ctypes.pythonapi.PyOS_AfterFork_Parent
_after_fork_child = ctypes.pythonapi.PyOS_AfterFork_Child
for _hook in (_before_fork, _after_fork_parent, _after_fork_child):
    _hook.argtypes, _hook.restype = (), None

_clone3 = declare("clone3", ctypes.c_char_p, ctypes.c_size_t)
_get_robust_list = declare("get_robust_list", ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_sethostname = declare("sethostname", ctypes.c_char_p, ctypes.c_size_t)
_unshare = declare("unshare", ctypes.c_int)


def _flags(names: Iterable[str]) -> int:
    total = 0
    for name in names:
        total |= NAMESPACE_FLAGS[name]
    return total


def _thread_id_address() -> int:
    """Return where glibc keeps the main thread's id, or 0 when it cannot be found for certain.

    The id stands two words before the robust list head (glibc nptl/descr.h: tid, robust_prev, robust_head). The
    guess is believed only when the memory there holds our thread id; otherwise the child's libc keeps a stale
    id, which only ``pthread_kill`` of the main thread and error-checking mutexes look at.
    """
    head = ctypes.c_void_p()
    length = ctypes.c_size_t()
    # SAFE: both are out parameters of the sizes that the call writes.
    _get_robust_list(0, ctypes.addressof(head), ctypes.addressof(length))
    if not head.value:
        return 0
    address = head.value - 16
    # SAFE: the list head and the words before it are one allocation of libc's thread descriptor.
    return address if ctypes.c_int.from_address(address).value == os.getpid() else 0


def clone_process(
    namespaces: Iterable[str], *, cgroup_fd: int | None = None, is_sibling: bool = False
) -> tuple[int, int]:
    """Fork the calling single-threaded process into new namespaces.

    Args:
        namespaces: keys of `NAMESPACE_FLAGS`; with ``pid`` the child is pid 1 of its own.
        cgroup_fd: directory of a cgroup v2 group in which the child begins, which costs far less than
            moving it there (FIGURES.md, "Starting one command").
        is_sibling: the new process is a child of the caller's parent, which waits for it and at whose end it gets its
            parent-death signal; its exit signal is the caller's own.

    Returns:
        ``(0, -1)`` in the child; its pid and a pidfd (close-on-exec) in the parent.

    Raises:
        OSError: what clone3(2) says; EPERM where user namespaces are switched off.
    """
    pidfd = ctypes.c_int(-1)
    tid_address = _thread_id_address()
    flags = _flags(namespaces) | _CLONE_PIDFD
    if tid_address:
        flags |= _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID
    if cgroup_fd is not None:
        flags |= _CLONE_INTO_CGROUP
    if is_sibling:
        flags |= _CLONE_PARENT
    arguments = struct.pack(
        "=11Q",
        flags,
        ctypes.addressof(pidfd),
        tid_address,
        0,
        0 if is_sibling else signal.SIGCHLD,  # clone3(2): CLONE_PARENT allows none
        0,  # no stack: the child goes on here, on its copy of ours, as after fork
        0,
        0,
        0,
        0,
        cgroup_fd if cgroup_fd is not None else 0,
    )
    # SAFE: the interpreter asks whoever forks by other means to make these calls (C API, "PyOS_AfterFork_Child").
    # One thread exists, so no lock of libc or of the interpreter is held by a thread the child will not have.
    _before_fork()
    try:
        pid = _clone3(arguments, len(arguments))
    except OSError:
        _after_fork_parent()
        raise
    if pid == 0:
        _after_fork_child()
        return 0, -1
    _after_fork_parent()
    if pidfd.value < 0:
        raise InvariantError(f"clone3 made process {pid} without a pidfd")
    return pid, pidfd.value


def unshare(namespaces: Iterable[str]) -> None:
    """Give the calling thread new namespaces of these kinds."""
    _unshare(_flags(namespaces))


def unshare_file_system_view() -> None:
    """Give the calling thread its own root, working directory and umask, apart from its process's."""
    _unshare(_CLONE_FS)


def set_hostname(name: str) -> None:
    """Set the host name of the calling thread's uts namespace."""
    raw = os.fsencode(name)
    _sethostname(raw, len(raw))

"""The file system calls that Python's `os` lacks: openat2, renameat2, statx's further facts, linkat of an unnamed file.

Knows numbers and structures of the kernel's interface and turns a failed call into OSError. Knows nothing of
workspaces, of what may be opened, or of what to do when a call is missing: `guardhouse.workspace` decides
that. Runs in the files worker and in the launcher.
"""

import ctypes
import errno
import os
import platform
from functools import lru_cache
from typing import Final

__all__ = [
    "AT_EMPTY_PATH",
    "RENAME_EXCHANGE",
    "RENAME_NOREPLACE",
    "RESOLVE_BENEATH",
    "RESOLVE_NO_MAGICLINKS",
    "RESOLVE_NO_SYMLINKS",
    "RESOLVE_NO_XDEV",
    "birth_ns",
    "has_openat2",
    "link_unnamed",
    "mount_id",
    "openat2",
    "renameat2",
    "sync_file_system",
]

# include/uapi/linux/openat2.h
RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
# include/uapi/linux/fs.h
RENAME_NOREPLACE: Final = 0x1
RENAME_EXCHANGE: Final = 0x2
# include/uapi/linux/fcntl.h
AT_EMPTY_PATH: Final = 0x1000
# include/uapi/linux/stat.h
_STATX_BTIME: Final = 0x800
_STATX_MNT_ID: Final = 0x1000

# Since Linux 5.1 new calls share one number on every architecture; the older two do not (arch/*/syscall tables).
_SYS_OPENAT2: Final = 437
_SYS_BY_MACHINE: Final = {
    "x86_64": {"renameat2": 316, "statx": 332},
    "aarch64": {"renameat2": 276, "statx": 291},
    "riscv64": {"renameat2": 276, "statx": 291},
}
# openat2(2): EAGAIN means that a rename raced with a ".." in the path; the caller is asked to try again.
_RACE_RETRIES: Final = 64

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
# A function object of its own, so that its argument types are declared once: every path of the workspace goes
# through it.
_openat2 = _libc["syscall"]
_openat2.restype = ctypes.c_long
_openat2.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
_linkat = _libc.linkat
_linkat.restype = ctypes.c_int


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_OPEN_HOW_BYTES: Final = ctypes.sizeof(_OpenHow)


@lru_cache(maxsize=64)
def _open_how(flags: int, mode: int, resolve: int) -> _OpenHow:
    return _OpenHow(flags, mode, resolve)


class _Statx(ctypes.Structure):
    """`struct statx` of include/uapi/linux/stat.h: 256 bytes, of which we read mask, time of birth and mount id."""

    _fields_ = (("mask", ctypes.c_uint32), ("before", ctypes.c_uint8 * 76), ("birth_s", ctypes.c_int64),
                ("birth_ns", ctypes.c_uint32), ("between", ctypes.c_uint8 * 52), ("mnt_id", ctypes.c_uint64),
                ("after", ctypes.c_uint8 * 104))  # fmt: skip


def _number(call: str) -> int:
    numbers = _SYS_BY_MACHINE.get(platform.machine())
    if numbers is None:
        raise OSError(errno.ENOSYS, f"{call}: no system call number known for {platform.machine()}")
    return numbers[call]


def openat2(dir_fd: int, path: bytes, flags: int, *, mode: int = 0, resolve: int) -> int:
    """Open ``path`` below ``dir_fd`` under the ``resolve`` restrictions; O_CLOEXEC is always set.

    Args:
        dir_fd: the directory that the path starts from.
        path: at most 4095 bytes (PATH_MAX), without NUL.
        flags: open(2) flags; the kernel refuses unknown ones with EINVAL.
        mode: permission bits of a file that O_CREAT or O_TMPFILE makes; 0 otherwise.
        resolve: RESOLVE_* bits.

    Returns:
        A new descriptor, owned by the caller.

    Raises:
        OSError: with the call's errno: ENOSYS (before Linux 5.6, or filtered), EXDEV (it would leave), ELOOP …
    """
    if b"\0" in path:
        raise OSError(errno.EINVAL, "path holds a NUL")
    how = _open_how(flags | os.O_CLOEXEC, mode, resolve)
    code = 0
    for _ in range(_RACE_RETRIES):
        # SAFE: path is a bytes object kept alive by this frame and NUL-terminated by ctypes; how is kept alive by this
        # frame and its size is passed; the kernel writes to neither, so that one structure may serve many calls.
        result = _openat2(_SYS_OPENAT2, dir_fd, path, ctypes.addressof(how), _OPEN_HOW_BYTES)
        if result >= 0:
            return int(result)
        code = ctypes.get_errno()
        if code not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(code, os.strerror(code), os.fsdecode(path))


def has_openat2(dir_fd: int) -> bool:
    """Say whether openat2 works here, by opening ``dir_fd`` itself; a seccomp filter may answer ENOSYS or EPERM."""
    try:
        fd = openat2(dir_fd, b".", os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE_BENEATH)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return False
        raise
    os.close(fd)
    return True


def renameat2(old_dir_fd: int, old: bytes, new_dir_fd: int, new: bytes, *, flags: int) -> None:
    """Rename with RENAME_NOREPLACE or RENAME_EXCHANGE; both names are single components.

    Raises:
        OSError: EEXIST (NOREPLACE and ``new`` is there), EINVAL or ENOSYS (this file system cannot), EXDEV …
    """
    # SAFE: both names are bytes objects kept alive by this frame and NUL-terminated by ctypes.
    result = _syscall(
        ctypes.c_long(_number("renameat2")), ctypes.c_int(old_dir_fd), ctypes.c_char_p(old),
        ctypes.c_int(new_dir_fd), ctypes.c_char_p(new), ctypes.c_uint(flags),
    )  # fmt: skip
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), os.fsdecode(old), None, os.fsdecode(new))


def mount_id(fd: int) -> int | None:
    """Return the id of the mount that ``fd`` is on; None before Linux 5.8, which cannot tell.

    Two bind mounts of one file system have the same device number and different mount ids.
    """
    answer = _statx(fd, _STATX_MNT_ID)
    return None if answer is None else int(answer.mnt_id)


def birth_ns(fd: int) -> int | None:
    """Return when the file ``fd`` was made, in nanoseconds since the epoch; None where the file system cannot tell.

    With device and inode number it names a file for ever: an inode's number is used again, its time of birth is not.
    """
    answer = _statx(fd, _STATX_BTIME)
    return None if answer is None else int(answer.birth_s) * 1_000_000_000 + int(answer.birth_ns)


def _statx(fd: int, wanted: int) -> _Statx | None:
    """Return what statx(2) says of ``fd``; None where it does not know all that is ``wanted``."""
    answer = _Statx()
    try:
        number = _number("statx")
    except OSError:
        return None
    # SAFE: answer is 256 bytes, as large as the kernel's structure, and outlives the call; the path is empty.
    result = _syscall(
        ctypes.c_long(number), ctypes.c_int(fd), ctypes.c_char_p(b""), ctypes.c_int(AT_EMPTY_PATH),
        ctypes.c_uint(wanted), ctypes.byref(answer),
    )  # fmt: skip
    return None if result < 0 or not answer.mask & wanted else answer


def link_unnamed(fd: int, dir_fd: int, name: bytes) -> None:
    """Give the O_TMPFILE file ``fd`` the name ``name`` in ``dir_fd``; never replaces an existing name.

    Raises:
        OSError: EEXIST; ENOENT where the kernel wants CAP_DAC_READ_SEARCH for it (before Linux 6.10).
    """
    # SAFE: name is a bytes object kept alive by this frame; the empty path with AT_EMPTY_PATH means fd itself.
    result = _linkat(
        ctypes.c_int(fd), ctypes.c_char_p(b""), ctypes.c_int(dir_fd), ctypes.c_char_p(name),
        ctypes.c_int(AT_EMPTY_PATH),
    )  # fmt: skip
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), os.fsdecode(name))


def sync_file_system(fd: int) -> None:
    """Wait until everything written so far to the file system that ``fd`` is on has reached the disk.

    Raises:
        OSError: EIO, ENOSPC: something could not be written.
    """
    # SAFE: one integer argument; no memory of ours is touched.
    if _libc.syncfs(ctypes.c_int(fd)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))

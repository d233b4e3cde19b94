"""Mount views by descriptor: clone a tree, change its flags, put it somewhere, make it the root.

Knows the calls and their flags; what goes where is the caller's plan (`launcher/view.py`).
Runs in init processes before a command starts.
"""

import ctypes
import os
import struct
from typing import Final

from guardhouse.kernel.syscalls import declare

__all__ = [
    "MOUNT_FLAGS",
    "clone_tree",
    "detach",
    "make_private",
    "mount_new",
    "move_tree",
    "open_in_root",
    "pivot_root_here",
    "set_attributes",
]

_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
_OPEN_TREE_CLONE: Final = 1
_OPEN_TREE_CLOEXEC: Final = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH: Final = 0x04
_MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40
_MNT_DETACH: Final = 2
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 1 << 18
_RESOLVE_IN_ROOT: Final = 0x10
_RESOLVE_NO_MAGICLINKS: Final = 0x02
# openat2(2): EAGAIN where a rename or mount anywhere on the host raced with a ".." of the path (/var/spool/mail has
# one on Debian); the caller is asked to try again. A busy build server renames all the time.
_TRIES: Final = 10_000

# name: (MOUNT_ATTR_* of mount_setattr, MS_* of mount). linux/mount.h.
MOUNT_FLAGS: Final[dict[str, tuple[int, int]]] = {
    "readonly": (0x01, 0x01),
    "nosuid": (0x02, 0x02),
    "nodev": (0x04, 0x04),
    "noexec": (0x08, 0x08),
}

_open_tree = declare("open_tree", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_move_mount = declare("move_mount", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_mount_setattr = declare(
    "mount_setattr", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint, ctypes.c_char_p, ctypes.c_size_t
)
_mount = declare("mount", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_umount2 = declare("umount2", ctypes.c_char_p, ctypes.c_int)
_pivot_root = declare("pivot_root", ctypes.c_char_p, ctypes.c_char_p)
_openat2 = declare("openat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)


def open_in_root(root_fd: int, path: str) -> int:
    """Return an O_PATH descriptor of ``path`` as a process with ``root_fd`` for its root would see it.

    An absolute symbolic link inside the view so stays inside the view. The caller closes the descriptor.
    """
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    tries = _TRIES
    while True:
        try:
            # SAFE: ``how`` is struct open_how, three 64-bit words, and its length is passed.
            return _openat2(root_fd, os.fsencode(path), how, len(how))
        except BlockingIOError:
            tries -= 1
            if tries == 0:
                raise


def clone_tree(path: str, *, recursive: bool) -> int:
    """Return the descriptor of a detached copy of the mount at ``path``; with what is mounted below, if asked."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    # SAFE: the bytes outlive the call; the result is a new descriptor that the caller closes.
    return _open_tree(_AT_FDCWD, os.fsencode(path), flags)


def set_attributes(tree_fd: int, names: frozenset[str], *, recursive: bool) -> None:
    """Add the flags ``names`` (keys of `MOUNT_FLAGS`) to the tree; flags are only ever added."""
    attr_set = 0
    for name in names:
        attr_set |= MOUNT_FLAGS[name][0]
    attributes = struct.pack("=QQQQ", attr_set, 0, 0, 0)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    # SAFE: struct mount_attr is four 64-bit words (MOUNT_ATTR_SIZE_VER0).
    _mount_setattr(tree_fd, b"", flags, attributes, len(attributes))


def move_tree(tree_fd: int, target_fd: int) -> None:
    """Attach the detached tree on top of what ``target_fd`` (O_PATH) names."""
    # SAFE: both are open descriptors; no path is resolved, so nothing can be swapped in between.
    _move_mount(tree_fd, b"", target_fd, b"", _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH)


def mount_new(kind: str, target: str, *, flags: frozenset[str], data: str = "") -> None:
    """Mount a new file system of type ``kind`` (``tmpfs``, ``proc``, ``devpts``) at ``target``."""
    bits = 0
    for name in flags:
        bits |= MOUNT_FLAGS[name][1]
    # SAFE: every argument is bytes that outlive the call.
    _mount(kind.encode(), os.fsencode(target), kind.encode(), bits, data.encode() or None)


def make_private() -> None:
    """Stop every mount of this namespace from sending changes to, or taking changes from, another."""
    _mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)


def pivot_root_here() -> None:
    """Make the working directory, a mount point, the root, and let go of the old root entirely.

    ``pivot_root(".", ".")`` puts the old root on top of the new one, where it can be detached without a
    directory made for it: pivot_root(2), "pivot_root(".", ".")".
    """
    _pivot_root(b".", b".")
    _umount2(b".", _MNT_DETACH)
    os.chdir("/")


def detach(path: str) -> None:
    """Take the topmost mount off ``path``."""
    _umount2(os.fsencode(path), _MNT_DETACH)

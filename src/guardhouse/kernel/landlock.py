"""Landlock: make a ruleset, fill it, enter it.

Knows the names and bits of every access up to ABI 7; a plan is cut to the host's ABI before it gets here.
Runs in the thread that becomes a command, and in workers.
"""

import ctypes
import functools
import struct
from typing import Final

from guardhouse.errors import SetupError
from guardhouse.kernel.syscalls import declare

__all__ = ["ACCESS_FS", "ACCESS_NET", "SCOPED", "allow_path", "allow_port", "create_ruleset", "restrict_self"]

# linux/landlock.h; the comment is the ABI that brought the bit.
ACCESS_FS: Final[dict[str, int]] = {
    "execute": 1 << 0,
    "write_file": 1 << 1,
    "read_file": 1 << 2,
    "read_dir": 1 << 3,
    "remove_dir": 1 << 4,
    "remove_file": 1 << 5,
    "make_char": 1 << 6,
    "make_dir": 1 << 7,
    "make_reg": 1 << 8,
    "make_sock": 1 << 9,
    "make_fifo": 1 << 10,
    "make_block": 1 << 11,
    "make_sym": 1 << 12,
    "refer": 1 << 13,  # 2
    "truncate": 1 << 14,  # 3
    "ioctl_dev": 1 << 15,  # 5
}
ACCESS_NET: Final[dict[str, int]] = {"bind_tcp": 1, "connect_tcp": 2}  # 4
SCOPED: Final[dict[str, int]] = {"abstract_unix_socket": 1, "signal": 2}  # 6

# The kernel answers EINVAL to any other access on something that is not a directory.
_ON_FILES: Final = (
    ACCESS_FS["execute"]
    | ACCESS_FS["write_file"]
    | ACCESS_FS["read_file"]
    | ACCESS_FS["truncate"]
    | ACCESS_FS["ioctl_dev"]
)
_TABLES: Final = {"file access": ACCESS_FS, "network access": ACCESS_NET, "scope": SCOPED}
_RULE_PATH_BENEATH: Final = 1
_RULE_NET_PORT: Final = 2

_create = declare("landlock_create_ruleset", ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint)
_add = declare("landlock_add_rule", ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_restrict = declare("landlock_restrict_self", ctypes.c_int, ctypes.c_uint)


@functools.cache
def _bits(names: tuple[str, ...], what: str) -> int:
    """Return the bits of ``names``; cached, since each command asks for the same few dozen sets again."""
    table = _TABLES[what]
    total = 0
    for name in names:
        if name not in table:
            raise SetupError(f"landlock has no {what} called {name!r}; known: {', '.join(table)}")
        total |= table[name]
    return total


def create_ruleset(*, handled_fs: tuple[str, ...], handled_net: tuple[str, ...], scoped: tuple[str, ...]) -> int:
    """Return the descriptor (close-on-exec) of a ruleset that denies all it handles until rules allow it."""
    fs = _bits(handled_fs, "file access")
    net = _bits(handled_net, "network access")
    scope = _bits(scoped, "scope")
    words = [fs, net, scope]
    # An older kernel answers E2BIG to a longer struct whose end is not zero: send only what is needed.
    while len(words) > 1 and words[-1] == 0:
        words.pop()
    attributes = struct.pack(f"={len(words)}Q", *words)
    # SAFE: struct landlock_ruleset_attr is that many 64-bit words and its length is passed.
    return _create(attributes, len(attributes), 0)


def allow_path(ruleset_fd: int, path_fd: int, names: tuple[str, ...], *, is_directory: bool) -> None:
    """Allow the accesses ``names`` on what ``path_fd`` (O_PATH) names and, for a directory, all beneath."""
    bits = _bits(names, "file access")
    if not is_directory:
        bits &= _ON_FILES
    if bits == 0:
        return
    # SAFE: struct landlock_path_beneath_attr is packed: one 64-bit word and one 32-bit descriptor.
    _add(ruleset_fd, _RULE_PATH_BENEATH, struct.pack("=Qi", bits, path_fd), 0)


def allow_port(ruleset_fd: int, port: int, names: tuple[str, ...]) -> None:
    """Allow ``bind_tcp`` or ``connect_tcp`` on one TCP port."""
    bits = _bits(names, "network access")
    # SAFE: struct landlock_net_port_attr is two 64-bit words.
    _add(ruleset_fd, _RULE_NET_PORT, struct.pack("=QQ", bits, port), 0)


def restrict_self(ruleset_fd: int) -> None:
    """Put the calling thread, and whatever it starts, under the ruleset for good. Needs no_new_privs."""
    _restrict(ruleset_fd, 0)

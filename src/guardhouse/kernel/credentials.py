"""Who the calling thread is and what it may still become: ids, capabilities, securebits, no_new_privs.

Every call here changes the calling thread only (`syscalls.py` says why that matters).
Runs in the launcher, in init processes and in the threads that become commands.
"""

import ctypes
import struct
from collections.abc import Iterable
from typing import Final

from guardhouse.errors import SetupError
from guardhouse.kernel.syscalls import declare

__all__ = [
    "CAPABILITIES",
    "capability_mask",
    "drop_bounding_set",
    "keep_capabilities_only",
    "leave_root",
    "permitted_capabilities",
    "set_dumpable",
    "set_ids",
    "set_no_new_privs",
    "set_parent_death_signal",
    "set_securebits",
    "set_supplementary_groups",
]

# linux/capability.h: those that a process of ours keeps for its own steps.
CAPABILITIES: Final[dict[str, int]] = {
    "dac_override": 1,
    "dac_read_search": 2,
    "kill": 5,
    "setgid": 6,
    "setuid": 7,
    "setpcap": 8,
    "net_admin": 12,
    "sys_ptrace": 19,
    "sys_admin": 21,
}

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_DROP: Final = 24
_PR_SET_SECUREBITS: Final = 28
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_EINVAL: Final = 22

# Each with its lock: no uid 0 magic at exec, and no ambient capability can ever be raised again.
# NO_SETUID_FIXUP and KEEP_CAPS stay off, so leaving uid 0 clears the capability sets by itself as well.
_SECBIT_NOROOT_LOCKED: Final = 0x3
_SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED: Final = 0xC0

_CAPABILITY_VERSION_3: Final = 0x20080522

_capget = declare("capget", ctypes.c_char_p, ctypes.c_char_p)
_capset = declare("capset", ctypes.c_char_p, ctypes.c_char_p)
_prctl = declare("prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_setgroups = declare("setgroups", ctypes.c_size_t, ctypes.c_char_p)
_setresgid = declare("setresgid", ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)
_setresuid = declare("setresuid", ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)


def set_no_new_privs() -> None:
    """From here on no exec can gain a privilege: setuid bits and file capabilities do nothing."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def set_dumpable(*, dumpable: bool) -> None:
    """Say whether others of the same uid may trace this process, read its memory or its ``/proc`` entries."""
    _prctl(_PR_SET_DUMPABLE, int(dumpable), 0, 0, 0)


def set_parent_death_signal(signal_number: int) -> None:
    """Have the kernel send ``signal_number`` when the thread that made this process ends."""
    _prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)


def set_securebits() -> None:
    """Lock "uid 0 is nothing special" and "no ambient capabilities". Needs CAP_SETPCAP."""
    _prctl(_PR_SET_SECUREBITS, _SECBIT_NOROOT_LOCKED | _SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED, 0, 0, 0)


def capability_mask(names: Iterable[str]) -> int:
    """Return the bits of ``names``.

    Raises:
        SetupError: a name is not one of `CAPABILITIES`.
    """
    mask = 0
    for name in names:
        if name not in CAPABILITIES:
            raise SetupError(f"unknown capability {name!r}; known here: {', '.join(CAPABILITIES)}")
        mask |= 1 << CAPABILITIES[name]
    return mask


def drop_bounding_set(*, kept: int = 0) -> None:
    """Empty the bounding set but for the bits ``kept``, and the ambient set: no exec can gain another capability.

    Needs CAP_SETPCAP.
    """
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for number in range(64):
        if kept >> number & 1:
            continue
        try:
            _prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
        except OSError as error:
            # The first number that this kernel does not know: capabilities(7) counts up without gaps.
            if error.errno == _EINVAL and number > CAPABILITIES["sys_admin"]:
                return
            raise


def permitted_capabilities() -> int:
    """Return the permitted set of the calling thread as a bit mask."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    buffer = ctypes.create_string_buffer(24)
    # SAFE: version 3 writes two records of three 32-bit words, which is what the buffer holds.
    _capget(header, buffer)
    _, low, _, _, high, _ = struct.unpack("=6I", buffer.raw)
    return int(low | high << 32)


def keep_capabilities_only(mask: int) -> None:
    """Set effective and permitted to those of ``mask`` that are permitted now; inheritable to none."""
    kept = permitted_capabilities() & mask
    low, high = kept & 0xFFFFFFFF, kept >> 32
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    # SAFE: two records of effective, permitted, inheritable; pid 0 is the calling thread.
    _capset(header, struct.pack("=6I", low, low, 0, high, high, 0))


def leave_root(uid: int, gid: int) -> None:
    """Become ``uid`` and ``gid`` without groups, with the permitted capabilities kept and none effective.

    Clears the parent death signal and the dumpable flag (prctl(2)). Needs CAP_SETUID and CAP_SETGID.
    """
    _prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    set_supplementary_groups(())
    set_ids(uid, gid)
    _prctl(_PR_SET_KEEPCAPS, 0, 0, 0, 0)


def set_supplementary_groups(groups: tuple[int, ...]) -> None:
    """Replace the supplementary groups of the calling thread. Needs CAP_SETGID."""
    _setgroups(len(groups), struct.pack(f"={len(groups)}I", *groups))


def set_ids(uid: int, gid: int) -> None:
    """Set real, effective and saved gid and then uid of the calling thread; there is no way back."""
    _setresgid(gid, gid, gid)
    _setresuid(uid, uid, uid)

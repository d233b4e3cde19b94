r"""The names of what is not finished: a plain one, and one that says what an exchange of two names was about.

A name for an exchange is `.guardhouse-tmp-RANDOM-OURS-FOUND-NAME`: whoever meets it after a kill or a loss of power can
tell from the directory alone whose content it is, and where it belongs. OURS and FOUND stand for the file that was
written and the one that it was to replace; NAME is the beginning of the file's own name. Pure: no file is touched.
Runs in the files worker.
"""

import hashlib
import os
import re
import stat
from typing import Final, NamedTuple

__all__ = ["TEMPORARY_PREFIX", "SwapName", "identity_of", "is_temporary", "kept_name", "parse_swap_name", "swap_name"]

TEMPORARY_PREFIX: Final = b".guardhouse-tmp-"
_UNKNOWN: Final = b"0" * 16
# With all that stands before it 140 bytes at most: less than any file system's bound on a name (eCryptfs: 143).
_NAME_KEPT_BYTES: Final = 72
_PLAIN: Final = re.compile(re.escape(TEMPORARY_PREFIX) + rb"[0-9a-f]{16}")
_SWAP: Final = re.compile(
    re.escape(TEMPORARY_PREFIX) + rb"(?P<random>[0-9a-f]{16})-(?P<ours>[0-9a-f]{16})-(?P<found>[0-9a-f]{16})-"
    rb"(?P<name>.{1,72})",
    re.DOTALL,
)


class SwapName(NamedTuple):
    """What a name for an exchange says.

    Attributes:
        random: tells it from all others.
        ours: `identity_of` the new content.
        found: the same of what it was to replace; None where that alone does not tell that it is what was meant.
        name: how the file's name begins, at most 72 bytes of it.
    """

    random: bytes
    ours: bytes
    found: bytes | None
    name: bytes


def is_temporary(name: bytes) -> bool:
    """Say whether ``name`` is one that we give; somebody's file that only begins like one is not."""
    return _PLAIN.fullmatch(name) is not None or _SWAP.fullmatch(name) is not None


def identity_of(found: os.stat_result) -> bytes:
    """Return 16 characters for a file and its content, as far as number, size and time tell.

    Without the device: some file systems have another after each start. A directory keeps its own whatever happens in
    it.
    """
    kind = stat.S_IFMT(found.st_mode)
    told = f"{kind}:{found.st_ino}"
    if kind != stat.S_IFDIR:
        told += f":{found.st_size}:{found.st_mtime_ns}"
    return hashlib.sha256(told.encode()).hexdigest()[:16].encode()


def swap_name(temporary: bytes, ours: os.stat_result, found: os.stat_result | None, name: bytes) -> bytes:
    """Return the name that the finished ``temporary`` takes before it is exchanged with ``name``.

    Args:
        temporary: a plain temporary name.
        ours: what has that name.
        found: what is to come out; None where only a look into it tells whether that is what was meant.
        name: one component.
    """
    expected = _UNKNOWN if found is None else identity_of(found)
    return b"-".join((temporary, identity_of(ours), expected, name[:_NAME_KEPT_BYTES]))


def parse_swap_name(name: bytes) -> SwapName | None:
    """Return what ``name`` says; None where it is no name for an exchange."""
    match = _SWAP.fullmatch(name)
    if match is None:
        return None
    found = None if match["found"] == _UNKNOWN else match["found"]
    return SwapName(match["random"], match["ours"], found, match["name"])


def kept_name(swap: SwapName) -> bytes:
    """Return the name under which a person finds what came out of an exchange and has no other place any more."""
    return swap.name + b".guardhouse-kept-" + swap.random

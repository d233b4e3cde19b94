"""Which named programs a file is a copy of: by the build id that the linker gave it, or by its contents.

A deny rule names a program; a copy of it under another name in the workspace is the same program. This finds plain
copies, also with bytes appended or under another name. It does not find a program that was built anew or packed: no
table can (docs/exec_gate.md, "What it does not promise").

Only ever a reason to say no. Runs in the launcher (named files, once) and in the exec gate's monitor (files that run).
"""

# ruff: noqa: PTH116 - the launcher does without pathlib: it would double what each fork copies
import hashlib
import os
import struct
import time
from collections.abc import Mapping
from typing import Final

from guardhouse.launcher.gate.trusted import TrustedPrograms

__all__ = ["LOADER", "KinTable"]

LOADER: Final = "ld.so"
# Where the dynamic loaders are, by the ABI documents of each architecture and libc: none is in a PATH.
_LOADERS: Final = (
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-linux.so.2",
    "/lib/ld-musl-i386.so.1",
    "/lib/ld-musl-x86_64.so.1",
    "/lib/ld-musl-aarch64.so.1",
)
_HEAD_BYTES: Final = 64 * 1024  # headers and notes stand at a file's beginning
_COMPARED_MAX_BYTES: Final = 64 * 1024 * 1024
_CACHE_MAX: Final = 4_096
# A timestamp is as fine as a tick of the kernel's clock; a file that changed this lately may change unseen.
_SETTLED_NS: Final = 1_000_000_000

# Offsets and numbers of elf(5).
_ELF_64_LITTLE: Final = b"\x7fELF\x02\x01"
_ELF_32_LITTLE: Final = b"\x7fELF\x01\x01"
_PROGRAM_HEADERS_OFFSET: Final = 32
_PROGRAM_HEADER_SIZE_OFFSET: Final = 54
_PROGRAM_HEADERS_OFFSET_32: Final = 28
_PROGRAM_HEADER_SIZE_OFFSET_32: Final = 42
_PT_NOTE: Final = 4
_NT_GNU_BUILD_ID: Final = 3

# p_type, p_offset and p_filesz of Elf64_Phdr and Elf32_Phdr.
_HEADER_64: Final = struct.Struct("<I4xQ16xQ16x")
_HEADER_32: Final = struct.Struct("<II8xI12x")

Fingerprint = tuple[str, bytes]


class KinTable:
    """The fingerprints of some programs of the trusted path, and of the dynamic loaders as `LOADER`."""

    def __init__(self, trusted: TrustedPrograms, programs: frozenset[str]) -> None:
        found: dict[Fingerprint, set[str]] = {}
        self._sizes: set[int] = set()
        self._own: set[tuple[int, int]] = set()
        self._cache: dict[tuple[int, int, int], frozenset[str]] = {}
        paths = [(LOADER, path) for path in _LOADERS]
        paths += [(name, f"{directory}/{name}") for directory in trusted.directories for name in programs]
        for name, path in paths:
            try:
                status = os.stat(path)
                fingerprint = _fingerprint(path, status.st_size)
            except OSError:
                continue  # not installed here, or nothing that a command could read either
            self._own.add((status.st_dev, status.st_ino))
            if fingerprint is not None:
                found.setdefault(fingerprint, set()).add(name)
                self._sizes.add(status.st_size)
        self._names: Mapping[Fingerprint, frozenset[str]] = {key: frozenset(names) for key, names in found.items()}
        self._trusted = trusted

    def kin_of(self, status: os.stat_result, openable: str) -> frozenset[str]:
        """Return the names of the programs that a file is a copy of, empty for a file of the trusted path itself."""
        identity = (status.st_dev, status.st_ino)
        if self._trusted.has(identity, status.st_ctime_ns):
            return frozenset()
        key = (*identity, status.st_ctime_ns)
        known = self._cache.get(key)
        if known is not None:
            return known
        try:
            fingerprint = _fingerprint(openable, status.st_size, only_sizes=self._sizes)
        except OSError:
            fingerprint = None
        kin = frozenset() if fingerprint is None else self._names.get(fingerprint, frozenset())
        if time.time_ns() - status.st_ctime_ns > _SETTLED_NS:
            if len(self._cache) >= _CACHE_MAX:
                self._cache.pop(next(iter(self._cache)))
            self._cache[key] = kin
        return kin


def _fingerprint(path: str, size: int, *, only_sizes: set[int] | None = None) -> Fingerprint | None:
    """Return what tells a file from others; None for one that is not worth comparing.

    Args:
        only_sizes: a file without a build id is only read to its end when its size is one of these.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        head = os.pread(descriptor, _HEAD_BYTES, 0)
        build_id = _build_id(head)
        if build_id is not None:
            return ("build id", build_id)
        if size > _COMPARED_MAX_BYTES or (only_sizes is not None and size not in only_sizes):
            return None
        digest = hashlib.sha256()
        offset = 0
        while piece := os.pread(descriptor, 1024 * 1024, offset):
            digest.update(piece)
            offset += len(piece)
        return ("contents", digest.digest())
    finally:
        os.close(descriptor)


def _build_id(head: bytes) -> bytes | None:
    """Return the GNU build id of an ELF file (ld(1), --build-id), or None. Pure."""
    if len(head) < 64:
        return None
    if head.startswith(_ELF_64_LITTLE):
        (table,) = struct.unpack_from("<Q", head, _PROGRAM_HEADERS_OFFSET)
        size, count = struct.unpack_from("<HH", head, _PROGRAM_HEADER_SIZE_OFFSET)
    elif head.startswith(_ELF_32_LITTLE):
        (table,) = struct.unpack_from("<I", head, _PROGRAM_HEADERS_OFFSET_32)
        size, count = struct.unpack_from("<HH", head, _PROGRAM_HEADER_SIZE_OFFSET_32)
    else:
        return None
    layout = _HEADER_64 if head.startswith(_ELF_64_LITTLE) else _HEADER_32
    for index in range(count):
        at = table + index * size
        if at + layout.size > len(head):
            return None
        kind, offset, length = layout.unpack_from(head, at)
        if kind != _PT_NOTE:
            continue
        found = _build_id_in(head[offset : offset + length])
        if found is not None:
            return found
    return None


def _build_id_in(notes: bytes) -> bytes | None:
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, at)
        name_at = at + 12
        value_at = name_at + (name_size + 3) // 4 * 4
        if kind == _NT_GNU_BUILD_ID and notes[name_at : name_at + name_size] == b"GNU\0" and size:
            return notes[value_at : value_at + size] if value_at + size <= len(notes) else None
        at = value_at + (size + 3) // 4 * 4
    return None

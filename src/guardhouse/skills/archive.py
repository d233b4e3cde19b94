"""A skill's zip archive as a list of files, checked whole before a single byte of it is unpacked.

The list is made from the central directory, and every local header must say the same: what differs is what a
second reader of the archive would see, and is refused. Pure: bytes in, list out, contents on request. Runs in
the files worker and in the hub.
"""

import io
import itertools
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from guardhouse import limits
from guardhouse.limits import SKILL_FRONT_MATTER_MAX_BYTES
from guardhouse.skills.errors import SkillRefused
from guardhouse.skills.manifest import Manifest, parse_manifest
from guardhouse.skills.names import check_names_together, parse_entry_name

__all__ = ["Archive", "ArchiveEntry", "read_archive", "read_content"]

_END: Final = struct.Struct("<4s4H2LH")
_END_SIGNATURE: Final = b"PK\x05\x06"
_END64_LOCATOR: Final = b"PK\x06\x07"
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_LOCAL_SIGNATURE: Final = b"PK\x03\x04"
_ZIP64_EXTRA: Final = 0x0001
_UNICODE_PATH_EXTRA: Final = 0x7075
_ENCRYPTED_FLAGS: Final = 0x0001 | 0x0040 | 0x2000
_DESCRIPTOR_FLAG: Final = 0x0008
_UTF8_FLAG: Final = 0x0800
_CHUNK_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """One file or directory.

    Attributes:
        parts: components of its path.
        is_directory: whether it is one.
        size: bytes unpacked, as both headers promise; unpacking holds it to that.
        is_executable: whether any execute bit is set.
        start: offset of its packed bytes in the archive.
        packed_size: their number.
        method: zipfile.ZIP_STORED or ZIP_DEFLATED.
        crc: CRC-32 of the unpacked bytes.
    """

    parts: tuple[str, ...]
    is_directory: bool
    size: int
    is_executable: bool
    start: int
    packed_size: int
    method: int
    crc: int


@dataclass(frozen=True, slots=True)
class Archive:
    """A checked archive: safe to unpack into an empty directory."""

    entries: tuple[ArchiveEntry, ...]
    manifest: Manifest
    total_size: int


def read_archive(data: bytes | memoryview) -> Archive:
    """Return the checked list of what ``data`` holds.

    Raises:
        SkillRefused: it is no zip, or holds anything that could leave its place, hide, or fill the disk; the text names
            the entry and the bound.
    """
    whole = bytes(data)
    if len(whole) > limits.SKILL_ARCHIVE_MAX_BYTES:
        raise SkillRefused(f"archive of {len(whole)} bytes is over {limits.SKILL_ARCHIVE_MAX_BYTES}")
    directory_start = _check_frame(whole)
    try:
        with zipfile.ZipFile(io.BytesIO(whole)) as opened:
            infos = opened.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OverflowError, IndexError) as error:
        raise SkillRefused(f"not a zip archive: {error}") from error
    if len(infos) > limits.SKILL_ENTRIES_MAX:
        raise SkillRefused(f"{len(infos)} entries are over {limits.SKILL_ENTRIES_MAX}")
    entries = tuple(_read_entry(whole, info, directory_start) for info in infos)
    total = sum(entry.size for entry in entries)
    if total > limits.SKILL_TOTAL_MAX_BYTES:
        raise SkillRefused(f"{total} bytes unpacked are over {limits.SKILL_TOTAL_MAX_BYTES}")
    _check_ratio(total, sum(entry.packed_size for entry in entries), "the archive")
    _check_apart(entries, infos)
    check_names_together((entry.parts, entry.is_directory) for entry in entries)
    manifest_entry = next((entry for entry in entries if entry.parts == ("SKILL.md",)), None)
    if manifest_entry is None or manifest_entry.is_directory:
        raise SkillRefused("there is no SKILL.md at the top of the archive")
    manifest = parse_manifest(_start_of(whole, manifest_entry, SKILL_FRONT_MATTER_MAX_BYTES))
    return Archive(entries, manifest, total)


def read_content(data: bytes | memoryview, entry: ArchiveEntry) -> Iterator[bytes]:
    """Yield the unpacked bytes of ``entry``, never more than it promised.

    Raises:
        SkillRefused: there are more or fewer bytes than promised, they are damaged, or not deflate at all.
    """
    packed = memoryview(data)[entry.start : entry.start + entry.packed_size]
    name = "/".join(entry.parts)
    size = 0
    crc = 0
    for chunk in _unpacked(packed, entry.method, name):
        size += len(chunk)
        if size > entry.size:
            raise SkillRefused(f"entry {name!r} unpacks to more than the {entry.size} bytes that it promised")
        crc = zlib.crc32(chunk, crc)
        yield chunk
    if size != entry.size or crc != entry.crc:
        raise SkillRefused(
            f"entry {name!r} is damaged: {size} of {entry.size} bytes, CRC {crc:08x} for {entry.crc:08x}"
        )


def _start_of(whole: bytes, entry: ArchiveEntry, size: int) -> bytes:
    """Return the first ``size`` bytes of ``entry`` and some more: nobody needs a SKILL.md of megabytes in memory."""
    found = bytearray()
    for chunk in read_content(whole, entry):
        found += chunk
        if len(found) >= size:
            break
    return bytes(found)


def _check_frame(whole: bytes) -> int:
    """Check that one zip archive and nothing else fills ``whole``; return where its directory starts."""
    at = whole.rfind(_END_SIGNATURE, max(0, len(whole) - _END.size - 0xFFFF))
    if at < 0 or at + _END.size > len(whole):
        raise SkillRefused("not a zip archive: no end of central directory")
    _, disk, first_disk, here, count, size, offset, comment = _END.unpack_from(whole, at)
    if at + _END.size + comment != len(whole):
        raise SkillRefused("bytes follow the end of the archive, or a second end of central directory does")
    if (
        whole[max(0, at - 20) : at].startswith(_END64_LOCATOR)
        or 0xFFFF in (here, count)
        or 0xFFFFFFFF in (size, offset)
    ):
        raise SkillRefused("the archive is zip64, which none of this size needs; pack it without")
    if disk or first_disk or here != count:
        raise SkillRefused("the archive is split over several disks")
    if offset + size != at:
        raise SkillRefused("the central directory is not where the archive says; bytes were put before or between")
    if whole.find(_END_SIGNATURE, offset) != at:
        raise SkillRefused("the archive has two ends of central directory")
    if count and not whole.startswith(_LOCAL_SIGNATURE):
        raise SkillRefused("bytes stand before the first entry")
    return int(offset)


def _read_entry(whole: bytes, info: zipfile.ZipInfo, directory_start: int) -> ArchiveEntry:
    raw = info.orig_filename
    parts = parse_entry_name(raw)
    where = f"entry {raw[:200]!r}"
    is_directory = raw.endswith("/")
    mode = info.external_attr >> 16
    _check_mode(mode, where, is_directory=is_directory)
    if info.flag_bits & _ENCRYPTED_FLAGS:
        raise SkillRefused(f"{where} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise SkillRefused(f"{where} is packed by method {info.compress_type}; stored and deflate are read")
    if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
        raise SkillRefused(f"{where} is stored, yet its sizes differ ({info.compress_size}, {info.file_size})")
    if is_directory and info.file_size:
        raise SkillRefused(f"{where} is a directory with content")
    if info.file_size > limits.SKILL_FILE_MAX_BYTES:
        raise SkillRefused(f"{where} of {info.file_size} bytes is over {limits.SKILL_FILE_MAX_BYTES}")
    _check_extra(info.extra, where)
    _check_ratio(info.file_size, info.compress_size, where)
    start = _check_local(whole, info, where)
    if start + info.compress_size > directory_start:
        raise SkillRefused(f"{where} reaches into the central directory")
    return ArchiveEntry(
        parts, is_directory, info.file_size, bool(mode & 0o111), start, info.compress_size, info.compress_type, info.CRC
    )


def _check_mode(mode: int, where: str, *, is_directory: bool) -> None:
    kind = stat.S_IFMT(mode)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "a symbolic link" if kind == stat.S_IFLNK else "no regular file"
        raise SkillRefused(f"{where} is {what}")
    if kind and (kind == stat.S_IFDIR) != is_directory:
        raise SkillRefused(f"{where} is a directory by its mode or by its name, not by both")
    if mode & (stat.S_ISUID | stat.S_ISGID):
        raise SkillRefused(f"{where} has a setuid or setgid bit")


def _check_extra(extra: bytes, where: str) -> None:
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        if kind == _ZIP64_EXTRA:
            raise SkillRefused(f"{where} has zip64 sizes, which no entry of this size needs")
        if kind == _UNICODE_PATH_EXTRA:
            raise SkillRefused(f"{where} has a second name in its extra field")
        at += 4 + size
    if at > len(extra):
        raise SkillRefused(f"{where} has a broken extra field")


def _check_local(whole: bytes, info: zipfile.ZipInfo, where: str) -> int:
    """Check that the local header says what the directory says; return where the packed bytes start."""
    at = info.header_offset
    if at < 0 or at + _LOCAL.size > len(whole):
        raise SkillRefused(f"{where} lies outside the archive")
    signature, _, flags, method, _, _, crc, packed, size, name_size, extra_size = _LOCAL.unpack_from(whole, at)
    if signature != _LOCAL_SIGNATURE:
        raise SkillRefused(f"{where} has no local header")
    name_end = at + _LOCAL.size + name_size
    try:
        name = whole[at + _LOCAL.size : name_end].decode("utf-8" if flags & _UTF8_FLAG else "cp437")
    except UnicodeDecodeError as error:
        raise SkillRefused(f"{where} has a local name that is not UTF-8") from error
    _check_extra(whole[name_end : name_end + extra_size], where)
    told = (crc, packed, size)
    deferred = bool(flags & _DESCRIPTOR_FLAG) and told == (0, 0, 0)
    if name != info.orig_filename or method != info.compress_type or flags & _ENCRYPTED_FLAGS:
        raise SkillRefused(f"{where} has another name or method in its local header: {name[:200]!r}")
    if not deferred and told != (info.CRC, info.compress_size, info.file_size):
        raise SkillRefused(f"{where} has other sizes in its local header")
    return int(name_end + extra_size)


def _check_ratio(size: int, packed: int, where: str) -> None:
    if size > limits.SKILL_RATIO_FREE_BYTES and size > limits.SKILL_RATIO_MAX * max(packed, 1):
        raise SkillRefused(f"{where} unpacks to {size} bytes from {packed}, more than {limits.SKILL_RATIO_MAX} to 1")


def _check_apart(entries: tuple[ArchiveEntry, ...], infos: list[zipfile.ZipInfo]) -> None:
    """Refuse entries that share bytes: that is how 42 kB become petabytes."""
    spans = sorted(
        (
            (info.header_offset, entry.start + entry.packed_size, entry)
            for info, entry in zip(infos, entries, strict=True)
        ),
        key=lambda span: span[:2],
    )
    for (_, end, first), (start, _, second) in itertools.pairwise(spans):
        if start < end:
            raise SkillRefused(f"entries {'/'.join(first.parts)!r} and {'/'.join(second.parts)!r} overlap")


def _unpacked(packed: memoryview, method: int, name: str) -> Iterator[bytes]:
    if method == zipfile.ZIP_STORED:
        for at in range(0, len(packed), _CHUNK_BYTES):
            yield bytes(packed[at : at + _CHUNK_BYTES])
        return
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    rest: bytes | memoryview = packed
    try:
        while not unpacker.eof:
            chunk = unpacker.decompress(rest, _CHUNK_BYTES)
            rest = unpacker.unconsumed_tail
            if not chunk and not rest:
                break
            if chunk:
                yield chunk
    except zlib.error as error:
        raise SkillRefused(f"entry {name!r} is damaged: {error}") from error
    if not unpacker.eof or unpacker.unused_data:
        raise SkillRefused(f"entry {name!r} is damaged: its packed bytes end too early or too late")

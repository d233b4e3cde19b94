"""A skill as a tar archive, plain or gzip, read strictly and written anew as the zip archive that runners take.

A runner is only ever sent a zip, so that there is one reader on production hosts and one checksum. What this reader
does not know it refuses: links, devices, sparse files, second names. Pure: bytes in, bytes out. Runs in the hub.
"""

import io
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from guardhouse import limits
from guardhouse.skills.errors import SkillRefused
from guardhouse.skills.names import check_names_together, parse_entry_name

__all__ = ["TarEntry", "as_zip", "is_zip", "read_tar", "write_zip"]

_BLOCK: Final = 512
_GZIP_MAGIC: Final = b"\x1f\x8b"
_OCTAL: Final = re.compile(rb" *([0-7]*)[ \0]*")
_ZIP_MAGIC: Final = (b"PK\x03\x04", b"PK\x05\x06")
_CHUNK_BYTES: Final = 256 * 1024
# Headers, padding and the end of a tar archive: five blocks an entry, and one record of the largest usual size.
_TAR_MAX_BYTES: Final = limits.SKILL_TAR_TOTAL_MAX_BYTES + 5 * _BLOCK * limits.SKILL_ENTRIES_MAX + (1 << 20)
_EXTENDED_MAX_BYTES: Final = 8 * 1024
# What pax headers may say: times and owners are not kept, names and sizes are read, the rest is refused.
_PAX_IGNORED: Final = frozenset({"atime", "ctime", "mtime", "uid", "gid", "uname", "gname", "comment"})
# Zip has no earlier time; one and the same makes equal content equal bytes.
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One file or directory: its components, whether it is a directory or executable, and its bytes."""

    parts: tuple[str, ...]
    is_directory: bool
    is_executable: bool
    content: memoryview


def is_zip(data: bytes) -> bool:
    """Whether ``data`` begins as a zip archive does."""
    return data.startswith(_ZIP_MAGIC)


def as_zip(data: bytes) -> bytes:
    """Return a skill's archive as zip: a zip archive as it is, a tar archive (plain or gzip) written anew.

    Raises:
        SkillRefused: it is neither, or a tar archive that is not acceptable. A zip archive is not looked into here.
    """
    if len(data) > limits.SKILL_ARCHIVE_MAX_BYTES:
        raise SkillRefused(f"archive of {len(data)} bytes is over {limits.SKILL_ARCHIVE_MAX_BYTES}")
    if is_zip(data):
        return data
    entries = read_tar(_unpack_gzip(data) if data.startswith(_GZIP_MAGIC) else data)
    return write_zip(entries)


def write_zip(entries: list[TarEntry]) -> bytes:
    """Return ``entries`` as a zip archive: by name, without times and owners, so that equal content is equal bytes."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for entry in sorted(entries, key=lambda one: one.parts):
            name = "/".join(entry.parts) + ("/" if entry.is_directory else "")
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system = 3  # Unix: the mode below means something
            mode = (stat.S_IFDIR | 0o755) if entry.is_directory else stat.S_IFREG | _mode(entry)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_STORED if entry.is_directory else _method(entry)
            archive.writestr(info, bytes(entry.content))
    return made.getvalue()


def read_tar(data: bytes) -> list[TarEntry]:
    """Return what a tar archive (ustar, pax or GNU) holds, names and kinds checked.

    Raises:
        SkillRefused: it is no tar archive, or holds what no skill does; the text names the entry.
    """
    view, at = memoryview(data), 0
    entries: list[TarEntry] = []
    total = 0
    said: dict[str, str] = {}
    while True:
        if at + _BLOCK > len(data):
            raise SkillRefused("not a zip or tar archive: no end of archive")
        header = bytes(view[at : at + _BLOCK])
        if not header.strip(b"\0"):
            _check_rest(data, at)
            break
        _check_sum(header)
        name, size, kind = _name(header), _number(header[124:136], "size"), header[156:157]
        start = at + _BLOCK
        at = start + (size + _BLOCK - 1) // _BLOCK * _BLOCK
        if at > len(data):
            raise SkillRefused(f"entry {name[:200]!r} ends behind the end of the archive")
        if kind in {b"L", b"x", b"g"}:
            said = {**said, **_extended(kind, bytes(view[start : start + min(size, _EXTENDED_MAX_BYTES + 1)]))}
            continue
        if "size" in said and said["size"] != str(size):
            raise SkillRefused(f"entry {name[:200]!r} has two sizes")
        entry = _entry(said.get("path", name), kind, header, view[start : start + size])
        said = {}
        if entry is None:
            continue
        entries.append(entry)
        total += size
        if len(entries) > limits.SKILL_ENTRIES_MAX:
            raise SkillRefused(f"more than {limits.SKILL_ENTRIES_MAX} entries")
        if total > limits.SKILL_TAR_TOTAL_MAX_BYTES:
            raise SkillRefused(f"more than {limits.SKILL_TAR_TOTAL_MAX_BYTES} bytes unpacked; pack it as zip")
    check_names_together((entry.parts, entry.is_directory) for entry in entries)
    return entries


def _entry(name: str, kind: bytes, header: bytes, content: memoryview) -> TarEntry | None:
    """Return one entry; None for the archive's own top, which `tar -C skill .` writes as "./"."""
    where = f"entry {name[:200]!r}"
    if kind not in {b"0", b"\0", b"5"}:
        what = {b"1": "a hard link", b"2": "a symbolic link"}.get(kind, f"of type {kind.decode('latin-1')!r}")
        raise SkillRefused(f"{where} is {what}; a skill has files and directories")
    is_directory = kind == b"5"
    if is_directory and len(content):
        raise SkillRefused(f"{where} is a directory with content")
    if name.endswith("/") and not is_directory:
        raise SkillRefused(f"{where} is a directory by its name only")
    if name in {".", "./"} and is_directory:
        return None
    mode = _number(header[100:108], "mode")
    if mode & (stat.S_ISUID | stat.S_ISGID):
        raise SkillRefused(f"{where} has a setuid or setgid bit")
    if len(content) > limits.SKILL_FILE_MAX_BYTES:
        raise SkillRefused(f"{where} of {len(content)} bytes is over {limits.SKILL_FILE_MAX_BYTES}")
    return TarEntry(parse_entry_name(name.removeprefix("./")), is_directory, bool(mode & 0o111), content)


def _name(header: bytes) -> str:
    name, magic, rest = _text(header[:100]), header[257:263], header[345:500]
    # POSIX has the beginning of a long name in the rest, the others have nothing there; some readers take it for a name
    # whatever it is.
    if magic not in {b"ustar\0", b"ustar ", bytes(6)} or (magic != b"ustar\0" and rest.strip(b"\0")):
        raise SkillRefused(f"entry {name[:200]!r} is in no format of tar that is known (ustar, pax, GNU)")
    prefix = _text(rest) if magic == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    try:
        return field.partition(b"\0")[0].decode("utf-8")
    except UnicodeDecodeError as error:
        raise SkillRefused(f"an entry's name is not UTF-8: {field[:100]!r}") from error


def _number(field: bytes, what: str) -> int:
    # Digits behind a NUL count for some readers and not for others.
    found = _OCTAL.fullmatch(field)
    if found is None:
        raise SkillRefused(f"the archive has a {what} that is no octal number: {field!r}")
    return int(found[1] or b"0", 8)


def _check_sum(header: bytes) -> None:
    wanted = sum(header[:148]) + 8 * 0x20 + sum(header[156:])
    found = _OCTAL.fullmatch(header[148:156])
    if found is None or not found[1] or int(found[1], 8) != wanted:
        raise SkillRefused("not a zip or tar archive: a header's checksum is wrong")


def _check_rest(data: bytes, at: int) -> None:
    """Refuse what stands behind the end: another reader may go on there."""
    if len(data) - at < 2 * _BLOCK or data[at:].strip(b"\0"):
        raise SkillRefused("the tar archive is cut off, or bytes follow its end")


def _extended(kind: bytes, content: bytes) -> dict[str, str]:
    """Return what a header about the next entry says of its name and size; what is about all entries says neither."""
    if len(content) > _EXTENDED_MAX_BYTES:
        raise SkillRefused(f"a header of the archive is over {_EXTENDED_MAX_BYTES} bytes")
    if kind == b"L":
        return {"path": _text(content)}
    found: dict[str, str] = {}
    for key, value in _pax_records(content):
        if key in {"path", "size"} and kind == b"x" and key not in found:
            found[key] = value
        elif key not in _PAX_IGNORED:
            raise SkillRefused(f"a header of the archive has {key[:80]!r}, which no skill needs")
    return found


def _pax_records(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield key and value of each record: its length in decimal, a blank, key=value and a newline."""
    at = 0
    while at < len(content):
        blank = content.find(b" ", at, at + 8)
        digits = content[at:blank] if blank > 0 else b""
        size = int(digits) if digits.isdigit() else 0
        record = content[at : at + size]
        if size < 5 or len(record) != size or not record.endswith(b"\n"):
            raise SkillRefused("a header of the archive is broken")
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if not equals or b"\0" in value:
            raise SkillRefused("a header of the archive is broken")
        yield _text(key), _text(value)
        at += size


def _unpack_gzip(data: bytes) -> bytes:
    """Return what one gzip member holds, never more than a tar archive of a skill may have."""
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    made = bytearray()
    rest: bytes = data
    try:
        while not unpacker.eof:
            chunk = unpacker.decompress(rest, _CHUNK_BYTES)
            rest = unpacker.unconsumed_tail
            if not chunk and not rest:
                break
            made += chunk
            if len(made) > _TAR_MAX_BYTES:
                raise SkillRefused(f"the archive unpacks to more than {_TAR_MAX_BYTES} bytes")
            if len(made) > limits.SKILL_RATIO_FREE_BYTES and len(made) > limits.SKILL_RATIO_MAX * len(data):
                raise SkillRefused(
                    f"the archive unpacks to {len(made)} bytes and more from {len(data)}: over"
                    f" {limits.SKILL_RATIO_MAX} to 1"
                )
    except zlib.error as error:
        raise SkillRefused(f"the archive is damaged: {error}") from error
    if not unpacker.eof or unpacker.unused_data.strip(b"\0"):
        raise SkillRefused("the archive is damaged: its gzip data ends too early, or bytes follow it")
    return bytes(made)


def _mode(entry: TarEntry) -> int:
    return 0o755 if entry.is_executable else 0o644


def _method(entry: TarEntry) -> int:
    """Deflate where it stays within what a runner unpacks; content of one byte over and over is stored as it is."""
    size = len(entry.content)
    if size <= limits.SKILL_RATIO_FREE_BYTES:
        return zipfile.ZIP_DEFLATED
    packed = len(zlib.compress(entry.content, 1))
    return zipfile.ZIP_STORED if size > packed * limits.SKILL_RATIO_MAX // 2 else zipfile.ZIP_DEFLATED

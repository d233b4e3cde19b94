"""Any bytes as a skill's tar archive: refused in words, or files; Python's own reader finds no others.

Mutations break the checksum of a header, so each input is read a second time with the checksums set right. What is
accepted becomes a zip archive that holds the same, and that is read as every skill is.
"""

import io
import tarfile
import zipfile

from driver import main
from guardhouse.skills import SkillRefused, read_archive
from guardhouse.skills.tar import as_zip, is_zip, read_tar, write_zip

_BLOCK = 512
_GZIP_MAGIC = b"\x1f\x8b"


def fuzz_one(data: bytes) -> None:
    if is_zip(data):
        return
    _read(data)
    if not data.startswith(_GZIP_MAGIC):
        _read(_with_checksums(data))


def _read(data: bytes) -> None:
    try:
        packed = as_zip(data)
    except SkillRefused:
        return
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    if not data.startswith(_GZIP_MAGIC):
        entries = read_tar(data)
        assert write_zip(entries) == packed
        assert len(entries) == len(files)
    for name in files:
        assert not name.startswith("/")
        assert not {"", ".", ".."} & set(name.removesuffix("/").split("/"))
    # It gives up or stops where a time or an owner is no number; what it does find is the same.
    assert _found_by_tarfile(data).items() <= files.items()
    try:
        read_archive(packed)
    except SkillRefused:
        return


def _found_by_tarfile(data: bytes) -> dict[str, bytes]:
    """Return content by name; names of directories end in a slash."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                assert member.isreg() or member.isdir()
                file = archive.extractfile(member)
                name = member.name.removeprefix("./")
                if name not in ("", "."):
                    found[name + "/" * member.isdir()] = b"" if file is None else file.read()
    except tarfile.ReadError:
        pass
    return found


def _with_checksums(data: bytes) -> bytes:
    """Return ``data`` with the checksum right in every block that this reader comes by as a header."""
    fixed = bytearray(data)
    at = 0
    while at + _BLOCK <= len(fixed) and any(fixed[at : at + _BLOCK]):
        total = sum(fixed[at : at + 148]) + 8 * 0x20 + sum(fixed[at + 156 : at + _BLOCK])
        fixed[at + 148 : at + 156] = b"%06o\0 " % total
        digits = bytes(fixed[at + 124 : at + 136]).strip(b" \0")
        size = int(digits, 8) if digits and not digits.strip(b"01234567") else 0
        at += _BLOCK + (size + _BLOCK - 1) // _BLOCK * _BLOCK
    return bytes(fixed)


TARGET = fuzz_one

if __name__ == "__main__":
    main(fuzz_one, __file__)

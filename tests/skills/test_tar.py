"""Tar archives as the hub takes them: what GNU tar and Python write, and headers that readers take differently."""

import io
import tarfile
import zipfile
from collections.abc import Callable

import pytest

from guardhouse.skills import SkillRefused
from guardhouse.skills.tar import as_zip

FILES = {"SKILL.md": b"---\nname: demo\ndescription: x\n---\n", "long" * 15 + "/" + "name" * 15 + ".txt": b"content"}


def pack(layout: int = tarfile.USTAR_FORMAT) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=layout) as archive:
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


def patched(at: int, new: bytes) -> bytes:
    """Return the archive with bytes of the second header replaced and its checksum set right."""
    data = bytearray(pack())
    start = 1024
    data[start + at : start + at + len(new)] = new
    header = data[start : start + 512]
    data[start + 148 : start + 156] = b"%06o\0 " % (sum(header[:148]) + 8 * 0x20 + sum(header[156:]))
    return bytes(data)


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_every_usual_format(layout: int) -> None:
    """Long names come through in each of the three ways in which they are written."""
    with zipfile.ZipFile(io.BytesIO(as_zip(pack(layout)))) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == FILES


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    # Python's reader takes the beginning of a name from such a header, others do not: one archive, two trees.
    "a beginning of a name in an unknown format": (lambda: patched(257, b"other!"), "no format of tar"),
    "a beginning of a name in GNU's format": (lambda: patched(257, b"ustar  \0"), "no format of tar"),
    "a beginning of a name in the oldest format": (lambda: patched(257, bytes(8)), "no format of tar"),
    "a checksum": (lambda: pack().replace(b"SKILL.md", b"SKILL.mt", 1), "checksum"),
    "a link": (lambda: patched(156, b"2"), "a symbolic link"),
    "a setuid bit": (lambda: patched(100, b"0004755\0"), "setuid"),
    # Python's reader stops at the NUL and finds an empty file, others skip it.
    "a size behind a NUL": (lambda: patched(124, b"\0" * 8 + b"0007"), "no octal number"),
    "a size that is no number": (lambda: patched(124, b"\x80"), "no octal number"),
    "a name that goes up": (lambda: patched(345, b"../../..\0"), ".."),
    "bytes behind the end": (lambda: pack() + b"x" * 512, "bytes follow"),
    "no end": (lambda: pack()[:2048], "no end of archive"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str) -> None:
    """What readers of tar understand differently, or no skill has, is refused in words."""
    make, words = REFUSED[what]
    with pytest.raises(SkillRefused, match=words):
        as_zip(make())

"""Archives that lie, each beside the same archive without the lie, which is accepted."""

import io
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardhouse import limits
from guardhouse.skills import SkillRefused, parse_manifest, read_archive, read_content

MANIFEST = "---\nname: demo\ndescription: a demonstration\n---\nText\n"


def pack(
    *entries: tuple[str | zipfile.ZipInfo, bytes], manifest: str | None = MANIFEST, method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        if manifest is not None:
            archive.writestr("SKILL.md", manifest)
        for name, content in entries:
            archive.writestr(name, content)
    return made.getvalue()


def info(name: str, mode: int = 0o644, *, kind: int = stat.S_IFREG) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.create_system = 3
    made.external_attr = (kind | mode) << 16
    made.compress_type = zipfile.ZIP_DEFLATED
    return made


def patched(data: bytes, old: bytes, new: bytes, *, count: int = -1) -> bytes:
    assert old in data
    return data.replace(old, new, count)


def central(data: bytes, offset: int, new: bytes, *, entry: int = -1) -> bytes:
    """Overwrite bytes of one central directory header."""
    starts = [at for at in range(len(data)) if data.startswith(b"PK\x01\x02", at)]
    at = starts[entry] + offset
    return data[:at] + new + data[at + len(new) :]


def local(data: bytes, offset: int, new: bytes, *, entry: int = -1) -> bytes:
    """Overwrite bytes of one local header."""
    starts = [at for at in range(len(data)) if data.startswith(b"PK\x03\x04", at)]
    at = starts[entry] + offset
    return data[:at] + new + data[at + len(new) :]


PLAIN = pack(("a/file.txt", b"content " * 100), (info("run.sh", 0o755), b"#!/bin/sh\n"))
FLAGS_AT, METHOD_AT, CRC_AT, PACKED_AT, SIZE_AT, OFFSET_AT = 8, 10, 16, 20, 24, 42


def overlapping() -> bytes:
    """Two directory entries for one local entry, names made equal so that only the overlap is wrong."""
    data = pack(("aaaa", b"x" * 50), ("bbbb", b"x" * 50))
    end = data.rfind(b"PK\x05\x06")
    starts = [at for at in range(len(data)) if data.startswith(b"PK\x01\x02", at)]
    first_offset = struct.unpack_from("<L", data, starts[1] + OFFSET_AT)[0]
    data = data[: starts[2] + OFFSET_AT] + struct.pack("<L", first_offset) + data[starts[2] + OFFSET_AT + 4 :]
    return data[: starts[2] + 46] + b"aaaa" + data[starts[2] + 50 : end] + data[end:]


def zip64() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("SKILL.md", MANIFEST)
        with archive.open("big", "w", force_zip64=True) as entry:
            entry.write(b"x")
    return made.getvalue()


LIES: dict[str, tuple[Callable[[], bytes], str]] = {
    "absolute name": (lambda: pack(("/etc/cron.d/x", b"x")), "is absolute"),
    "parent": (lambda: pack(("../x", b"x")), "would leave"),
    "parent in the middle": (lambda: pack(("a/../../x", b"x")), "would leave"),
    "parent at the end": (lambda: pack(("a/..", b"x")), "would leave"),
    "dot": (lambda: pack(("./x", b"x")), "would leave"),
    "empty component": (lambda: pack(("a//x", b"x")), "would leave"),
    "backslash": (lambda: pack(("..\\x", b"x")), "backslash"),
    "drive": (lambda: pack(("C:x", b"x")), "drive"),
    "newline": (lambda: pack(("a\nb", b"x")), "control character"),
    "terminal escape": (lambda: pack(("a\x1b[2J", b"x")), "control character"),
    "NUL": (lambda: patched(pack(("aXb", b"x")), b"aXb", b"a\0b"), "control character"),
    "name too long": (lambda: pack(("n" * 256, b"x")), "255 bytes"),
    "path too deep": (lambda: pack(("d/" * 40 + "x", b"x")), "deeper than"),
    "our own name": (lambda: pack((".checksum", b"x")), "keeps for itself"),
    "our own name in capitals": (lambda: pack((".CHECKSUM", b"x")), "keeps for itself"),
    "our own temporary name": (lambda: pack(("a/.guardhouse-tmp-1", b"x")), "keeps for itself"),
    "symbolic link": (lambda: pack((info("l", 0o777, kind=stat.S_IFLNK), b"/etc/passwd")), "symbolic link"),
    "device": (lambda: pack((info("d", kind=stat.S_IFCHR), b"")), "no regular file"),
    "FIFO": (lambda: pack((info("f", kind=stat.S_IFIFO), b"")), "no regular file"),
    "setuid": (lambda: pack((info("s", 0o4755), b"x")), "setuid"),
    "setgid": (lambda: pack((info("s", 0o2755), b"x")), "setuid or setgid"),
    "directory by mode only": (lambda: pack((info("d", kind=stat.S_IFDIR), b"")), "not by both"),
    "directory with content": (lambda: pack((info("d/", 0o755, kind=stat.S_IFDIR), b"x")), "directory with content"),
    "duplicate": (lambda: patched(pack(("aa", b"x"), ("ab", b"y")), b"ab", b"aa"), "twice"),
    "case": (lambda: pack(("Readme", b"x"), ("README", b"y")), "differ in case"),
    "case in a directory": (lambda: pack(("Dir/a", b"x"), ("dir/b", b"y")), "differ in case"),
    "case of the manifest": (lambda: pack(("skill.md", b"x")), "differ in case"),
    "sharp s": (lambda: pack(("straße", b"x"), ("strasse", b"y")), "differ in case"),
    "Unicode forms": (lambda: pack(("é", b"x"), ("e\u0301", b"y")), "differ in case"),
    "file used as a directory": (lambda: pack(("a", b"x"), ("a/b", b"y")), "both a file and a directory"),
    "encrypted": (lambda: central(PLAIN, FLAGS_AT, b"\x01\0"), "encrypted"),
    "encrypted in the local header": (lambda: local(PLAIN, 6, b"\x01\0"), "local header"),
    "unknown method": (lambda: central(PLAIN, METHOD_AT, b"\x63\0"), "method 99|not a zip"),
    "bzip2": (lambda: pack(("a", b"x" * 100), method=zipfile.ZIP_BZIP2), "method 12"),
    "another method in the local header": (lambda: local(PLAIN, 8, b"\0\0"), "local header"),
    "another name in the local header": (lambda: local(PLAIN, 30, b"ran"), "local header"),
    "size too small": (lambda: central(local(PLAIN, 22, b"\x01\0\0\0"), SIZE_AT, b"\x01\0\0\0"), "damaged|more than"),
    "sizes that differ": (lambda: central(PLAIN, SIZE_AT, b"\xff\0\0\0"), "other sizes"),
    "size of gigabytes": (lambda: central(PLAIN, SIZE_AT, b"\0\0\0\xf0"), "is over"),
    "packed size past the end": (
        lambda: central(local(PLAIN, 18, b"\xff\xff\0\0"), PACKED_AT, b"\xff\xff\0\0"), "reaches|overlap"
    ),
    "offset past the end": (lambda: central(PLAIN, OFFSET_AT, b"\xff\xff\0\0"), "outside|no local|not a zip"),
    "offset into content": (lambda: central(PLAIN, OFFSET_AT, b"\x05\0\0\0"), "no local header|differ|not a zip"),
    "wrong CRC": (lambda: central(local(PLAIN, 14, b"\0\0\0\0", entry=0), CRC_AT, b"\0\0\0\0", entry=0), "damaged"),
    "overlapping entries": (overlapping, "overlap|twice"),
    "zip64 entry": (zip64, "zip64"),
    "zip64 marks": (lambda: central(PLAIN, SIZE_AT, b"\xff\xff\xff\xff"), "zip64|not a zip|is over"),
    "bytes in front": (lambda: b"#!/bin/sh\n" + PLAIN, "put before"),
    "bytes behind": (lambda: PLAIN + b"x", "not a zip|follow"),
    "two archives": (lambda: PLAIN + PLAIN, "put before|between"),
    "an archive in the comment": (
        lambda: PLAIN[:-2] + struct.pack("<H", len(PLAIN)) + PLAIN, "put before|two ends|not where"
    ),
    "several disks": (lambda: PLAIN[:-18] + b"\x01\0" + PLAIN[-16:], "disks"),
    "count that lies": (lambda: PLAIN[:-12] + b"\x02\0" + PLAIN[-10:], "disks|not a zip"),
    "bomb": (lambda: pack(("bomb", b"\0" * (8 << 20))), "more than 100 to 1"),
    "bomb in many files": (lambda: pack(*[(f"b{n}", b"\0" * (900 << 10)) for n in range(20)]), "more than 100 to 1"),
    "file too large": (lambda: central(local(PLAIN, 22, b"\0\0\0\x07"), SIZE_AT, b"\0\0\0\x07"), "is over"),
    "too many entries": (lambda: pack(*[(f"f{n}", b"") for n in range(limits.SKILL_ENTRIES_MAX)]), "entries are over"),
    "archive too large": (lambda: b"PK" + bytes(limits.SKILL_ARCHIVE_MAX_BYTES), "is over"),
    "empty": (lambda: b"", "not a zip"),
    "no zip": (lambda: b"\x1f\x8b" + b"x" * 100, "not a zip"),
    "cut off": (lambda: PLAIN[:-30], "not a zip"),
    "no manifest": (lambda: pack(("a", b"x"), manifest=None), "no SKILL.md"),
    "manifest below": (lambda: pack(("demo/SKILL.md", MANIFEST.encode()), manifest=None), "no SKILL.md"),
    "manifest is a directory": (lambda: pack(("SKILL.md/x", b"x"), manifest=None), "no SKILL.md"),
    "no front matter": (lambda: pack(manifest="# Demo\n"), "front matter"),
    "a control character": (lambda: pack(manifest="---\nname: a\nversion: b\0c\n---\n"), "SKILL.md line 3 has a"),
    "front matter never closed": (lambda: pack(manifest="---\nname: demo\n"), "not closed"),
    "no YAML": (lambda: pack(manifest="---\nname: [\n---\n"), "not YAML"),
    "YAML list": (lambda: pack(manifest="---\n- a\n---\n"), "no mapping"),
    "YAML alias": (lambda: pack(manifest="---\nname: &a demo\ndescription: *a\n---\n"), "alias"),
    "YAML object": (lambda: pack(manifest="---\nname: !!python/object/apply:os.system [id]\n---\n"), "not YAML"),
    "YAML key twice": (lambda: pack(manifest="---\nname: demo\nname: other\ndescription: d\n---\n"), "twice"),
    "YAML very deep": (lambda: pack(manifest="---\na: " + "[" * 5000 + "\n---\n"), "deeper|not YAML"),
    "no name": (lambda: pack(manifest="---\ndescription: d\n---\n"), "no 'name'"),
    "no description": (lambda: pack(manifest="---\nname: demo\n---\n"), "no 'description'"),
    "name in capitals": (lambda: pack(manifest="---\nname: Demo\ndescription: d\n---\n"), "kebab"),
    "name with a slash": (lambda: pack(manifest="---\nname: ../demo\ndescription: d\n---\n"), "kebab"),
    "skill name too long": (lambda: pack(manifest=f"---\nname: {'a' * 65}\ndescription: d\n---\n"), "kebab"),
    "name with a newline": (lambda: pack(manifest='---\nname: "demo\\n"\ndescription: ""\n---\n'), "no 'description'"),
    "tags of mappings": (lambda: pack(manifest="---\nname: demo\ndescription: d\ntags: [{a: b}]\n---\n"), "tags"),
}  # fmt: skip


def unpack(data: bytes) -> int:
    return sum(len(chunk) for entry in read_archive(data).entries for chunk in read_content(data, entry))


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused(lie: str) -> None:
    """An archive that could leave its place, hide something or fill the disk is refused, naming what is wrong."""
    make, said = LIES[lie]
    data = make()
    with pytest.raises(SkillRefused, match=said) as refused:
        unpack(data)
    assert str(refused.value).startswith("skill refused: ")


def test_a_plain_archive_is_read() -> None:
    """The archive without any lie is listed whole, with sizes, execute bits and contents."""
    archive = read_archive(PLAIN)
    assert [(entry.parts, entry.size, entry.is_executable) for entry in archive.entries] == [
        (("SKILL.md",), len(MANIFEST), False), (("a", "file.txt"), 800, False), (("run.sh",), 10, True)
    ]  # fmt: skip
    assert b"".join(read_content(PLAIN, archive.entries[1])) == b"content " * 100
    assert archive.total_size == len(MANIFEST) + 810


@pytest.mark.parametrize(
    "make",
    [
        lambda: pack((info("dir/", 0o755, kind=stat.S_IFDIR), b""), ("dir/file", b"x")),
        lambda: pack(("nested.zip", PLAIN), method=zipfile.ZIP_STORED),
        lambda: pack(("ünïcode/名前.txt", b"x")),
        lambda: pack(("empty", b"")),
        lambda: pack(("big.txt", b"text " * 200_000)),
        lambda: pack((info("sticky", 0o1644), b"x")),
        lambda: pack(("..x", b""), ("x..", b""), ("...", b"")),
        lambda: pack(manifest="\ufeff---\r\nname: demo\r\ndescription: d\r\n---\r\n"),
        lambda: pack(manifest="---\nname: demo\ndescription: d\ntags: a, b\nallowed-tools: [bash]\n---\n"),
    ],
)  # fmt: skip
def test_honest_archives_are_read(make: Callable[[], bytes]) -> None:
    """Directories, stored archives inside, other scripts, empty files and well packed text are no lies."""
    data = make()
    archive = read_archive(data)
    for entry in archive.entries:
        assert sum(map(len, read_content(data, entry))) == entry.size
    assert archive.manifest.name == "demo"


def test_streamed_archives_are_read(tmp_path: Path) -> None:
    """An archive written to a pipe has its sizes behind the content; the local header then says nothing of them."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            self.data += bytes(data)
            return len(bytes(data))

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("SKILL.md", MANIFEST)
        archive.writestr("a", b"x" * 1000)
    assert len(read_archive(pipe.data).entries) == 2


def test_manifest_values_stay_text() -> None:
    """A version 1.10 is not 1.1, and a date is no date."""
    manifest = parse_manifest(b"---\nname: demo\ndescription: yes\nversion: 1.10\nauthor: 2024-01-01\n---\n")
    assert (manifest.version, manifest.author, manifest.description) == ("1.10", "2024-01-01", "yes")


@given(st.binary(max_size=60), st.integers(0, len(PLAIN) - 1))
@settings(max_examples=400, deadline=None)
def test_any_damage_is_refused_or_harmless(noise: bytes, at: int) -> None:
    """Whatever bytes are overwritten, the archive is refused or every entry stays inside its promise."""
    data = PLAIN[:at] + noise + PLAIN[at + len(noise) :]
    try:
        archive = read_archive(data)
        for entry in archive.entries:
            assert ".." not in entry.parts
            assert sum(map(len, read_content(data, entry))) == entry.size
    except SkillRefused:
        pass

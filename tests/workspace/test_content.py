"""Read, write and edit: offsets, sizes, atomicity, modes, checksums, parts."""

import contextlib
import dataclasses
import errno
import hashlib
import os
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardhouse.workspace import (
    Code,
    Quota,
    Temporaries,
    Workspace,
    WorkspaceRefusal,
    edit_file,
    hash_file,
    make_rules,
    read_file,
    remove_path,
    stat_path,
    usage,
    write_file,
    write_part,
)
from guardhouse.workspace.place import open_place
from guardhouse.workspace.write import put_content


def code_of(act: object, *args: object, **more: object) -> Code:
    with pytest.raises(WorkspaceRefusal) as refused:
        act(*args, **more)
    return refused.value.code


@pytest.mark.parametrize(
    ("offset", "limit", "content"),
    [
        (0, 0, b"0123456789"),
        (0, -1, b"0123456789"),
        (3, 4, b"3456"),
        (9, 5, b"9"),
        (10, 1, b""),
        (99, 0, b""),
        (0, 10, b"0123456789"),
    ],
)
def test_offset_and_limit_are_bytes(
    offset: int, limit: int, content: bytes, workspace: Workspace, tmp_path: Path
) -> None:
    """Any offset and limit give that part; the size is the whole file's."""
    (tmp_path / "f").write_bytes(b"0123456789")
    part = read_file(workspace, "f", offset=offset, limit=limit)
    assert (part.content, part.total_size, part.bounded) == (content, 10, False)


def test_an_answer_that_is_bounded_says_so(workspace: Workspace, tmp_path: Path) -> None:
    """Reaching our own bound shows; reaching the asked limit or the end does not."""
    (tmp_path / "f").write_bytes(b"x" * 100)
    assert read_file(workspace, "f", max_bytes=99).bounded
    assert read_file(workspace, "f", limit=200, max_bytes=99).bounded
    assert not read_file(workspace, "f", max_bytes=100).bounded
    assert not read_file(workspace, "f", limit=99, max_bytes=99).bounded
    assert not read_file(workspace, "f", offset=1, max_bytes=99).bounded


def test_negative_and_impossible_offsets(workspace: Workspace, tmp_path: Path) -> None:
    """Below 0 is refused; past what any file can have is past the end."""
    (tmp_path / "f").write_bytes(b"x")
    assert code_of(read_file, workspace, "f", offset=-1) is Code.INVALID
    for offset in (2**40, 2**62, 2**63 - 1, 2**63, 2**80):
        part = read_file(workspace, "f", offset=offset)
        assert (part.content, part.total_size) == (b"", 1)


def test_a_growing_file_has_an_honest_size(workspace: Workspace, tmp_path: Path) -> None:
    """While a file grows, every answer's size is at least where its content ends."""
    path = tmp_path / "log"
    path.write_bytes(b"")
    stop = threading.Event()

    def grow() -> None:
        with open(path, "ab", buffering=0) as log:
            while not stop.is_set():
                log.write(b"line\n" * 100)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        for _ in range(300):
            part = read_file(workspace, "log", limit=50_000)
            assert part.total_size >= part.offset + len(part.content)
    finally:
        stop.set()
        writer.join()


def test_a_write_keeps_mode_and_owner_but_no_setuid(workspace: Workspace, tmp_path: Path) -> None:
    """The bits of an existing file stay, setuid and setgid go; a new file has 0644, its parents 0755."""
    (tmp_path / "tool").write_bytes(b"old")
    (tmp_path / "tool").chmod(0o4751)
    if os.geteuid() == 0:
        os.chown(tmp_path / "tool", 12, 34)
        (tmp_path / "tool").chmod(0o4751)
    before = (tmp_path / "tool").stat()
    write_file(workspace, "tool", b"new")
    after = (tmp_path / "tool").stat()
    assert (after.st_mode & 0o7777, after.st_uid, after.st_gid) == (0o751, before.st_uid, before.st_gid)
    old = os.umask(0o022)
    write_file(workspace, "a/b/new", b"x")
    os.umask(old)
    assert (tmp_path / "a/b/new").stat().st_mode & 0o7777 == 0o644
    assert (tmp_path / "a/b").stat().st_mode & 0o7777 == 0o755


def test_a_reader_sees_old_or_new(workspace: Workspace, tmp_path: Path) -> None:
    """However often a file is written, nobody ever reads a part, a mixture or nothing."""
    contents = [bytes([65 + n]) * 200_000 for n in range(5)]
    write_file(workspace, "f", contents[0], sync=False)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            write_file(workspace, "f", contents[number % 5], sync=False)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            assert (tmp_path / "f").read_bytes() in contents
    finally:
        stop.set()
        writer.join()
    assert os.listdir(tmp_path) in (["f"], [".work", "f"], ["f", ".work"])


def test_a_write_through_a_link_keeps_the_link(workspace: Workspace, tmp_path: Path) -> None:
    """A link inside stays a link; what it points to has the new content, made if need be."""
    (tmp_path / "d").mkdir()
    os.symlink("d/target", tmp_path / "link")
    assert write_file(workspace, "link", b"one").created
    assert write_file(workspace, "link", b"two").path == b"d/target"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "d" / "target").read_bytes() == b"two"
    os.symlink("no/such/target", tmp_path / "dangling")
    assert code_of(write_file, workspace, "dangling", b"x") is Code.NOT_FOUND


def test_if_checksum(workspace: Workspace) -> None:
    """A write on condition happens only over the content that its sender knows."""
    one = write_file(workspace, "f", b"one", if_checksum="")
    assert code_of(write_file, workspace, "f", b"two", if_checksum="") is Code.CONFLICT
    assert code_of(write_file, workspace, "f", b"two", if_checksum="0" * 64) is Code.CONFLICT
    assert code_of(write_file, workspace, "g", b"two", if_checksum=one.checksum) is Code.CONFLICT
    write_file(workspace, "f", b"two", if_checksum=one.checksum.upper())
    assert read_file(workspace, "f").content == b"two"


def test_if_checksum_loses_nobodys_write(workspace: Workspace, tmp_path: Path) -> None:
    """What somebody else puts there between the comparison and the rename stays, and the write is refused."""
    checksum = write_file(workspace, "f", b"old").checksum

    def meanwhile(*_: object) -> None:
        (tmp_path / "other").write_bytes(b"somebody's")
        os.rename(tmp_path / "other", tmp_path / "f")

    assert code_of(write_file, workspace, "f", b"ours", if_checksum=checksum, admit=meanwhile) is Code.CONFLICT
    assert (tmp_path / "f").read_bytes() == b"somebody's"
    os.unlink(tmp_path / "f")
    assert code_of(write_file, workspace, "f", b"ours", if_checksum="", admit=meanwhile) is Code.CONFLICT
    assert (tmp_path / "f").read_bytes() == b"somebody's"
    assert os.listdir(tmp_path) == ["f"] or sorted(os.listdir(tmp_path)) == [".work", "f"]


def test_a_taken_temporary_name_is_not_given_the_files_name(workspace: Workspace, tmp_path: Path) -> None:
    """What another process puts in the place of the temporary file never becomes the file; the write is refused."""
    write_file(workspace, "f", b"old")

    class Taken(Temporaries):
        def name_in(self, directory: bytes) -> bytes:
            self.name = super().name_in(directory)
            return self.name

    taken = Taken(workspace)

    def parts() -> Iterator[memoryview]:
        yield memoryview(b"new")
        os.unlink(tmp_path / os.fsdecode(taken.name))
        os.symlink("/etc/passwd", tmp_path / os.fsdecode(taken.name))

    with open_place(workspace, b"f", make_parents=True, through_links=True) as place:
        assert code_of(put_content, place, parts(), b"f", taken) is Code.CONFLICT
    assert (tmp_path / "f").read_bytes() == b"old"
    assert not any(name.startswith(".guardhouse-tmp") for name in os.listdir(tmp_path))
    taken.close()


def test_a_replaced_file_is_read_again(workspace: Workspace, tmp_path: Path) -> None:
    """A file that is replaced while it is read comes whole and with its checksum all the same."""
    (tmp_path / "f").write_bytes(b"old")
    swaps = iter((b"newer", b"newest"))

    def tick() -> None:
        content = next(swaps, None)
        if content is not None:
            (tmp_path / "g").write_bytes(content)
            os.rename(tmp_path / "g", tmp_path / "f")

    part = read_file(workspace, "f", tick=tick)
    assert part.checksum == hashlib.sha256(part.content).hexdigest()


COUNTING_WRITER = """
import os, sys
from guardhouse.workspace import WorkspaceRefusal, open_workspace, read_file, write_file
workspace = open_workspace(os.open(sys.argv[1], os.O_RDONLY))
wins = 0
for _ in range(150):
    part = read_file(workspace, "n")
    if part.checksum is None:  # replaced while it was read
        continue
    try:
        write_file(workspace, "n", b"%d" % (int(part.content) + 1), if_checksum=part.checksum, sync=False)
    except WorkspaceRefusal:
        continue
    wins += 1
print(wins)
"""


def test_two_writers_that_compare(tmp_path: Path) -> None:
    """Of two processes that count by reading and comparing, none loses the other's step."""
    (tmp_path / "n").write_bytes(b"0")
    writers = [
        subprocess.Popen([sys.executable, "-c", COUNTING_WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    wins = [int(writer.communicate(timeout=60)[0]) for writer in writers]
    assert int((tmp_path / "n").read_bytes()) == sum(wins)


def test_edit_is_exact_and_unique(workspace: Workspace, tmp_path: Path) -> None:
    """One occurrence is replaced; none or several are refused unless all are meant; bytes around it stay."""
    (tmp_path / "f").write_bytes(b"a\r\nb\xff\na\r\n")
    assert code_of(edit_file, workspace, "f", b"a", b"c") is Code.CONFLICT
    assert code_of(edit_file, workspace, "f", b"A", b"c") is Code.NOT_FOUND
    assert code_of(edit_file, workspace, "f", b"", b"c") is Code.INVALID
    assert code_of(edit_file, workspace, "f", b"b", b"b") is Code.INVALID
    assert edit_file(workspace, "f", b"b\xff", b"B").replacements == 1
    assert edit_file(workspace, "f", b"a\r\n", b"x\n", replace_all=True).replacements == 2
    assert (tmp_path / "f").read_bytes() == b"x\nB\nx\n"
    assert code_of(edit_file, workspace, "f", b"B", b"C", if_checksum="0" * 64) is Code.CONFLICT


def test_parts_are_seen_only_as_the_whole(workspace: Workspace, tmp_path: Path) -> None:
    """Parts gather out of sight, may be sent again, tell where to go on, and take their place in one step."""
    whole = os.urandom(300_000)
    checksum = hashlib.sha256(whole).hexdigest()
    (tmp_path / "f").write_bytes(b"old")
    send = {"upload_id": "u1", "last": False}
    assert write_part(workspace, "f", whole[:100_000], offset=0, **send) == (100_000, None)
    assert write_part(workspace, "f", whole[:100_000], offset=0, **send) == (100_000, None)
    assert write_part(workspace, "f", b"", offset=0, **send) == (100_000, None)
    with pytest.raises(WorkspaceRefusal, match="send on from offset 100000"):
        write_part(workspace, "f", whole[200_000:], offset=200_000, **send)
    write_part(workspace, "f", whole[100_000:200_000], offset=100_000, **send)
    assert (tmp_path / "f").read_bytes() == b"old"
    last = {"upload_id": "u1", "offset": 200_000, "last": True}
    assert code_of(write_part, workspace, "f", whole[200_000:], **last) is Code.CHECKSUM
    assert code_of(write_part, workspace, "f", whole[200_000:], **last, checksum="0" * 64) is Code.CHECKSUM
    written = write_part(workspace, "f", whole[200_000:], **last, checksum=checksum).written
    assert written is not None
    assert written.size == 300_000
    assert (tmp_path / "f").read_bytes() == whole
    assert os.listdir(tmp_path / ".work" / "uploads") == []


def test_unfinished_uploads_are_few(workspace: Workspace) -> None:
    """So many uploads may gather and no more; one of them may go on."""
    for number in range(16):
        write_part(workspace, "f", b"x", upload_id=f"u{number}", offset=0, last=False)
    assert code_of(write_part, workspace, "f", b"x", upload_id="one more", offset=0, last=False) is Code.QUOTA
    write_part(workspace, "f", b"x", upload_id="u3", offset=1, last=False)


@given(st.binary(max_size=200), st.integers(0, 250), st.integers(-5, 250))
@settings(max_examples=100, deadline=None)
def test_read_is_a_slice(tmp_path_factory: pytest.TempPathFactory, content: bytes, offset: int, limit: int) -> None:
    """What is read is the slice of what was written, whatever offset and limit are."""
    from guardhouse.workspace import open_workspace

    root = tmp_path_factory.mktemp("slice")
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        workspace = open_workspace(fd)
        write_file(workspace, "f", content, sync=False)
        end = offset + limit if limit > 0 else None
        assert read_file(workspace, "f", offset=offset, limit=limit).content == content[offset:end]
    finally:
        os.close(fd)


def test_a_read_says_the_checksum_that_a_write_takes(workspace: Workspace) -> None:
    """The whole file's checksum comes with the whole and with a part, and is what if_checksum wants."""
    content = os.urandom(50_000)
    write_file(workspace, "f", content)
    wanted = hashlib.sha256(content).hexdigest()
    assert read_file(workspace, "f").checksum == wanted
    assert read_file(workspace, "f", offset=7, limit=10).checksum == wanted
    assert read_file(workspace, "f", offset=99_000).checksum == wanted
    write_file(workspace, "f", b"new", if_checksum=read_file(workspace, "f").checksum)
    write_file(workspace, "empty", b"")
    assert read_file(workspace, "empty").checksum == hashlib.sha256(b"").hexdigest()


def test_no_checksum_of_what_is_not_known(workspace: Workspace, tmp_path: Path) -> None:
    """A file over the bound has none in a part of it; one that grows while it is read has none either."""
    write_file(workspace, "f", b"x" * 100)
    assert read_file(workspace, "f", limit=10, max_bytes=50).checksum is None
    assert read_file(workspace, "f", max_bytes=50).checksum is None
    assert read_file(workspace, "f", max_bytes=100).checksum == hashlib.sha256(b"x" * 100).hexdigest()

    def grow() -> None:
        if (tmp_path / "f").stat().st_size == 100:
            with (tmp_path / "f").open("ab") as file:
                file.write(b"y")

    assert read_file(workspace, "f", tick=grow).checksum is None


def test_attributes_are_kept(workspace: Workspace, tmp_path: Path) -> None:
    """Access list and user attributes survive a write and an edit; a capability does not come along."""
    path = tmp_path / "f"
    path.write_bytes(b"one two")
    # acl(5), version 2: user::rw-, user:12345:rw-, group::r--, mask::rw-, other::---
    entries = [(1, 6, 0xFFFFFFFF), (2, 6, 12345), (4, 4, 0xFFFFFFFF), (0x10, 6, 0xFFFFFFFF), (0x20, 0, 0xFFFFFFFF)]
    access = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(path, "user.origin", b"a\0b")
        os.setxattr(path, "system.posix_acl_access", access)
    except OSError as error:
        pytest.skip(f"this file system has no extended attributes: {error}")
    with contextlib.suppress(PermissionError):
        os.setxattr(path, "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0))
    assert write_file(workspace, "f", b"one two three").notes == ()
    edit_file(workspace, "f", b"two", b"2")
    assert path.read_bytes() == b"one 2 three"
    assert os.getxattr(path, "user.origin") == b"a\0b"
    assert os.getxattr(path, "system.posix_acl_access") == access
    assert sorted(os.listxattr(path)) == ["system.posix_acl_access", "user.origin"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_what_cannot_be_kept_is_said(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attribute that the file system does not take any more is named in the answer; the write happens."""
    path = tmp_path / "f"
    path.write_bytes(b"one")
    try:
        os.setxattr(path, "user.origin", b"x")
    except OSError as error:
        pytest.skip(f"this file system has no extended attributes: {error}")

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "no room for attributes")

    monkeypatch.setattr(os, "setxattr", full)
    assert write_file(workspace, "f", b"two").notes == ("not kept of the old file: user.origin",)
    assert path.read_bytes() == b"two"


def test_uploads_count_in_the_quota(workspace: Workspace) -> None:
    """What unfinished uploads hold is admitted part by part, and once only; without them there is room again."""
    quota = Quota(workspace, max_bytes=1000, max_entries=0)
    part = {"admit_growth": quota.admit_growth, "admit": lambda place, size: quota.admit(place, size, uploaded=size)}
    write_part(workspace, "a", b"x" * 600, upload_id="u", offset=0, last=False, **part)
    assert code_of(write_part, workspace, "b", b"x" * 600, upload_id="v", offset=0, last=False, **part) is Code.QUOTA
    assert code_of(write_file, workspace, "c", b"x" * 600, admit=quota.admit) is Code.QUOTA
    whole = b"x" * 1000
    end = {"upload_id": "u", "offset": 600, "last": True, "checksum": hashlib.sha256(whole).hexdigest()}
    assert write_part(workspace, "a", b"x" * 400, **end, **part).written is not None
    assert code_of(write_file, workspace, "c", b"x", admit=quota.admit) is Code.QUOTA


def test_a_quota_is_not_counted_for_each_write(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many writes walk the workspace once; a refusal is given on a count that is fresh."""
    walks = []
    real = usage.measure
    monkeypatch.setattr(usage, "measure", lambda *given: (walks.append(1), real(*given))[1])
    now = [0.0]
    monkeypatch.setattr(usage.time, "monotonic", lambda: now[0])
    quota = Quota(workspace, max_bytes=1000, max_entries=100)
    for number in range(50):
        write_file(workspace, f"f{number}", b"x" * 20, admit=quota.admit, sync=False)
    assert len(walks) == 1
    assert code_of(write_file, workspace, "g", b"x", admit=quota.admit) is Code.QUOTA
    remove_path(workspace, "f7")
    now[0] += 1.0
    write_file(workspace, "g", b"x", admit=quota.admit)
    assert len(walks) == 2


def test_stat_gives_a_checksum_when_asked(workspace: Workspace, tmp_path: Path) -> None:
    """A regular file's SHA-256; of a link, a directory, what is too large or changed meanwhile none, and why."""
    (tmp_path / "f").write_bytes(b"content")
    (tmp_path / "link").symlink_to("f")
    (tmp_path / "d").mkdir()

    def hashed(path: str, **more: object) -> tuple[str | None, str | None]:
        told = hash_file(workspace, path, stat_path(workspace, path), **more)
        return told.checksum, told.why_none

    assert hashed("f") == (hashlib.sha256(b"content").hexdigest(), None)
    for path, more, why in (("link", {}, "symlink"), ("d", {}, "directory"), ("f", {"max_bytes": 6}, "at most 6")):
        checksum, why_none = hashed(path, **more)
        assert checksum is None
        assert why in str(why_none)
    grown = hashed("f", tick=lambda: (tmp_path / "f").write_bytes(b"content and more"))
    assert grown[0] is None
    assert "changed" in str(grown[1])


def test_a_checksum_needs_the_right_to_read(workspace: Workspace, tmp_path: Path) -> None:
    """What the rules keep from being read is not hashed either."""
    (tmp_path / "f").write_bytes(b"content")
    described = stat_path(workspace, "f")
    ruled = dataclasses.replace(workspace, rules=make_rules(read_deny=("f",), write_allow=(), write_deny=()))
    assert code_of(hash_file, ruled, "f", described) is Code.RULE

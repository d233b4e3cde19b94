"""Things that are no ordinary file, names that are no ordinary name, and places that run full."""

import contextlib
import hashlib
import os
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.escapes_files.box import make_box
from tests.escapes_files.test_paths import ZIP, archive
from tests.support.files import FilesWorker

from guardhouse.errors import PeerError, Refusal
from guardhouse.workspace import Code, PathEscapesWorkspace, WorkspaceRefusal


@pytest.fixture(params=["openat2", "careful"])
def method(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def files(method: str, tmp_path: Path) -> Iterator[FilesWorker]:
    with FilesWorker(tmp_path, method=method, timeout_s=20.0) as worker:
        yield worker


def refusal(act: object, *args: object, **more: object) -> WorkspaceRefusal:
    with pytest.raises(WorkspaceRefusal) as refused:
        act(*args, **more)
    return refused.value


@contextlib.contextmanager
def mounted(*command: str, at: Path) -> Iterator[None]:
    made = subprocess.run(["mount", *command, str(at)], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"needs the right to mount: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def make_special(root: Path, kind: str) -> None:
    path = root / "special"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as sock:
            here = os.getcwd()
            os.chdir(root)
            try:
                sock.bind("special")
            finally:
                os.chdir(here)
    else:
        device = {"zero": (1, 5), "null": (1, 3), "full": (1, 7)}.get(kind)
        try:
            if device is None:
                os.mknod(path, stat.S_IFBLK | 0o666, os.makedev(7, 0))
            else:
                os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(*device))
        except PermissionError:
            pytest.skip("needs the right to make devices")


@pytest.mark.parametrize("kind", ["fifo", "socket", "zero", "null", "full", "block"])
@pytest.mark.parametrize("operation", ["read", "write", "edit", "grep"])
def test_special_files_are_refused_at_once(kind: str, operation: str, files: FilesWorker, tmp_path: Path) -> None:
    """A FIFO, a socket or a device is named and refused, without opening it, waiting for it or replacing it."""
    make_special(tmp_path, kind)
    (tmp_path / "twin").write_bytes(b"abc")
    acts = {
        "read": lambda path: files.read(path),
        "write": lambda path: files.write(path, b"xc"),
        "edit": lambda path: files.edit(path, "b", "c"),
        "grep": lambda path: files.grep("b", path=path),
    }
    assert refusal(acts[operation], "special").code is Code.SPECIAL
    acts[operation]("twin")
    assert not stat.S_ISREG((tmp_path / "special").lstat().st_mode)
    assert {entry.path: entry.kind for entry in files.list().entries}["special"] is not None
    assert files.grep("c").matches[0].path == "twin"
    files.remove("special")


def test_a_writer_that_waits_on_a_fifo_is_not_woken(files: FilesWorker, tmp_path: Path) -> None:
    """Looking at a FIFO does not open it: whoever waits on its other end goes on waiting."""
    os.mkfifo(tmp_path / "fifo")
    woken = threading.Event()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), open(tmp_path / "fifo", "wb", buffering=0):
            woken.set()

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    refusal(files.read, "fifo")
    assert not woken.wait(0.2)
    with open(tmp_path / "fifo", "rb"):
        writer.join(30)


@pytest.mark.parametrize("path", ["", "in\0visible", "\ud800"])
def test_no_path_at_all(path: str, files: FilesWorker) -> None:
    """An empty path, a NUL and what is no text are refused by name, not cut short."""
    with pytest.raises((Refusal, PeerError, UnicodeEncodeError)):
        files.read(path)
    with pytest.raises((Refusal, PeerError, UnicodeEncodeError)):
        files.write(path, b"x")


@pytest.mark.parametrize("path", [".", "./", "dir", "dir/", "dir/.", "dir/..", "file/", "file/x", "file/.", "new/"])
def test_paths_that_name_no_file(path: str, files: FilesWorker, tmp_path: Path) -> None:
    """A directory, a slash at the end and a file used as a directory are refused for writing; nothing is made."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_bytes(b"old")
    refusal(files.write, path, b"x")
    refusal(files.edit, path, "old", "new")
    refusal(files.read, path)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert sorted(set(os.listdir(tmp_path)) - {".work"}) == ["dir", "file"]
    files.write("file", b"new")


@pytest.mark.parametrize("path", ["", ".", "./", "..", "dir/..", "/", "{root}", "{root}/", "./dir/../."])
def test_the_workspace_itself_is_never_removed_or_replaced(path: str, files: FilesWorker, tmp_path: Path) -> None:
    """No spelling of the workspace removes it, moves it or makes a skill of it."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "keep").write_bytes(b"keep")
    named = path.replace("{root}", str(tmp_path))
    for act in (
        lambda: files.remove(named, recursive=True),
        lambda: files.move(named, "elsewhere"),
        lambda: files.move("keep", named, overwrite=True),
        lambda: files.sync_skill("demo", named, ZIP),
    ):
        with pytest.raises(Refusal):
            act()
    assert (tmp_path / "keep").read_bytes() == b"keep"
    files.sync_skill("demo", "dir/skill", ZIP)
    files.remove("dir", recursive=True)


NAMES = [
    b"line\nbreak", b"\xff\xfe", b"sp ace", b"-rf", b"--help", b"a:1:b", b"\xc3\xa9", b"e\xcc\x81", b"*", b"[x]",
    b"\x1b[31m", b"$(id)", b"'\"`", b"\\", b"%s", b"CON", b"...", b"~", b"a" * 255, "ü".encode() * 127,
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_name_comes_back_exactly(name: bytes, files: FilesWorker, tmp_path: Path) -> None:
    """Any name that the file system takes is written, listed, found, searched, moved and removed, byte for byte."""
    files.write(name, b"needle\n")
    assert set(os.listdir(os.fsencode(tmp_path))) - {b".work"} == {name}
    assert files.read(name).content == b"needle\n"
    entry = next(entry for entry in files.list().entries if entry.path != ".work")
    assert (entry.path_b64 or entry.path.encode()) == name
    found = files.glob("**")
    numbers = [n for n, match in enumerate(found.matches) if not match.startswith(".work")]
    assert [found.matches_b64.get(str(n), found.matches[n].encode()) for n in numbers] == [name]
    match = files.grep("needle").matches[0]
    assert (match.path_b64 or match.path.encode(), match.line_number) == (name, 1)
    files.move(name, b"in/" + name)
    files.remove(b"in/" + name)
    assert os.listdir(tmp_path / "in") == []


@pytest.mark.parametrize("length", [256, 300, 4095, 5000, 70_000])
def test_names_that_are_too_long(length: int, files: FilesWorker) -> None:
    """A name over NAME_MAX is refused as too long by every operation; one of just that length works."""
    for act in (files.read, lambda path: files.write(path, b""), files.stat, files.remove):
        with pytest.raises((WorkspaceRefusal, PeerError)):
            act("n" * length)
    files.write("n" * 255, b"fits")
    assert files.read("n" * 255).content == b"fits"


def test_paths_longer_than_path_max(files: FilesWorker, tmp_path: Path) -> None:
    """A file deeper than PATH_MAX is written, read, listed, found, searched and removed."""
    deep = "/".join(["d" * 200] * 30)
    assert len(deep) > 4096
    files.write(f"{deep}/file.txt", b"needle\n")
    assert files.read(f"{deep}/file.txt").content == b"needle\n"
    assert files.list(recursive=True).entries[-1].path == f"{deep}/file.txt"
    assert files.glob("**/file.txt").matches == (f"{deep}/file.txt",)
    assert files.grep("needle").matches[0].path == f"{deep}/file.txt"
    with pytest.raises(PathEscapesWorkspace):
        files.read(f"{deep}/" + "../" * 31 + "outside")
    files.remove("d" * 200, recursive=True)
    assert os.listdir(tmp_path) in ([], [".work"])


def test_five_thousand_levels(files: FilesWorker, tmp_path: Path) -> None:
    """A tree of 5,000 levels with a file in each is walked, measured and removed, with few descriptors."""
    here = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(5000):
        os.close(os.open("z", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=here))
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    listing = files.list(recursive=True)
    assert len(listing.entries) + listing.left_out >= 10_000
    assert len(files.glob("d/d/d/*").matches) == 2
    assert files.usage().files >= 10_000
    assert files.read("d/" * 4999 + "z").content == b""
    files.remove("d", recursive=True)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("links", "path"),
    [
        ({"a": "a"}, "a"),
        ({"a": "b", "b": "a"}, "a"),
        ({"a": "b/x", "b": "a/x"}, "a"),
        ({"a": "a/a"}, "a/a"),
        ({f"l{n}": f"l{n + 1}" for n in range(60)}, "l0"),
    ],
)
def test_cycles_of_links(links: dict[str, str], path: str, files: FilesWorker, tmp_path: Path) -> None:
    """Links that go round, or on for ever, are refused; a walk passes them by."""
    for name, target in links.items():
        os.symlink(target, tmp_path / name)
    (tmp_path / "dir").mkdir()
    os.symlink("..", tmp_path / "dir" / "up")
    assert refusal(files.read, path).code is Code.LINK_LOOP
    assert refusal(files.write, path, b"x").code is Code.LINK_LOOP
    assert len(files.list(recursive=True).entries) == len(links) + 2
    assert files.glob("**/nothing").matches == ()
    os.symlink("dir/twin", tmp_path / "good")
    files.write("good", b"twin")
    assert (tmp_path / "dir" / "twin").read_bytes() == b"twin"


def test_forty_links_are_followed(files: FilesWorker, tmp_path: Path) -> None:
    """As many links as the kernel follows are followed either way."""
    (tmp_path / "l40").write_bytes(b"end")
    for number in range(40):
        os.symlink(f"l{number + 1}", tmp_path / f"l{number}")
    assert files.read("l0").content == b"end"


def test_hard_links_outside_are_never_altered(method: str, tmp_path: Path) -> None:
    """A write to a name whose inode has another name outside makes a new inode; the outside content stays."""
    box = make_box(tmp_path)
    os.link(box.outside / "target.txt", box.root / "linked")
    before = box.picture()
    with FilesWorker(box.root, method=method) as files:
        assert {entry.path: entry for entry in files.list().entries}["linked"].size > 0
        files.write("linked", b"changed")
        files.edit("linked", "changed", "again")
        assert files.read("linked").content == b"again"
        assert (box.root / "linked").stat().st_nlink == 1
        files.remove("linked")
    assert box.picture() == before


def test_other_mounts_are_outside(method: str, tmp_path: Path) -> None:
    """A bind mount of something outside is refused by every operation and never emptied, until the operator
    admits it.
    """
    box = make_box(tmp_path)
    (box.root / "volume").mkdir()
    with mounted("--bind", str(box.outside), at=box.root / "volume"):
        before = box.picture()
        with FilesWorker(box.root, method=method) as files:
            for act in (
                lambda: files.read("volume/target.txt"),
                lambda: files.write("volume/new.txt", b"x"),
                lambda: files.write("volume/a/new.txt", b"x"),
                lambda: files.list("volume"),
                lambda: files.glob("volume/*"),
                lambda: files.grep("SECRET", path="volume"),
                lambda: files.move("volume/target.txt", "stolen"),
                lambda: files.move("in/target.txt", "volume/x"),
                lambda: files.remove("volume/target.txt"),
                lambda: files.sync_skill("demo", "volume/skill", ZIP),
                lambda: files.read("in/../volume/target.txt"),
            ):
                with pytest.raises(PathEscapesWorkspace, match="crosses into another mount"):
                    act()
            with pytest.raises(Refusal):
                files.remove("volume", recursive=True)
            listing = files.list(recursive=True)
            assert not any(entry.path.startswith("volume/") for entry in listing.entries)
            assert [problem.path for problem in listing.problems] == ["volume"]
            assert not files.grep("SECRET").matches
        assert box.picture() == before
        with FilesWorker(box.root, method=method, cross_mounts=True) as files:
            assert b"SECRET" in files.read("volume/target.txt").content


def test_proc_inside_the_workspace(method: str, tmp_path: Path) -> None:
    """Even with a proc file system admitted as a volume, its magic links lead nowhere; its plain files are
    read honestly.
    """
    (tmp_path / "proc").mkdir()
    secret = tmp_path.parent / f"{tmp_path.name}-secret"
    secret.write_bytes(b"SECRET")
    with mounted("-t", "proc", "proc", at=tmp_path / "proc"):
        with FilesWorker(tmp_path, method=method, cross_mounts=True) as files:
            for path in (
                f"proc/self/root{secret}",
                "proc/self/cwd",
                "proc/self/exe",
                "proc/1/root/etc/passwd",
                "proc/self/fd/0",
            ):
                with pytest.raises(Refusal):
                    files.read(path)
            version = files.read("proc/version")
            assert version.content.startswith(b"Linux version")
            assert version.total_size == len(version.content)
            part = files.read("proc/version", offset=6, limit=7)
            assert (part.content, files.read("proc/version", offset=10_000).content) == (b"version", b"")
            assert files.read("proc/version", offset=10_000).total_size == len(version.content)
        with FilesWorker(tmp_path, method=method) as files, pytest.raises(PathEscapesWorkspace):
            files.read("proc/version")


def test_sparse_giant(files: FilesWorker, tmp_path: Path) -> None:
    """A file of holes is read in bounded parts with its honest size, and counts for what it occupies."""
    with open(tmp_path / "giant", "wb") as giant:
        giant.truncate(1 << 42)
        giant.seek((1 << 42) - 4)
        giant.write(b"tail")
    answer = files.read("giant")
    assert answer.total_size == 1 << 42
    assert 0 < len(answer.content) <= 16 << 20
    assert "read on at offset" in answer.notes[0]
    assert files.read("giant", offset=(1 << 42) - 4).content == b"tail"
    assert files.read("giant", offset=1 << 43).content == b""
    assert files.usage().size_bytes < 1 << 20
    assert refusal(files.edit, "giant", "tail", "head").code is Code.TOO_LARGE
    assert files.grep("tail").binary_skipped == 1


def test_disk_full(method: str, tmp_path: Path) -> None:
    """A write that does not fit changes nothing and leaves nothing; a smaller one works."""
    (tmp_path / "small").mkdir()
    small = mounted("-t", "tmpfs", "-o", "size=256k", "tmpfs", at=tmp_path / "small")
    with small, FilesWorker(tmp_path / "small", method=method) as files:
        files.write("file", b"old")
        assert refusal(files.write, "file", b"x" * 400_000).code is Code.DISK_FULL
        assert files.read("file").content == b"old"
        assert refusal(files.write, "new/file", b"x" * 400_000).code is Code.DISK_FULL
        assert not [name for name in os.listdir(tmp_path / "small") if name.startswith(".guardhouse")]
        text, result = files.spill(b"line\n" * 100_000)
        assert result.truncated
        assert result.file_path is None
        assert "could not be saved" in text
        files.write("file", b"new")
        assert files.read("file").content == b"new"


def test_quota(method: str, tmp_path: Path) -> None:
    """A write over the size quota or the file quota is refused by name; what shrinks a file is always admitted."""
    with FilesWorker(tmp_path, method=method, quota_bytes=1000, quota_files=4) as files:
        files.write("a", b"x" * 600)
        assert refusal(files.write, "b", b"x" * 600).code is Code.QUOTA
        files.write("a", b"x" * 500)
        files.write("b", b"x" * 400)
        files.write("c", b"")
        files.write("d", b"")
        assert refusal(files.write, "e", b"").code is Code.QUOTA
        assert refusal(files.sync_skill, "demo", "skill", ZIP).code is Code.QUOTA
        files.remove("d")
    with FilesWorker(tmp_path, method=method, quota_bytes=1000, quota_files=4) as files:
        files.write("e", b"")


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a file of somebody else")
def test_permission_errors_in_a_walk(method: str, tmp_path: Path) -> None:
    """What an unprivileged worker may not read is reported in the answer; the rest of the walk goes on."""
    (tmp_path / "shut").mkdir(mode=0o700)
    (tmp_path / "shut" / "file").write_bytes(b"needle")
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "file").write_bytes(b"needle")
    (tmp_path / "unreadable").write_bytes(b"needle")
    (tmp_path / "unreadable").chmod(0o600)
    tmp_path.chmod(0o755)
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reader)
        status = 1
        try:
            os.setgid(65534)
            root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
            os.fchdir(root)
            os.setuid(65534)
            with FilesWorker(".", method=method, root_path=None) as files:
                listing = files.list(recursive=True)
                found = files.grep("needle")
                told = [
                    [entry.path for entry in listing.entries], [problem.path for problem in listing.problems],
                    [match.path for match in found.matches], sorted(problem.path for problem in found.problems),
                    refusal(files.read, "unreadable").code.value, refusal(files.write, "new", b"").code.value,
                ]  # fmt: skip
                os.write(writer, repr(told).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        answer = told.read().decode()
    os.waitpid(pid, 0)
    assert answer == repr(
        [["open", "open/file", "shut", "unreadable"], ["shut"], ["open/file"], ["shut", "unreadable"],
         "permission", "permission"]
    )  # fmt: skip


@pytest.mark.parametrize(
    "path", [".work/x", ".work", ".work/outputs/x", "./.work/x", "in/../.work/x", "work/x", "outs/x"]
)
def test_work_directory_is_guardhouses_own(path: str, files: FilesWorker, tmp_path: Path) -> None:
    """By no name and no link does an operation change `.work/`; all of them may read it."""
    (tmp_path / "in").mkdir()
    _, result = files.spill(b"line\n" * 10_000)
    assert result.file_path is not None
    os.symlink(".work", tmp_path / "work")
    os.symlink(".work/outputs", tmp_path / "outs")
    name = os.path.basename(result.file_path)
    for act in (
        lambda: files.write(path, b"x"),
        lambda: files.write(f"{path}/deeper", b"x"),
        lambda: files.remove(path, recursive=True),
        lambda: files.move(path, "mine"),
        lambda: files.remove(f"outs/{name}"),
        lambda: files.edit(f"outs/{name}", "line", "lie", replace_all=True),
        lambda: files.sync_skill("demo", path, ZIP),
    ):
        with pytest.raises(WorkspaceRefusal):
            act()
    assert files.read(result.file_path).content == b"line\n" * 10_000
    files.write("in/x", b"x")
    files.sync_skill("demo", ".work/skills/demo", ZIP)


def test_moving_work_away_is_refused(files: FilesWorker) -> None:
    """`.work/` cannot be moved away, nor anything moved over it."""
    files.spill(b"line\n" * 10_000)
    files.write("a", b"x")
    assert refusal(files.move, ".work", "mine").code is Code.PROTECTED
    assert refusal(files.move, "a", ".work/outputs/a").code is Code.PROTECTED
    files.move("a", "b")


def test_rules_follow_the_place_not_the_name(method: str, tmp_path: Path) -> None:
    """A rule on a directory holds for every link to it, every spelling and every walk; the rest stays free."""
    (tmp_path / "secrets" / "deep").mkdir(parents=True)
    (tmp_path / "secrets" / "deep" / "key").write_bytes(b"needle")
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "note").write_bytes(b"needle")
    os.symlink("secrets/deep", tmp_path / "alias")
    os.symlink("../secrets/deep/key", tmp_path / "open" / "key")
    with FilesWorker(
        tmp_path, method=method, read_deny=("secrets",), write_allow=("open/**", "out/**"), write_deny=("open/fixed",)
    ) as files:
        for path in ("secrets/deep/key", "alias/key", "open/key", "open/../secrets/deep/key", "alias/../deep/key"):
            assert refusal(files.read, path).code is Code.RULE
            assert refusal(files.grep, "needle", path=path).code is Code.RULE
        assert refusal(files.list, "alias").code is Code.RULE
        assert refusal(files.glob, "alias/*").code is Code.RULE
        assert [match.path for match in files.grep("needle").matches] == ["open/note"]
        assert not any("deep" in entry.path for entry in files.list(recursive=True).entries)
        for path in ("x", "secrets/x", "alias/x", "open/fixed", "open/../x", "new/dir/x"):
            assert refusal(files.write, path, b"x").code is Code.RULE
        assert refusal(files.remove, "secrets", recursive=True).code is Code.RULE
        assert refusal(files.move, "open/note", "stolen").code is Code.RULE
        assert not (tmp_path / "new").exists()
        files.write("open/new", b"x")
        files.write("out/deep/new", b"x")
        assert refusal(files.sync_skill, "demo", "skill", ZIP).code is Code.RULE
        files.sync_skill("demo", "open/skill", ZIP)


def test_a_move_takes_nothing_from_under_its_rule(method: str, tmp_path: Path) -> None:
    """What may not be read is not moved to where it may, by itself or with a directory around it."""
    (tmp_path / "a" / "secrets").mkdir(parents=True)
    (tmp_path / "a" / "secrets" / "key").write_bytes(b"needle")
    (tmp_path / "a" / "note").write_bytes(b"note")
    with FilesWorker(tmp_path, method=method, read_deny=("a/secrets",), write_deny=("skill/keep",)) as files:
        for path in ("a/secrets/key", "a/secrets", "a"):
            assert refusal(files.move, path, "open").code is Code.RULE
        files.move("a/note", "note")
        files.sync_skill("demo", "skill", ZIP)
        (tmp_path / "skill" / "keep").write_bytes(b"keep")
        assert refusal(files.sync_skill, "demo", "skill", ZIP).code is Code.RULE
        assert refusal(files.remove, "skill", recursive=True).code is Code.RULE
        assert (tmp_path / "skill" / "keep").read_bytes() == b"keep"
    assert (tmp_path / "a" / "secrets" / "key").exists()


@pytest.mark.parametrize(
    "checksum",
    ["", "0" * 64, "md5", "sha256:", "x" * 64, pytest.param(hashlib.md5(ZIP).hexdigest(), id="MD5 of it")],
)
def test_a_skill_with_another_checksum_touches_nothing(checksum: str, files: FilesWorker, tmp_path: Path) -> None:
    """A checksum that is missing, of another kind or wrong is refused before anything is touched."""
    files.sync_skill("demo", "skill", ZIP)
    (tmp_path / "skill" / "mark").write_bytes(b"old")
    assert refusal(files.sync_skill, "demo", "skill", ZIP, checksum).code is Code.CHECKSUM
    assert (tmp_path / "skill" / "mark").read_bytes() == b"old"
    files.sync_skill("demo", "skill", ZIP, "sha256:" + hashlib.sha256(ZIP).hexdigest().upper())
    assert not (tmp_path / "skill" / "mark").exists()


def test_a_skill_never_replaces_what_is_no_skill(files: FilesWorker, tmp_path: Path) -> None:
    """A directory with other content, a file and a link are left alone; an empty directory is taken."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.py").write_bytes(b"code")
    (tmp_path / "file").write_bytes(b"file")
    (tmp_path / "empty").mkdir()
    os.symlink("src", tmp_path / "link")
    for path in ("src", "file", "link"):
        assert refusal(files.sync_skill, "demo", path, archive()).code is Code.EXISTS
    assert (tmp_path / "src" / "main.py").read_bytes() == b"code"
    assert files.sync_skill("demo", "empty", ZIP).path == "empty"
    assert (tmp_path / "empty" / "SKILL.md").exists()

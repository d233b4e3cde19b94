"""Arguments, contents and places made to break the files worker: each is answered, and changes nothing outside.

What is answered wrongly by one request must not end the worker, which the next request shows.
"""

import contextlib
import hashlib
import os
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from tests.escapes_files.test_special import mounted, refusal
from tests.support.files import FilesWorker

from guardhouse.errors import GuardhouseError, PeerError
from guardhouse.wire import operations as wire
from guardhouse.worker.handlers import Session, serve
from guardhouse.worker.settings import FilesSettings
from guardhouse.workspace import Code, Method, WorkspaceRefusal, open_workspace
from guardhouse.workspace import walk as walking
from guardhouse.workspace.listing import list_directory

EMPTY = hashlib.sha256(b"").hexdigest()
LONG = "n" * 256


@pytest.fixture
def files(tmp_path: Path) -> Iterator[FilesWorker]:
    with FilesWorker(tmp_path, timeout_s=60.0) as worker:
        yield worker


# Operation, arguments as they come over the wire, and the code of the refusal.
ARGUMENTS = [
    ("read", '{"path":"f","offset":-1}', "invalid_args"),
    ("read", '{"path":"f","offset":9223372036854775808}', "invalid_args"),
    ("read", '{"path":"f","offset":1e30}', "invalid_args"),
    ("read", '{"path":"f","offset":1.5}', "invalid_args"),
    ("read", '{"path":"f","offset":NaN}', "invalid_args"),
    ("read", '{"path":"f","offset":true}', "invalid_args"),
    ("read", '{"path":"f","limit":-99999999999999999999}', "invalid_args"),
    ("read", '{"path":"f","offset":' + "9" * 5000 + "}", "invalid_args"),
    ("read", '{"path":"f","path_b64":"!"}', "invalid_args"),
    ("read", '{"path":"f","path_b64":"AA=="}', "invalid_args"),
    ("read", '{"path":"\\ud800"}', "invalid_args"),
    ("read", '{"path":null}', "invalid_args"),
    ("read", "[]", "invalid_args"),
    ("read", "[" * 100_000, "invalid_args"),
    ("read", '{"x":' * 10_000, "invalid_args"),
    ("read", '{"path":"f/."}', "not_directory"),
    ("read", '{"path":"' + "../" * 9_000 + 'etc/passwd"}', "escapes"),
    ("read", '{"path":"/proc/self/environ"}', "escapes"),
    ("write", '{"path":"u","content":"","upload_id":"x","offset":9007199254740991,"last":false}', "too_large"),
    ("write", '{"path":"u","content":"","upload_id":"x","offset":5,"last":false}', "conflict"),
    ("write", '{"path":"u","content":"","upload_id":"x"}', "checksum"),
    ("write", '{"path":"u","content":"","last":false}', "invalid_args"),
    ("write", '{"path":"u","content":"","checksum":""}', "checksum"),
    ("write", '{"path":"f","content":"","if_checksum":"sha256:sha256:"}', "conflict"),
    ("write", '{"path":"' + LONG + '","content":""}', "name_too_long"),
    ("write", '{"path":"f/x","content":""}', "not_directory"),
    ("edit", '{"path":"f","old":"","new":"x"}', "invalid"),
    ("edit", '{"path":"f","old":"a","new":"\\ud800"}', "invalid_args"),
    ("grep", '{"pattern":"a","context":1001}', "invalid_args"),
    ("grep", '{"pattern":"a","context":-1}', "invalid_args"),
    ("grep", '{"pattern":"a\\u0000"}', "invalid_args"),
    ("grep", '{"pattern":"a","include":["["]}', "invalid"),
    ("grep", '{"pattern":"a","case":"SMART"}', "invalid"),
    ("grep", '{"pattern":"a","path":"d/../.."}', "escapes"),
    ("glob", '{"pattern":"**/../*"}', "escapes"),
    ("glob", '{"pattern":"x","pattern_b64":"Kv8="}', "invalid_args"),
    ("stat", '{"path":"d/../.."}', "escapes"),
    ("move", '{"path":"d","target":"d/in"}', "invalid"),
    ("move", '{"path":"d","target":"f","overwrite":true}', "not_directory"),
    ("move", '{"path":"f","target":"d","overwrite":true}', "directory"),
    ("move", '{"path":"f","target":"."}', "invalid"),
    ("remove", '{"path":"d/..","recursive":true}', "invalid"),
    ("remove", '{"path":"d/./"}', "invalid"),
    ("list", '{"path":"d/./../../d"}', "escapes"),
    ("remove_skill", '{"skill_dir":""}', "invalid"),
    ("chunk", '{"path":"Zg==","offset":-1,"limit":1}', "invalid"),
    ("clean", '{"max_age_s":1e999}', "invalid_args"),
    ("list_skills", '{"path":"../.."}', "escapes"),
    ("n" * 100_000, "{}", "unknown_operation"),
]


@pytest.mark.parametrize(
    ("operation", "arguments", "code"), ARGUMENTS, ids=[f"{case[0][:12]}-{n}" for n, case in enumerate(ARGUMENTS)]
)
def test_hostile_arguments(operation: str, arguments: str, code: str, tmp_path: Path) -> None:
    """Arguments of any shape are refused with a code, short, and nothing has changed."""
    (tmp_path / "f").write_bytes(b"abc")
    (tmp_path / "d").mkdir()
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        session = Session(open_workspace(fd, root_path=str(tmp_path)), FilesSettings())
        with pytest.raises(GuardhouseError) as refused:
            serve(session, operation, msgspec.Raw(arguments.encode("utf-8", "surrogatepass")), b"")
    finally:
        os.close(fd)
    error = refused.value
    assert isinstance(error, PeerError | WorkspaceRefusal)
    assert str(error.code) == code, str(error)
    assert len(str(error)) < 1_000
    assert (tmp_path / "f").read_bytes() == b"abc"
    assert {path.name for path in tmp_path.iterdir()} <= {"f", "d", ".work"}


def test_an_edit_never_makes_more_than_an_edit_may(files: FilesWorker, tmp_path: Path) -> None:
    """A letter that stands there a million times is not replaced by a page: that is reckoned, not tried."""
    (tmp_path / "f").write_bytes(b"a" * (1 << 20))
    assert refusal(files.edit, "f", "a", "b" * (1 << 20), replace_all=True).code is Code.TOO_LARGE
    assert files.edit("f", "a", "bb", replace_all=True).replacements == 1 << 20


def test_context_of_huge_lines_stays_in_memory(files: FilesWorker, tmp_path: Path) -> None:
    """A thousand lines around a match are not kept where each has megabytes."""
    with open(tmp_path / "f", "wb") as file:
        for _ in range(10):
            file.write(b"x" * (7 << 20) + b"\n")
        file.write(b"before\nneedle\nafter\n")
    before_mb = _peak_mb(files.pid)
    found = files.grep("needle", path="f", context=1000)
    assert [match.content for match in found.matches][-3:] == ["before", "needle", "after"]
    assert _peak_mb(files.pid) - before_mb < 150


def test_context_of_a_million_lines_is_bounded(files: FilesWorker, tmp_path: Path) -> None:
    """Lines around matches end where the answer is full, and matches are counted from there on without them."""
    (tmp_path / "f").write_bytes((b"n\n" + b"\n" * 1999) * 200)
    before_mb = _peak_mb(files.pid)
    found = files.grep("n", path="f", context=1000)
    assert found.truncated
    assert found.left_out > 0
    assert _peak_mb(files.pid) - before_mb < 300


def _peak_mb(pid: int) -> int:
    """Return the most memory that was resident at a time; a forked worker begins with its parent's."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def test_large_directories_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that is read in parts gives what it gives at once, whatever lies between; no descriptor is left."""
    for number in range(40):
        (tmp_path / f"d{number % 3}" / f"x{number}").mkdir(parents=True)
        (tmp_path / f"f{number}").write_bytes(b"x" * number)
        (tmp_path / f"d{number % 3}" / f"x{number}" / "in").touch()
    os.symlink("f1", tmp_path / "e")
    (tmp_path / os.fsdecode(b"f\xff")).touch()
    (tmp_path / "g\nh").touch()
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        workspace = open_workspace(fd, method=Method.CAREFUL)
        whole = list_directory(workspace, recursive=True)
        monkeypatch.setattr(walking, "_AT_ONCE", 4)
        before = sorted(os.listdir("/proc/self/fd"))
        in_parts = list_directory(workspace, recursive=True)
        assert in_parts.entries == whole.entries
        assert sorted(os.listdir("/proc/self/fd")) == before
        monkeypatch.setattr(walking, "_ENTRIES_MAX", 10)
        cut = list_directory(workspace, recursive=False)
        assert len(cut.entries) == 10
        assert "more than 10 entries" in cut.problems[0].reason
    finally:
        os.close(fd)


def test_a_large_directory_is_removed_in_parts(files: FilesWorker, tmp_path: Path) -> None:
    """More files than are looked at together, with directories between them, are all gone afterwards."""
    for number in range(700):
        (tmp_path / "d").mkdir(exist_ok=True)
        (tmp_path / "d" / f"f{number}").touch()
    for number in range(20):
        (tmp_path / "d" / f"g{number}" / "deep").mkdir(parents=True)
    assert files.remove("d", recursive=True).notes == ("741 removed",)
    assert not (tmp_path / "d").exists()


def _attribute(path: Path, change: str) -> None:
    done = subprocess.run(["chattr", change, str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs a file system with attributes and the right to set them: {done.stderr.strip()[:100]}")


@pytest.mark.parametrize("attribute", ["i", "a"])
def test_immutable_and_append_only_files(attribute: str, files: FilesWorker, tmp_path: Path) -> None:
    """What the kernel keeps as it is stays, the refusal says so, and nothing of ours is left beside it."""
    (tmp_path / "f").write_bytes(b"old")
    _attribute(tmp_path / "f", f"+{attribute}")
    try:
        known = hashlib.sha256(b"old").hexdigest()
        for act in (
            lambda: files.write("f", b"new"),
            lambda: files.write("f", b"new", if_checksum=known),
            lambda: files.edit("f", "old", "new"),
            lambda: files.move("f", "g"),
            lambda: files.remove("f"),
        ):
            assert refusal(act).code is Code.PERMISSION
    finally:
        _attribute(tmp_path / "f", f"-{attribute}")
    assert {name for name in os.listdir(tmp_path) if name != ".work"} == {"f"}
    assert (tmp_path / "f").read_bytes() == b"old"


def test_no_inodes_left(tmp_path: Path) -> None:
    """Where no file can be made any more, each operation says so, what is there stays, and removing works."""
    (tmp_path / "small").mkdir()
    with mounted("-t", "tmpfs", "-o", "size=1m,nr_inodes=8", "tmpfs", at=tmp_path / "small"):
        with FilesWorker(tmp_path / "small") as files:
            files.write("f", b"old")
            made = 0
            with contextlib.suppress(WorkspaceRefusal):
                while made < 20:
                    files.write(f"more{made}", b"x")
                    made += 1
            assert made < 20
            for act in (
                lambda: files.write("f", b"new"),
                lambda: files.edit("f", "old", "new"),
                lambda: files.write("new/er/f", b"x"),
                lambda: files.write("up", b"x", upload_id="u", last=False),
            ):
                assert refusal(act).code is Code.DISK_FULL
            assert files.read("f").content == b"old"
            assert "could not be saved" in files.spill(b"line\n" * 100_000)[0]
            files.remove("more0")
            files.write("f", b"new")
            names = os.listdir(tmp_path / "small")
        assert not [name for name in names if name.startswith(".guardhouse")]


def test_a_file_mounted_over_a_file(tmp_path: Path) -> None:
    """A file of outside that is mounted over a file inside is not read, searched, written, moved or removed."""
    root = tmp_path / "ws"
    root.mkdir()
    (tmp_path / "secret").write_bytes(b"TOP-SECRET")
    (root / "f").write_bytes(b"inside")
    with mounted("--bind", str(tmp_path / "secret"), at=root / "f"), FilesWorker(root) as files:
        for act in (
            lambda: files.read("f"),
            lambda: files.edit("f", "TOP", "x"),
            lambda: files.grep("SECRET", path="f"),
            lambda: files.stat("f", checksum=True),
            lambda: files.write("f", b"new"),
            lambda: files.write("f", b"new", if_checksum=hashlib.sha256(b"TOP-SECRET").hexdigest()),
            lambda: files.move("f", "g"),
            lambda: files.remove("f"),
        ):
            refusal(act)
        found = files.grep("SECRET")
        assert not found.matches
        assert [problem.path for problem in found.problems] == ["f"]
        assert {name for name in os.listdir(root) if name != ".work"} == {"f"}
    assert (tmp_path / "secret").read_bytes() == b"TOP-SECRET"
    assert (root / "f").read_bytes() == b"inside"


@pytest.mark.parametrize("kind", ["file", "fifo", "link out", "dangling link", "link in"])
@pytest.mark.parametrize("place", [".work", ".work/tmp", ".work/uploads", ".work/outputs"])
def test_guardhouses_own_directory_taken(kind: str, place: str, tmp_path: Path) -> None:
    """Whatever a command makes of `.work/`, operations on files go on, and nothing lands where it points to."""
    root, outside = tmp_path / "ws", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "in").mkdir()
    taken = root / place
    taken.parent.mkdir(exist_ok=True)
    if kind == "file":
        taken.touch()
    elif kind == "fifo":
        os.mkfifo(taken)
    else:
        os.symlink({"link out": outside, "dangling link": "nowhere", "link in": root / "in"}[kind], taken)
    with FilesWorker(root, timeout_s=20.0) as files:
        files.write("f", b"one")
        files.write("f", b"two", if_checksum=hashlib.sha256(b"one").hexdigest())
        files.edit("f", "two", "three")
        text, _ = files.spill(b"line\n" * 100_000)
        assert "<output_truncated>" in text
        with contextlib.suppress(WorkspaceRefusal):
            files.write("up", b"x" * 10, upload_id="u", last=True, checksum=hashlib.sha256(b"x" * 10).hexdigest())
        files.clean(temporaries=True, max_bytes=1)
        assert files.read("f").content == b"three"
    assert os.listdir(outside) == []
    assert not [name for name in os.listdir(root) if name.startswith(".guardhouse")]


def test_records_that_a_command_wrote(tmp_path: Path) -> None:
    """Records of temporary names are material: they clear names of ours inside, two each, and nothing else."""
    root = tmp_path / "ws"
    (root / ".work" / "tmp").mkdir(parents=True)
    ours = ".guardhouse-tmp-0123456789abcdef"
    precious = [
        root / "f", root / ".guardhouse-tmp-mine", tmp_path / ours, root / "d" / (ours + "-notes"),
        root / f"{ours}3",
    ]  # fmt: skip
    (root / "d").mkdir()
    for path in precious:
        path.write_bytes(b"precious")
    (root / ours).write_bytes(b"litter")
    paths = {
        "out": f"./../{ours}", "absolute": str(tmp_path / ours), "other": "./f", "like": "./.guardhouse-tmp-mine",
        "longer": f"d/{ours}-notes", "no": f"{ours}3", "right": f"./{ours}",
    }  # fmt: skip
    for name, path in paths.items():
        (root / ".work" / "tmp" / f"worker-{name}").write_bytes(len(path).to_bytes(4, "big") + path.encode())
    (root / ".work" / "tmp" / "worker-huge").write_bytes(b"\xff" * 5000)
    (root / ".work" / "tmp" / "worker-short").write_bytes(b"\0\0\1")
    many = b"".join(len(n).to_bytes(4, "big") + n for n in (b"./.guardhouse-tmp-%016x" % n for n in range(100)))
    (root / ".work" / "tmp" / "worker-many").write_bytes(many)
    os.mkfifo(root / ".work" / "tmp" / "worker-fifo")
    os.symlink(root / "f", root / ".work" / "tmp" / "worker-link")
    for number in range(100):
        (root / f".guardhouse-tmp-{number:016x}").touch()
    with FilesWorker(root, timeout_s=20.0) as files:
        files.stat(".")
    assert all(path.read_bytes() == b"precious" for path in precious)
    assert not (root / ours).exists()
    assert sorted(os.listdir(root))[-1] == "f"
    assert sum(name.startswith(".guardhouse-tmp-0000") for name in os.listdir(root)) == 98


def test_a_forged_exchange_gets_nobodys_file(tmp_path: Path) -> None:
    """A name for an exchange that a command made up is kept where its content is unknown, and replaces nothing."""
    forged = ".guardhouse-tmp-0123456789abcdef-aaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-f"
    (tmp_path / "f").write_bytes(b"precious")
    (tmp_path / forged).write_bytes(b"forged")
    (tmp_path / ".work" / "tmp").mkdir(parents=True)
    path = f"./{forged}".encode()
    (tmp_path / ".work" / "tmp" / "worker-x").write_bytes(len(path).to_bytes(4, "big") + path)
    with FilesWorker(tmp_path) as files:
        files.stat(".")
    assert (tmp_path / "f").read_bytes() == b"precious"
    assert (tmp_path / "f.guardhouse-kept-0123456789abcdef").read_bytes() == b"forged"


def test_files_that_change_while_they_are_read(files: FilesWorker, tmp_path: Path) -> None:
    """A file that somebody cuts, fills and replaces without rest gives honest answers or a refusal, and ends."""
    target = tmp_path / "f"
    target.write_bytes(b"needle\n" * 100_000)
    stop = threading.Event()

    def change() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            with contextlib.suppress(OSError):
                os.truncate(target, (turn * 7919) % 700_000)
                with open(target, "ab") as file:
                    file.write(b"needle\n" * 1_000)
                if not turn % 5:
                    (tmp_path / "g").write_bytes(b"other\n" * 50_000)
                    os.rename(tmp_path / "g", target)
            time.sleep(0.001)

    changer = threading.Thread(target=change)
    changer.start()
    acts: list[Callable[[], object]] = [
        lambda: files.read("f"), lambda: files.read("f", offset=400_000, limit=100),
        lambda: files.grep("needle", path="f"), lambda: files.stat("f", checksum=True),
        lambda: files.grep("e", path="f", context=3),
        lambda: files.edit("f", "other\nneedle", "x"), lambda: files.write("f", b"ours\n" * 1000),
    ]  # fmt: skip
    codes: set[Code] = set()
    try:
        for act in acts * 2:
            try:
                answer = act()
            except WorkspaceRefusal as refused:
                codes.add(refused.code)
                continue
            if isinstance(answer, wire.ReadResult):
                assert answer.total_size >= len(answer.content)
                if answer.checksum is not None and answer.total_size == len(answer.content):
                    assert answer.checksum == f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
    finally:
        stop.set()
        changer.join()
    assert codes <= {Code.CONFLICT, Code.NOT_FOUND}


def test_an_output_that_expires_under_its_reader(files: FilesWorker, tmp_path: Path) -> None:
    """Who reads a saved output in parts while it expires gets parts of it, then that it is not there; never another."""
    _, saved = files.spill(b"".join(b"line %d\n" % number for number in range(100_000)))
    assert saved.file_path is not None
    first = files.read(saved.file_path, limit=1000)
    assert first.content.startswith(b"line 0\n")
    files.clean(max_bytes=1)
    assert refusal(files.read, saved.file_path, offset=1000, limit=1000).code is Code.NOT_FOUND
    _, again = files.spill(b"other\n" * 100_000)
    assert again.file_path != saved.file_path


def test_links_of_every_shape_lead_nowhere(files: FilesWorker, tmp_path: Path) -> None:
    """Links to nothing, themselves, each other, as long as a link can be, and to names that cannot be, are refusals."""
    shapes = {
        "self": "self", "one": "two", "two": "one", "deep": "deep/x", "long": "a/" * 2040, "dots": "./" * 2000 + "f",
        "slash": "f/", "name": "x" * 300, "up": "d/../../" + "../" * 500 + "etc/passwd", "empty": " ", "nl": "\n",
    }  # fmt: skip
    (tmp_path / "f").write_bytes(b"inside")
    (tmp_path / "d").mkdir()
    for name, target in shapes.items():
        os.symlink(target, tmp_path / name)
    for name in shapes:
        if name == "dots":
            assert files.read(name).content == b"inside"
            continue
        # A write through a link to a name that may be makes the file.
        for act in (files.read, files.list, *([] if name in ("empty", "nl") else [files.write])):
            assert isinstance(refusal(act, name), WorkspaceRefusal)
        assert files.stat(name).kind == "symlink"
    assert len(files.list(recursive=True).entries) >= len(shapes) + 2
    for name in shapes:
        files.remove(name)
    assert (tmp_path / "f").read_bytes() == b"inside"


def test_names_of_every_byte_in_every_operation(files: FilesWorker, tmp_path: Path) -> None:
    """Names with line ends, escapes and bytes that are no UTF-8 are written, found, searched, moved and removed."""
    names = [
        b"a\nb",
        b"\xff\xfe",
        b"\x1b[31mred",
        b"-rf",
        b"*",
        b"{a,b}",
        b"[x]",
        b"\\",
        b"a\rb",
        b"\xed\xa0\x80",
        b" ",
    ]
    for number, raw in enumerate(names):
        files.write(raw, b"needle %d" % number)
    assert {os.fsencode(name) for name in os.listdir(tmp_path)} - {b".work"} == set(names)
    found = files.grep("needle")
    assert len(found.matches) == len(names)
    assert len(found.content.splitlines()) == len(names)
    for raw in names:
        escaped = b"".join(b"\\" + bytes([byte]) if byte in b"*?[{\\" else bytes([byte]) for byte in raw)
        matched = files.glob(escaped)
        assert len(matched.matches) == 1, raw
        files.move(raw, raw + b"2")
        files.edit(raw + b"2", "needle", "thread")
        files.remove(raw + b"2")
    assert stat.S_ISDIR(tmp_path.stat().st_mode)
    assert {name for name in os.listdir(tmp_path) if name != ".work"} == set()

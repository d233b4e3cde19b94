"""Somebody inside the workspace swaps directories and links in a tight loop while operations go through them."""

import contextlib
import hashlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.escapes_files.box import SECRET, make_box
from tests.escapes_files.test_paths import ZIP
from tests.support.files import FilesWorker

from guardhouse.errors import Refusal
from guardhouse.kernel import files as kernel

# About ten seconds in the ordinary suite; GUARDHOUSE_RACE_SECONDS and GUARDHOUSE_RACE_OPERATIONS ask for more, with
# --timeout=0 and, so that no fsync is waited for, --basetemp on a tmpfs.
OPERATIONS = int(os.environ.get("GUARDHOUSE_RACE_OPERATIONS", "100000"))
TIME_S = float(os.environ.get("GUARDHOUSE_RACE_SECONDS", "0.7"))


@pytest.fixture(params=["openat2", "careful"])
def method(request: pytest.FixtureRequest) -> str:
    return request.param


@contextlib.contextmanager
def swapping(root: Path, pairs: list[tuple[str, str]]) -> Iterator[None]:
    """Exchange each pair of names below ``root``, for ever, in a process of its own."""
    pid = os.fork()
    if not pid:
        try:
            fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
            while os.getppid() != 1:
                for one, other in pairs:
                    with contextlib.suppress(OSError):
                        kernel.renameat2(fd, one.encode(), fd, other.encode(), flags=kernel.RENAME_EXCHANGE)
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


RACES = {
    "a directory and a link out": ("victim", "trap", b"../outside"),
    "a directory and an absolute link out": ("victim", "trap", b"{outside}"),
    "a directory and a link to the parent": ("victim", "trap", b"..", ),
    "a directory and a chain of links": ("victim", "trap", b"rel_out"),
    "a deep directory and a link out": ("in/dir/victim", "in/dir/trap", b"../../../outside"),
    "two deep places": ("in/dir/victim", "trap", b"../../../../outside"),
}  # fmt: skip


@pytest.mark.parametrize("race", RACES)
def test_swapped_directories(race: str, method: str, tmp_path: Path) -> None:
    """Whatever a name points to in the instant of an operation, nothing outside is ever read or changed."""
    box = make_box(tmp_path)
    victim, trap, target = RACES[race]
    (box.root / victim).mkdir()
    (box.root / victim / "dir").mkdir()
    (box.root / victim / "target.txt").write_bytes(b"harmless workspace content")
    os.symlink(target.replace(b"{outside}", os.fsencode(box.outside)), os.fsencode(box.root / trap))
    before = box.picture()
    skill_checksum = hashlib.sha256(ZIP).hexdigest()
    done = refused = 0
    with FilesWorker(box.root, method=method) as files, swapping(box.root, [(victim, trap)]):
        name = victim.encode()
        acts = [
            lambda: files.read(name + b"/target.txt"),
            lambda: files.list(name, recursive=True),
            lambda: files.glob(name + b"/**"),
            lambda: files.grep("SECRET|harmless", path=name),
            lambda: files.read(name + b"/dir/../target.txt"),
            lambda: files.write(name + b"/new.txt", b"x"),
            lambda: files.stat(name + b"/target.txt"),
            lambda: files.edit(name + b"/new.txt", "x", "y"),
            lambda: files.move(name + b"/new.txt", name + b"/dir/moved.txt", overwrite=True),
            lambda: files.remove(name + b"/dir/moved.txt"),
            lambda: files.write(name + b"/dir/deep/new.txt", b"x"),
            lambda: files.remove(name + b"/dir/deep", recursive=True),
            lambda: files.sync_skill("demo", victim + "/skill", ZIP, skill_checksum),
            lambda: files.list(recursive=True),
        ]
        until = time.monotonic() + TIME_S
        while done < OPERATIONS and time.monotonic() < until:
            for act in acts:
                done += 1
                try:
                    answer = act()
                except Refusal:
                    refused += 1
                else:
                    assert SECRET[:10] not in repr(answer).encode()
    assert box.picture() == before
    assert refused < done, "every operation was refused, so the race was never won: the test shows nothing"
    assert refused > 0, "no operation was refused, so the attacker never got in between"


def test_swapped_files(method: str, tmp_path: Path) -> None:
    """A file that turns into a link, a FIFO or a directory in between is never followed out, nor waited for."""
    box = make_box(tmp_path)
    (box.root / "a").write_bytes(b"harmless")
    os.symlink("../outside/target.txt", box.root / "b")
    os.mkfifo(box.root / "c")
    (box.root / "d").mkdir()
    before = box.picture()
    done = refused = 0
    pairs = [("a", "b"), ("a", "c"), ("b", "d"), ("a", "d")]
    with FilesWorker(box.root, method=method) as files, swapping(box.root, pairs):
        until = time.monotonic() + TIME_S
        while done < OPERATIONS and time.monotonic() < until:
            for name in "abcd":
                for act in (
                    lambda name=name: files.read(name),
                    lambda name=name: files.edit(name, "harm", "harm "),
                    lambda name=name: files.grep("SECRET|harm", path=name),
                ):
                    done += 1
                    try:
                        answer = act()
                    except Refusal:
                        refused += 1
                    else:
                        assert SECRET[:10] not in repr(answer).encode()
    assert box.picture() == before
    assert 0 < refused < done

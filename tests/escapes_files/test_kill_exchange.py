"""A write on condition that is killed in the middle, while somebody else writes the same file, loses neither's content.

The exchange of two names is the one thing that takes somebody else's file out of its place; here the worker is killed
with SIGKILL before and after every step of it, and at random under a writer that never rests.
"""

import hashlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.escapes_files.test_paths import ZIP
from tests.support.files import FilesWorker

from guardhouse.kernel import files as kernel
from guardhouse.workspace import WorkspaceRefusal

KILLS = int(os.environ.get("GUARDHOUSE_KILLS", "20"))
OLD, OURS, THEIRS, LATER = b"old content", b"our content", b"somebody's", b"and later still"
DAY_AGO_S = time.time() - 86_400


def _put(root: Path, content: bytes) -> None:
    (root / "theirs").write_bytes(content)
    os.rename(root / "theirs", root / "f")


def _in_place(root: Path) -> None:
    (root / "f").write_bytes(THEIRS + b"!")  # as long as the old content, and within the clock's step


def _directory(root: Path) -> None:
    (root / "theirs").mkdir()
    (root / "theirs" / "in").write_bytes(THEIRS)
    os.unlink(root / "f")
    os.rename(root / "theirs", root / "f")


@dataclass(frozen=True)
class Rival:
    """What somebody else does before and after the two names are exchanged.

    ``at_f`` is what may stand there in the end, when both were done, and ``somewhere`` what must have a name at all.
    """

    before: Callable[[Path], None] = lambda _root: None
    after: Callable[[Path], None] = lambda _root: None
    between: bytes | None = THEIRS
    at_f: frozenset[bytes | None] = frozenset()
    somewhere: frozenset[bytes] = frozenset()
    fresh: bool = False


RIVALS = {
    "nobody": Rival(between=None, at_f=frozenset({OLD, OURS})),
    "nobody, the file was just written": Rival(between=None, at_f=frozenset({OLD, OURS}), fresh=True),
    "another file": Rival(lambda root: _put(root, THEIRS), at_f=frozenset({THEIRS})),
    "the same file, in place": Rival(_in_place, between=THEIRS + b"!", at_f=frozenset({THEIRS + b"!"}), fresh=True),
    "another file, and one more": Rival(
        # Killed between the two put back, the worker cannot say which of them is later: the last one is kept.
        lambda root: _put(root, THEIRS),
        lambda root: _put(root, LATER),
        at_f=frozenset({THEIRS, LATER}),
        somewhere=frozenset({LATER}),
    ),
    "a directory": Rival(_directory, at_f=frozenset({THEIRS})),
    "another file, removed": Rival(
        lambda root: _put(root, THEIRS), lambda root: os.unlink(root / "f"), at_f=frozenset({None})
    ),
    "another file, moved away": Rival(
        lambda root: _put(root, THEIRS),
        lambda root: os.rename(root / "f", root / "g"),
        at_f=frozenset({None}),
        somewhere=frozenset({THEIRS}),
    ),
}


@dataclass
class Steps:
    """The worker's steps from its first change of a name on; the one numbered ``kill_at`` is its last."""

    root: Path
    rival: Rival
    kill_at: int
    taken: int = 0
    exchanges: int = 0
    real: dict[str, Any] = field(default_factory=dict)

    def passes(self) -> None:
        if self.taken == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.taken += 1

    def rename(self, *arguments: Any, **more: Any) -> None:
        self.passes()
        self.real["rename"](*arguments, **more)
        self.passes()

    def unlink(self, *arguments: Any, **more: Any) -> None:
        self.passes()
        self.real["unlink"](*arguments, **more)
        self.passes()

    def renameat2(self, *arguments: Any, flags: int) -> None:
        self.passes()
        is_first = flags == kernel.RENAME_EXCHANGE and not self.exchanges
        self.exchanges += flags == kernel.RENAME_EXCHANGE
        if is_first:
            self._act(self.rival.before, "before")
            self.passes()
        self.real["renameat2"](*arguments, flags=flags)
        if is_first:
            self.passes()
            self._act(self.rival.after, "after")
        self.passes()

    def _act(self, act: Callable[[Path], None], when: str) -> None:
        """Be somebody else for a moment, whom nobody kills."""
        kill_at, taken, self.kill_at = self.kill_at, self.taken, -1
        act(self.root)
        self.root.with_name(f"{self.root.name}.{when}").touch()
        self.kill_at, self.taken = kill_at, taken


@pytest.mark.parametrize("name", RIVALS)
def test_killed_at_every_step(name: str, tmp_path: Path) -> None:
    """Wherever the kill falls, the next worker leaves what the last writer wrote, and no name of ours."""
    rival = RIVALS[name]
    step = 0
    was_killed = True
    while was_killed:
        assert step < 60, "the write has no end"
        root = tmp_path / str(step)
        root.mkdir()
        was_killed = _write_until(root, rival, step)
        with FilesWorker(root) as files:
            files.stat(".")
        found = _contents(root)
        before, after = (tmp_path / f"{step}.before").exists(), (tmp_path / f"{step}.after").exists()
        may_stand = rival.at_f if after or (before and not rival.between) else {rival.between} if before else {OLD}
        assert found.get("f") in may_stand, f"killed at step {step}: {found}"
        if after:
            assert rival.somewhere <= set(found.values()), f"killed at step {step}: {found}"
        others = set(found) - {"f", "g"}
        assert not any(other.startswith(".guardhouse-tmp-") for other in others), f"killed at step {step}: {found}"
        assert all(".guardhouse-kept-" in other and found[other] in (THEIRS, LATER) for other in others), found
        step += 1
    assert step > 4


def _write_until(root: Path, rival: Rival, kill_at: int) -> bool:
    """Write on condition with a worker that is killed at that step; say whether it was."""
    (root / "f").write_bytes(OLD)
    if not rival.fresh:
        os.utime(root / "f", (DAY_AGO_S, DAY_AGO_S))
    steps = Steps(root, rival, kill_at)
    steps.real = {"rename": os.rename, "unlink": os.unlink, "renameat2": kernel.renameat2}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "rename", steps.rename)
        patched.setattr(os, "unlink", steps.unlink)
        patched.setattr(kernel, "renameat2", steps.renameat2)
        files = FilesWorker(root)
    try:
        files.write("f", OURS, if_checksum=hashlib.sha256(OLD).hexdigest())
    except ConnectionError:
        return True
    except WorkspaceRefusal:
        assert rival.between, "refused although nobody was there"
    finally:
        files.close()
    return False


def _contents(root: Path) -> dict[str, bytes]:
    """Return what the workspace holds by name, of a directory what is in it; without `.work`."""
    return {
        path.name: (path / "in").read_bytes() if path.is_dir() else path.read_bytes()
        for path in root.iterdir()
        if path.name != ".work"
    }


def test_killed_at_random_under_a_writer_that_never_rests(tmp_path: Path) -> None:
    """What stands there in the end is the other's last content, or ours written in knowledge of it; or it was kept."""
    generator = random.Random(11)
    written: dict[str, bytes] = {}
    files = FilesWorker(tmp_path)
    try:
        for turn in range(KILLS):
            stop = threading.Event()
            last: list[bytes] = []
            rival = threading.Thread(target=_write_again_and_again, args=(tmp_path, turn, stop, last))
            rival.start()
            killer = threading.Thread(target=_kill_after, args=(files.pid, generator.uniform(0.0, 0.02)))
            killer.start()
            number = 0
            try:
                while True:
                    number += 1
                    _write_knowing(files, b"ours %d %d" % (turn, number), written)
            except ConnectionError:
                killer.join()
            finally:
                stop.set()
                rival.join()
            files.close()
            files.start()
            files.stat(".")
            content = (tmp_path / "f").read_bytes()
            while content.startswith(b"ours"):  # back to what the other wrote, over what we knew each time
                content = written[content.rpartition(b" ")[2].decode()]
            kept = [path.read_bytes() for path in tmp_path.glob("f.guardhouse-kept-*")]
            assert not last or content == last[-1] or last[-1] in kept
            assert not list(tmp_path.glob(".guardhouse-tmp-*"))
    finally:
        files.close()


def _write_knowing(files: FilesWorker, text: bytes, written: dict[str, bytes]) -> None:
    """Write over what is there now, with its checksum in the content."""
    try:
        read = files.read("f")
    except WorkspaceRefusal:  # not there yet
        return
    if read.checksum is None:
        return
    base = read.checksum.removeprefix("sha256:")
    written[base] = read.content
    try:
        files.write("f", text + b" " + base.encode(), if_checksum=base)
    except WorkspaceRefusal:  # the other was faster
        return


def _write_again_and_again(root: Path, turn: int, stop: threading.Event, last: list[bytes]) -> None:
    number = 0
    while not stop.is_set():
        number += 1
        content = b"theirs %d %d" % (turn, number)
        (root / ".theirs").write_bytes(content)
        os.rename(root / ".theirs", root / "f")
        last.append(content)
        time.sleep(0.0005)


def _kill_after(pid: int, delay_s: float) -> None:
    time.sleep(delay_s)
    os.kill(pid, signal.SIGKILL)


def test_a_skill_never_takes_what_was_put_there_meanwhile(tmp_path: Path) -> None:
    """A file that lands in the empty directory between the look and the exchange stays, and the skill is refused."""
    (tmp_path / "skill").mkdir()
    real = kernel.renameat2

    def late(*arguments: Any, flags: int) -> None:
        (tmp_path / "skill" / "mine").write_bytes(b"precious")
        kernel.renameat2 = real
        real(*arguments, flags=flags)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kernel, "renameat2", late)
        files = FilesWorker(tmp_path)
    try:
        with pytest.raises(WorkspaceRefusal):
            files.sync_skill("demo", "skill", ZIP)
        assert _contents(tmp_path / "skill") == {"mine": b"precious"}
        assert sorted(os.listdir(tmp_path)) in (["skill"], [".work", "skill"])
        os.unlink(tmp_path / "skill" / "mine")
        files.sync_skill("demo", "skill", ZIP)
        assert (tmp_path / "skill" / "SKILL.md").is_file()
    finally:
        files.close()

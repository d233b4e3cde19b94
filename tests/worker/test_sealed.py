"""The worker after its start: nothing but the handle and the socket is left to it, and every operation still works."""

import contextlib
import os
import resource
import socket
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from tests.support.files import FilesWorker

from guardhouse.errors import Refusal
from guardhouse.skills import SkillRefused
from guardhouse.worker import files as worker


class SealedWorker(FilesWorker):
    """A worker whose root is an empty directory and that may hold few descriptors, as the launcher confines it."""

    def start(self) -> None:
        root_fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        empty = Path(self._root).parent / "empty"
        empty.mkdir(exist_ok=True)
        self.pid = os.fork()
        if not self.pid:
            status = 70
            try:
                ours.close()
                for number in map(int, os.listdir("/proc/self/fd")):
                    # The one that lists them is closed by now.
                    if number > 2 and number not in (root_fd, theirs.fileno()):
                        with contextlib.suppress(OSError):
                            os.close(number)
                os.chroot(empty)
                os.chdir("/")
                resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
                status = worker.main(root_fd, theirs.detach(), self._settings)
            finally:
                os._exit(status)
        os.close(root_fd)
        theirs.close()
        ours.settimeout(self._timeout_s)
        self._sock = ours


def archive(name: str) -> bytes:
    made = BytesIO()
    with zipfile.ZipFile(made, "w") as packed:
        packed.writestr("SKILL.md", "\ufeff---\nname: demo\ndescription: d\n---\n")
        packed.writestr(name, b"x")
    return made.getvalue()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to chroot")
@pytest.mark.parametrize("method", ["openat2", "careful"])
def test_nothing_is_opened_outside_after_the_start(method: str, tmp_path: Path) -> None:
    """With an empty root and 256 descriptors, every operation and every refusal works: nothing is imported late."""
    root = tmp_path / "ws"
    root.mkdir()
    deep = "/".join(["d"] * 600)
    with SealedWorker(root, method=method, quota_bytes=1 << 30) as files:
        files.write(f"{deep}/é.txt", "ärger\n".encode() * 100)
        files.write(b"\xff\xfe", b"latin \xe9\n")
        assert files.read(f"{deep}/é.txt", offset=7, limit=7).content == "ärger\n".encode()
        files.edit(f"{deep}/é.txt", "ärger", "Ärger", replace_all=True)
        assert files.grep("ÄRGER", case="insensitive", context=2).matches
        assert files.glob("**/[é-ü].txt").matches == (f"{deep}/é.txt",)
        assert len(files.list(recursive=True).entries) > 600
        text, result = files.spill("zeile é\n".encode() * 10_000)
        assert result.truncated
        dos = archive("nameXdos").replace(b"nameXdos", b"name\x81dos")
        assert files.sync_skill("demo", "skill", dos).success
        assert (root / "skill" / "nameüdos").exists()
        with pytest.raises((SkillRefused, Refusal)):
            files.sync_skill("demo", "skill", archive("../x"))
        with pytest.raises((SkillRefused, Refusal)):
            files.sync_skill("demo", "skill", b"no zip at all")
        with pytest.raises(Refusal):
            files.grep("(")
        with pytest.raises(Refusal):
            files.read(deep + "/" + "../" * 601 + "etc/passwd")
        with pytest.raises(Refusal):
            files.read(deep)
        files.move("skill", "moved")
        assert files.usage().files > 600
        files.clean(max_bytes=1)
        files.remove("d", recursive=True)
    assert text

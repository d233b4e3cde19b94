"""The synchronous adapter: each argument by position and by its name on the wire, text, bytes and paths alike."""

import base64
import hashlib
from pathlib import Path

import pytest
from tests.escapes_files.test_paths import ZIP
from tests.support.files import FilesWorker

from guardhouse.errors import PeerError
from guardhouse.workspace import PathEscapesWorkspace


@pytest.mark.parametrize("method", [None, "openat2", "careful"])
def test_every_way_to_ask(method: str | None, tmp_path: Path) -> None:
    """What a test's author would write first works, and means the same."""
    with FilesWorker(tmp_path, method=method) as files:
        files.write("a.txt", "héllo\n")
        files.write(path=Path("d/b.txt"), content=b"\xff\x00")
        files.write(b"l\xff", content=bytearray(b"x"))
        assert files.read("a.txt").content == files.read(path=str(tmp_path / "a.txt")).content == "héllo\n".encode()
        assert files.read(Path("a.txt"), 1, 2).content == files.read("a.txt", offset=1, limit=2).content
        assert files.read(b"l\xff").content == b"x"
        assert [entry.path for entry in files.list().entries] == [".work", "a.txt", "d", "l\ufffd"]
        assert files.list(".", recursive=False) == files.list()
        assert files.list("", True, ["*.txt"]) == files.list(path="", recursive=True, ignore=("*.txt",))
        assert "d/b.txt" in {entry.path for entry in files.list("", True).entries}
        assert files.glob("**/*.txt").matches == files.glob(pattern=b"**/*.txt").matches == ("a.txt", "d/b.txt")
        assert files.grep("HÉL").matches == ()
        assert files.grep("h.l", "*.txt").matches == files.grep(pattern=b"h.l", include=["a*"], path="").matches
        checksum = hashlib.sha256(ZIP).hexdigest()
        files.sync_skill("demo", "skills/demo", ZIP, checksum)
        files.sync_skill(
            skill_name="demo", skill_dir=Path("skills/two"), zip_data=base64.b64encode(ZIP).decode(), checksum=checksum
        )
        (tmp_path / "demo.zip").write_bytes(ZIP)
        files.sync_skill("demo", "skills/three", tmp_path / "demo.zip")
        assert len(files.glob("skills/*/SKILL.md").matches) == 3
        with pytest.raises(PathEscapesWorkspace):
            files.read(tmp_path.parent / "elsewhere")
        with pytest.raises(PeerError):
            files.grep("\ud800")

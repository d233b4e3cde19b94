"""Whatever an operation finds, its result fits one message; what does not fit is counted or in a file, never lost."""

import os
from pathlib import Path

import pytest
from tests.support.files import FilesWorker

from guardhouse import limits
from guardhouse.wire.envelope import render_frame
from guardhouse.wire.messages import TaskResult
from guardhouse.wire.operations import Result

# Names that are longest as JSON: control characters become six letters each, and the exact bytes come beside them.
LONGEST = b"\x01\xff" * 125


def frame_of(result: Result) -> int:
    """Return the bytes of the frame that carries ``result``, having been read back as the hub reads it."""
    message = TaskResult(task_id="t", success=True, result=result)
    return len(render_frame(message, message_id="m", timestamp_ms=0).encode())


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of 9,000 files with the longest names, 30 MB of them as JSON."""
    root = tmp_path_factory.mktemp("crowded")
    for group in range(3):
        directory = os.fsencode(root) + b"/" + LONGEST[:200] + str(group).encode()
        os.mkdir(directory)
        for number in range(3_000):
            os.close(os.open(directory + b"/" + LONGEST[:240] + b"%05d" % number, os.O_CREAT | os.O_WRONLY))
    return root


def test_list_and_glob(crowded: Path) -> None:
    """The longest names that there are: what is left out is counted to the last one."""
    with FilesWorker(crowded) as files:
        listed = files.list(recursive=True)
        assert frame_of(listed) <= limits.MESSAGE_MAX_BYTES
        assert listed.truncated
        assert len(listed.entries) + listed.left_out == 9_003
        found = files.glob("*/*")
        assert frame_of(found) <= limits.MESSAGE_MAX_BYTES
        assert len(found.matches) + found.left_out == 9_000


def test_read(tmp_path: Path) -> None:
    """One answer holds 16 MiB, and its note says the byte at which to read on."""
    content = os.urandom(1 << 20) * 17
    (tmp_path / "f").write_bytes(content)
    with FilesWorker(tmp_path) as files:
        first = files.read("f")
        assert frame_of(first) <= limits.MESSAGE_MAX_BYTES
        assert first.notes == ("16777216 bytes are all that one answer holds; read on at offset 16777216",)
        assert first.content + files.read("f", offset=16_777_216).content == content


def test_grep(tmp_path: Path) -> None:
    """Many long lines: a preview that is cut on a character, with the exact byte at which the saved whole goes on."""
    line = "é☃😀" * 200 + "needle\n"
    (tmp_path / "f").write_text(line * 20_000)
    with FilesWorker(tmp_path) as files:
        found = files.grep("needle")
        assert frame_of(found) <= limits.MESSAGE_MAX_BYTES
        assert found.truncated
        assert len(found.content) <= limits.PREVIEW_CHARS
        assert "\ufffd" not in found.content
        assert len(found.matches) + found.left_out == 20_000
        offset = int(found.content.partition("its first ")[2].partition(" bytes")[0])
        whole = (tmp_path / str(found.file_path)).read_bytes()
        assert len(whole) == found.total_size
        assert whole[:offset].decode() == found.content.partition("<output_truncated>")[0].removesuffix("\n")
        rest = files.read(str(found.file_path), offset=offset, limit=20_000).content
        assert whole[offset:].startswith(rest)


@pytest.mark.parametrize("operation", ["bash", "webfetch", "mcp_call"])
def test_texts_of_other_operations(operation: str, tmp_path: Path) -> None:
    """Every text that goes through `spill` is bounded alike: 30,000 characters whole, one more as a preview."""
    with FilesWorker(tmp_path) as files:
        whole = "😀" * limits.INLINE_LIMIT_CHARS
        text, result = files.spill(whole.encode(), operation)
        assert (text, result.truncated, result.file_path) == (whole, False, None)
        text, result = files.spill((whole + "x").encode(), operation)
        assert result.total_size == 4 * limits.INLINE_LIMIT_CHARS + 1
        assert len(text) <= limits.PREVIEW_CHARS
        assert str(result.file_path).startswith(f".work/outputs/{operation}_")
        offset = int(text.partition("its first ")[2].partition(" bytes")[0])
        assert offset % 4 == 0
        assert text.startswith("😀" * (offset // 4))


def test_an_output_that_does_not_fit_its_bound(tmp_path: Path) -> None:
    """It is not saved, nothing else is removed for it, and the answer says what is lost."""
    with FilesWorker(tmp_path, spill_max_bytes=100_000) as files:
        _, kept = files.spill(b"a\n" * 40_000)
        text, lost = files.spill(b"b\n" * 60_000)
        assert lost.truncated
        assert lost.file_path is None
        assert "120000 bytes are over the 100000" in text
        assert (tmp_path / str(kept.file_path)).exists()
        _, newer = files.spill(b"c\n" * 40_000)
        assert (tmp_path / str(newer.file_path)).exists()
        assert not (tmp_path / str(kept.file_path)).exists()

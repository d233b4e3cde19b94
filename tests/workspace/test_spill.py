"""Large output: what is answered, what is saved, what is never overwritten, and what expires."""

import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardhouse.workspace import Workspace, bound_text, expire_outputs
from guardhouse.workspace.spill import preview, reads_work_directory

NOW = 1_700_000_000.0


@pytest.mark.parametrize("content", [b"", b"x" * 30_000, "é".encode() * 30_000, b"\xff" * 30_000])
def test_what_fits_is_answered_whole(content: bytes, workspace: Workspace, tmp_path: Path) -> None:
    """Thirty thousand characters, however many bytes, need no file."""
    bounded = bound_text(workspace, content, operation="bash", now_s=NOW)
    assert (bounded.text, bounded.truncated) == (content.decode("utf-8", "replace"), False)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    [
        b"x" * 30_001, b"line\n" * 10_000, "é€😀".encode() * 20_000, b"\n" * 40_000, b"\xff" * 40_000,
        b"a\xe2\x82" * 20_000,
    ],
)  # fmt: skip
def test_what_does_not_fit_is_saved_whole(content: bytes, workspace: Workspace, tmp_path: Path) -> None:
    """The file has every byte; the answer is its beginning, names the file, and its offset goes on exactly there."""
    bounded = bound_text(workspace, content, operation="bash", now_s=NOW)
    assert bounded.truncated
    assert bounded.total_size == len(content)
    assert re.fullmatch(r"\.work/outputs/bash_[a-z2-7]{8}_1700000000\.txt", str(bounded.file_path))
    assert (tmp_path / str(bounded.file_path)).read_bytes() == content
    assert len(bounded.text) <= 8_000
    assert len(bounded.text.splitlines()) <= 20 or content.count(b"\n") < 20
    assert bounded.text.count("\n") < 20
    assert str(bounded.file_path) in bounded.text
    offset = int(re.search(r"offset (\d+) \(bytes\)", bounded.text)[1])
    shown = bounded.text.split("<output_truncated>")[0]
    beginning = content[:offset].decode("utf-8", "replace")
    assert shown in (beginning, beginning + "\n")
    assert content.decode("utf-8", "replace").startswith(beginning)


@given(st.text(max_size=300), st.integers(1, 5), st.integers(1, 100))
def test_preview_is_a_prefix(text: str, max_lines: int, max_chars: int) -> None:
    """A preview adds nothing, keeps both bounds, and is everything when everything fits."""
    shown = preview(text, max_lines=max_lines, max_chars=max_chars)
    assert text.startswith(shown)
    assert len(shown) <= max_chars
    assert shown.count("\n") <= max_lines
    if text.count("\n") < max_lines and len(text) <= max_chars:
        assert shown == text


@pytest.mark.parametrize(
    ("command", "whole"),
    [
        ("cat .work/outputs/bash_x_1.txt", True),
        ("head -n 50 ./.work/outputs/x", True),
        ("cd a; tail -c +100 '.work/outputs/x' | grep y", True),
        ("/usr/bin/less /w/.work/outputs/x", True),
        ("python3 x.py < .work/outputs/x", True),
        ("bat .work/x", True),
        ("cat big.txt", False),
        ("cat big.txt; ls .work/", False),
        ("rm -r .work/outputs", False),
        ("echo cat.work/x", False),
        ("find . -name x", False),
    ],
)
def test_reading_on_is_answered_whole(command: str, whole: bool, workspace: Workspace) -> None:
    """A command that reads a saved output is answered whole, any other is not."""
    assert reads_work_directory(command) is whole
    bounded = bound_text(workspace, b"x" * 50_000, operation="bash", command=command, now_s=NOW)
    assert bounded.truncated is not whole


def test_the_loop_guard_is_linear() -> None:
    """A command made to confuse the guard costs it nothing."""
    began = time.process_time()
    for command in ("cat " * 30_000 + ".work", "<" * 60_000 + ".work", "cat a/" * 20_000 + ";.work/", " <x" * 30_000):
        reads_work_directory(command)
    assert time.process_time() - began < 4


def test_an_output_never_replaces_another(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is taken, even by a link that leads out, is left as it is and another one chosen."""
    from guardhouse.workspace import spill

    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    (tmp_path / ".work" / "outputs").mkdir(parents=True)
    letters = iter("aaaaaaaa" + "bbbbbbbb" + "cccccccc")
    monkeypatch.setattr(spill.secrets, "choice", lambda _: next(letters))
    os.symlink(outside, tmp_path / ".work/outputs/bash_aaaaaaaa_1700000000.txt")
    (tmp_path / ".work/outputs/bash_bbbbbbbb_1700000000.txt").write_bytes(b"taken")
    bounded = bound_text(workspace, b"x" * 50_000, operation="bash", now_s=NOW)
    assert bounded.file_path == ".work/outputs/bash_cccccccc_1700000000.txt"
    assert not outside.exists()
    assert (tmp_path / ".work/outputs/bash_bbbbbbbb_1700000000.txt").read_bytes() == b"taken"


def test_a_work_directory_that_leads_out_saves_nothing(workspace: Workspace, tmp_path: Path) -> None:
    """When `.work` is a link out, nothing is written there and the answer says that the rest is lost."""
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    os.symlink(outside, tmp_path / ".work")
    bounded = bound_text(workspace, b"x" * 50_000, operation="bash", now_s=NOW)
    assert (bounded.truncated, bounded.file_path) == (True, None)
    assert "could not be saved" in bounded.text
    assert os.listdir(outside) == []


def test_outputs_expire_by_age_and_size(workspace: Workspace, tmp_path: Path) -> None:
    """Old ones go, then the oldest until the rest fits; what is no output of ours stays."""
    outputs = tmp_path / ".work" / "outputs"
    outputs.mkdir(parents=True)
    for number in range(5):
        path = outputs / f"bash_aaaaaaa{'abcde'[number]}_170000000{number}.txt"
        path.write_bytes(b"x" * 100)
        os.utime(path, (NOW - 100 * (5 - number),) * 2)
    (outputs / "notes.txt").write_bytes(b"mine")
    os.utime(outputs / "notes.txt", (0, 0))
    assert expire_outputs(workspace, max_age_s=450, max_bytes=0, now_s=NOW) == (1, 100)
    assert expire_outputs(workspace, max_age_s=0, max_bytes=250, now_s=NOW) == (2, 200)
    assert expire_outputs(workspace, max_age_s=0, max_bytes=0, now_s=NOW) == (0, 0)
    assert len(os.listdir(outputs)) == 3

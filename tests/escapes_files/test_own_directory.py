"""Links in place of Guardhouse's own directories: nothing is kept, counted or cleaned outside; the twin has no link."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.escapes_files.box import Box, make_box
from tests.support.files import FilesWorker

from guardhouse.errors import Refusal

LONG = b"line\n" * 20_000


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return make_box(tmp_path)


@pytest.fixture(params=["openat2", "careful"])
def files(request: pytest.FixtureRequest, box: Box) -> Iterator[FilesWorker]:
    with FilesWorker(box.root, method=request.param) as worker:
        yield worker


def put_link(box: Box, name: str) -> None:
    """Make ``name`` below `.work` (or itself) a link to the directory outside."""
    place = box.root / name
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(box.outside, place)


@pytest.mark.parametrize("name", [".work", ".work/outputs"])
def test_large_output(name: str, box: Box, files: FilesWorker) -> None:
    """A large output is not saved through a link; its beginning is answered, with a line that says what is lost."""
    _, kept = files.spill(LONG)
    assert kept.file_path is not None
    put_link(box, name)
    before = box.picture()
    text, lost = files.spill(LONG)
    assert lost.file_path is None
    assert "could not be saved" in text
    assert box.picture() == before


def test_cleaning(box: Box, files: FilesWorker) -> None:
    """Outputs that have expired are removed; files of the same name in a directory that a link names are not."""
    _, kept = files.spill(LONG)
    assert kept.file_path is not None
    os.utime(box.root / kept.file_path, (1, 1))
    assert files.clean(max_age_s=60).files == 1
    name = Path(kept.file_path).name
    (box.outside / name).write_bytes(b"somebody's")
    os.utime(box.outside / name, (1, 1))
    put_link(box, ".work/outputs")
    before = box.picture()
    with contextlib.suppress(Refusal):
        assert files.clean(max_age_s=60).files == 0
    assert box.picture() == before


@pytest.mark.parametrize("name", [".work/uploads", ".work/tmp"])
def test_uploads(name: str, box: Box, files: FilesWorker) -> None:
    """Neither an upload's parts nor the record of a temporary file lands behind a link, whatever its name."""
    checksum = hashlib.sha256(b"xy").hexdigest()
    for upload_id in ("plain", "../../../outside/u", "a/b"):
        files.write("made.bin", b"x", upload_id=upload_id, last=False)
        files.write("made.bin", b"y", upload_id=upload_id, offset=1, last=True, checksum=checksum)
        assert files.read("made.bin").content == b"xy"
    put_link(box, name)
    before = box.picture()
    with contextlib.suppress(Refusal):
        files.write("made.bin", b"x", upload_id="plain", last=False)
    assert box.picture() == before

"""Large files part by part: the same bytes however they are asked for, redacted, checked, resumable."""

import contextlib
import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.worker.test_client import Forked

from guardhouse.limits import FILE_PART_MAX_BYTES
from guardhouse.policy import load_policy
from guardhouse.runner.file_gate import FileGate
from guardhouse.runner.files import FilesService
from guardhouse.runner.redaction import load_redaction
from guardhouse.runner.transfers import TransferService
from guardhouse.wire.messages_files import FileRead, FileResult, FileWrite
from guardhouse.worker.settings import FilesSettings

OPEN = 'permission: {bash: {"*": deny}}'
CLOSED = 'permission: {bash: {"*": deny}, read: {"*": allow, "private*": deny}, write: {"*": allow, "private*": deny}}'
SECRET = b"ghp_" + b"aB3" * 12
REDACTION = load_redaction(())


class Enforced:
    """A policy and a real files worker."""

    def __init__(self, root: Path, policy: str = OPEN) -> None:
        self.file_gate = FileGate(load_policy(policy, name="p"), workspace=root)
        self.files = FilesService(self.start)
        self._root = root
        self.workers: list[Forked] = []

    async def start(self) -> socket.socket:
        self.workers.append(Forked(self._root, FilesSettings(root_path=str(self._root))))
        return self.workers[-1].sock

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        yield

    def bury(self) -> None:
        for worker in self.workers:
            os.waitpid(worker.pid, 0)


@contextlib.asynccontextmanager
async def serving(root: Path, policy: str = OPEN):
    enforced = Enforced(root, policy)
    try:
        yield enforced, lambda: TransferService(redaction=REDACTION, enforcement=lambda: enforced)
    finally:
        await enforced.files.aclose()
        enforced.bury()


async def read_all(service: TransferService, path: str, *, limit: int, offset: int = 0) -> tuple[bytes, FileResult]:
    parts = []
    while True:
        call = FileRead(call_id="c", transfer_id="t", path=path, offset=offset, limit=limit)
        result = await service.answer(call)
        assert result.success, result.error
        parts.append(result.content)
        assert result.next_offset == offset + len(result.content)
        offset = result.next_offset
        if result.end:
            return b"".join(parts), result


@pytest.mark.parametrize("size", [0, 1, 70_000, FILE_PART_MAX_BYTES, 2 * FILE_PART_MAX_BYTES + 17])
async def test_a_download_is_the_file(size: int, tmp_path: Path) -> None:
    """All parts together are the file, and the end says its size and checksum."""
    content = os.urandom(size)
    (tmp_path / "f").write_bytes(content)
    async with serving(tmp_path) as (_, service):
        data, end = await read_all(service(), "f", limit=300_000)
        assert data == content
        assert (end.total_size, end.checksum) == (size, f"sha256:{hashlib.sha256(content).hexdigest()}")


async def test_a_secret_is_taken_out_wherever_parts_are_cut(tmp_path: Path) -> None:
    """Cut anywhere, resumed anywhere, by a runner that remembers or not: the same redacted bytes and checksum."""
    content = (b"line\n" * 3000 + b"token " + SECRET + b"\n") * 3 + b"end"
    (tmp_path / "f").write_bytes(content)
    async with serving(tmp_path) as (_, service):
        whole, end = await read_all(service(), "f", limit=FILE_PART_MAX_BYTES)
        assert SECRET not in whole
        assert end.secrets == 3
        for limit in (97, 15_011):
            data, again = await read_all(service(), "f", limit=limit)
            assert (data, again.checksum, again.secrets) == (whole, end.checksum, 3)
        for offset in (0, 14_999, 15_020, 15_040, len(whole)):
            rest, resumed = await read_all(service(), "f", limit=50_000, offset=offset)
            assert (whole[:offset] + rest, resumed.checksum) == (whole, end.checksum)
        late = await service().answer(FileRead(call_id="c", transfer_id="t", path="f", offset=len(whole) + 1))
        assert (late.success, late.error_code) == (False, "conflict")


async def test_a_lost_answer_is_told_again(tmp_path: Path) -> None:
    """The part that was answered last comes again from memory, also when less of it is wanted."""
    content = os.urandom(1000)
    (tmp_path / "f").write_bytes(content)
    async with serving(tmp_path) as (_, service):
        asked = service()

        async def part(offset: int, limit: int) -> bytes:
            return (
                await asked.answer(FileRead(call_id="c", transfer_id="t", path="f", offset=offset, limit=limit))
            ).content

        assert await part(0, 400) == content[:400]
        assert await part(400, 400) == content[400:800]
        (tmp_path / "f").unlink()  # nothing is read again for it
        assert await part(400, 400) == content[400:800]
        assert await part(400, 100) == content[400:500]
        assert await part(500, 900) == content[500:]


async def test_a_growing_file_ends(tmp_path: Path) -> None:
    """A log that grows is sent as long as it was at first; one that was replaced or cut is not mixed up."""
    (tmp_path / "log").write_bytes(b"x" * 3_000_000)
    async with serving(tmp_path) as (_, service):
        asked = service()
        first = await asked.answer(FileRead(call_id="c", transfer_id="t", path="log", limit=1000))
        assert first.total_size == 3_000_000
        with (tmp_path / "log").open("ab") as log:
            log.write(b"y" * 10)
        data, _ = await read_all(asked, "log", limit=FILE_PART_MAX_BYTES, offset=1000)
        assert data == b"x" * 2_999_000
        for spoil in (
            lambda path: path.write_bytes(b"z"),
            lambda path: (path.unlink(), path.write_bytes(b"x" * 9_000_000)),
        ):
            (tmp_path / "log").write_bytes(b"x" * 3_000_000)
            asked = service()
            await asked.answer(FileRead(call_id="c", transfer_id="t", path="log", limit=1000))
            spoil(tmp_path / "log")
            offset, refused = 1000, None
            while refused is None:
                result = await asked.answer(FileRead(call_id="c", transfer_id="t", path="log", offset=offset))
                assert not result.end
                offset, refused = result.next_offset, result.error_code
            assert refused == "conflict"


async def test_an_upload_appears_when_it_is_whole(tmp_path: Path) -> None:
    """Parts gather over calls and runners; the last one with the right checksum puts the file in place."""
    content = os.urandom(2_500_000)
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    async with serving(tmp_path) as (_, service):

        async def send(offset: int, end: int, **more) -> FileResult:
            part = content[offset:end]
            call = FileWrite(call_id="c", transfer_id="t", path="d/f", offset=offset, content=part, **more)
            return await service().answer(call)

        assert (await send(0, 0)).next_offset == 0
        assert (await send(0, 1_000_000)).next_offset == 1_000_000
        gap = await send(1_100_000, 1_200_000)
        assert (gap.success, gap.error_code) == (False, "conflict")
        assert (await send(0, 0)).next_offset == 1_000_000
        await send(1_000_000, 2_000_000)
        assert not (tmp_path / "d").exists()
        assert (await send(2_000_000, 2_500_000, last=True, checksum="0" * 64)).error_code == "checksum"
        done = await send(2_000_000, 2_500_000, last=True, checksum=checksum)
        assert (done.success, done.next_offset, done.checksum) == (True, 2_500_000, checksum)
        assert (tmp_path / "d" / "f").read_bytes() == content


@pytest.mark.parametrize(("path", "succeeds"), [("private.txt", False), ("../outside", False), ("public.txt", True)])
async def test_rules_and_walls_hold_for_each_part(path: str, succeeds: bool, tmp_path: Path) -> None:
    """A part is refused where a read or a write would be; its twin works."""
    for name in ("private.txt", "public.txt"):
        (tmp_path / name).write_bytes(b"content")
    checksum = hashlib.sha256(b"new").hexdigest()
    async with serving(tmp_path, CLOSED) as (_, service):
        asked = service()
        read = await asked.answer(FileRead(call_id="c", transfer_id="t", path=path))
        write = FileWrite(call_id="c", transfer_id="t", path=path, content=b"new", last=True, checksum=checksum)
        assert (read.success, (await asked.answer(write)).success) == (succeeds, succeeds)
        assert (tmp_path / "private.txt").read_bytes() == b"content"
        assert not (tmp_path.parent / "outside").exists()

"""Large files under guardhouse.v1: one part read or written for each call, redacted, checked against the policy.

Holds for each download where it stands: the redactor's state, the checksum so far, the part that was sent last. What it
holds is a convenience only: a download that it has forgotten is read again from the start up to the offset asked for,
and the bytes are the same. Knows no connection. Runs in the runner.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from guardhouse.errors import PeerError, Refusal
from guardhouse.limits import FILE_PART_MAX_BYTES, FILE_TRANSFERS_MAX
from guardhouse.policy.operation import OperationDenied
from guardhouse.redaction import RedactionStream
from guardhouse.runner.enforcement import Enforcement
from guardhouse.runner.files import FilesService
from guardhouse.runner.logs import get_logger
from guardhouse.runner.redaction import Redaction
from guardhouse.wire.messages_files import FileRead, FileResult, FileWrite
from guardhouse.wire.operations import ReadArgs, WriteArgs
from guardhouse.worker.protocol import ChunkArgs
from guardhouse.workspace.errors import Code, WorkspaceRefusal

__all__ = ["TransferService"]

# Calls that are served at once, and that may wait for it.
_SLOTS: Final = 4
_WAITING_MAX: Final = 64


class TransferService:
    """Answers `FileRead` and `FileWrite`."""

    def __init__(self, *, redaction: Redaction, enforcement: Callable[[], Enforcement]) -> None:
        """``enforcement`` returns the one in force."""
        self._redaction = redaction
        self._enforcement = enforcement
        self._downloads: OrderedDict[str, _Download] = OrderedDict()
        self._locks: dict[str, _Shared] = {}
        self._slots = trio.CapacityLimiter(_SLOTS)

    async def answer(self, call: FileRead | FileWrite) -> FileResult:
        """Do what one call asks for; whatever stands against it is in the answer."""
        if self._slots.statistics().tasks_waiting >= _WAITING_MAX:
            return _failed(call, "the runner is busy with other files; ask again", "busy")
        try:
            async with self._slots:
                enforcement = self._enforcement()
                with enforcement.held():
                    if isinstance(call, FileRead):
                        return await self._read(call, enforcement)
                    return await self._write(call, enforcement)
        except (Refusal, PeerError) as error:
            return _failed(call, self._redaction.text(str(error)), _code(error))

    async def _read(self, call: FileRead, enforcement: Enforcement) -> FileResult:
        enforcement.file_gate.check("read", ReadArgs(path=call.path, path_b64=call.path_b64))
        locks = self._locks.setdefault(call.transfer_id, _Shared())
        locks.users += 1
        try:
            # A call that comes again after a cut waits for the first, which goes on, and finds what it has made.
            async with locks.lock:
                return await self._read_alone(call, enforcement)
        finally:
            locks.users -= 1
            if not locks.users:
                del self._locks[call.transfer_id]

    async def _read_alone(self, call: FileRead, enforcement: Enforcement) -> FileResult:
        download = self._downloads.pop(call.transfer_id, None)
        if download is None or download.path != call.path_bytes or not download.can_answer(call.offset):
            if call.offset == 0:
                get_logger().info("download", transfer_id=call.transfer_id, path=call.path)
            download = _Download(call.path_bytes, self._redaction.redactor.stream())
            await download.skip(enforcement.files, call.offset)
        content = await download.part(enforcement.files, call.offset, call.limit)
        self._downloads[call.transfer_id] = download
        while len(self._downloads) > FILE_TRANSFERS_MAX:
            self._downloads.popitem(last=False)
        ended = download.is_over
        return FileResult(
            call_id=call.call_id,
            success=True,
            content=content,
            next_offset=call.offset + len(content),
            total_size=download.total_size,
            end=ended,
            checksum=f"sha256:{download.checksum}" if ended else None,
            secrets=download.secrets,
        )

    async def _write(self, call: FileWrite, enforcement: Enforcement) -> FileResult:
        args = WriteArgs(
            path=call.path,
            path_b64=call.path_b64,
            content=call.content,
            if_checksum=call.if_checksum,
            upload_id=call.transfer_id,
            offset=call.offset,
            last=call.last,
            checksum=call.checksum,
        )
        enforcement.file_gate.check("write", args)
        if call.last or (call.offset == 0 and call.content):
            get_logger().info("upload", transfer_id=call.transfer_id, path=call.path, last=call.last)
        arrived = await enforcement.files.upload(args)
        return FileResult(
            call_id=call.call_id,
            success=True,
            next_offset=arrived.size,
            end=call.last,
            checksum=arrived.checksum,
            notes=arrived.notes,
        )


class _Shared:
    """The lock of one transfer, there as long as a call uses it."""

    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.users = 0


class _Download:
    """One file on its way out. Offsets are of the redacted bytes but for ``_raw_offset``."""

    def __init__(self, path: bytes, stream: RedactionStream) -> None:
        self.path = path
        self.total_size = 0
        self._stream = stream
        self._digest = hashlib.sha256()
        self._identity = ""
        self._raw_offset = 0
        self._until: int | None = None  # the size that the file had at first, where it says one
        self._has_ended = False
        self._ready = b""  # redacted, not yet sent
        self._sent = 0
        self._last = b""  # the part before `_sent`, in case that its answer was lost

    @property
    def is_over(self) -> bool:
        """Whether everything was handed out."""
        return self._has_ended and not self._ready

    @property
    def checksum(self) -> str:
        """SHA-256 (hex) of everything, once it is over."""
        return self._digest.hexdigest()

    @property
    def secrets(self) -> int:
        """How many were taken out so far."""
        return sum(self._stream.counts.values())

    def can_answer(self, offset: int) -> bool:
        """Whether the part at ``offset`` can be told without reading from the start again."""
        return offset in {self._sent, self._sent - len(self._last)}

    async def skip(self, files: FilesService, offset: int) -> None:
        """Go to ``offset``.

        Raises:
            WorkspaceRefusal: CONFLICT: the file has less.
        """
        while self._sent < offset:
            if not await self.part(files, self._sent, min(FILE_PART_MAX_BYTES, offset - self._sent)):
                raise WorkspaceRefusal(
                    f"offset {offset} is past the end: the file has {self._sent} bytes now; download it again from the"
                    " start",
                    code=Code.CONFLICT,
                )

    async def part(self, files: FilesService, offset: int, limit: int) -> bytes:
        """Return at most ``limit`` bytes from ``offset`` on, which `can_answer`; none at the end."""
        if offset != self._sent:
            # What was sent once is sent again as it was, whatever its length.
            return self._last[:limit] if len(self._last) <= limit else self._again(limit)
        while len(self._ready) < limit and not self._has_ended:
            await self._produce(files)
        content, self._ready = self._ready[:limit], self._ready[limit:]
        self._sent += len(content)
        self._last = content
        return content

    def _again(self, limit: int) -> bytes:
        """Take back what of the last part is over ``limit``."""
        self._ready = self._last[limit:] + self._ready
        self._sent -= len(self._last) - limit
        self._last = self._last[:limit]
        return self._last

    async def _produce(self, files: FilesService) -> None:
        limit = FILE_PART_MAX_BYTES
        if self._until is not None:
            limit = min(limit, self._until - self._raw_offset)
        found, data = await files.read_chunk(
            ChunkArgs(path=self.path, offset=self._raw_offset, limit=limit, identity=self._identity)
        )
        if not self._identity:
            self._identity = found.identity
            # A file that grows is read as far as it was when this began, or a busy log would never end.
            self._until = None if found.ended else found.total_size
        self._raw_offset += len(data)
        self.total_size = max(self._until or 0, self._raw_offset)
        self._has_ended = found.ended or self._raw_offset == self._until
        # A megabyte takes tens of milliseconds, in which everything else would wait.
        redacted = await trio.to_thread.run_sync(
            partial(self._stream.feed, data, is_final=self._has_ended), abandon_on_cancel=False
        )
        self._digest.update(redacted)
        self._ready += redacted


def _failed(call: FileRead | FileWrite, text: str, code: str) -> FileResult:
    return FileResult(call_id=call.call_id, success=False, error=text[:4096], error_code=code)


def _code(error: Refusal | PeerError) -> str:
    if isinstance(error, PeerError):
        return error.code
    if isinstance(error, OperationDenied):
        return "denied"
    return error.code.value if isinstance(error, WorkspaceRefusal) else "refused"

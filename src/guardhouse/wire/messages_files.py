"""The messages that carry large files under ``guardhouse.v1``, part by part: no tasks, and stored nowhere.

A call belongs to its connection, and asking again is always safe: a part read twice is the same, and one that is
written twice is there once. So a transfer outlives any connection, and whoever asks knows where to go on. Knows nothing
of sockets, clocks or files. Runs in the runner and in the hub; docs/wire_protocol.md is the rule book.
"""

from typing import Annotated, ClassVar

from msgspec import Meta

from guardhouse import limits
from guardhouse.wire.messages import Message
from guardhouse.wire.paths import path_as_bytes
from guardhouse.wire.scalars import Count, Identifier, Name, Path, Text

__all__ = ["FileRead", "FileResult", "FileWrite"]

_Checksum = Annotated[str, Meta(max_length=256, pattern=r"\A[0-9A-Za-z:]*\Z")]
_Part = Annotated[bytes, Meta(max_length=limits.FILE_PART_MAX_BYTES)]


class FileRead(Message, frozen=True, kw_only=True):
    """Hub to runner: the next part of a download.

    ``offset`` and ``limit`` count bytes as they leave the host, secrets already taken out. ``transfer_id`` lets the
    runner go on where it was; without its memory of it, it reads the file again from the start.
    """

    TYPE: ClassVar[str] = "file.read"

    call_id: Identifier
    transfer_id: Identifier
    path: Path
    path_b64: bytes | None = None
    offset: Count = 0
    limit: Annotated[int, Meta(ge=1, le=limits.FILE_PART_MAX_BYTES)] = limits.FILE_PART_MAX_BYTES

    @property
    def path_bytes(self) -> bytes:
        """The path as the file system names it."""
        return path_as_bytes(self.path, self.path_b64)


class FileWrite(Message, frozen=True, kw_only=True):
    """Hub to runner: the next part of an upload; nothing is seen under ``path`` before the ``last`` one.

    An empty part at offset 0 that is not the last asks how much has arrived. ``checksum`` is that of the whole and must
    come with the last part; ``if_checksum`` as for `WriteArgs`.
    """

    TYPE: ClassVar[str] = "file.write"

    call_id: Identifier
    transfer_id: Identifier
    path: Path
    path_b64: bytes | None = None
    offset: Count = 0
    content: _Part = b""
    last: bool = False
    checksum: _Checksum | None = None
    if_checksum: _Checksum | None = None

    @property
    def path_bytes(self) -> bytes:
        """The path as the file system names it."""
        return path_as_bytes(self.path, self.path_b64)


class FileResult(Message, frozen=True, kw_only=True):
    """Runner to hub: the answer to `FileRead` or `FileWrite`.

    ``next_offset`` is where to go on. A read has ``end`` when nothing follows, and then the ``checksum``
    (``sha256:<hex>``) of all that was sent and how many ``secrets`` were taken out; ``total_size`` is the file's own.
    A write's ``checksum`` is that of the file once it is in place.
    """

    TYPE: ClassVar[str] = "file.result"

    call_id: Identifier
    success: bool
    content: _Part = b""
    next_offset: Count = 0
    total_size: Count | None = None
    end: bool = False
    checksum: _Checksum | None = None
    secrets: Count = 0
    notes: Annotated[tuple[Text, ...], Meta(max_length=64)] = ()
    error: Text | None = None
    error_code: Name | None = None

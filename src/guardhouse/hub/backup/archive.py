"""The backup's file: compressed, length-prefixed frames, and a last one with the digest of all before it.

A frame is its length in 4 bytes, big-endian, and MessagePack. The first says what the file is, then come tables, each
followed by its rows, then the keys where they are wanted, and the end: a file without its end was cut off. Knows no
database. Runs in `guardhouse hub backup` and `guardhouse hub restore`.
"""

import gzip
import hashlib
import os
import secrets
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import msgspec

from guardhouse.errors import SetupError

__all__ = ["BackupHeader", "End", "Keys", "Rows", "TableStart", "Writer", "new_file", "read_frames"]

FORMAT_VERSION: Final = 1
FRAME_MAX_BYTES: Final = 256 * 1024 * 1024
COMPRESSION_LEVEL: Final = 3


class BackupHeader(msgspec.Struct, frozen=True, kw_only=True, tag="guardhouse-backup"):
    """What the file is. ``step`` is the database's migration; ``made_ms`` is Unix ms."""

    version: int = FORMAT_VERSION
    step: str
    hub_version: str
    made_ms: int


class TableStart(msgspec.Struct, frozen=True, kw_only=True, tag="table"):
    """The rows that follow are of this table, with these columns."""

    name: str
    columns: list[str]


class Rows(msgspec.Struct, frozen=True, kw_only=True, tag="rows"):
    """Some rows of the table named last."""

    rows: list[list[Any]]


class Keys(msgspec.Struct, frozen=True, kw_only=True, tag="keys"):
    """The state directory's keys."""

    sealing: bytes
    audit: bytes


class End(msgspec.Struct, frozen=True, kw_only=True, tag="end"):
    """The last frame: how many rows each table has, and SHA-256 over every byte of the frames before."""

    rows: dict[str, int]
    digest: bytes


Frame = BackupHeader | TableStart | Rows | Keys | End
_decoder: Final = msgspec.msgpack.Decoder(Frame)


class Writer:
    """Writes frames and counts."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._table = ""
        self.rows: dict[str, int] = {}

    def write(self, frame: Frame) -> None:
        """Append a frame."""
        content = msgspec.msgpack.encode(frame)
        data = len(content).to_bytes(4, "big") + content
        self._hash.update(data)
        self._file.write(data)
        if isinstance(frame, TableStart):
            self._table = frame.name
            self.rows[frame.name] = 0
        elif isinstance(frame, Rows):
            self.rows[self._table] += len(frame.rows)

    def end(self) -> bytes:
        """Append the end and return the digest."""
        digest = self._hash.digest()
        self.write(End(rows=self.rows, digest=digest))
        return digest


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that appears under ``path``, whole and on the disk, when the block ends well; mode 0600.

    Raises:
        SetupError: something is there already, or the disk says no.
    """
    if path.exists():
        raise SetupError(f"{str(path)!r} exists; a backup never overwrites: give another name")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(fd, "wb") as raw:
                with gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=COMPRESSION_LEVEL) as file:
                    yield cast(BinaryIO, file)
                raw.flush()
                os.fsync(raw.fileno())
            # A link, unlike a rename, never takes the place of a file that came meanwhile.
            os.link(temporary, path)
            directory_fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory_fd)
            finally:
                os.close(directory_fd)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
    except OSError as error:
        raise SetupError(f"cannot write the backup {str(path)!r}: {error.strerror}") from error


def read_frames(path: Path) -> Iterator[Frame]:
    """Yield the frames of a backup, its `End` last, after its digest was compared.

    Raises:
        SetupError: it is no backup, was changed, is cut off, or was made by a version that writes another form.
    """
    hashed = hashlib.sha256()
    is_first = True
    try:
        with gzip.open(path, "rb") as file:
            while True:
                frame, data = _read_frame(cast(BinaryIO, file), path)
                if is_first:
                    _check_header(frame, path)
                    is_first = False
                if isinstance(frame, End):
                    if frame.digest != hashed.digest() or file.read(1):
                        raise SetupError(f"backup {str(path)!r} is not what was written: its checksum differs")
                    yield frame
                    return
                hashed.update(data)
                yield frame
    except FileNotFoundError as error:
        raise SetupError(f"there is no backup {str(path)!r}") from error
    except EOFError as error:
        raise SetupError(f"backup {str(path)!r} is cut off; take another copy of it") from error
    except (gzip.BadGzipFile, zlib.error, msgspec.DecodeError) as error:
        raise SetupError(f"{str(path)!r} is no backup of a hub, or was changed: {error}") from error
    except OSError as error:
        raise SetupError(f"cannot read the backup {str(path)!r}: {error.strerror or error}") from error


def _read_frame(file: BinaryIO, path: Path) -> tuple[Frame, bytes]:
    size = file.read(4)
    if len(size) < 4:
        raise EOFError
    length = int.from_bytes(size, "big")
    if length > FRAME_MAX_BYTES:
        raise SetupError(f"{str(path)!r} is no backup of a hub, or was changed: a part of {length} bytes")
    content = file.read(length)
    if len(content) < length:
        raise EOFError
    return _decoder.decode(content), size + content


def _check_header(frame: Frame, path: Path) -> None:
    if not isinstance(frame, BackupHeader):
        raise SetupError(f"{str(path)!r} is no backup of a hub: it does not begin as one")
    if frame.version != FORMAT_VERSION:
        raise SetupError(
            f"backup {str(path)!r} has form {frame.version}, of guardhouse {frame.hub_version}; this version reads form"
            f" {FORMAT_VERSION}: restore it with that version"
        )

"""A large file that comes in parts: gathered apart in `.work/uploads/`, seen under its own name only when it is whole.

What has arrived survives the connection, the runner and this process; the next part says where it goes on.
Runs in the files worker.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from typing import Final, NamedTuple

from guardhouse.limits import UPLOAD_MAX_BYTES
from guardhouse.workspace.errors import Code, WorkspaceRefusal, refusal_of, shown
from guardhouse.workspace.handle import PathLike, Workspace, open_beneath, parse_path
from guardhouse.workspace.place import UPLOADS, Place, open_directory, open_place
from guardhouse.workspace.replace import one_at_a_time
from guardhouse.workspace.temporaries import Temporaries
from guardhouse.workspace.write import Written, check_replaceable, put_content

__all__ = ["Arrived", "expire_uploads", "write_part"]

UNFINISHED_MAX: Final = 16
"""Uploads that may be gathering at once."""
_CHUNK_BYTES: Final = 1024 * 1024


class Arrived(NamedTuple):
    """How far an upload is: bytes gathered, and what stands at the path once the last part was put in place."""

    size: int
    written: Written | None


def write_part(
    workspace: Workspace,
    path: PathLike,
    content: bytes | memoryview,
    *,
    upload_id: str,
    offset: int,
    last: bool,
    checksum: str | None = None,
    if_checksum: str | None = None,
    temporaries: Temporaries | None = None,
    admit_growth: Callable[[int, int, bytes], None] = lambda _bytes, _entries, _path: None,
    admit: Callable[[Place, int], None] = lambda _place, _size: None,
    tick: Callable[[], None] = lambda: None,
) -> Arrived:
    """Take one part of an upload, with the ``last`` one put the whole in place; return how far the upload is.

    An empty part at offset 0 that is not the last changes nothing and asks where to go on.

    Args:
        workspace: the handle.
        path: where the whole goes; the same in every part.
        content: the part.
        upload_id: the sender's name for this upload.
        offset: where the part begins; at most what has arrived. A part sent again is written again.
        last: whether this part ends the file.
        checksum: SHA-256 (hex) of the whole; needed with the last part.
        if_checksum: as write_file.
        temporaries: as write_file.
        admit_growth: asked with bytes, entries and path before a part is written; raises to refuse (the quota).
        admit: as write_file, asked with the last part, all of whose bytes were admitted already.
        tick: called now and then; may raise to stop.

    Raises:
        PathEscapesWorkspace: ``path`` lies outside.
        WorkspaceRefusal: CONFLICT when ``offset`` leaves a gap, with the offset that is expected; CHECKSUM;
        TOO_LARGE; …
    """
    relative = parse_path(workspace, path)
    if last and not checksum:
        raise WorkspaceRefusal("the last part needs the checksum of the whole file", code=Code.CHECKSUM)
    if offset + len(content) > UPLOAD_MAX_BYTES:
        raise WorkspaceRefusal(
            f"upload of {shown(relative)} is too large: at most {UPLOAD_MAX_BYTES} bytes", code=Code.TOO_LARGE
        )
    name = hashlib.sha256(upload_id.encode() + b"\0" + relative).hexdigest()[:40].encode()
    dir_fd = open_directory(workspace, UPLOADS)
    try:
        unfinished = os.listdir(dir_fd)
        if name.decode() not in unfinished and len(unfinished) >= UNFINISHED_MAX:
            raise WorkspaceRefusal(
                f"{len(unfinished)} uploads are unfinished, as many as may be; finish them, or run"
                " 'guardhouse workspace clean' when they are a day old",
                code=Code.QUOTA,
            )
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
        try:
            arrived = os.fstat(fd).st_size
            if offset > arrived:
                raise WorkspaceRefusal(
                    f"upload of {shown(relative)} has a gap: {arrived} bytes have arrived and this part begins at"
                    f" {offset}; send on from offset {arrived}",
                    code=Code.CONFLICT,
                )
            end = offset + len(content)
            admit_growth(max(0, end - arrived), 0, relative)
            _write_at(fd, memoryview(content), offset)
            if not last:
                return Arrived(max(end, arrived), None)
            os.ftruncate(fd, end)
            written = _finish(workspace, relative, fd, str(checksum), if_checksum, temporaries, admit, tick)
            os.unlink(name, dir_fd=dir_fd)
            return Arrived(end, written)
        finally:
            os.close(fd)
    except OSError as error:
        raise refusal_of(error, relative) from error
    finally:
        os.close(dir_fd)


def expire_uploads(workspace: Workspace, *, older_than_s: float, now_s: float) -> int:
    """Remove uploads to which nothing has come for ``older_than_s``; return how many."""
    try:
        dir_fd = open_beneath(workspace, UPLOADS, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK, reading=False)
    except WorkspaceRefusal:
        return 0
    removed = 0
    try:
        for name in os.listdir(dir_fd):
            with suppress(OSError):  # gone meanwhile, or a directory that is not ours
                if os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mtime < now_s - older_than_s:
                    os.unlink(name, dir_fd=dir_fd)
                    removed += 1
    finally:
        os.close(dir_fd)
    return removed


def _write_at(fd: int, rest: memoryview, offset: int) -> None:
    while rest:
        done = os.pwrite(fd, rest[:_CHUNK_BYTES], offset)
        rest, offset = rest[done:], offset + done


def _finish(
    workspace: Workspace,
    relative: bytes,
    fd: int,
    checksum: str,
    if_checksum: str | None,
    temporaries: Temporaries | None,
    admit: Callable[[Place, int], None],
    tick: Callable[[], None],
) -> Written:
    digest = hashlib.sha256()
    for part in _parts(fd, tick):
        digest.update(part)
    if digest.hexdigest() != checksum.lower():
        raise WorkspaceRefusal(
            f"upload of {shown(relative)} arrived damaged: checksum {digest.hexdigest()}, promised {checksum[:64]};"
            " send it again from offset 0",
            code=Code.CHECKSUM,
        )
    size = os.fstat(fd).st_size
    with (
        Temporaries.lent(temporaries, workspace) as names,
        open_place(workspace, relative, make_parents=True, through_links=True) as place,
    ):
        with one_at_a_time(place.dir_fd) if if_checksum is not None else nullcontext():
            check_replaceable(place, relative, if_checksum)
            admit(place, size)
            # Copied, not renamed: the place may be on another file system, and a temporary name beside it always works.
            notes = put_content(place, _parts(fd, tick), relative, names, if_checksum=if_checksum)
        return Written(place.path, size, digest.hexdigest(), place.found is None, notes)


def _parts(fd: int, tick: Callable[[], None]) -> Iterator[memoryview]:
    at = 0
    while part := os.pread(fd, _CHUNK_BYTES, at):
        tick()
        yield memoryview(part)
        at += len(part)

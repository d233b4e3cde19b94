"""The checksum of a file that somebody asks for by itself: of what was described, bounded, never of a link's target.

Knows SHA-256. Knows nothing of what the checksum is for. Runs in the files worker.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from guardhouse.limits import STAT_CHECKSUM_MAX_BYTES
from guardhouse.workspace.entry import Entry, Kind, kind_of
from guardhouse.workspace.errors import refusal_of
from guardhouse.workspace.handle import PathLike, Workspace, open_beneath, parse_path

__all__ = ["Hashed", "hash_file"]

_BLOCK_BYTES: Final = 1024 * 1024
_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


@dataclass(frozen=True, slots=True)
class Hashed:
    """A SHA-256 in hexadecimal, or why there is none."""

    checksum: str | None = None
    why_none: str | None = None


def hash_file(
    workspace: Workspace,
    path: PathLike,
    entry: Entry,
    *,
    max_bytes: int = STAT_CHECKSUM_MAX_BYTES,
    tick: Callable[[], None] = lambda: None,
) -> Hashed:
    """Return the SHA-256 of the file at ``path``, which is what ``entry`` describes.

    Args:
        workspace: the handle.
        path: path from outside; a link at its end is not followed.
        entry: of `stat_path`.
        max_bytes: a larger file is not read.
        tick: called for each megabyte; may raise to stop.

    Raises:
        PathEscapesWorkspace, WorkspaceRefusal: as open_beneath; the file cannot be read.
    """
    if entry.kind is not Kind.FILE:
        return Hashed(why_none=f"it is a {entry.kind.replace('_', ' ')}, no regular file")
    if entry.size > max_bytes:
        return Hashed(why_none=f"it has {entry.size} bytes, and at most {max_bytes} are read for one")
    relative = parse_path(workspace, path)
    fd = open_beneath(workspace, relative, _FLAGS, follow=False)
    try:
        before = os.fstat(fd)
        if kind_of(before.st_mode) is not Kind.FILE:
            return Hashed(why_none="it was replaced meanwhile")
        digest = hashlib.sha256()
        size = 0
        # A file of /proc's kind says 0 and has content all the same; one that grows is stopped at the bound.
        while size <= max_bytes and (part := os.pread(fd, _BLOCK_BYTES, size)):
            tick()
            digest.update(part)
            size += len(part)
        after = os.fstat(fd)
    except OSError as error:
        raise refusal_of(error, relative) from error
    finally:
        os.close(fd)
    seen = (entry.size, entry.mtime_ns)
    if seen != (before.st_size, before.st_mtime_ns) or seen != (after.st_size, after.st_mtime_ns):
        return Hashed(why_none="it changed while it was read; ask again")
    if size != (entry.size or size) or size > max_bytes:
        return Hashed(why_none=f"it holds other than the {entry.size} bytes that it says, or over {max_bytes}")
    return Hashed(checksum=digest.hexdigest())

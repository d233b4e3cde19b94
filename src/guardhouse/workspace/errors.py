"""Why an operation on the workspace is refused: one family, one stable code a reason.

Knows how to word an OSError for the person who asked. Knows nothing of how files are opened. Runs in the files worker;
the runner sees the same classes, rebuilt from code and text.
"""

import errno
import os
from enum import StrEnum

from guardhouse.errors import Refusal

__all__ = ["Code", "PathEscapesWorkspace", "WorkspaceRefusal", "escapes", "refusal_of", "shown"]


class Code(StrEnum):
    """The reason in one word, for programs; the text is for people."""

    ESCAPES = "escapes"
    NOT_FOUND = "not_found"
    EXISTS = "exists"
    DIRECTORY = "directory"
    NOT_DIRECTORY = "not_directory"
    NOT_EMPTY = "not_empty"
    SPECIAL = "special"
    PERMISSION = "permission"
    INVALID = "invalid"
    NAME_TOO_LONG = "name_too_long"
    LINK_LOOP = "link_loop"
    TOO_LARGE = "too_large"
    CONFLICT = "conflict"
    DISK_FULL = "disk_full"
    QUOTA = "quota"
    PROTECTED = "protected"
    RULE = "rule"
    CHECKSUM = "checksum"
    ARCHIVE = "archive"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    IO = "io"


class WorkspaceRefusal(Refusal):
    """An operation on the workspace was refused; ``code`` says why, the text says what and what to do."""

    def __init__(self, message: str, *, code: Code) -> None:
        super().__init__(message)
        self.code = code


class PathEscapesWorkspace(WorkspaceRefusal):
    """The path leaves the workspace. The text starts "path escapes workspace: "."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=Code.ESCAPES)


def shown(path: bytes) -> str:
    r"""Return ``path`` quoted for a message: control characters and invalid UTF-8 escaped, 200 characters at most."""
    text = repr(path.decode("utf-8", "backslashreplace"))
    if len(text) <= 200:
        return text
    return f"{text[:120]}…{text[-60:]} ({len(path)} bytes)"


def escapes(path: bytes, how: str) -> PathEscapesWorkspace:
    """Return the refusal for ``path``; ``how`` is the clause that says where it leaves."""
    return PathEscapesWorkspace(f"path escapes workspace: {shown(path)} {how}")


_BY_ERRNO = {
    errno.ENOENT: (Code.NOT_FOUND, "no such file or directory: {path}"),
    errno.ENOTDIR: (Code.NOT_DIRECTORY, "not a directory: a part of {path} is a file"),
    errno.EISDIR: (Code.DIRECTORY, "is a directory: {path}"),
    errno.EEXIST: (Code.EXISTS, "already exists: {path}"),
    errno.ENOTEMPTY: (Code.NOT_EMPTY, "directory not empty: {path}; pass recursive to remove what is in it"),
    errno.EACCES: (Code.PERMISSION, "permission denied: {path}"),
    errno.EPERM: (Code.PERMISSION, "operation not permitted: {path}"),
    errno.EROFS: (Code.PERMISSION, "read-only file system: {path}"),
    errno.ENAMETOOLONG: (Code.NAME_TOO_LONG, "name too long: {path}; one name holds at most 255 bytes"),
    errno.ELOOP: (Code.LINK_LOOP, "too many symbolic links: {path} (do they form a cycle?)"),
    errno.ENXIO: (Code.SPECIAL, "not a regular file: {path}"),
    errno.ENODEV: (Code.SPECIAL, "not a regular file: {path}"),
    errno.ETXTBSY: (Code.CONFLICT, "file is being executed: {path}"),
    errno.ENOSPC: (Code.DISK_FULL, "disk full: {path} could not be written; nothing was changed"),
    errno.EDQUOT: (Code.DISK_FULL, "disk quota exceeded: {path} could not be written; nothing was changed"),
    errno.EFBIG: (Code.TOO_LARGE, "file too large for this file system: {path}"),
    errno.EXDEV: (Code.INVALID, "cannot move across mounts: {path}"),
    errno.EINVAL: (Code.INVALID, "the file system does not accept this: {path}"),
}


def refusal_of(error: OSError, path: bytes) -> WorkspaceRefusal:
    """Return what ``error`` means to the one who asked for ``path``."""
    number = error.errno or 0
    if number in _BY_ERRNO:
        code, text = _BY_ERRNO[number]
        return WorkspaceRefusal(text.format(path=shown(path)), code=code)
    name = errno.errorcode.get(number, str(number))
    return WorkspaceRefusal(f"{shown(path)}: {os.strerror(number)} ({name})", code=Code.IO)

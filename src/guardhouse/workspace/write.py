"""Write a file so that a reader sees the old content or the new, never a part of either.

The content goes to a temporary file in the same directory, is synced, and takes the name in one rename; then
the directory is synced. A file that had other hard links keeps them with the old content: the inode is
replaced, never written. Runs in the files worker.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Final

from guardhouse.limits import EDIT_MAX_BYTES, UPLOAD_MAX_BYTES, WRITE_MAX_BYTES
from guardhouse.workspace.entry import kind_of
from guardhouse.workspace.errors import Code, WorkspaceRefusal, refusal_of, shown
from guardhouse.workspace.handle import PathLike, Workspace, open_beneath, parse_path
from guardhouse.workspace.place import Place, open_place
from guardhouse.workspace.read import open_regular
from guardhouse.workspace.replace import exchange_exactly, is_fresh, is_same_file, one_at_a_time, take_free_name
from guardhouse.workspace.temporaries import Temporaries
from guardhouse.workspace.temporary_name import swap_name

__all__ = ["Edited", "Written", "check_replaceable", "edit_file", "put_content", "write_file"]

NEW_FILE_MODE: Final = 0o644
_CHUNK_BYTES: Final = 1024 * 1024
# acl(5): the access list of a file, as the kernel stores it.
_ACCESS_LIST: Final = "system.posix_acl_access"
_ATTRIBUTES_NAMED: Final = 20


@dataclass(frozen=True, slots=True)
class Written:
    """What stands at a path after a write; ``notes`` say what of the old file could not be kept."""

    path: bytes
    size: int
    checksum: str
    created: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Edited:
    """A write that replaced ``replacements`` occurrences."""

    written: Written
    replacements: int


def write_file(
    workspace: Workspace,
    path: PathLike,
    content: bytes | memoryview,
    *,
    if_checksum: str | None = None,
    max_bytes: int = WRITE_MAX_BYTES,
    sync: bool = True,
    temporaries: Temporaries | None = None,
    admit: Callable[[Place, int], None] = lambda _place, _size: None,
) -> Written:
    """Make ``content`` the whole content of ``path``, atomically; parents are made.

    A link at ``path`` that points into the workspace stays a link and its target is written. Permission bits
    and, where the process may, owner, group, access list and user attributes of an existing file are kept; setuid and
    setgid bits and file capabilities are not. A new file has mode 0644.

    Args:
        workspace: the handle.
        path: path from outside.
        content: at most ``max_bytes``.
        if_checksum: SHA-256 (hex) that the present content must have; "" means that nothing may be there.
        max_bytes: bound on ``content``.
        sync: wait until content and name are on the disk.
        temporaries: this process's record of temporary names, so that a kill leaves no litter for long.
        admit: asked with the place and the size before anything is written; raises to refuse (the quota).

    Raises:
        PathEscapesWorkspace, WorkspaceRefusal: nothing at ``path`` has changed then. CONFLICT when
        ``if_checksum`` differs.
    """
    relative = parse_path(workspace, path)
    if len(content) > max_bytes:
        raise WorkspaceRefusal(
            f"content of {len(content)} bytes for {shown(relative)} is too large: one write takes {max_bytes}",
            code=Code.TOO_LARGE,
        )
    with (
        Temporaries.lent(temporaries, workspace) as names,
        open_place(workspace, relative, make_parents=True, through_links=True) as place,
    ):
        with one_at_a_time(place.dir_fd) if if_checksum is not None else nullcontext():
            check_replaceable(place, relative, if_checksum)
            admit(place, len(content))
            notes = put_content(
                place,
                [memoryview(content)],
                relative,
                names,
                sync=sync,
                if_checksum=if_checksum,
            )
        return Written(place.path, len(content), hashlib.sha256(content).hexdigest(), place.found is None, notes)


def edit_file(
    workspace: Workspace,
    path: PathLike,
    old: bytes,
    new: bytes,
    *,
    replace_all: bool = False,
    if_checksum: str | None = None,
    max_bytes: int = EDIT_MAX_BYTES,
    temporaries: Temporaries | None = None,
    admit: Callable[[Place, int], None] = lambda _place, _size: None,
) -> Edited:
    """Replace ``old`` by ``new`` in a file, exactly and atomically.

    Without ``replace_all``, ``old`` must occur exactly once. Occurrences do not overlap and are found from the left.

    Raises:
        PathEscapesWorkspace: it lies outside.
        WorkspaceRefusal: NOT_FOUND or CONFLICT when ``old`` is not there or not unique; CONFLICT when somebody else
            changes the file meanwhile; TOO_LARGE.
    """
    relative = parse_path(workspace, path)
    if not old:
        raise WorkspaceRefusal("nothing to replace: the old text is empty; use write", code=Code.INVALID)
    if old == new:
        raise WorkspaceRefusal("old and new text are the same; nothing to do", code=Code.INVALID)
    fd = open_regular(workspace, relative, verb="edit")
    try:
        before = _read_whole(fd, max_bytes, relative)
    except OSError as error:
        raise refusal_of(error, relative) from error
    finally:
        os.close(fd)
    checksum = hashlib.sha256(before).hexdigest()
    if if_checksum is not None and if_checksum.lower() != checksum:
        raise _changed(relative, if_checksum, checksum)
    count = before.count(old)
    if not count:
        raise WorkspaceRefusal(
            f"text not found in {shown(relative)}; it must match byte for byte, white space included",
            code=Code.NOT_FOUND,
        )
    if count > 1 and not replace_all:
        raise WorkspaceRefusal(
            f"text occurs {count} times in {shown(relative)}; give more of the lines around it, or ask for all",
            code=Code.CONFLICT,
        )
    # Reckoned first: a letter replaced a million times by a page would not fit into any memory.
    size, most = len(before) + count * (len(new) - len(old)), max(max_bytes, WRITE_MAX_BYTES)
    if size > most:
        raise WorkspaceRefusal(
            f"{shown(relative)} would have {size} bytes with {count} replacements: one edit makes {most} at most",
            code=Code.TOO_LARGE,
        )
    written = write_file(
        workspace,
        relative,
        before.replace(old, new),
        if_checksum=checksum,
        max_bytes=most,
        temporaries=temporaries,
        admit=admit,
    )
    return Edited(written, count)


def check_replaceable(place: Place, asked: bytes, if_checksum: str | None) -> None:
    """Raise unless a write may replace what stands at ``place``; ``if_checksum`` as write_file has it.

    Raises:
        WorkspaceRefusal: DIRECTORY, SPECIAL or CONFLICT.
    """
    if place.found is not None:
        _check_regular(place.found, asked)
    if if_checksum is not None:
        _check_checksum(place, asked, if_checksum)


def _check_regular(found: os.stat_result, asked: bytes) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise WorkspaceRefusal(f"cannot write a directory: {shown(asked)}", code=Code.DIRECTORY)
    if not stat.S_ISREG(found.st_mode):
        kind = kind_of(found.st_mode).replace("_", " ")
        raise WorkspaceRefusal(f"not a regular file: {shown(asked)} is a {kind}", code=Code.SPECIAL)


def _check_checksum(place: Place, asked: bytes, wanted: str) -> None:
    actual = ""
    if place.found is not None:
        actual, seen = _checksum_at(place, place.name, asked)
        if not is_same_file(seen, place.found):
            raise WorkspaceRefusal(
                f"{shown(asked)} has changed: somebody else wrote it in the meantime; read it again", code=Code.CONFLICT
            )
    if wanted.lower() != actual:
        raise _changed(asked, wanted, actual)


def _checksum_at(place: Place, name: bytes, asked: bytes) -> tuple[str, os.stat_result]:
    """Return the SHA-256 of the file that has ``name`` in the place's directory, and what it was afterwards."""
    fd = open_beneath(place.workspace, name, os.O_RDONLY | os.O_NONBLOCK, follow=False, reading=name == place.name)
    try:
        digest = hashlib.sha256()
        if os.fstat(fd).st_size > UPLOAD_MAX_BYTES:
            raise WorkspaceRefusal(
                f"{shown(asked)} is too large to compare: more than {UPLOAD_MAX_BYTES} bytes; write it without"
                " if_checksum",
                code=Code.TOO_LARGE,
            )
        while chunk := os.read(fd, _CHUNK_BYTES):
            digest.update(chunk)
        return digest.hexdigest(), os.fstat(fd)
    finally:
        os.close(fd)


def _changed(asked: bytes, wanted: str, actual: str) -> WorkspaceRefusal:
    expected = f"checksum {wanted[:64]}" if wanted else "no file"
    found = f"checksum {actual}" if actual else "no file"
    return WorkspaceRefusal(
        f"{shown(asked)} has changed: expected {expected}, found {found}; read it again", code=Code.CONFLICT
    )


def _read_whole(fd: int, max_bytes: int, asked: bytes) -> bytes:
    parts: list[bytes] = []
    size = 0
    while chunk := os.read(fd, _CHUNK_BYTES):
        size += len(chunk)
        if size > max_bytes:
            raise WorkspaceRefusal(
                f"{shown(asked)} is too large to edit: more than {max_bytes} bytes; change it with a command",
                code=Code.TOO_LARGE,
            )
        parts.append(chunk)
    return b"".join(parts)


def put_content(
    place: Place,
    content: Iterable[memoryview],
    asked: bytes,
    temporaries: Temporaries,
    *,
    sync: bool = True,
    if_checksum: str | None = None,
) -> tuple[str, ...]:
    """Make the concatenated ``content`` the file at ``place`` in one rename; ``asked`` is the path for messages.

    With ``if_checksum``, which the file found there has, only over that very file, or where none was found.

    Returns:
        Notes on what of the old file could not be kept.

    Raises:
        WorkspaceRefusal: nothing has changed then.
    """
    directory = place.path.rpartition(b"/")[0] or b"."
    temporary = temporaries.name_in(directory)
    try:
        # 0600 until it is whole: nobody else reads a file whose final mode is stricter than 0644.
        fd = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=place.dir_fd
        )
    except OSError as error:
        raise refusal_of(error, asked) from error
    try:
        for part in content:
            rest = part
            while rest:
                rest = rest[os.write(fd, rest[:_CHUNK_BYTES]) :]
        notes = _dress(fd, place)
        if sync:
            os.fsync(fd)
        _check_is_ours(fd, temporary, place.dir_fd, asked)
        if if_checksum is None:
            os.rename(temporary, place.name, src_dir_fd=place.dir_fd, dst_dir_fd=place.dir_fd)
        elif place.found is None:
            take_free_name(place.dir_fd, temporary, place.name, asked=asked)
        else:
            _exchange(place, place.found, fd, temporary, directory, temporaries, if_checksum, asked)
    except BaseException as error:  # raised again, with the temporary file gone
        # Whatever ends this write, its temporary file goes with it.
        with suppress(OSError):
            os.unlink(temporary, dir_fd=place.dir_fd)
        if isinstance(error, OSError):
            raise refusal_of(error, asked) from error
        raise
    finally:
        os.close(fd)
    if sync:
        os.fsync(place.dir_fd)
    return notes


def _exchange(
    place: Place,
    found: os.stat_result,
    fd: int,
    temporary: bytes,
    directory: bytes,
    temporaries: Temporaries,
    checksum: str,
    asked: bytes,
) -> None:
    """Put the finished ``temporary`` in the place of ``found``, whose content has ``checksum``, and of nothing else."""
    fresh = is_fresh(found)

    def is_meant(name: bytes) -> bool:
        if not is_same_file(os.stat(name, dir_fd=place.dir_fd, follow_symlinks=False), found):
            return False
        return not fresh or _checksum_at(place, name, asked)[0] == checksum.lower()

    swap = swap_name(temporary, os.fstat(fd), None if fresh else found, place.name)
    temporaries.record(directory, temporary, swap)
    os.rename(temporary, swap, src_dir_fd=place.dir_fd, dst_dir_fd=place.dir_fd)
    exchange_exactly(place.dir_fd, swap, place.name, fd=fd, is_meant=is_meant, asked=asked)


def _check_is_ours(fd: int, temporary: bytes, dir_fd: int, asked: bytes) -> None:
    """Raise where somebody took the temporary name for something else, which must not get the file's name."""
    made, named = os.fstat(fd), os.stat(temporary, dir_fd=dir_fd, follow_symlinks=False)
    if (made.st_dev, made.st_ino) != (named.st_dev, named.st_ino):
        raise WorkspaceRefusal(
            f"{shown(asked)} was not written: another process put something else in the place of its temporary file",
            code=Code.CONFLICT,
        )


def _dress(fd: int, place: Place) -> tuple[str, ...]:
    """Give the new file what the one that it replaces has beside its content; return notes on what it has not."""
    found = place.found
    if found is None:
        os.fchmod(fd, NEW_FILE_MODE)
        return ()
    made = os.fstat(fd)
    if (made.st_uid, made.st_gid) != (found.st_uid, found.st_gid):
        # Only root may give files away; without that right the file becomes ours, as with any editor that renames.
        with suppress(PermissionError):
            os.fchown(fd, -1, found.st_gid)
        with suppress(PermissionError):
            os.fchown(fd, found.st_uid, -1)
    os.fchmod(fd, stat.S_IMODE(found.st_mode) & 0o777)
    made = os.fstat(fd)
    lost = []
    if (made.st_uid, made.st_gid) != (found.st_uid, found.st_gid):
        lost.append(f"owner {found.st_uid}:{found.st_gid}")
    lost += _copy_attributes(fd, place)
    return (f"not kept of the old file: {', '.join(lost)}",) if lost else ()


def _copy_attributes(fd: int, place: Place) -> list[str]:
    """Copy access list and user attributes of the old file; return the names of those that could not be.

    Others are the host's own: a label is given by its policy, and a capability is a power that is not for new content.
    """
    try:
        # A name below an open directory: never a link, and not even the same file any more does harm.
        old = os.open(place.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place.dir_fd)
    except FileNotFoundError:
        return []
    except OSError:
        return ["attributes, which may not be read"]
    lost = []
    try:
        for name in os.listxattr(old):
            if name != _ACCESS_LIST and not name.startswith("user."):
                continue
            try:
                os.setxattr(fd, name, os.getxattr(old, name))
            except OSError:
                lost.append(ascii(name)[1:-1][:100])
    except OSError:  # a file system without attributes has none to lose
        pass
    finally:
        os.close(old)
    return lost[:_ATTRIBUTES_NAMED]

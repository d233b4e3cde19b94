"""Put a skill into the workspace: checked, unpacked beside its place, and swapped in by one rename.

Whoever reads the skill's directory sees the old skill or the new one, whole. Only a directory that is a skill
already, or empty, or not there, is ever replaced; the workspace itself never is. Runs in the files worker.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from guardhouse.kernel import files as kernel
from guardhouse.skills import (
    Archive,
    Manifest,
    SkillRefused,
    check_skill_name,
    parse_manifest,
    read_archive,
    read_content,
)
from guardhouse.workspace.change import check_tree_rules, remove_tree
from guardhouse.workspace.entry import Kind
from guardhouse.workspace.errors import Code, WorkspaceRefusal, escapes, refusal_of, shown
from guardhouse.workspace.handle import PathLike, Workspace, open_beneath, parse_path
from guardhouse.workspace.listing import plain_path
from guardhouse.workspace.place import WORK_DIRECTORY, Place, open_place
from guardhouse.workspace.read import read_file
from guardhouse.workspace.replace import exchange_exactly
from guardhouse.workspace.temporaries import Temporaries
from guardhouse.workspace.temporary_name import swap_name
from guardhouse.workspace.walk import Walk

__all__ = [
    "CHECKSUM_NAME",
    "InstalledSkill",
    "SkillListed",
    "install_skill",
    "is_skill_place",
    "list_skills",
    "remove_skill",
]

CHECKSUM_NAME: Final = b".checksum"
_MANIFEST_NAME: Final = b"SKILL.md"
_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FILE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MANIFEST_READ_BYTES: Final = 128 * 1024
_LIST_DEPTH: Final = 4
_SKILL_PLACE_DEPTH: Final = 3


@dataclass(frozen=True, slots=True)
class InstalledSkill:
    """A skill that was just put in place; ``replaced`` says whether another version stood there."""

    path: bytes
    manifest: Manifest
    replaced: bool


@dataclass(frozen=True, slots=True)
class SkillListed:
    """A skill that was found; ``problem`` says why its manifest cannot be read, "" when it can."""

    path: bytes
    manifest: Manifest | None
    checksum: str
    problem: str


def install_skill(
    workspace: Workspace,
    skill_name: str,
    skill_dir: PathLike,
    archive_data: bytes | memoryview,
    *,
    checksum: str,
    temporaries: Temporaries | None = None,
    admit_growth: Callable[[int, int, bytes], None] = lambda _bytes, _entries, _path: None,
    tick: Callable[[], None] = lambda: None,
) -> InstalledSkill:
    """Unpack a skill's archive as the whole content of ``skill_dir``.

    Args:
        workspace: the handle.
        skill_name: the name that its SKILL.md must have.
        skill_dir: where it goes; links in it are followed inside the workspace, a link at its end is refused. Below
            `.work/` only `.work/skills/` is open to skills.
        archive_data: zip.
        checksum: SHA-256 of ``archive_data`` in hex, with or without "sha256:" in front.
        temporaries: as write_file.
        admit_growth: asked with bytes, entries and path before anything is written; raises to refuse (the quota).
        tick: called now and then; may raise to stop.

    Raises:
        PathEscapesWorkspace: ``skill_dir`` is outside.
        SkillRefused: the archive, its manifest or its name.
        WorkspaceRefusal: CHECKSUM; EXISTS when something stands there that is no skill; …; nothing has changed then.
    """
    _check_checksum(archive_data, checksum)
    check_skill_name(skill_name)
    path, protect = _skill_path(workspace, skill_dir)
    archive = read_archive(archive_data)
    if archive.manifest.name != skill_name:
        raise SkillRefused(f"SKILL.md says that its name is {archive.manifest.name!r}, asked was {skill_name!r}")
    with (
        Temporaries.lent(temporaries, workspace) as names,
        open_place(workspace, path, make_parents=True, protect=protect) as place,
    ):
        _check_replaceable(place, path)
        if place.found is not None:
            check_tree_rules(place.workspace, place.name, place.found)
        admit_growth(archive.total_size, len(archive.entries), path)
        beside = names.name_in(place.path.rpartition(b"/")[0] or b".")
        try:
            os.mkdir(beside, 0o755, dir_fd=place.dir_fd)
            try:
                _unpack(place, beside, archive, archive_data, tick)
                kernel.sync_file_system(place.dir_fd)
                _swap(place, path, beside, names)
            finally:
                _remove_beside(place, beside)
            os.fsync(place.dir_fd)
        except OSError as error:
            raise refusal_of(error, path) from error
        return InstalledSkill(place.path, archive.manifest, place.found is not None)


def remove_skill(workspace: Workspace, skill_dir: PathLike) -> int:
    """Remove the skill at ``skill_dir``; return how many entries are gone.

    Raises:
        PathEscapesWorkspace, WorkspaceRefusal: it is outside, not there, or no skill.
    """
    path, protect = _skill_path(workspace, skill_dir)
    with open_place(workspace, path, protect=protect) as place:
        if place.found is None:
            raise refusal_of(FileNotFoundError(errno.ENOENT, ""), path)
        _check_replaceable(place, path)
        return remove_tree(place.workspace, place.name)


def is_skill_place(workspace: Workspace, path: PathLike) -> bool:
    """Whether ``path`` is one skill's directory below `.work/skills/`, the part of `.work/` that is open to skills."""
    parts = plain_path(parse_path(workspace, path)).split(b"/")
    return len(parts) == _SKILL_PLACE_DEPTH and parts[:2] == [WORK_DIRECTORY, b"skills"] and b".." not in parts


def list_skills(
    workspace: Workspace, directory: PathLike = b".", *, tick: Callable[[], None] = lambda: None
) -> list[SkillListed]:
    """Return the skills at most four levels below ``directory``: every directory that holds a SKILL.md."""
    start = plain_path(parse_path(workspace, directory or b"."))
    walk = Walk(workspace, start, max_depth=_LIST_DEPTH, types_only=True, tick=tick)
    paths = [
        walked.entry.path.rpartition(b"/")[0] or b"."
        for walked in walk.entries()
        if walked.name == _MANIFEST_NAME and walked.entry.kind is Kind.FILE
    ]
    return [_listed(workspace, path) for path in paths]


def _listed(workspace: Workspace, path: bytes) -> SkillListed:
    try:
        checksum = read_file(workspace, path + b"/" + CHECKSUM_NAME, limit=64).content.decode("ascii", "replace")
    except WorkspaceRefusal:  # not put there by sync_skill
        checksum = ""
    try:
        content = read_file(workspace, path + b"/" + _MANIFEST_NAME, limit=_MANIFEST_READ_BYTES).content
        return SkillListed(path, parse_manifest(content), checksum.strip(), "")
    except (SkillRefused, WorkspaceRefusal) as refusal:
        return SkillListed(path, None, checksum.strip(), str(refusal))


def _check_checksum(data: bytes | memoryview, checksum: str) -> None:
    wanted = checksum.removeprefix("sha256:").strip().lower()
    if len(wanted) != 64 or not all(character in "0123456789abcdef" for character in wanted):
        raise WorkspaceRefusal(
            f"skill checksum {checksum[:80]!r} is no SHA-256 in hex (64 digits); nothing was changed",
            code=Code.CHECKSUM,
        )
    actual = hashlib.sha256(data).hexdigest()
    if actual != wanted:
        raise WorkspaceRefusal(
            f"skill archive has checksum {actual}, promised was {wanted}; nothing was changed", code=Code.CHECKSUM
        )


def _skill_path(workspace: Workspace, skill_dir: PathLike) -> tuple[bytes, bool]:
    """Return the path and whether `.work/` is closed to it."""
    if not skill_dir:
        raise WorkspaceRefusal("skill_dir is empty; it would be the workspace itself", code=Code.INVALID)
    path = plain_path(parse_path(workspace, skill_dir))
    parts = path.split(b"/")
    if b".." in parts:
        raise escapes(path, "leaves it at '..'; write skill_dir from the workspace down")
    if path == b".":
        raise WorkspaceRefusal(
            f"skill_dir {shown(path)} is the workspace itself; name a directory in it", code=Code.INVALID
        )
    return path, not (len(parts) > 2 and parts[:2] == [WORK_DIRECTORY, b"skills"])


def _check_replaceable(place: Place, path: bytes) -> None:
    if place.found is None:
        return
    if not stat.S_ISDIR(place.found.st_mode):
        raise WorkspaceRefusal(
            f"{shown(path)} exists and is no directory; remove it, or name another skill_dir", code=Code.EXISTS
        )
    if not _is_replaceable(place, place.name):
        raise WorkspaceRefusal(
            f"{shown(path)} exists and is no skill (it has no SKILL.md); a skill would delete what is in it",
            code=Code.EXISTS,
        )


def _is_replaceable(place: Place, name: bytes) -> bool:
    """Say whether the directory ``name`` holds a skill, or nothing."""
    fd = open_beneath(place.workspace, name, _DIRECTORY_FLAGS, follow=False, reading=False)
    try:
        names = os.listdir(fd)
    finally:
        os.close(fd)
    return not names or _MANIFEST_NAME.decode() in names


def _unpack(place: Place, beside: bytes, archive: Archive, data: bytes | memoryview, tick: Callable[[], None]) -> None:
    """Write every entry below the new directory ``beside``; only names that were just made are ever opened."""
    top = os.open(beside, _DIRECTORY_FLAGS, dir_fd=place.dir_fd)
    try:
        _write_new(top, CHECKSUM_NAME, [hashlib.sha256(data).hexdigest().encode() + b"\n"], mode=0o644)
        for entry in archive.entries:
            tick()
            *above, name = (part.encode() for part in entry.parts)
            fd = _enter(top, [*above, name] if entry.is_directory else above)
            try:
                if not entry.is_directory:
                    mode = 0o755 if entry.is_executable else 0o644
                    _write_new(fd, name, read_content(data, entry), mode=mode)
            finally:
                os.close(fd)
    finally:
        os.close(top)


def _enter(top: int, parts: list[bytes]) -> int:
    """Return a descriptor of the directory ``parts`` below ``top``, made where it is missing."""
    fd = os.dup(top)
    for part in parts:
        try:
            with suppress(FileExistsError):  # made for an earlier entry
                os.mkdir(part, 0o755, dir_fd=fd)
            below = os.open(part, _DIRECTORY_FLAGS, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd


def _write_new(dir_fd: int, name: bytes, content: Iterable[bytes], *, mode: int) -> None:
    fd = os.open(name, _FILE_FLAGS, 0o600, dir_fd=dir_fd)
    try:
        for chunk in content:
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(fd, rest) :]
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def _swap(place: Place, path: bytes, beside: bytes, temporaries: Temporaries) -> None:
    """Make the directory ``beside`` the one at ``place``, in the stead of the one that was found there and no other.

    What stood there stands beside afterwards.
    """
    if place.found is None:
        kernel.renameat2(place.dir_fd, beside, place.dir_fd, place.name, flags=kernel.RENAME_NOREPLACE)
        return
    directory = place.path.rpartition(b"/")[0] or b"."
    found = place.found

    def is_meant(name: bytes) -> bool:
        return os.path.samestat(os.stat(name, dir_fd=place.dir_fd, follow_symlinks=False), found) and _is_replaceable(
            place, name
        )

    def set_aside() -> None:
        os.rename(swap, beside, src_dir_fd=place.dir_fd, dst_dir_fd=place.dir_fd)

    def one_by_one() -> None:
        # This file system cannot exchange two names (some network ones): for an instant there is no skill at all.
        old = temporaries.name_in(directory)
        for source, target in ((place.name, old), (swap, place.name), (old, beside)):
            os.rename(source, target, src_dir_fd=place.dir_fd, dst_dir_fd=place.dir_fd)

    fd = os.open(beside, _DIRECTORY_FLAGS, dir_fd=place.dir_fd)
    try:
        swap = swap_name(beside, os.fstat(fd), None, place.name)
        temporaries.record(directory, beside, swap)
        os.rename(beside, swap, src_dir_fd=place.dir_fd, dst_dir_fd=place.dir_fd)
        exchange_exactly(
            place.dir_fd, swap, place.name, fd=fd, is_meant=is_meant, asked=path, remove=set_aside, instead=one_by_one
        )
    finally:
        os.close(fd)


def _remove_beside(place: Place, beside: bytes) -> None:
    """Remove what stands beside: the old skill after the swap, the unfinished new one after a failure."""
    try:
        found = os.stat(beside, dir_fd=place.dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode):
        remove_tree(place.workspace.without_rules(), beside)
    else:
        os.unlink(beside, dir_fd=place.dir_fd)  # somebody put it where the old skill was while we looked away

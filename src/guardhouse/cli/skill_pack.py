"""A directory as a skill's archive: all that is in it, without times and owners. Runs in `guardhouse skill add`."""

import os
import stat
from pathlib import Path

from guardhouse.cli.client import ClientError
from guardhouse.cli.exit_codes import ExitCode
from guardhouse.limits import SKILL_ENTRIES_MAX, SKILL_TAR_TOTAL_MAX_BYTES
from guardhouse.skills import SkillRefused
from guardhouse.skills.names import parse_entry_name
from guardhouse.skills.tar import TarEntry, write_zip

__all__ = ["pack_directory"]


def pack_directory(top: Path) -> bytes:
    """Return the zip archive of the directory ``top``; equal content gives equal bytes.

    Raises:
        ClientError: it holds what no skill does (a link, a device), or too much; nothing is left out silently.
    """
    entries: list[TarEntry] = []
    total = 0
    for directory, names, files in os.walk(top, followlinks=False, onerror=_unreadable):
        for name in sorted([*names, *files]):
            path = Path(directory) / name
            found = path.lstat()
            relative = path.relative_to(top).as_posix()
            if stat.S_ISDIR(found.st_mode):
                continue
            if not stat.S_ISREG(found.st_mode):
                raise _usage(f"{relative!r} is no regular file; a skill has files and directories")
            total += found.st_size
            if total > SKILL_TAR_TOTAL_MAX_BYTES or len(entries) >= SKILL_ENTRIES_MAX:
                raise _usage(
                    f"{str(top)!r} holds over {SKILL_TAR_TOTAL_MAX_BYTES} bytes or {SKILL_ENTRIES_MAX} files; pack it"
                    " as zip, or leave out what the skill does not need"
                )
            try:
                parts = parse_entry_name(relative)
            except SkillRefused as refusal:
                raise _usage(str(refusal)) from refusal
            content = memoryview(path.read_bytes())
            entries.append(
                TarEntry(parts, is_directory=False, is_executable=bool(found.st_mode & 0o111), content=content)
            )
    if not any(entry.parts == ("SKILL.md",) for entry in entries):
        raise _usage(f"{str(top)!r} has no SKILL.md at its top")
    return write_zip(entries)


def _unreadable(error: OSError) -> None:
    raise error


def _usage(message: str) -> ClientError:
    return ClientError(message, exit_code=ExitCode.USAGE)

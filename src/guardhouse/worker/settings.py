"""What the operator set for the files worker: plain values that the launcher hands it at its start.

Knows no file and no default of the machine. Runs in the launcher and in the files worker.
"""

from typing import Final

import msgspec

from guardhouse.errors import SetupError

__all__ = ["FilesSettings", "parse_settings"]

_DAY_S: Final = 24 * 3600.0


class FilesSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the files worker.

    Attributes:
        root_path: absolute path of the workspace as agents and commands write it; None admits relative paths only.
        method: "openat2" or "careful" to fix how paths are resolved; None takes openat2 where the kernel has it.
        cross_mounts: let paths go into other mounts below the workspace.
        quota_bytes: bytes that the workspace's files may hold for a write to be admitted; 0 is no quota.
        quota_files: the same for the number of files and directories; 0 is no quota.
        spill_max_age_s: spilled outputs older than this are removed; 0 keeps them for ever.
        spill_max_bytes: oldest spilled outputs are removed until the rest fits; 0 is no bound.
        stale_after_s: uploads and temporary files to which nothing has happened for so long belong to nobody.
        read_deny: globs (relative to the workspace) that no operation may read, list, find or search.
        write_allow: globs that may be changed; empty means everything.
        write_deny: globs that may not be changed, whatever ``write_allow`` says.
    """

    root_path: str | None = None
    method: str | None = None
    cross_mounts: bool = False
    quota_bytes: int = 0
    quota_files: int = 0
    spill_max_age_s: float = 7 * _DAY_S
    spill_max_bytes: int = 1024 * 1024 * 1024
    stale_after_s: float = _DAY_S
    read_deny: tuple[str, ...] = ()
    write_allow: tuple[str, ...] = ()
    write_deny: tuple[str, ...] = ()


def parse_settings(data: bytes) -> FilesSettings:
    """Return the settings in a JSON object.

    Raises:
        SetupError: it is none, or holds an unknown or mistyped field.
    """
    try:
        return msgspec.json.decode(data, type=FilesSettings)
    except msgspec.DecodeError as error:
        raise SetupError(f"invalid files worker settings: {error}") from error

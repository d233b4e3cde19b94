"""The arguments and the result of `sync_skill`: an archive put into the workspace. Runs wherever `wire` does."""

from typing import Annotated

from msgspec import Meta

from guardhouse import limits
from guardhouse.wire.operations.base import Args, Digest, Notes, Result
from guardhouse.wire.scalars import Path, Text

__all__ = ["SyncSkillArgs", "SyncSkillResult"]


class SyncSkillArgs(Args, frozen=True, kw_only=True):
    """Put a skill's archive into the workspace; ``zip_data`` travels as base64, ``checksum`` is its SHA-256."""

    skill_name: Annotated[str, Meta(min_length=1, max_length=limits.WIRE_NAME_MAX_CHARS)]
    skill_dir: Path
    zip_data: bytes
    checksum: Digest = ""


class SyncSkillResult(Result, frozen=True, kw_only=True):
    """Where the skill is now, relative to the workspace."""

    success: bool
    path: Text
    notes: Notes = ()

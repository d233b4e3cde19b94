"""What requests about skills say and are answered. Runs in the hub."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from guardhouse.hub.api.schemas import Input, Output, Page, Reference, Tags, Text
from guardhouse.hub.skills.decide import CopyState

__all__ = [
    "EnvironmentSkill",
    "EnvironmentSkillList",
    "Skill",
    "SkillCopy",
    "SkillCopyList",
    "SkillCopyQuery",
    "SkillList",
    "SkillQuery",
    "SkillUpdate",
    "SkillUploadQuery",
    "SkillUploaded",
    "SkillVersion",
    "SkillVersionList",
]

BOUND_MAX = 1_000
_Number = Annotated[int, Meta(ge=1, le=2**31 - 1)]
_Environments = Annotated[tuple[Reference, ...], Meta(max_length=BOUND_MAX)]


class SkillQuery(Input, frozen=True):
    """Which page of skills."""

    cursor: Text | None = None
    limit: Page = 100


class SkillCopyQuery(Input, frozen=True):
    """Which page of environments, and with ``state`` those alone in which the skill stands so."""

    state: CopyState | None = None
    cursor: Text | None = None
    limit: Page = 100


class SkillUploadQuery(Input, frozen=True):
    """Whom a new skill belongs to: the team, or without one the account."""

    team: Reference | None = None


class SkillUpdate(Input, frozen=True):
    """What changes; what is absent stays.

    ``environments`` (ids or names) and ``tags`` replace those before; ``automatic`` is every environment that the
    skill's scope reaches. ``current`` is the number of the version that runners are to have.
    """

    enabled: bool | UnsetType = UNSET
    automatic: bool | UnsetType = UNSET
    environments: _Environments | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    current: _Number | UnsetType = UNSET


class SkillVersion(Output, frozen=True):
    """One version, never changed.

    ``checksum`` is the SHA-256 of the zip archive that runners get; ``uploaded_checksum`` that of the file as it came,
    which differs where a tar archive was written anew.
    """

    number: int
    checksum: str
    uploaded_checksum: str
    size: int
    unpacked_size: int
    files: int
    description: str
    version: str
    author: str
    license: str
    tags: list[str]
    allowed_tools: list[str]
    created_at: str
    created_by: str
    is_current: bool


class Skill(Output, frozen=True):
    """One skill and its current version. Bound to nothing, it goes nowhere."""

    id: str
    name: str
    team_id: str | None
    enabled: bool
    automatic: bool
    environment_ids: list[str]
    tags: list[str]
    current: SkillVersion
    versions: int
    created_at: str
    created_by: str
    updated_at: str


class SkillList(Output, frozen=True):
    """One page of skills, by name."""

    skills: list[Skill]
    next_cursor: str | None


class SkillUploaded(Output, frozen=True):
    """What was uploaded. ``is_new`` is false where the current version is the same bytes."""

    skill: Skill
    is_new: bool
    notes: list[str]


class SkillVersionList(Output, frozen=True):
    """A skill's versions, newest first."""

    versions: list[SkillVersion]


class _Standing(Output, frozen=True):
    state: CopyState
    checksum: str | None
    version: int | None
    error: str | None
    changed_at: str | None


class SkillCopy(_Standing, frozen=True):
    """How a skill stands in one environment; ``checksum`` and ``version`` are what its runner holds."""

    environment_id: str
    environment_name: str


class SkillCopyList(Output, frozen=True):
    """One page of the environments that are to have a skill, or hold it."""

    copies: list[SkillCopy]
    next_cursor: str | None


class EnvironmentSkill(_Standing, frozen=True):
    """How one skill stands in the environment; ``wanted`` is the checksum that its runner should hold, or None."""

    name: str
    wanted: str | None


class EnvironmentSkillList(Output, frozen=True):
    """Every skill that the environment is to have, or holds, by name; ``directory`` is where they lie in it."""

    skills: list[EnvironmentSkill]
    directory: str = msgspec.field(default=".work/skills")

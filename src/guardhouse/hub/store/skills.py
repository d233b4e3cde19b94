"""Records of skills, their versions and archives, and where they are bound to. Runs in the hub's store threads."""

from collections import defaultdict
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from guardhouse.errors import Refusal
from guardhouse.hub.schema import ACCOUNT_ID, skill_archive_parts, skill_bindings, skill_versions, skills
from guardhouse.hub.store.environments import NameTaken

__all__ = [
    "SkillRecord",
    "SkillVersionRecord",
    "VersionTaken",
    "delete_skill",
    "delete_skill_version",
    "insert_skill",
    "insert_skill_version",
    "list_skill_versions",
    "list_skills",
    "read_skill_archive",
    "update_skill",
]

# A row of an archive; a backup holds a hundred of them in memory.
_PART_BYTES: Final = 256 * 1024


class VersionTaken(Refusal):
    """The skill has a version of the same bytes, or another one was stored at the same moment."""


class SkillRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One skill. ``environment_ids`` and ``tags`` are what it is bound to; times are Unix ms."""

    id: str
    name: str
    team_id: str | None
    enabled: bool
    automatic: bool
    tags: tuple[str, ...]
    environment_ids: tuple[str, ...]
    current: int
    newest: int
    created_ms: int
    created_by: str
    updated_ms: int


class SkillVersionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One version, without its archive. ``manifest`` is JSON as text."""

    id: str
    skill_id: str
    number: int
    checksum: str
    uploaded_checksum: str
    size_bytes: int
    unpacked_bytes: int
    files: int
    manifest: str
    created_ms: int
    created_by: str


_VERSION_COLUMNS: Final = [skill_versions.c[name] for name in SkillVersionRecord.__struct_fields__]


def list_skills(connection: Connection) -> list[SkillRecord]:
    """Return every skill, by name."""
    bound: dict[str, list[str]] = defaultdict(list)
    for row in connection.execute(select(skill_bindings).order_by(skill_bindings.c.environment_id)).mappings():
        bound[row["skill_id"]].append(row["environment_id"])
    found = []
    for row in connection.execute(select(skills).order_by(skills.c.name)).mappings():
        values = {name: row[name] for name in SkillRecord.__struct_fields__ if name not in {"tags", "environment_ids"}}
        tags = tuple(msgspec.json.decode(row["tags"], type=list[str]))
        found.append(SkillRecord(**values, tags=tags, environment_ids=tuple(bound[row["id"]])))
    return found


def list_skill_versions(connection: Connection, skill_id: str | None = None) -> list[SkillVersionRecord]:
    """Return the versions of one skill, or of all, oldest first."""
    query = select(*_VERSION_COLUMNS).order_by(skill_versions.c.skill_id, skill_versions.c.number)
    if skill_id is not None:
        query = query.where(skill_versions.c.skill_id == skill_id)
    return [SkillVersionRecord(**row) for row in connection.execute(query).mappings()]


def insert_skill(connection: Connection, record: SkillRecord) -> None:
    """Store a new skill; its first version follows in the same transaction.

    Raises:
        NameTaken: the account has one of this name.
    """
    try:
        connection.execute(insert(skills).values(account_id=ACCOUNT_ID, **_row(record)))
    except IntegrityError as error:
        raise NameTaken(
            f"skill name taken: {record.name!r} is in use in this account; upload a version of that one, or rename"
            " yours in its SKILL.md"
        ) from error
    _store_bindings(connection, record)


def update_skill(connection: Connection, record: SkillRecord) -> bool:
    """Store a skill in the place of the one with its id; False where it is gone."""
    values = _row(record)
    if not connection.execute(update(skills).where(skills.c.id == values.pop("id")).values(**values)).rowcount:
        return False
    connection.execute(delete(skill_bindings).where(skill_bindings.c.skill_id == record.id))
    _store_bindings(connection, record)
    return True


def delete_skill(connection: Connection, skill_id: str) -> bool:
    """Delete a skill with its versions; return whether it existed."""
    return bool(connection.execute(delete(skills).where(skills.c.id == skill_id)).rowcount)


def insert_skill_version(connection: Connection, record: SkillVersionRecord, archive: bytes) -> None:
    """Store a new version with its archive.

    Raises:
        VersionTaken: the skill has one of this number or these bytes, or was deleted meanwhile.
    """
    try:
        connection.execute(insert(skill_versions).values(**msgspec.structs.asdict(record)))
    except IntegrityError as error:
        raise VersionTaken(
            f"skill version {record.number} is stored already, or its bytes are; look with 'guardhouse skill versions'"
        ) from error
    parts = [archive[at : at + _PART_BYTES] for at in range(0, len(archive), _PART_BYTES)]
    rows = [{"version_id": record.id, "part": number, "data": part} for number, part in enumerate(parts)]
    connection.execute(insert(skill_archive_parts), rows)


def delete_skill_version(connection: Connection, version_id: str) -> bool:
    """Delete one version with its archive, unless it is the current one by now; return whether it is gone."""
    used = select(skills.c.current).where(skills.c.id == skill_versions.c.skill_id).scalar_subquery()
    query = delete(skill_versions).where(skill_versions.c.id == version_id, skill_versions.c.number != used)
    return bool(connection.execute(query).rowcount)


def read_skill_archive(connection: Connection, version_id: str) -> bytes | None:
    """Return a version's zip archive; None where it is gone."""
    parts = skill_archive_parts
    query = select(parts.c.data).where(parts.c.version_id == version_id).order_by(parts.c.part)
    found = [bytes(data) for (data,) in connection.execute(query)]
    return b"".join(found) if found else None


def _store_bindings(connection: Connection, record: SkillRecord) -> None:
    rows = [{"skill_id": record.id, "environment_id": one} for one in record.environment_ids]
    if rows:
        connection.execute(insert(skill_bindings), rows)


def _row(record: SkillRecord) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.structs.asdict(record)
    del values["environment_ids"]
    return {**values, "tags": msgspec.json.encode(record.tags).decode()}

"""What each runner holds of the hub's skills, by what it answered last. Runs in the hub's store threads."""

from typing import Final

import msgspec
from sqlalchemy import Connection, delete, insert, select

from guardhouse.hub.schema import skill_copies

__all__ = ["SkillCopyRecord", "delete_skill_copy", "list_skill_copies", "store_skill_copy"]


class SkillCopyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One skill in one environment.

    ``checksum`` is that of the version which is there, empty for none; ``version`` its number at that time. ``state``
    is ``held``, or how the last try ended: ``refused`` by the runner, or ``failed`` without an answer of its own.
    ``place`` names what the rest was said of: a runner's memory, or a machine and its workspace.
    """

    environment_id: str
    name: str
    checksum: str
    version: int | None
    place: str
    state: str
    error: str | None
    tried_checksum: str
    policy_digest: str
    changed_ms: int


_COLUMNS: Final = [skill_copies.c[name] for name in SkillCopyRecord.__struct_fields__]


def list_skill_copies(connection: Connection) -> list[SkillCopyRecord]:
    """Return what is known of every environment."""
    return [SkillCopyRecord(**row) for row in connection.execute(select(*_COLUMNS)).mappings()]


def store_skill_copy(connection: Connection, record: SkillCopyRecord) -> None:
    """Store what is known of one skill in one environment, in the place of what was known before."""
    delete_skill_copy(connection, record.environment_id, record.name)
    connection.execute(insert(skill_copies).values(**msgspec.structs.asdict(record)))


def delete_skill_copy(connection: Connection, environment_id: str, name: str) -> None:
    """Forget a skill of an environment: it is not there any more."""
    connection.execute(
        delete(skill_copies).where(skill_copies.c.environment_id == environment_id, skill_copies.c.name == name)
    )

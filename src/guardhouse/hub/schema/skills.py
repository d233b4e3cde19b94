"""The hub's tables of skills: records, their versions, where they are bound to, and what each environment holds.

Their conventions are those of `guardhouse.hub.schema`. Runs in the hub.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
)
from sqlalchemy import UniqueConstraint as Unique

from guardhouse.hub.schema.metadata import METADATA

__all__ = ["skill_archive_parts", "skill_bindings", "skill_copies", "skill_versions", "skills"]

skills = Table(
    "skills",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("account_id", String(40), ForeignKey("accounts.id"), nullable=False),
    # Of SKILL.md, and the name of its directory on every runner: kebab case, so no two differ in letter case only.
    Column("name", String(64), nullable=False),
    Column("team_id", String(40), ForeignKey("teams.id")),
    Column("enabled", Boolean, nullable=False),
    Column("automatic", Boolean, nullable=False),
    # JSON list; an environment that has them all gets the skill. Empty: none is chosen by tags.
    Column("tags", Text, nullable=False),
    # The number of the version that runners are to have.
    Column("current", Integer, nullable=False),
    # The highest number that was ever given to a version.
    Column("newest", Integer, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", String(40), nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Unique("account_id", "name"),
)

# Never changed once they are there.
skill_versions = Table(
    "skill_versions",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("skill_id", String(40), ForeignKey("skills.id", ondelete="CASCADE"), nullable=False),
    # From 1; a number is never given twice, also where versions were removed.
    Column("number", Integer, nullable=False),
    # SHA-256 of the zip archive in hex, and of what was uploaded where that was a tar archive.
    Column("checksum", String(64), nullable=False),
    Column("uploaded_checksum", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("unpacked_bytes", BigInteger, nullable=False),
    Column("files", Integer, nullable=False),
    # JSON: the front matter of SKILL.md as it was read.
    Column("manifest", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", String(40), nullable=False),
    Unique("skill_id", "number"),
    Unique("skill_id", "checksum"),
)

# In parts: a backup writes a hundred rows at a time.
skill_archive_parts = Table(
    "skill_archive_parts",
    METADATA,
    Column("version_id", String(40), ForeignKey("skill_versions.id", ondelete="CASCADE"), primary_key=True),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)

skill_bindings = Table(
    "skill_bindings",
    METADATA,
    Column("skill_id", String(40), ForeignKey("skills.id", ondelete="CASCADE"), primary_key=True),
    Column("environment_id", String(40), ForeignKey("environments.id", ondelete="CASCADE"), primary_key=True),
)

# What an environment's runner holds by what it answered. By name: a skill that is deleted is still to be removed there.
skill_copies = Table(
    "skill_copies",
    METADATA,
    Column("environment_id", String(40), ForeignKey("environments.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(64), primary_key=True),
    # Empty where it holds none.
    Column("checksum", String(64), nullable=False),
    Column("version", Integer),
    # Which memory of a runner, or which machine and workspace, this was said of.
    Column("place", String(128), nullable=False),
    Column("state", String(16), nullable=False),
    Column("error", Text),
    # What was tried last, empty where it was a removal, and under which policy it was refused.
    Column("tried_checksum", String(64), nullable=False),
    Column("policy_digest", String(128), nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
    CheckConstraint("state IN ('held', 'failed', 'refused')", name="state"),
)

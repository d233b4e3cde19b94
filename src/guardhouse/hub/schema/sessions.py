"""The hub's tables of sessions and of the managed sandboxes made for them.

Their conventions are those of `guardhouse.hub.schema`. Runs in the hub.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    String,
    Table,
    Text,
)

from guardhouse.hub.schema.metadata import METADATA

__all__ = ["managed_domains", "managed_sandboxes", "sessions"]

# A runner of the hub's own for one session. Frozen: it was ended; reclaimed: its files are deleted.
managed_sandboxes = Table(
    "managed_sandboxes",
    METADATA,
    Column("environment_id", String(40), ForeignKey("environments.id", ondelete="CASCADE"), primary_key=True),
    Column("session_id", String(40), nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("active_ms", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("loss", Text),
    Column("is_told", Boolean, nullable=False),
    CheckConstraint("state IN ('running', 'frozen', 'reclaimed')", name="state"),
)

# What an account's managed sandboxes may reach: a JSON list of names with ports.
managed_domains = Table(
    "managed_domains",
    METADATA,
    Column("account_id", String(40), ForeignKey("accounts.id"), primary_key=True),
    Column("domains", Text, nullable=False),
    Column("set_ms", BigInteger, nullable=False),
    Column("set_by", String(40), nullable=False),
)

# The work of somebody in one environment, which is bound at the first task and never changes after.
sessions = Table(
    "sessions",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("account_id", String(40), ForeignKey("accounts.id"), nullable=False),
    Column("title", String(128), nullable=False),
    # personal, or of a team, or of everybody in the account.
    Column("scope", String(16), nullable=False),
    Column("team_id", String(40), ForeignKey("teams.id")),
    # Whose it is: the token or person that made it, and the person behind a token.
    Column("created_by", String(40), nullable=False),
    Column("created_by_name", String(128), nullable=False),
    Column("person_id", String(40)),
    Column("created_ms", BigInteger, nullable=False),
    Column("active_ms", BigInteger, nullable=False),
    # What was asked for: auto with tags (a JSON list), managed, or a named environment.
    Column("choice", String(16), nullable=False),
    Column("choice_tags", Text, nullable=False),
    Column("choice_environment_id", String(40)),
    Column("choice_environment_name", String(128)),
    # What the first task found. No foreign key: a session outlives its environment and says so.
    Column("bound_environment_id", String(40)),
    Column("bound_environment_name", String(128)),
    Column("bound_kind", String(16)),
    Column("bound_ms", BigInteger),
    Column("warning", Text),
    Index("ix_sessions_created_ms", "created_ms"),
    Index("ix_sessions_active_ms", "active_ms"),
    Index("ix_sessions_bound_environment_id", "bound_environment_id"),
    CheckConstraint("scope IN ('personal', 'team', 'account')", name="scope"),
    CheckConstraint("choice IN ('auto', 'managed', 'named')", name="choice"),
)

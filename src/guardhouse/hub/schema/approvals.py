"""The hub's tables of approvals, of grants, and of the messages that tell people of them.

Their conventions are those of `guardhouse.hub.schema`. Runs in the hub.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from guardhouse.hub.schema.metadata import METADATA

__all__ = ["approval_grants", "approvals", "notifications"]

# What a runner asks people. Decided ones stay: they answer a runner that asks again.
approvals = Table(
    "approvals",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("account_id", String(40), ForeignKey("accounts.id"), nullable=False),
    # No foreign keys: the record of what was decided outlives environment and task.
    Column("environment_id", String(40), nullable=False),
    Column("environment_name", String(128)),
    # The runner's own name of the question.
    Column("question_id", String(256), nullable=False),
    Column("task_id", String(40), nullable=False),
    Column("session_key", String(256), nullable=False),
    Column("command", Text, nullable=False),
    Column("gate", String(16), nullable=False),
    Column("argv", Text),
    Column("path", Text, nullable=False),
    Column("started_by", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("because", Text, nullable=False),
    Column("place", Text, nullable=False),
    Column("profile", String(256), nullable=False),
    Column("workdir", Text, nullable=False),
    Column("requested_by", String(256), nullable=False),
    # The id of the token or person that asked for the task.
    Column("requester", String(40), nullable=False),
    Column("explanation", Text),
    Column("asked_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("decided_ms", BigInteger),
    Column("decided_by", String(40)),
    Column("decided_by_name", String(256)),
    Column("scope", String(16)),
    Column("valid_until_ms", BigInteger),
    Column("note", Text),
    Column("votes_needed", Integer, nullable=False),
    Column("votes", Text, nullable=False),
    UniqueConstraint("environment_id", "question_id"),
    Index("ix_approvals_state", "state"),
    Index("ix_approvals_task_id", "task_id"),
    Index("ix_approvals_asked_ms", "asked_ms"),
    CheckConstraint("state IN ('pending', 'approved', 'denied', 'expired', 'withdrawn')", name="state"),
)

# What people said for more than once: it answers later questions until it ends.
approval_grants = Table(
    "approval_grants",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("approval_id", String(40), nullable=False),
    Column("verdict", String(8), nullable=False),
    Column("scope", String(16), nullable=False),
    Column("environment_id", String(40), nullable=False),
    Column("session_key", String(256), nullable=False),
    Column("gate", String(16), nullable=False),
    Column("rule", Text, nullable=False),
    Column("place", Text, nullable=False),
    # JSON: the ids of those who decided, and of the people behind them.
    Column("deciders", Text, nullable=False),
    Column("decided_by_name", String(256), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("valid_until_ms", BigInteger, nullable=False),
    Index("ix_approval_grants_environment_id", "environment_id"),
)

# Messages to people that are on their way, so that a restart loses none.
notifications = Table(
    "notifications",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("channel", String(16), nullable=False),
    Column("subject", String(40), nullable=False),
    Column("body", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("next_ms", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
)

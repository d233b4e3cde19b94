"""The hub's tables of what is made of tasks: fan-outs over many environments, and tasks that start later.

Their conventions are those of `guardhouse.hub.schema`. Runs in the hub.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from guardhouse.hub.schema.metadata import METADATA

__all__ = ["fanout_children", "fanouts", "schedules"]

fanouts = Table(
    "fanouts",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("account_id", String(40), ForeignKey("accounts.id"), nullable=False),
    Column("operation", String(64), nullable=False),
    Column("args", LargeBinary, nullable=False),
    Column("command", Text, nullable=False),
    Column("profile", String(64)),
    Column("session_id", String(128)),
    # JSON: what the environments were chosen by; empty where they were named.
    Column("tags", Text, nullable=False),
    Column("parallel", Integer, nullable=False),
    Column("stop_after", Integer),
    Column("queue_ms", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("idempotency_key", String(128)),
    Column("request_digest", LargeBinary(32), nullable=False),
    Column("created_by", String(40), nullable=False),
    Column("requested_by", String(128), nullable=False),
    Column("address", String(64)),
    Column("created_ms", BigInteger, nullable=False),
    Column("cancel_ms", BigInteger),
    Column("finished_ms", BigInteger),
    UniqueConstraint("created_by", "idempotency_key"),
    Index("ix_fanouts_created_ms", "created_ms"),
    Index("ix_fanouts_state", "state"),
    CheckConstraint("state IN ('running', 'finished', 'stopped', 'cancelled')", name="state"),
)

fanout_children = Table(
    "fanout_children",
    METADATA,
    Column("fanout_id", String(40), ForeignKey("fanouts.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    # No foreign keys: the record of what ran outlives environment and task.
    Column("environment_id", String(40), nullable=False),
    Column("environment_name", String(128), nullable=False),
    Column("state", String(16), nullable=False),
    Column("task_id", String(40)),
    Column("task_state", String(16)),
    Column("exit_code", Integer),
    Column("error", Text),
    Column("started_ms", BigInteger),
    Column("finished_ms", BigInteger),
    CheckConstraint("state IN ('waiting', 'running', 'succeeded', 'failed', 'skipped')", name="state"),
)

schedules = Table(
    "schedules",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("account_id", String(40), ForeignKey("accounts.id"), nullable=False),
    Column("environment_id", String(40), nullable=False),
    Column("environment_name", String(128), nullable=False),
    Column("operation", String(64), nullable=False),
    Column("args", LargeBinary, nullable=False),
    Column("command", Text, nullable=False),
    Column("profile", String(64)),
    Column("session_id", String(128)),
    Column("run_at_ms", BigInteger, nullable=False),
    Column("grace_ms", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("task_id", String(40)),
    Column("idempotency_key", String(128)),
    Column("request_digest", LargeBinary(32), nullable=False),
    Column("created_by", String(40), nullable=False),
    Column("requested_by", String(128), nullable=False),
    Column("address", String(64)),
    Column("created_ms", BigInteger, nullable=False),
    Column("decided_ms", BigInteger),
    UniqueConstraint("created_by", "idempotency_key"),
    Index("ix_schedules_run_at_ms", "run_at_ms"),
    Index("ix_schedules_state", "state"),
    CheckConstraint("state IN ('waiting', 'started', 'expired', 'refused', 'cancelled')", name="state"),
)

"""The hub's tables of the audit log, and of who writes the store.

Their conventions are those of `guardhouse.hub.schema`. Runs in the hub.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
)

from guardhouse.hub.schema.metadata import GROWING, METADATA

__all__ = ["audit_checkpoints", "audit_events", "audit_positions", "store_holders"]

# `guardhouse.hub.audit.chain.AuditRecord` says what each column is and how the hash comes about.
audit_events = Table(
    "audit_events",
    METADATA,
    Column("seq", GROWING, primary_key=True, autoincrement=False),
    Column("account_id", String(40), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", String(40), nullable=False),
    Column("action", String(64), nullable=False),
    Column("target", String(64)),
    Column("address", String(64)),
    Column("environment", String(40)),
    Column("task", String(40)),
    Column("command", Text),
    Column("executed", Text),
    Column("detail", Text, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Index("ix_audit_events_at_ms", "at_ms"),
    Index("ix_audit_events_target", "target"),
    Index("ix_audit_events_actor", "actor"),
    Index("ix_audit_events_environment", "environment"),
    Index("ix_audit_events_task", "task"),
)

audit_checkpoints = Table(
    "audit_checkpoints",
    METADATA,
    Column("seq", GROWING, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("previous", String(64), nullable=False),
    Column("key_id", String(16), nullable=False),
    Column("signature", LargeBinary(64), nullable=False),
)

# Up to which record each forwarder (syslog) has sent; of "readiness", when a failing store was tried last (Unix ms);
# of "clock.step", the newest record of a jump of the clock.
audit_positions = Table(
    "audit_positions",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("seq", BigInteger, nullable=False),
)

# The process that writes the store: one row, where a lock is held by a connection that may break (PostgreSQL).
store_holders = Table(
    "store_holders",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("holder", String(64), nullable=False),
)

"""The hub's tables of tasks and of their output.

Their conventions are those of `guardhouse.hub.schema`. Runs in the hub.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from guardhouse.hub.schema.metadata import GROWING, METADATA

__all__ = ["task_output", "tasks"]

tasks = Table(
    "tasks",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("account_id", String(40), ForeignKey("accounts.id"), nullable=False),
    # No foreign key: the record of what ran outlives the environment it ran in.
    Column("environment_id", String(40), nullable=False),
    Column("environment_name", String(128)),
    Column("operation", String(64), nullable=False),
    Column("profile", String(64)),
    # No foreign key: what ran outlives the session that it belongs to.
    Column("session_id", String(128)),
    Column("requested_by", String(128), nullable=False),
    Column("args", LargeBinary, nullable=False),
    Column("command", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("state_reason", Text),
    Column("idempotency_key", String(128)),
    Column("request_digest", LargeBinary(32), nullable=False),
    Column("trace_id", String(64), nullable=False),
    Column("created_by", String(40), nullable=False),
    Column("protocol", String(32)),
    # The runner's memory that the request was sent to (`guardhouse.wire.messages_v1.RunnerHello`).
    Column("memory_id", String(256)),
    Column("timeout_ms", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("queue_until_ms", BigInteger),
    Column("sent_ms", BigInteger),
    Column("accepted_ms", BigInteger),
    Column("started_ms", BigInteger),
    Column("finished_ms", BigInteger),
    Column("cancel_ms", BigInteger),
    Column("cancel_reason", Text),
    Column("success", Boolean),
    Column("result", LargeBinary),
    Column("error", Text),
    Column("error_code", String(64)),
    Column("exit_code", Integer),
    Column("stdout_bytes", BigInteger, nullable=False, server_default=text("0")),
    Column("stderr_bytes", BigInteger, nullable=False, server_default=text("0")),
    Column("output_note", Text),
    # The id of the fan-out or schedule that started it; NULL for one that somebody asked for by itself.
    Column("origin", String(40)),
    # The record whose configuration is filled into ``args`` when a runner is given the task.
    Column("mcp_server_id", String(40)),
    UniqueConstraint("created_by", "idempotency_key"),
    Index("ix_tasks_created_ms", "created_ms"),
    Index("ix_tasks_environment_id_created_ms", "environment_id", "created_ms"),
    Index("ix_tasks_state", "state"),
    Index("ix_tasks_origin", "origin"),
    Index("ix_tasks_session_id_created_ms", "session_id", "created_ms"),
)

task_output = Table(
    "task_output",
    METADATA,
    # The order of arrival over both streams.
    Column("seq", GROWING, primary_key=True),
    Column("task_id", String(40), ForeignKey("tasks.id", ondelete="CASCADE"), nullable=False),
    Column("stream", String(8), nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    UniqueConstraint("task_id", "stream", "offset"),
    Index("ix_task_output_task_id", "task_id"),
)

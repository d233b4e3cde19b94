"""Fan-outs over many environments, tasks that start later, and what a task came from."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def _asked() -> list[sa.Column[object]]:
    """Return the columns that say what was asked for."""
    return [
        sa.Column("operation", sa.String(length=64), nullable=False),
        sa.Column("args", sa.LargeBinary(), nullable=False),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("profile", sa.String(length=64), nullable=True),
        sa.Column("session_id", sa.String(length=128), nullable=True),
        sa.Column("idempotency_key", sa.String(length=128), nullable=True),
        sa.Column("request_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created_by", sa.String(length=40), nullable=False),
        sa.Column("requested_by", sa.String(length=128), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=True),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
    ]


def upgrade() -> None:
    """Make the tables and the column."""
    op.create_table(
        "fanouts",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("account_id", sa.String(length=40), nullable=False),
        *_asked(),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("parallel", sa.Integer(), nullable=False),
        sa.Column("stop_after", sa.Integer(), nullable=True),
        sa.Column("queue_ms", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("cancel_ms", sa.BigInteger(), nullable=True),
        sa.Column("finished_ms", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("state IN ('running', 'finished', 'stopped', 'cancelled')", name=op.f("ck_fanouts_state")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_fanouts_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fanouts")),
        sa.UniqueConstraint("created_by", "idempotency_key", name=op.f("uq_fanouts_created_by_idempotency_key")),
    )
    op.create_index("ix_fanouts_created_ms", "fanouts", ["created_ms"])
    op.create_index("ix_fanouts_state", "fanouts", ["state"])
    op.create_table(
        "fanout_children",
        sa.Column("fanout_id", sa.String(length=40), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("environment_id", sa.String(length=40), nullable=False),
        sa.Column("environment_name", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("task_id", sa.String(length=40), nullable=True),
        sa.Column("task_state", sa.String(length=16), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("started_ms", sa.BigInteger(), nullable=True),
        sa.Column("finished_ms", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "state IN ('waiting', 'running', 'succeeded', 'failed', 'skipped')", name=op.f("ck_fanout_children_state")
        ),
        sa.ForeignKeyConstraint(
            ["fanout_id"], ["fanouts.id"], name=op.f("fk_fanout_children_fanout_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("fanout_id", "position", name=op.f("pk_fanout_children")),
    )
    op.create_table(
        "schedules",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("account_id", sa.String(length=40), nullable=False),
        sa.Column("environment_id", sa.String(length=40), nullable=False),
        sa.Column("environment_name", sa.String(length=128), nullable=False),
        *_asked(),
        sa.Column("run_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("grace_ms", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("task_id", sa.String(length=40), nullable=True),
        sa.Column("decided_ms", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "state IN ('waiting', 'started', 'expired', 'refused', 'cancelled')", name=op.f("ck_schedules_state")
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_schedules_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
        sa.UniqueConstraint("created_by", "idempotency_key", name=op.f("uq_schedules_created_by_idempotency_key")),
    )
    op.create_index("ix_schedules_run_at_ms", "schedules", ["run_at_ms"])
    op.create_index("ix_schedules_state", "schedules", ["state"])
    op.add_column("tasks", sa.Column("origin", sa.String(length=40), nullable=True))
    op.create_index("ix_tasks_origin", "tasks", ["origin"])

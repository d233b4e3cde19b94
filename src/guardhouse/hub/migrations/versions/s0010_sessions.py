"""Sessions: the work of somebody in one environment."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, and the index that finds a session's tasks."""
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("account_id", sa.String(length=40), nullable=False),
        sa.Column("title", sa.String(length=128), nullable=False),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("team_id", sa.String(length=40), nullable=True),
        sa.Column("created_by", sa.String(length=40), nullable=False),
        sa.Column("created_by_name", sa.String(length=128), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=True),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("active_ms", sa.BigInteger(), nullable=False),
        sa.Column("choice", sa.String(length=16), nullable=False),
        sa.Column("choice_tags", sa.Text(), nullable=False),
        sa.Column("choice_environment_id", sa.String(length=40), nullable=True),
        sa.Column("choice_environment_name", sa.String(length=128), nullable=True),
        sa.Column("bound_environment_id", sa.String(length=40), nullable=True),
        sa.Column("bound_environment_name", sa.String(length=128), nullable=True),
        sa.Column("bound_kind", sa.String(length=16), nullable=True),
        sa.Column("bound_ms", sa.BigInteger(), nullable=True),
        sa.Column("warning", sa.Text(), nullable=True),
        sa.CheckConstraint("scope IN ('personal', 'team', 'account')", name=op.f("ck_sessions_scope")),
        sa.CheckConstraint("choice IN ('auto', 'managed', 'named')", name=op.f("ck_sessions_choice")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_sessions_account_id")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_sessions_team_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
    )
    op.create_index("ix_sessions_created_ms", "sessions", ["created_ms"])
    op.create_index("ix_sessions_active_ms", "sessions", ["active_ms"])
    op.create_index("ix_sessions_bound_environment_id", "sessions", ["bound_environment_id"])
    op.create_index("ix_tasks_session_id_created_ms", "tasks", ["session_id", "created_ms"])

"""Managed sandboxes: whose they are, how they stand, and what they may reach."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables and the column."""
    op.add_column("environments", sa.Column("owner", sa.String(length=40), nullable=True))
    op.create_table(
        "managed_sandboxes",
        sa.Column("environment_id", sa.String(length=40), nullable=False),
        sa.Column("session_id", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("active_ms", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("loss", sa.Text(), nullable=True),
        sa.Column("is_told", sa.Boolean(), nullable=False),
        sa.CheckConstraint("state IN ('running', 'frozen', 'reclaimed')", name=op.f("ck_managed_sandboxes_state")),
        sa.ForeignKeyConstraint(
            ["environment_id"],
            ["environments.id"],
            name=op.f("fk_managed_sandboxes_environment_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("environment_id", name=op.f("pk_managed_sandboxes")),
    )
    op.create_table(
        "managed_domains",
        sa.Column("account_id", sa.String(length=40), nullable=False),
        sa.Column("domains", sa.Text(), nullable=False),
        sa.Column("set_ms", sa.BigInteger(), nullable=False),
        sa.Column("set_by", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_managed_domains_account_id")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_managed_domains")),
    )

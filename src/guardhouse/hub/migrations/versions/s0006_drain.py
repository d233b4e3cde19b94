"""Environments that are drained: no new tasks, running ones end."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the columns."""
    op.add_column("environments", sa.Column("drain_ms", sa.BigInteger(), nullable=True))
    op.add_column("environments", sa.Column("drain_by", sa.String(length=128), nullable=True))
    op.add_column("environments", sa.Column("drain_reason", sa.Text(), nullable=True))

"""Room for the name of the gate that asks about operations other than commands."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Widen the columns."""
    _set_width(16, before=8)


def _set_width(width: int, *, before: int) -> None:
    for table in ("approvals", "approval_grants"):
        with op.batch_alter_table(table) as batch:
            batch.alter_column("gate", existing_type=sa.String(length=before), type_=sa.String(length=width))

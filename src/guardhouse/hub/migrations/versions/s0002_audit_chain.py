"""The audit log becomes a chain: further columns, a hash for each record, checkpoints, forwarders' positions.

The hashes of what was recorded before are computed here, in the form that `guardhouse.hub.audit.chain` had then: this
step stays as it is whatever becomes of that module.
"""

import hashlib
from typing import Any

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, chain what is there, make the tables."""
    with op.batch_alter_table("audit_events") as batch:
        batch.add_column(sa.Column("environment", sa.String(length=40), nullable=True))
        batch.add_column(sa.Column("task", sa.String(length=40), nullable=True))
        batch.add_column(sa.Column("command", sa.Text(), nullable=True))
        batch.add_column(sa.Column("executed", sa.Text(), nullable=True))
        batch.add_column(sa.Column("hash", sa.LargeBinary(length=32), nullable=True))
    _chain(op.get_bind())
    with op.batch_alter_table("audit_events") as batch:
        batch.alter_column("hash", existing_type=sa.LargeBinary(length=32), nullable=False)
    for name in ("actor", "environment", "task"):
        op.create_index(f"ix_audit_events_{name}", "audit_events", [name], unique=False)
    op.create_table(
        "audit_checkpoints",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=16), nullable=False),
        sa.Column("signature", sa.LargeBinary(length=64), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit_checkpoints")),
    )
    op.create_table(
        "audit_positions",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_audit_positions")),
    )


def _chain(connection: sa.Connection) -> None:
    rows = connection.execute(sa.text("SELECT * FROM audit_events ORDER BY seq")).mappings().all()
    previous = bytes(32)
    for number, row in enumerate(rows, 1):
        detail = msgspec.json.encode(_plain(msgspec.json.decode(row["detail"])), order="sorted")
        body: dict[str, Any] = {key: value for key, value in row.items() if key not in {"hash", "detail", "seq"}}
        body |= {"detail": msgspec.Raw(detail), "seq": number}
        previous = hashlib.sha256(previous + msgspec.json.encode(body, order="sorted")).digest()
        connection.execute(
            sa.text("UPDATE audit_events SET seq = :number, detail = :detail, hash = :hash WHERE seq = :seq"),
            {"number": number, "detail": detail.decode(), "hash": previous, "seq": row["seq"]},
        )


def _plain(value: Any) -> Any:
    match value:
        case float():
            return repr(value)
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case list():
            return [_plain(inner) for inner in value]
        case _:
            return value

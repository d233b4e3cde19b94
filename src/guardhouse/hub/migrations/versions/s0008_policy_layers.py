"""The hub's policies of the account and of teams, beside those of environments, and each runner's answers."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_POLICY = "policy_id, document, dumped, digest, set_ms, set_by"


def upgrade() -> None:
    """Make the tables and take over what environments have."""
    op.create_table(
        "hub_policies",
        sa.Column("policy_id", sa.String(length=40), nullable=False),
        sa.Column("layer", sa.String(length=16), nullable=False),
        sa.Column("environment_id", sa.String(length=40), nullable=True),
        sa.Column("team_id", sa.String(length=40), nullable=True),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("dumped", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("set_ms", sa.BigInteger(), nullable=False),
        sa.Column("set_by", sa.String(length=40), nullable=False),
        sa.CheckConstraint("layer IN ('account', 'team', 'environment')", name=op.f("ck_hub_policies_layer")),
        sa.ForeignKeyConstraint(
            ["environment_id"], ["environments.id"], name=op.f("fk_hub_policies_environment_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_hub_policies_team_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("policy_id", name=op.f("pk_hub_policies")),
        sa.UniqueConstraint("environment_id", name=op.f("uq_hub_policies_environment_id")),
        sa.UniqueConstraint("team_id", name=op.f("uq_hub_policies_team_id")),
    )
    op.create_table(
        "hub_policy_answers",
        sa.Column("environment_id", sa.String(length=40), nullable=False),
        sa.Column("policy_id", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("answered_ms", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('in_force', 'refused')", name=op.f("ck_hub_policy_answers_state")),
        sa.ForeignKeyConstraint(
            ["environment_id"],
            ["environments.id"],
            name=op.f("fk_hub_policy_answers_environment_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["policy_id"], ["hub_policies.policy_id"], name=op.f("fk_hub_policy_answers_policy_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("environment_id", "policy_id", name=op.f("pk_hub_policy_answers")),
    )
    op.create_index("ix_hub_policy_answers_policy_id", "hub_policy_answers", ["policy_id"])
    op.execute(
        f"INSERT INTO hub_policies (layer, environment_id, {_POLICY})"  # noqa: S608 - our own words
        f" SELECT 'environment', environment_id, {_POLICY} FROM environment_policies"
    )
    op.execute(
        "INSERT INTO hub_policy_answers (environment_id, policy_id, state, answered_ms, error)"
        " SELECT environment_id, policy_id, state, COALESCE(answered_ms, set_ms), error FROM environment_policies"
        " WHERE state <> 'pending'"
    )
    op.drop_table("environment_policies")

"""The hub's tables of environments: their tags, policies, runner tokens, join tokens and keys.

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

__all__ = ["environment_tags", "environments", "hub_policies", "hub_policy_answers", "runner_tokens"]

environments = Table(
    "environments",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("account_id", String(40), ForeignKey("accounts.id"), nullable=False),
    # NULL until the first heartbeat brings the hostname (SEED_FEATURES S10).
    Column("name", String(128)),
    Column("team_id", String(40), ForeignKey("teams.id")),
    Column("kind", String(16), nullable=False),
    # Of a managed sandbox: the person or token whose personal session it is for. NULL for all others.
    Column("owner", String(40)),
    Column("tags", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", String(40), nullable=False),
    Column("machine", Text),
    Column("metrics", Text),
    Column("version", String(128)),
    Column("protocol", String(32)),
    Column("remote_address", String(64)),
    Column("first_seen_ms", BigInteger),
    Column("last_heartbeat_ms", BigInteger),
    Column("disconnected_ms", BigInteger),
    Column("disconnect_reason", Text),
    # Since when it takes no new tasks, who said so and why.
    Column("drain_ms", BigInteger),
    Column("drain_by", String(128)),
    Column("drain_reason", Text),
    UniqueConstraint("account_id", "name"),
    CheckConstraint("kind IN ('byoc', 'cloud')", name="kind"),
)

environment_tags = Table(
    "environment_tags",
    METADATA,
    Column("environment_id", ForeignKey("environments.id", ondelete="CASCADE"), primary_key=True),
    Column("tag", String(64), primary_key=True),
    Index("ix_environment_tags_tag", "tag"),
)

# The policies that narrow what runners' own allow: at most one of the account, of each team, of each environment.
hub_policies = Table(
    "hub_policies",
    METADATA,
    Column("policy_id", String(40), primary_key=True),
    Column("layer", String(16), nullable=False),
    Column("environment_id", String(40), ForeignKey("environments.id", ondelete="CASCADE"), unique=True),
    Column("team_id", String(40), ForeignKey("teams.id", ondelete="CASCADE"), unique=True),
    # As a person wrote it, and as the runner gets it.
    Column("document", Text, nullable=False),
    Column("dumped", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("set_ms", BigInteger, nullable=False),
    Column("set_by", String(40), nullable=False),
    CheckConstraint("layer IN ('account', 'team', 'environment')", name="layer"),
)

# What each runner said of them last.
hub_policy_answers = Table(
    "hub_policy_answers",
    METADATA,
    Column("environment_id", String(40), ForeignKey("environments.id", ondelete="CASCADE"), primary_key=True),
    Column("policy_id", String(40), ForeignKey("hub_policies.policy_id", ondelete="CASCADE"), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("answered_ms", BigInteger, nullable=False),
    Column("error", Text),
    CheckConstraint("state IN ('in_force', 'refused')", name="state"),
    Index("ix_hub_policy_answers_policy_id", "policy_id"),
)

runner_tokens = Table(
    "runner_tokens",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("environment_id", ForeignKey("environments.id", ondelete="CASCADE"), nullable=False),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("hint", String(16), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", String(40), nullable=False),
    # NULL for the current token; the end of the overlap for one that was rotated away.
    Column("expires_ms", BigInteger),
    Column("last_used_ms", BigInteger),
    Index("ix_runner_tokens_environment_id", "environment_id"),
)

# What machines become environments with; the secret is not stored.
join_tokens = Table(
    "join_tokens",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("name", String(128)),
    Column("team_id", String(40), ForeignKey("teams.id")),
    Column("tags", Text, nullable=False),
    Column("uses_left", Integer, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", String(40), nullable=False),
    Column("person_id", String(40)),
    Column("expires_ms", BigInteger, nullable=False),
)

# The public halves of machines' own keys. NULL while one opens connections.
runner_keys = Table(
    "runner_keys",
    METADATA,
    Column("public_key", LargeBinary(32), primary_key=True),
    Column("environment_id", String(40), ForeignKey("environments.id", ondelete="CASCADE"), nullable=False),
    Column("join_token_id", String(40), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger),
    Index("ix_runner_keys_environment_id", "environment_id"),
)

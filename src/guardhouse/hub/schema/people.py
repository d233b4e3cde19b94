"""The hub's tables of people: teams and their members, sign-ins, one-time links, API tokens.

Their conventions are those of `guardhouse.hub.schema`. Runs in the hub.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from guardhouse.hub.schema.metadata import METADATA

__all__ = ["api_tokens", "one_time_links", "people", "sign_ins", "team_members", "teams"]

teams = Table(
    "teams",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("account_id", String(40), ForeignKey("accounts.id"), nullable=False),
    Column("name", String(128), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", String(40), nullable=False),
    UniqueConstraint("account_id", "name"),
)

api_tokens = Table(
    "api_tokens",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("account_id", String(40), ForeignKey("accounts.id"), nullable=False),
    Column("name", String(128), nullable=False),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("hint", String(16), nullable=False),
    Column("scopes", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", String(40), nullable=False),
    Column("expires_ms", BigInteger),
    Column("revoked_ms", BigInteger),
    Column("last_used_ms", BigInteger),
    # Whose it is: it can do no more than they can. NULL for one that belongs to the account.
    Column("person_id", ForeignKey("people.id")),
    # JSON lists that narrow it to some environments; NULL for all.
    Column("environments", Text),
    Column("tags", Text),
)

people = Table(
    "people",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("account_id", String(40), ForeignKey("accounts.id"), nullable=False),
    # In lower case; what people sign in with.
    Column("email", String(254), nullable=False),
    Column("name", String(128), nullable=False),
    Column("role", String(16), nullable=False),
    # An argon2id hash; NULL until the invitation is accepted, or where only the provider's word counts.
    Column("password", Text),
    Column("issuer", String(512)),
    Column("subject", String(256)),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", String(40), nullable=False),
    Column("disabled_ms", BigInteger),
    Column("last_sign_in_ms", BigInteger),
    UniqueConstraint("account_id", "email"),
    UniqueConstraint("issuer", "subject"),
    CheckConstraint("role IN ('owner', 'admin', 'member')", name="role"),
)

team_members = Table(
    "team_members",
    METADATA,
    Column("team_id", ForeignKey("teams.id", ondelete="CASCADE"), primary_key=True),
    Column("person_id", ForeignKey("people.id", ondelete="CASCADE"), primary_key=True),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", String(40), nullable=False),
    Index("ix_team_members_person_id", "person_id"),
)

# A browser that is signed in. The cookie's value is not stored.
sign_ins = Table(
    "sign_ins",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("person_id", ForeignKey("people.id", ondelete="CASCADE"), nullable=False),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("created_ms", BigInteger, nullable=False),
    Column("rotated_ms", BigInteger, nullable=False),
    Column("last_used_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("address", String(64)),
    Column("user_agent", String(256)),
    Index("ix_sign_ins_person_id", "person_id"),
)

one_time_links = Table(
    "one_time_links",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("purpose", String(16), nullable=False),
    # NULL for the first owner, who names themselves.
    Column("person_id", ForeignKey("people.id", ondelete="CASCADE")),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", String(40), nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    CheckConstraint("purpose IN ('owner', 'invite', 'reset')", name="purpose"),
)

"""The hub's tables, on SQLite and PostgreSQL. The migrations make them; a test compares the two.

Times are Unix milliseconds, UTC. JSON is text that msgspec wrote. Every record names its account, and `created_by` and
`actor` hold a prefixed id: ``usr_…`` of a person, ``tok_…`` of an API token, or ``hub`` and ``runner``. Runs in the
hub.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

__all__ = [
    "ACCOUNT_ID",
    "METADATA",
    "accounts",
    "api_tokens",
    "approval_grants",
    "approvals",
    "audit_checkpoints",
    "audit_events",
    "audit_positions",
    "environment_tags",
    "environments",
    "hub_policies",
    "hub_policy_answers",
    "managed_domains",
    "managed_sandboxes",
    "notifications",
    "one_time_links",
    "people",
    "runner_tokens",
    "sessions",
    "sign_ins",
    "store_holders",
    "task_output",
    "tasks",
    "team_members",
    "teams",
]

# One hub serves one account; the column is there so that a later one may serve more.
ACCOUNT_ID: Final = "acc_main"

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# A number that grows for years. In SQLite only INTEGER PRIMARY KEY is the row's own number, of 64 bits anyway.
_GROWING: Final = BigInteger().with_variant(Integer(), "sqlite")

accounts = Table(
    "accounts",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)

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

# A runner of the hub's own for one session. Frozen: it was ended; reclaimed: its files are deleted.
managed_sandboxes = Table(
    "managed_sandboxes",
    METADATA,
    Column("environment_id", String(40), ForeignKey("environments.id", ondelete="CASCADE"), primary_key=True),
    Column("session_id", String(40), nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("active_ms", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("loss", Text),
    Column("is_told", Boolean, nullable=False),
    CheckConstraint("state IN ('running', 'frozen', 'reclaimed')", name="state"),
)

# What an account's managed sandboxes may reach: a JSON list of names with ports.
managed_domains = Table(
    "managed_domains",
    METADATA,
    Column("account_id", String(40), ForeignKey("accounts.id"), primary_key=True),
    Column("domains", Text, nullable=False),
    Column("set_ms", BigInteger, nullable=False),
    Column("set_by", String(40), nullable=False),
)

# The work of somebody in one environment, which is bound at the first task and never changes after.
sessions = Table(
    "sessions",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("account_id", String(40), ForeignKey("accounts.id"), nullable=False),
    Column("title", String(128), nullable=False),
    # personal, or of a team, or of everybody in the account.
    Column("scope", String(16), nullable=False),
    Column("team_id", String(40), ForeignKey("teams.id")),
    # Whose it is: the token or person that made it, and the person behind a token.
    Column("created_by", String(40), nullable=False),
    Column("created_by_name", String(128), nullable=False),
    Column("person_id", String(40)),
    Column("created_ms", BigInteger, nullable=False),
    Column("active_ms", BigInteger, nullable=False),
    # What was asked for: auto with tags (a JSON list), managed, or a named environment.
    Column("choice", String(16), nullable=False),
    Column("choice_tags", Text, nullable=False),
    Column("choice_environment_id", String(40)),
    Column("choice_environment_name", String(128)),
    # What the first task found. No foreign key: a session outlives its environment and says so.
    Column("bound_environment_id", String(40)),
    Column("bound_environment_name", String(128)),
    Column("bound_kind", String(16)),
    Column("bound_ms", BigInteger),
    Column("warning", Text),
    Index("ix_sessions_created_ms", "created_ms"),
    Index("ix_sessions_active_ms", "active_ms"),
    Index("ix_sessions_bound_environment_id", "bound_environment_id"),
    CheckConstraint("scope IN ('personal', 'team', 'account')", name="scope"),
    CheckConstraint("choice IN ('auto', 'managed', 'named')", name="choice"),
)

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
    Column("seq", _GROWING, primary_key=True),
    Column("task_id", String(40), ForeignKey("tasks.id", ondelete="CASCADE"), nullable=False),
    Column("stream", String(8), nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    UniqueConstraint("task_id", "stream", "offset"),
    Index("ix_task_output_task_id", "task_id"),
)

# What a runner asks people. Decided ones stay: they answer a runner that asks again.
approvals = Table(
    "approvals",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("account_id", String(40), ForeignKey("accounts.id"), nullable=False),
    # No foreign keys: the record of what was decided outlives environment and task.
    Column("environment_id", String(40), nullable=False),
    Column("environment_name", String(128)),
    # The runner's own name of the question.
    Column("question_id", String(256), nullable=False),
    Column("task_id", String(40), nullable=False),
    Column("session_key", String(256), nullable=False),
    Column("command", Text, nullable=False),
    Column("gate", String(16), nullable=False),
    Column("argv", Text),
    Column("path", Text, nullable=False),
    Column("started_by", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("because", Text, nullable=False),
    Column("place", Text, nullable=False),
    Column("profile", String(256), nullable=False),
    Column("workdir", Text, nullable=False),
    Column("requested_by", String(256), nullable=False),
    # The id of the token or person that asked for the task.
    Column("requester", String(40), nullable=False),
    Column("explanation", Text),
    Column("asked_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("decided_ms", BigInteger),
    Column("decided_by", String(40)),
    Column("decided_by_name", String(256)),
    Column("scope", String(16)),
    Column("valid_until_ms", BigInteger),
    Column("note", Text),
    Column("votes_needed", Integer, nullable=False),
    Column("votes", Text, nullable=False),
    UniqueConstraint("environment_id", "question_id"),
    Index("ix_approvals_state", "state"),
    Index("ix_approvals_task_id", "task_id"),
    Index("ix_approvals_asked_ms", "asked_ms"),
    CheckConstraint("state IN ('pending', 'approved', 'denied', 'expired', 'withdrawn')", name="state"),
)

# What people said for more than once: it answers later questions until it ends.
approval_grants = Table(
    "approval_grants",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("approval_id", String(40), nullable=False),
    Column("verdict", String(8), nullable=False),
    Column("scope", String(16), nullable=False),
    Column("environment_id", String(40), nullable=False),
    Column("session_key", String(256), nullable=False),
    Column("gate", String(16), nullable=False),
    Column("rule", Text, nullable=False),
    Column("place", Text, nullable=False),
    # JSON: the ids of those who decided, and of the people behind them.
    Column("deciders", Text, nullable=False),
    Column("decided_by_name", String(256), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("valid_until_ms", BigInteger, nullable=False),
    Index("ix_approval_grants_environment_id", "environment_id"),
)

# Messages to people that are on their way, so that a restart loses none.
notifications = Table(
    "notifications",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("channel", String(16), nullable=False),
    Column("subject", String(40), nullable=False),
    Column("body", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("next_ms", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
)

# `guardhouse.hub.audit.chain.AuditRecord` says what each column is and how the hash comes about.
audit_events = Table(
    "audit_events",
    METADATA,
    Column("seq", _GROWING, primary_key=True, autoincrement=False),
    Column("account_id", String(40), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", String(40), nullable=False),
    Column("action", String(64), nullable=False),
    Column("target", String(64)),
    Column("address", String(64)),
    Column("environment", String(40)),
    Column("task", String(40)),
    Column("command", Text),
    Column("executed", Text),
    Column("detail", Text, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Index("ix_audit_events_at_ms", "at_ms"),
    Index("ix_audit_events_target", "target"),
    Index("ix_audit_events_actor", "actor"),
    Index("ix_audit_events_environment", "environment"),
    Index("ix_audit_events_task", "task"),
)

audit_checkpoints = Table(
    "audit_checkpoints",
    METADATA,
    Column("seq", _GROWING, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("previous", String(64), nullable=False),
    Column("key_id", String(16), nullable=False),
    Column("signature", LargeBinary(64), nullable=False),
)

# Up to which record each forwarder (syslog) has sent.
audit_positions = Table(
    "audit_positions",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("seq", BigInteger, nullable=False),
)

# The process that writes the store: one row, where a lock is held by a connection that may break (PostgreSQL).
store_holders = Table(
    "store_holders",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("holder", String(64), nullable=False),
)

"""What the REST interface takes and gives, as types: checked on the way in, documented by OpenAPI.

Times are ISO 8601 in UTC. Knows nothing of the store's rows beyond what `guardhouse.hub.api.views` copies from them.
Runs in the hub.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from guardhouse import limits

__all__ = [
    "AuditEvent",
    "AuditExportQuery",
    "AuditKey",
    "AuditList",
    "AuditQuery",
    "CancelRequest",
    "Environment",
    "EnvironmentCreate",
    "EnvironmentCreated",
    "EnvironmentList",
    "EnvironmentQuery",
    "EnvironmentScope",
    "EnvironmentUpdate",
    "Health",
    "Input",
    "Key",
    "Name",
    "NoQuery",
    "Output",
    "OutputQuery",
    "Page",
    "Readiness",
    "Reference",
    "RunnerToken",
    "Self",
    "Tag",
    "Tags",
    "Task",
    "TaskCreate",
    "TaskList",
    "TaskQuery",
    "Team",
    "TeamCreate",
    "TeamList",
    "Text",
    "Token",
    "TokenCreate",
    "TokenCreated",
    "TokenList",
    "TokenRotate",
    "WaitQuery",
]

# `$` of Python also matches before a last newline, `\Z` is unknown to OpenAPI's regular expressions: this is the end.
_END = r"$(?![\s\S])"
# A name is shown in terminals and tables: no control characters, no blanks at its ends.
Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=128,
        pattern=rf"^[^\x00-\x20\x7f]([^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?{_END}",
    ),
]
_NameOrBlank = Annotated[
    str, Meta(max_length=128, pattern=rf"^([^\x00-\x20\x7f]([^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?)?{_END}")
]
Tag = Annotated[str, Meta(min_length=1, max_length=64, pattern=rf"^[A-Za-z0-9][A-Za-z0-9_.:/-]*{_END}")]
Tags = Annotated[list[Tag], Meta(max_length=64)]
Reference = Annotated[str, Meta(min_length=1, max_length=128, description="an id or a name")]
Key = Annotated[str, Meta(min_length=1, max_length=128, pattern=rf"^[\x21-\x7e]+{_END}")]
Text = Annotated[str, Meta(max_length=256)]
_Offset = Annotated[int, Meta(ge=0, le=2**53 - 1)]
_Wait = Annotated[float, Meta(ge=0, le=120, description="seconds to wait for the result; 0 answers at once")]
Page = Annotated[int, Meta(ge=1, le=500)]
ScopeName = Literal[
    "env:read",
    "env:write",
    "tasks:read",
    "tasks:run",
    "tokens:write",
    "approvals:read",
    "approvals:decide",
    "metrics:read",
    "admin",
]
Status = Literal["pending", "online", "degraded", "draining", "offline"]
State = Literal["queued", "sent", "accepted", "running", "succeeded", "failed", "cancelled", "timed_out", "lost"]


class Input(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of what comes in: an unknown member is an error, since it is most often a misspelt one."""


class Output(Struct, frozen=True, kw_only=True):
    """The base of what goes out."""


class NoQuery(Input, frozen=True):
    """A route without query parameters."""


class EnvironmentScope(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom an environment belongs to: the account, or one team of it."""

    kind: Literal["account", "team"] = "account"
    team: Reference | None = None


class EnvironmentCreate(Input, frozen=True):
    """A new environment. A blank name becomes the runner's hostname at its first heartbeat."""

    name: _NameOrBlank | None = None
    scope: EnvironmentScope = EnvironmentScope()
    tags: Tags = []


class EnvironmentUpdate(Input, frozen=True):
    """What may change later; the scope cannot."""

    name: Name | None = None
    tags: Tags | None = None


class EnvironmentQuery(Input, frozen=True):
    """Which environments, and which page of them: self-hosted ones, or with kind ``cloud`` managed sandboxes."""

    status: Status | None = None
    kind: Literal["byoc", "cloud"] = "byoc"
    tag: Text | None = None
    scope: Text | None = None
    text: Text | None = None
    cursor: Text | None = None
    limit: Page = 100


class Instance(Output, frozen=True):
    """The runner connected now."""

    connected_at: str
    remote_address: str | None
    protocol: Literal["guardhouse.v1", "plain"]
    tasks_in_flight: int
    draining: bool


class EnvironmentCondition(Output, frozen=True):
    """One thing that is wrong with a connected runner; where it ``degrades``, the status says so."""

    code: Literal["delay", "backlog", "timeouts", "clock_skew", "missing_layers"]
    text: str
    degrades: bool


class EnvironmentDrain(Output, frozen=True):
    """Since when an operator lets an environment take no new tasks."""

    since: str
    by: str | None
    reason: str | None


class Environment(Output, frozen=True):
    """A place where commands run, and what is known of the runner there.

    ``status_reason`` is a sentence; ``last_heartbeat_ago`` is how people say it. ``machine`` is what the runner
    told of its host, ``connection`` is there while a runner is connected. ``upgrade_available`` is the version to
    upgrade to, null where the runner's is as new.
    """

    id: str
    name: str
    name_is_pending: bool
    kind: Literal["byoc", "cloud"]
    scope: EnvironmentScope
    tags: list[str]
    status: Status
    status_reason: str
    selectable: bool
    version: str | None
    machine: dict[str, Any] | None
    metrics: dict[str, Any] | None
    first_seen_at: str | None
    last_heartbeat_at: str | None
    last_heartbeat_ago: str
    connection: Instance | None
    conditions: list[EnvironmentCondition]
    drain: EnvironmentDrain | None
    upgrade_available: str | None
    created_at: str
    created_by: str


class EnvironmentList(Output, frozen=True):
    """One page, by name; ``next_cursor`` is null on the last."""

    environments: list[Environment]
    next_cursor: str | None


class EnvironmentCreated(Output, frozen=True):
    """A new environment with what its runner needs."""

    environment: Environment
    token: str
    connect_url: str


class RunnerToken(Output, frozen=True):
    """The environment's current token. Looking at it is audited."""

    environment_id: str
    token: str
    connect_url: str
    created_at: str
    overlap_until: str | None = None


class TokenRotate(Input, frozen=True):
    """How long the old token keeps working: a day unless said otherwise, 0 ends it and its connection at once."""

    overlap_s: Annotated[int, Meta(ge=0, le=30 * 86_400)] = 86_400


class Team(Output, frozen=True):
    """A team of the account."""

    id: str
    name: str
    created_at: str


class TeamCreate(Input, frozen=True):
    """A new team."""

    name: Name


class TeamList(Output, frozen=True):
    """Every team, by name."""

    teams: list[Team]


class TaskCreate(Input, frozen=True):
    """One operation in one environment.

    ``args`` are the operation's own (docs/wire_protocol.md). With an ``idempotency_key`` the same request sent again
    answers with the first one's task. ``queue_s`` lets the task wait so long for a runner that is not connected;
    without it an environment that is not online is refused at once. A ``session_id`` puts the task into a session
    (POST /api/v1/sessions): its environment is the session's, which ``environment_id`` may repeat; an approval "for
    this session" covers the tasks of one asker in it.
    """

    operation: Annotated[str, Meta(min_length=1, max_length=64)]
    environment_id: Reference | None = None
    args: dict[str, Any] = {}
    idempotency_key: Key | None = None
    queue_s: Annotated[float, Meta(ge=0, le=86_400)] = 0
    profile: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    session_id: Key | None = None


class WaitQuery(Input, frozen=True):
    """How long to wait for the result."""

    wait_s: _Wait = 0


class TaskQuery(Input, frozen=True):
    """Which tasks, and which page of them.

    ``text`` is looked for in the command, ``executed`` in what really ran or was refused at its exec. ``origin`` is a
    fan-out or schedule, ``asked_by`` the id of a token or person; ``since`` and ``until`` are ISO 8601 and bound
    when it was asked for.
    """

    environment: Text | None = None
    state: State | None = None
    text: Text | None = None
    executed: Text | None = None
    operation: Text | None = None
    session_id: Text | None = None
    origin: Text | None = None
    asked_by: Text | None = None
    since: Text | None = None
    until: Text | None = None
    cursor: Text | None = None
    limit: Page = 100


class Task(Output, frozen=True):
    """One task. ``args`` and ``result`` are absent in lists; ``result`` is what the operation answered.

    ``session_notice`` comes with the answer that started it: what to know of where its session runs.
    """

    id: str
    environment_id: str
    environment_name: str | None
    operation: str
    command: str
    state: State
    state_reason: str | None
    finished: bool
    success: bool | None
    exit_code: int | None
    error: str | None
    error_code: str | None
    stdout_bytes: int
    stderr_bytes: int
    output_note: str | None
    cancel_requested_at: str | None
    cancel_reason: str | None
    requested_by: str
    session_id: str | None
    origin: str | None
    trace_id: str
    protocol: str | None
    timeout_s: float
    created_at: str
    sent_at: str | None
    accepted_at: str | None
    started_at: str | None
    finished_at: str | None
    duration_s: float | None
    args: Any = None
    result: Any = None
    session_notice: str | None = None


class TaskList(Output, frozen=True):
    """One page, newest first; ``next_cursor`` is null on the last."""

    tasks: list[Task]
    next_cursor: str | None


class CancelRequest(Input, frozen=True):
    """Why a task is cancelled."""

    reason: Annotated[str, Meta(max_length=1_024)] = ""


class OutputQuery(Input, frozen=True):
    """Which bytes of a task's output.

    ``offset`` is that of the one named ``stream``; for both, ``stdout_offset`` and ``stderr_offset``.
    """

    stream: Literal["stdout", "stderr", "both"] = "both"
    offset: _Offset = 0
    stdout_offset: _Offset = 0
    stderr_offset: _Offset = 0
    follow: bool = False


class TokenCreate(Input, frozen=True):
    """A new API token; its scopes are some of the asker's own.

    With ``environments`` (ids or names) or ``tags`` it is for those environments only that are named or have one of the
    tags. A narrowed token makes tokens that are narrowed alike.
    """

    name: Name
    scopes: Annotated[list[ScopeName], Meta(min_length=1, max_length=9)]
    expires_in_s: Annotated[int, Meta(ge=60, le=10 * 366 * 86_400)] | None = None
    environments: Annotated[list[Reference], Meta(min_length=1, max_length=100)] | None = None
    tags: Annotated[list[Tag], Meta(min_length=1, max_length=64)] | None = None


class Token(Output, frozen=True):
    """An API token without its secret; ``hint`` is its prefix and last four digits."""

    id: str
    name: str
    hint: str
    scopes: list[ScopeName]
    created_at: str
    created_by: str
    expires_at: str | None
    revoked_at: str | None
    valid: bool
    last_used_at: str | None
    person_id: str | None
    environments: list[str] | None
    tags: list[str] | None


class TokenCreated(Output, frozen=True):
    """A new API token with its secret, which is shown this once."""

    token: Token
    secret: str


class TokenList(Output, frozen=True):
    """Every API token that the caller may see, oldest first, those revoked too."""

    tokens: list[Token]


class Self(Output, frozen=True):
    """Who asks, and whom. ``email``, ``role`` and ``teams`` (ids) are of the person whose token or sign-in it is."""

    id: str
    name: str
    kind: Literal["token", "person"]
    email: str | None
    role: Literal["owner", "admin", "member"] | None
    teams: list[str]
    scopes: list[ScopeName]
    expires_at: str | None
    hub_version: str


class AuditQuery(Input, frozen=True):
    """Which of the deeds, newest first.

    ``person`` (id or address) also finds what their API tokens did. ``action`` is the start of one (``task.``),
    ``command`` and ``executed`` are parts of what was asked for and of what really ran, ``text`` is looked for in both
    and in the details; ``since`` and ``until`` are ISO 8601.
    """

    before: Annotated[int, Meta(ge=1, le=2**53 - 1)] | None = None
    limit: Page = 100
    actor: Text | None = None
    person: Text | None = None
    action: Text | None = None
    target: Text | None = None
    environment: Text | None = None
    task: Text | None = None
    command: Text | None = None
    executed: Text | None = None
    text: Text | None = None
    since: Text | None = None
    until: Text | None = None


class AuditExportQuery(Input, frozen=True):
    """Behind which record the export begins; 0 exports all."""

    after: _Offset = 0


class AuditKey(Output, frozen=True):
    """The Ed25519 public key, 32 bytes in base64; ``key_id`` is 16 digits of its SHA-256."""

    public_key: str
    key_id: str


class AuditEvent(Output, frozen=True):
    """One deed; ``hash`` chains it to the one before."""

    seq: int
    at: str
    actor: str
    action: str
    target: str | None
    address: str | None
    environment: str | None
    task: str | None
    command: str | None
    executed: str | None
    detail: dict[str, Any]
    hash: str


class AuditList(Output, frozen=True):
    """One page; ``next_before`` is null on the last."""

    events: list[AuditEvent]
    next_before: int | None


class Health(Output, frozen=True):
    """The process runs."""

    status: Literal["ok"]
    version: str


class Readiness(Output, frozen=True):
    """The store answers, and the hub is not shutting down."""

    status: Literal["ready", "not_ready"]
    reason: str | None


TASK_BODY_MAX_BYTES = limits.MESSAGE_MAX_BYTES + 64 * 1024

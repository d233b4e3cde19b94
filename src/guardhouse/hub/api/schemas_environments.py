"""What the routes of environments and their runner tokens take and give. Runs in the hub."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from guardhouse.hub.api.schemas import END, Input, Name, Output, Page, Reference, Tags, Text

__all__ = [
    "Environment",
    "EnvironmentCondition",
    "EnvironmentCreate",
    "EnvironmentCreated",
    "EnvironmentDrain",
    "EnvironmentList",
    "EnvironmentQuery",
    "EnvironmentScope",
    "EnvironmentUpdate",
    "Instance",
    "RunnerToken",
    "Status",
    "TokenRotate",
]

Status = Literal["pending", "online", "degraded", "draining", "offline"]
_NameOrBlank = Annotated[
    str, Meta(max_length=128, pattern=rf"^([^\x00-\x20\x7f]([^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?)?{END}")
]


class EnvironmentScope(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom an environment belongs to: the account, or one team of it."""

    kind: Literal["account", "team"] = "account"
    team: Reference | None = None


class EnvironmentCreate(Input, frozen=True):
    """A new environment. A blank name becomes the runner's hostname at its first heartbeat."""

    name: _NameOrBlank | None = None
    scope: EnvironmentScope = EnvironmentScope()
    tags: Tags = field(default_factory=list)


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

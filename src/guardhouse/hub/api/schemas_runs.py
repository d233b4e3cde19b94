"""What the routes of fan-outs and schedules take and give. Runs in the hub."""

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from guardhouse.hub.api.schemas import Input, Key, Output, Page, Reference, Tag, Text

__all__ = [
    "CHILDREN_MAX",
    "Fanout",
    "FanoutChild",
    "FanoutChildList",
    "FanoutChildQuery",
    "FanoutCounts",
    "FanoutCreate",
    "FanoutList",
    "FanoutQuery",
    "Schedule",
    "ScheduleCreate",
    "ScheduleList",
    "ScheduleQuery",
]

# Environments of one fan-out; more are refused, never left out.
CHILDREN_MAX = 1_000
_Operation = Annotated[str, Meta(min_length=1, max_length=64)]
_Profile = Annotated[str, Meta(min_length=1, max_length=64)]
FanoutStateName = Literal["running", "finished", "stopped", "cancelled"]
ChildStateName = Literal["waiting", "running", "succeeded", "failed", "skipped"]
ScheduleStateName = Literal["waiting", "started", "expired", "refused", "cancelled"]


class FanoutCreate(Input, frozen=True):
    """One operation in many environments: those that have every one of ``tags``, or those named.

    At most ``parallel`` run at a time. After ``stop_after`` failures (a task that did not succeed, a status other than
    0, an environment that refused) nothing else starts; what runs goes on to its end. ``online_only`` leaves
    environments out that are not online now; otherwise such a one fails, or waits ``queue_s`` for its runner.
    """

    operation: _Operation
    tags: Annotated[tuple[Tag, ...], Meta(max_length=16)] = ()
    environments: Annotated[tuple[Reference, ...], Meta(max_length=CHILDREN_MAX)] = ()
    args: dict[str, Any] = field(default_factory=dict)
    parallel: Annotated[int, Meta(ge=1, le=CHILDREN_MAX)] = 10
    stop_after: Annotated[int, Meta(ge=1, le=CHILDREN_MAX)] | None = None
    online_only: bool = False
    queue_s: Annotated[float, Meta(ge=0, le=86_400)] = 0
    profile: _Profile | None = None
    session_id: Key | None = None
    idempotency_key: Key | None = None


class FanoutCounts(Output, frozen=True):
    """How many environments are where."""

    waiting: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0


class Fanout(Output, frozen=True):
    """One fan-out. ``stopped``: too many failed and some were never started (``skipped``)."""

    id: str
    operation: str
    command: str
    state: FanoutStateName
    reason: str | None
    finished: bool
    tags: list[str]
    parallel: int
    stop_after: int | None
    queue_s: float
    profile: str | None
    session_id: str | None
    requested_by: str
    counts: FanoutCounts
    total: int
    created_at: str
    cancel_requested_at: str | None
    finished_at: str | None


class FanoutList(Output, frozen=True):
    """One page, newest first; ``next_cursor`` is null on the last."""

    fanouts: list[Fanout]
    next_cursor: str | None


class FanoutQuery(Input, frozen=True):
    """Which fan-outs, and which page of them."""

    state: FanoutStateName | None = None
    cursor: Text | None = None
    limit: Page = 100


class FanoutChild(Output, frozen=True):
    """One environment of a fan-out; ``task_id`` once it was started, ``error`` where it failed or was refused."""

    position: int
    environment_id: str
    environment_name: str
    state: ChildStateName
    task_id: str | None
    task_state: str | None
    exit_code: int | None
    error: str | None
    started_at: str | None
    finished_at: str | None


class FanoutChildList(Output, frozen=True):
    """One page, in order; ``next_after`` is null on the last."""

    children: list[FanoutChild]
    next_after: int | None


class FanoutChildQuery(Input, frozen=True):
    """Behind which position, and how many."""

    after: Annotated[int, Meta(ge=-1, le=CHILDREN_MAX)] = -1
    limit: Page = 500


class ScheduleCreate(Input, frozen=True):
    """One operation in one environment, to start at ``run_at`` (ISO 8601 with its zone).

    Where the environment, or the hub, is away then, it starts when they are back within ``grace_s``, and expires after
    that. Whoever asks must still be allowed to when it starts.
    """

    environment_id: Reference
    operation: _Operation
    run_at: Annotated[str, Meta(min_length=1, max_length=64)]
    args: dict[str, Any] = field(default_factory=dict)
    grace_s: Annotated[float, Meta(ge=1, le=86_400)] = 300
    profile: _Profile | None = None
    session_id: Key | None = None
    idempotency_key: Key | None = None


class Schedule(Output, frozen=True):
    """One task that starts later; ``task_id`` once it has."""

    id: str
    environment_id: str
    environment_name: str
    operation: str
    command: str
    run_at: str
    grace_s: float
    state: ScheduleStateName
    reason: str | None
    task_id: str | None
    profile: str | None
    session_id: str | None
    requested_by: str
    created_at: str
    decided_at: str | None


class ScheduleList(Output, frozen=True):
    """One page, the latest start first; ``next_cursor`` is null on the last."""

    schedules: list[Schedule]
    next_cursor: str | None


class ScheduleQuery(Input, frozen=True):
    """Which schedules, and which page of them."""

    state: ScheduleStateName | None = None
    environment: Text | None = None
    cursor: Text | None = None
    limit: Page = 100

"""What the routes of sessions take and give. Runs in the hub."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from guardhouse.hub.api.schemas import Input, Name, Output, Reference, Tags
from guardhouse.hub.api.schemas_tasks import Task

__all__ = [
    "AutoChoice",
    "BoundEnvironment",
    "ChoicesQuery",
    "ChosenEnvironment",
    "HistoryQuery",
    "Session",
    "SessionChoice",
    "SessionChoices",
    "SessionCreate",
    "SessionDeleteQuery",
    "SessionHistory",
    "SessionList",
    "SessionQuery",
    "SessionScope",
    "SessionStep",
    "SessionUpdate",
]

_Text = Annotated[str, Meta(max_length=256)]
_Page = Annotated[int, Meta(ge=1, le=500)]


class SessionChoice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a session is to run, asked before its first task.

    ``auto``: the least busy online environment that has all ``tags`` and that the caller sees, else the managed
    sandbox. ``managed``: the managed sandbox, whatever runners there are. ``named``: the ``environment``.
    """

    kind: Literal["auto", "managed", "named"] = "auto"
    tags: Tags = []
    environment: Reference | None = None


class SessionScope(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who else sees and uses a session: nobody, one team, or everybody in the account. Owners and admins see all."""

    kind: Literal["personal", "team", "account"] = "personal"
    team: Reference | None = None


class SessionCreate(Input, frozen=True):
    """A new session."""

    title: Name | None = None
    environment: SessionChoice = SessionChoice()
    scope: SessionScope = SessionScope()


class SessionUpdate(Input, frozen=True):
    """What may change later; the environment's choice only before the first task."""

    title: Name | None = None
    environment: SessionChoice | None = None
    scope: SessionScope | None = None


class SessionQuery(Input, frozen=True):
    """Which sessions, and which page of them.

    ``text`` is looked for in the title; ``scope`` is personal, account, team, or a team's id or name; ``environment``
    is what they are bound to.
    """

    text: _Text | None = None
    scope: _Text | None = None
    environment: _Text | None = None
    mine: bool = False
    cursor: _Text | None = None
    limit: _Page = 100


class HistoryQuery(Input, frozen=True):
    """Which page of a session's history."""

    cursor: _Text | None = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50


class ChoicesQuery(Input, frozen=True):
    """The tags that Auto is to match, with commas between."""

    tags: _Text | None = None


class SessionDeleteQuery(Input, frozen=True):
    """Whether the session's finished tasks and their output stay. Audit records always do."""

    keep_tasks: bool = False


class BoundEnvironment(Output, frozen=True):
    """What a session is bound to for good, and how that is now; ``status`` is also ``frozen`` and ``deleted``."""

    kind: Literal["byoc", "cloud"]
    id: str
    name: str
    status: Literal["pending", "online", "degraded", "draining", "offline", "frozen", "deleted"]
    status_reason: str
    selectable: bool
    bound_at: str


class ChosenEnvironment(Output, frozen=True):
    """What was asked for."""

    kind: Literal["auto", "managed", "named"]
    tags: list[str]
    environment_id: str | None
    environment_name: str | None


class Session(Output, frozen=True):
    """Somebody's work in one environment.

    ``bound_environment`` is null until the first task. ``state`` is ``new`` until then, ``ready``, ``running`` while
    tasks of it run or wait, ``frozen`` for an idle managed sandbox that the next task wakes, and ``unavailable``
    when it cannot go on; ``state_reason`` is a sentence. ``warning`` says why Auto did not find what was asked for;
    ``notice`` what was lost.
    """

    id: str
    title: str
    state: Literal["new", "ready", "running", "frozen", "unavailable"]
    state_reason: str
    environment: ChosenEnvironment
    bound_environment: BoundEnvironment | None
    warning: str | None
    notice: str | None
    scope: SessionScope
    created_by: str
    created_by_name: str
    created_at: str
    active_at: str
    active_ago: str


class SessionList(Output, frozen=True):
    """One page, newest first; ``next_cursor`` is null on the last."""

    sessions: list[Session]
    next_cursor: str | None


class AutoChoice(Output, frozen=True):
    """What Auto would choose; a managed sandbox has no id before it is made."""

    kind: Literal["byoc", "cloud"]
    id: str | None
    name: str


class SessionChoices(Output, frozen=True):
    """What a new session would find now.

    ``auto`` is what Auto would choose, null where it would find nothing; ``auto_note`` says what a person should know
    of that. The self-hosted ones are listed by GET /api/v1/environments; those not ``selectable`` cannot be chosen.
    """

    auto: AutoChoice | None
    auto_note: str | None
    managed_available: bool
    managed_note: str | None


class SessionStep(Output, frozen=True):
    """One task of a session, what was decided of it, by whom, and what really ran.

    ``decision`` is the verdict with its rule; ``executed`` one program a line; ``approvals`` are ids with the answer.
    """

    task: Task
    decision: Any
    executed: str | None
    refused: Any
    approvals: list[dict[str, Any]]


class SessionHistory(Output, frozen=True):
    """One page, oldest first; ``next_cursor`` is null on the last."""

    steps: list[SessionStep]
    next_cursor: str | None

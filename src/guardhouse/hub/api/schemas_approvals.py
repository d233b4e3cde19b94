"""What the routes of approvals take and give. Runs in the hub."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from guardhouse.hub.api.schemas import Input, Output

__all__ = [
    "Approval",
    "ApprovalDecide",
    "ApprovalGrant",
    "ApprovalGrantList",
    "ApprovalList",
    "ApprovalQuery",
    "ApprovalVote",
]

ApprovalState = Literal["pending", "approved", "denied", "expired", "withdrawn"]
Reach = Literal["once", "session", "rule"]
_Text = Annotated[str, Meta(max_length=256)]
GRANT_MAX_S = 30 * 86_400


class ApprovalVote(Output, frozen=True):
    """Somebody's yes, and how far they let it reach: what comes of several is the narrowest of them."""

    by: str
    name: str
    at: str
    note: str
    scope: Reach
    for_s: int | None


class Approval(Output, frozen=True):
    """What a runner asks people, with all that it said, and their answer.

    ``gate`` is ``shell`` for a whole command text before it starts, ``exec`` for one program of a running command,
    whose exact words are ``argv``, ``operation`` for a file operation, page, tool or skill: ``path`` names what it is
    about, and ``explanation.preview`` shows what would change. ``explanation`` is the decision. ``votes_needed`` is 2
    under the two-person rule.
    """

    id: str
    state: ApprovalState
    environment_id: str
    environment_name: str | None
    task_id: str
    gate: Literal["shell", "exec", "operation"]
    command: str
    argv: list[str] | None
    path: str
    started_by: str
    rule: str
    because: str
    place: str
    profile: str
    workdir: str
    requested_by: str
    requester: str
    asked_at: str
    expires_at: str
    votes_needed: int
    votes: list[ApprovalVote]
    decided_at: str | None
    decided_by: str | None
    decided_by_name: str | None
    scope: Reach | None
    valid_until: str | None
    note: str | None
    explanation: Any = None


class ApprovalList(Output, frozen=True):
    """One page, newest first, without explanations; ``next_cursor`` is null on the last."""

    approvals: list[Approval]
    next_cursor: str | None


class ApprovalQuery(Input, frozen=True):
    """Which approvals, and which page of them."""

    state: ApprovalState | None = None
    environment: _Text | None = None
    task: _Text | None = None
    cursor: _Text | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 100


class ApprovalDecide(Input, frozen=True):
    """How far a yes or no reaches, and why.

    ``session`` covers further questions of the same rule in the same session (or the same task), ``rule`` those of the
    rule in this environment, both for ``for_s`` seconds: 12 hours unless said otherwise, 30 days at most. Where two
    must agree, the narrower reach and the shorter time count.
    """

    scope: Reach = "once"
    for_s: Annotated[int, Meta(ge=1, le=GRANT_MAX_S)] | None = None
    note: Annotated[str, Meta(max_length=1_024)] = ""


class ApprovalGrant(Output, frozen=True):
    """An answer that holds for later questions."""

    id: str
    approval_id: str
    verdict: Literal["allow", "deny"]
    scope: Reach
    environment_id: str
    rule: str
    place: str
    decided_by_name: str
    created_at: str
    valid_until: str


class ApprovalGrantList(Output, frozen=True):
    """Every answer that still holds, newest first."""

    grants: list[ApprovalGrant]

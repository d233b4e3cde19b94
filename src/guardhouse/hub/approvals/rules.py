"""Who may decide what: the account's rules, what somebody said, and whether they may say it.

Knows no store. Runs in the hub.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.store.approvals import ApprovalRecord, GrantRecord, Vote
from guardhouse.wire.messages_v1 import ApprovalScope

__all__ = [
    "Decided",
    "Decider",
    "Rules",
    "agreed",
    "already_answered",
    "check_may_decide",
    "is_same_voter",
    "may_cover",
    "still_stands",
]

# From what covers least to what covers most.
_WIDTH: Final = {"once": 0, "session": 1, "rule": 2}


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How the account wants it.

    Attributes:
        two_people: two different people must say yes.
        own_requests: a person may say yes to what they, or a token of theirs, asked for.
    """

    two_people: bool = False
    own_requests: bool = True


@dataclass(frozen=True, kw_only=True)
class Decider:
    """Who decides: the id of the token or person, whose it is, what to call them, and whether an admin."""

    id: str
    person: str | None
    name: str
    is_admin: bool
    is_browser: bool
    address: str | None


@dataclass(frozen=True, kw_only=True)
class Decided:
    """What somebody said. ``for_s`` is how long it holds, for ``session`` and ``rule``."""

    allow: bool
    scope: ApprovalScope
    for_s: int | None
    note: str


def check_may_decide(
    record: ApprovalRecord,
    said: Decided,
    by: Decider,
    *,
    rules: Rules,
    owner_of: Callable[[str], str | None],
    lineage_of: Callable[[str], frozenset[str]],
) -> None:
    """Let somebody decide.

    Args:
        owner_of: returns the id of the person whose API token it is, or None.
        lineage_of: returns the ids of a token and of the tokens that it comes from.

    Raises:
        ApiError: 400 there is no rule to decide for; 403 the rules say that this one may not; 409 it has its answer.
    """
    if record.state != "pending":
        raise already_answered(record)
    if said.scope is ApprovalScope.RULE and not (record.rule or record.place):
        raise ApiError(400, "no_rule", "the runner named no rule, so nothing can be said for it", hint="decide once")
    if not said.allow:
        return
    if rules.two_people and by.person is None:
        raise ApiError(403, "two_people", "two people must approve, and this API token belongs to none", hint="sign in")
    owner = owner_of(record.requester)
    mine = by.id == record.requester or (by.person is not None and by.person in {record.requester, owner})
    if mine and not rules.own_requests:
        raise ApiError(
            403, "own_request", "this hub does not let people approve what they asked for", hint="ask a colleague"
        )
    if not by.is_browser and not by.is_admin and lineage_of(by.id) & lineage_of(record.requester):
        # An agent's token that could approve for itself, or make one that can, would need nobody.
        raise ApiError(
            403,
            "own_request",
            "an API token cannot approve what it asked for itself, nor what one asked for that it made or comes from",
            hint="sign in, or use another person's token",
        )


def may_cover(
    grant: GrantRecord, record: ApprovalRecord, *, rules: Rules, owner_of: Callable[[str], str | None]
) -> bool:
    """Whether the rules of today let a grant answer: not one's own where unwanted, and of two where two must."""
    deciders = set(msgspec.json.decode(grant.deciders, type=list[str]))
    if grant.verdict != "allow":
        return True
    if not rules.own_requests and deciders & {record.requester, owner_of(record.requester)}:
        return False
    return not rules.two_people or len(deciders) > 1


def still_stands(grant: GrantRecord, stands: Callable[[str], bool]) -> bool:
    """Whether everybody who granted something is still somebody; a no holds whoever said it.

    Args:
        stands: whether the person with this id is not disabled, or the token with it neither revoked nor over.
    """
    return grant.verdict != "allow" or all(map(stands, msgspec.json.decode(grant.deciders, type=list[str])))


def agreed(said: Decided, before: Iterable[Vote], *, default_s: int) -> Decided:
    """Return what all who say yes agree on: the narrowest reach, for the shortest time. The last one's note stays.

    Args:
        before: those who have said yes already.
        default_s: how long a reach beyond once holds for whoever named no time.
    """
    words = [(said.scope.value, said.for_s), *((one.scope, one.for_s) for one in before)]
    scope = ApprovalScope(min((scope for scope, _ in words), key=_WIDTH.__getitem__))
    if scope is ApprovalScope.ONCE:
        return replace(said, scope=scope, for_s=None)
    return replace(said, scope=scope, for_s=min(default_s if for_s is None else for_s for _, for_s in words))


def is_same_voter(one: Vote, other: Vote) -> bool:
    """Whether two votes are one person's, or one token's of nobody."""
    return one.by == other.by or (one.person is not None and one.person == other.person)


def already_answered(record: ApprovalRecord) -> ApiError:
    """Return the refusal of a word that comes after the answer."""
    return ApiError(
        409,
        "already_decided",
        f"this question is {record.state} already ({record.decided_by_name or record.note or 'no note'})",
        hint="'guardhouse approval show' has the answer",
    )

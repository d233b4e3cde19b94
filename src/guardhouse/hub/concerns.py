"""What a route is about, and whether this caller may do it there: the seed's rules of seeing, editing and running.

An environment of the account is seen by everybody in it and edited by owners and admins; one of a team is seen and
edited by the team's people, and by owners and admins. Having made it gives no right. Where something runs is bounded
by the account alone, and by a narrowed token's own limits. Pure. Runs in the hub.
"""

from collections.abc import Iterable
from enum import StrEnum

from guardhouse.errors import Refusal
from guardhouse.hub.authorize import AccessDenied, Principal, Scope
from guardhouse.hub.reach import Reach
from guardhouse.hub.store.environments import EnvironmentRecord

__all__ = [
    "Concern",
    "NotVisible",
    "Reach",
    "check_creates",
    "check_edits",
    "check_edits_resource",
    "check_runs",
    "check_sees",
    "check_sees_fanout",
    "check_sees_resource",
    "check_sees_work",
    "check_token",
    "check_uses_resource",
    "reach_of",
]


class Concern(StrEnum):
    """What a row of the route table is about. The door loads it and asks this module before the handler runs."""

    NOTHING = "nothing narrower than the account"
    SEE_ENVIRONMENT = "see the environment of the path"
    EDIT_ENVIRONMENT = "edit the environment of the path"
    CREATE_ENVIRONMENT = "create an environment in the scope of the body"
    RUN_IN_ENVIRONMENT = "run in the environment or the session of the body"
    RUN_IN_PATH = "run in the environment of the path"
    RUN_IN_MANY = "run in each environment that the body names, or that has its tags"
    CREATE_RESOURCE = "create a record in the scope of the body"
    SEE_MCP_SERVER = "see the MCP server of the path"
    EDIT_MCP_SERVER = "edit the MCP server of the path"
    USE_MCP_SERVER = "use the MCP server of the path in the environment of the body"
    CREATE_SKILL = "create a skill in the scope of the query"
    SEE_SKILL = "see the skill of the path"
    EDIT_SKILL = "edit the skill of the path"
    SEE_TASK = "see the task of the path"
    SEE_FANOUT = "see the fan-out of the path"
    SEE_SCHEDULE = "see the schedule of the path"
    CREATE_SESSION = "create a session in the scope of the body"
    SEE_SESSION = "see the session of the path"
    EDIT_SESSION = "edit the session of the path"
    SEE_APPROVAL = "see the approval of the path"
    DECIDE_APPROVAL = "decide the approval of the path"
    DECIDE_GRANT = "end the grant of the path"
    OWN_TOKEN = "see or revoke the API token of the path"  # noqa: S105 - no secret
    OWN_JOIN_TOKEN = "end the join token of the path"  # noqa: S105 - no secret
    LISTS = "lists what the caller may see"


class NotVisible(Refusal):
    """The caller may not know whether there is such a thing."""


def reach_of(principal: Principal) -> Reach:
    """Return what ``principal`` sees."""
    is_member = principal.person is not None and not principal.is_admin
    return Reach(
        teams=principal.teams if is_member else None,
        environments=principal.environments,
        tags=principal.tags,
        own=frozenset({principal.id}),
        owners=frozenset({principal.id} if principal.person is None else {principal.id, principal.person.id}),
    )


def _is_within(principal: Principal, environment: EnvironmentRecord) -> bool:
    """Whether a narrowed token is for this environment."""
    if not principal.is_narrowed:
        return True
    named = principal.environments is not None and environment.id in principal.environments
    return named or (principal.tags is not None and not principal.tags.isdisjoint(environment.tags))


def check_sees(principal: Principal, environment: EnvironmentRecord) -> None:
    """Refuse unless ``principal`` may know of the environment.

    Raises:
        NotVisible: it may not.
    """
    reach = reach_of(principal)
    of_team = reach.teams is None or environment.team_id is None or environment.team_id in reach.teams
    is_theirs = reach.teams is None or environment.owner is None or environment.owner in reach.owners
    if not (of_team and is_theirs and _is_within(principal, environment)):
        raise NotVisible(f"no environment {environment.id!r}")


def check_edits(principal: Principal, environment: EnvironmentRecord) -> None:
    """Refuse unless ``principal`` may change the environment or see its token.

    Raises:
        NotVisible: it may not know of it.
        AccessDenied: it may see it only.
    """
    check_sees(principal, environment)
    if principal.person is None or principal.is_admin or environment.team_id in principal.teams:
        return
    raise AccessDenied(
        f"{principal.name!r} may see environment {environment.shown_name!r} but not edit it: it belongs to the account,"
        " which owners and admins edit"
    )


def check_creates(principal: Principal, team_id: str | None) -> None:
    """Refuse unless ``principal`` may make an environment or a record of this team, or with None of the account.

    Raises:
        AccessDenied: it may not.
    """
    if principal.is_narrowed:
        raise AccessDenied(f"{principal.name!r} is a token for some environments only and makes none")
    if principal.person is None or principal.is_admin or team_id in principal.teams:
        return
    what = "of the account" if team_id is None else "of a team that they are not in"
    raise AccessDenied(f"{principal.name!r} is a member and makes no environment {what}; choose one of their own teams")


def check_runs(principal: Principal, environment: EnvironmentRecord) -> None:
    """Refuse unless ``principal`` may run there: everybody of the account may, a narrowed token within its limits.

    Raises:
        NotVisible: the token is not for this environment, or it is a managed sandbox that is not theirs to see.
    """
    if environment.kind == "cloud":
        check_sees(principal, environment)
    if not _is_within(principal, environment):
        raise NotVisible(f"no environment {environment.id!r}")


def check_sees_work(principal: Principal, environment: EnvironmentRecord | None, *, asked_by: Iterable[str]) -> None:
    """Refuse unless ``principal`` may know of what ran in ``environment``, which is None when it is deleted.

    Args:
        asked_by: ids that what ran belongs to; whoever asked for it sees it.

    Raises:
        NotVisible: it may not.
    """
    if principal.id in asked_by:
        return
    if environment is not None:
        check_sees(principal, environment)
    elif not reach_of(principal).is_everything:
        raise NotVisible("it ran in an environment that is deleted")


def check_sees_fanout(principal: Principal, *, asked_by: str) -> None:
    """Refuse unless ``principal`` asked for the fan-out or sees everything: it names many environments.

    Raises:
        NotVisible: neither.
    """
    if principal.id != asked_by and not reach_of(principal).is_everything:
        raise NotVisible("a fan-out of somebody else")


def check_sees_resource(principal: Principal, team_id: str | None) -> None:
    """Refuse unless ``principal`` may know of a record of this team, or with None of the account.

    Raises:
        NotVisible: it may not: another team's, or the token is for some environments only.
    """
    reach = reach_of(principal)
    if principal.is_narrowed or not (reach.teams is None or team_id is None or team_id in reach.teams):
        raise NotVisible("no such record")


def check_edits_resource(principal: Principal, team_id: str | None) -> None:
    """Refuse unless ``principal`` may change a record of this team, or with None of the account.

    Raises:
        NotVisible: it may not know of it.
        AccessDenied: it may see it only.
    """
    check_sees_resource(principal, team_id)
    if principal.person is None or principal.is_admin or team_id in principal.teams:
        return
    raise AccessDenied(f"{principal.name!r} may see this record but not edit it: it belongs to the account")


def check_uses_resource(principal: Principal, team_id: str | None) -> None:
    """Refuse unless ``principal`` may use a record where it may run; a narrowed token may, within its environments.

    Raises:
        NotVisible: it belongs to a team that they are not in.
    """
    reach = reach_of(principal)
    if not (reach.teams is None or team_id is None or team_id in reach.teams):
        raise NotVisible("no such record")


def check_token(principal: Principal, *, person_id: str | None, created_by: str) -> None:
    """Refuse unless ``principal`` may see and revoke an API token.

    Raises:
        NotVisible: it may not: members see their own, tokens those that they made.
    """
    if Scope.ADMIN in principal.scopes and not principal.is_narrowed:
        return
    own = principal.person is not None and person_id == principal.person.id
    if not (own or created_by == principal.id):
        raise NotVisible("no such token")

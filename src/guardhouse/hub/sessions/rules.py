"""Who sees, uses and edits a session. Pure. Runs in the hub.

A personal one is for whoever it belongs to; one of a team for the team's people; one of the account for everybody.
Owners and admins see and edit all. Whose it is may always edit it. A narrowed token sees its own and what is bound
within its limits.
"""

from guardhouse.hub.authorize import AccessDenied, Principal
from guardhouse.hub.concerns import NotVisible, check_runs
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.sessions import SessionRecord

__all__ = ["check_creates_session", "check_edits_session", "check_sees_session", "is_own", "owners_of"]


def owners_of(principal: Principal) -> frozenset[str]:
    """Return the ids by which sessions are this caller's own."""
    return frozenset({principal.id} if principal.person is None else {principal.id, principal.person.id})


def is_own(principal: Principal, session: SessionRecord) -> bool:
    """Whether the session is the caller's, or of the person behind its token."""
    own = owners_of(principal)
    return session.created_by in own or session.person_id in own


def check_sees_session(principal: Principal, session: SessionRecord, environment: EnvironmentRecord | None) -> None:
    """Refuse unless ``principal`` may know of the session, and so use it.

    Args:
        environment: that the session is bound to; None before, and when it is deleted.

    Raises:
        NotVisible: it may not.
    """
    if session.created_by == principal.id:
        return
    missing = NotVisible(f"no session {session.id!r}")
    if principal.is_narrowed:
        # Of the person behind it too, such a token sees only what is bound within its limits.
        if environment is None:
            raise missing
        check_runs(principal, environment)
    if principal.is_admin or principal.person is None or session.scope == "account" or is_own(principal, session):
        return
    if session.scope == "team" and session.team_id in principal.teams:
        return
    raise missing


def check_edits_session(principal: Principal, session: SessionRecord, environment: EnvironmentRecord | None) -> None:
    """Refuse unless ``principal`` may rename, share or delete the session.

    Raises:
        NotVisible: it may not know of it.
        AccessDenied: it may see and use it only.
    """
    check_sees_session(principal, session, environment)
    of_team = session.scope == "team" and session.team_id in principal.teams
    if principal.is_admin or principal.person is None or is_own(principal, session) or of_team:
        return
    raise AccessDenied(
        f"{principal.name!r} may use session {session.title!r} but not change it: it belongs to"
        f" {session.created_by_name!r}"
    )


def check_creates_session(principal: Principal, team_id: str | None) -> None:
    """Refuse unless ``principal`` may make a session of this team, or with None any other.

    Raises:
        AccessDenied: it is none of their teams.
    """
    if team_id is None or principal.person is None or principal.is_admin or team_id in principal.teams:
        return
    raise AccessDenied(f"{principal.name!r} is not in that team; choose one of their own teams")

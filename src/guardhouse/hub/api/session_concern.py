"""Loads the session that a request is about and asks `guardhouse.hub.sessions.rules`. Runs in the hub."""

from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.concerns import NotVisible, check_runs
from guardhouse.hub.sessions.missing import session_not_found
from guardhouse.hub.sessions.rules import check_creates_session, check_edits_session, check_sees_session
from guardhouse.hub.store import teams
from guardhouse.hub.store.environments import EnvironmentRecord

if TYPE_CHECKING:
    from guardhouse.hub.api.door import Call

__all__ = [
    "check_new_session",
    "check_scheduled",
    "check_self_hosted",
    "check_session",
    "check_session_of_task",
    "check_spans",
    "sees_session",
    "wake_for_files",
]


async def check_new_session(call: "Call") -> None:
    """Refuse a session of a team that the caller may make none of.

    Raises:
        ApiError: 404, no such team.
        AccessDenied: not theirs.
    """
    wanted = call.body.scope.team if call.body.scope is not None else None
    team = None
    if wanted is not None:
        team = await call.services.database.read(partial(teams.find_team, id_or_name=wanted))
        if team is None:
            raise ApiError(404, "team_not_found", f"no team {wanted!r}", hint="create the team first")
    check_creates_session(call.actor, team.id if team is not None else None)


async def check_session(call: "Call", *, edits: bool) -> "Call":
    """Return ``call`` with the session of its path, or refuse it.

    Raises:
        ApiError: 404.
        AccessDenied: visible, but not theirs to change.
    """
    call = await _load(call, call.path["session"], edits=edits)
    if edits and call.body is not None and getattr(call.body, "scope", None) is not None:
        await check_new_session(call)
    return call


async def check_session_of_task(call: "Call") -> "Call":
    """Return ``call`` with the session that its task names, or refuse it: whoever sees a session may use it.

    Raises:
        ApiError: 404.
    """
    call = await _load(call, call.body.session_id, edits=False)
    if call.session is not None and call.session.bound_environment_id is not None:
        environment = await call.services.sessions.environment(call.session)
        try:
            if environment is not None:
                check_runs(call.actor, environment)
        except NotVisible as error:
            raise session_not_found(call.body.session_id) from error
    return call


def check_scheduled(call: "Call") -> None:
    """Refuse a later task for a session that is not bound to its environment: nothing binds at that later time.

    Raises:
        ApiError: 409.
    """
    if call.environment is not None and call.environment.kind == "cloud":
        raise ApiError(
            409,
            "session_locked",
            "a managed sandbox may be frozen at that time, and a scheduled task wakes none",
            hint="run it in the session now, or schedule it in a self-hosted environment",
        )
    if call.session is None or call.environment is None:
        return
    if call.session.bound_environment_id != call.environment.id:
        bound = call.session.bound_environment_name
        raise ApiError(
            409,
            "session_locked",
            f"session {call.session.id} is "
            + (f"bound to environment {bound!r}" if bound is not None else "not bound to an environment yet"),
            hint="run its first task now, or schedule the task in the environment that it is bound to",
        )


def check_spans(session_id: str | None) -> None:
    """Refuse a session for work in many environments: a session runs in one.

    Raises:
        ApiError: 409.
    """
    if session_id is not None and session_id.startswith("ses_"):
        raise ApiError(
            409,
            "session_locked",
            f"session {session_id} runs in one environment, not in many",
            hint="leave session_id out, or give these tasks a name of their own",
        )


def check_self_hosted(environment: EnvironmentRecord) -> None:
    """Refuse a change of a managed sandbox's record: it is its session's.

    Raises:
        ApiError: 409.
    """
    if environment.kind == "cloud":
        raise ApiError(
            409,
            "managed_environment",
            f"{environment.shown_name!r} is a session's managed sandbox",
            hint="'guardhouse session delete' removes it with its session",
        )


async def wake_for_files(call: "Call") -> "Call":
    """Have the managed sandbox whose files the request is about run; other environments run or do not.

    Raises:
        ApiError: it could not be started.
    """
    managed = call.services.sessions.managed
    if call.environment is not None and call.environment.kind == "cloud" and managed is not None:
        await managed.wake(call.environment.id)
    return call


async def sees_session(call: "Call", session_id: str) -> bool:
    """Whether the caller sees a session, and with it the tasks that it has."""
    desk = call.services.sessions
    found = await desk.find(session_id)
    if found is None:
        return False
    try:
        check_sees_session(call.actor, found, await desk.environment(found))
    except NotVisible:
        return False
    return True


async def _load(call: "Call", session_id: str, *, edits: bool) -> "Call":
    desk = call.services.sessions
    found = await desk.find(session_id)
    if found is None:
        raise session_not_found(session_id)
    environment = await desk.environment(found)
    try:
        if edits:
            check_edits_session(call.actor, found, environment)
        else:
            check_sees_session(call.actor, found, environment)
    except NotVisible as error:
        raise session_not_found(session_id) from error
    return replace(call, session=found)

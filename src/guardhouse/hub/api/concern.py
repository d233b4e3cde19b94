"""Loads what a request is about and asks `guardhouse.hub.concerns` before the handler runs. Runs in the hub."""

from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.api.schemas_runs import CHILDREN_MAX, ScheduleCreate
from guardhouse.hub.api.session_concern import (
    check_new_session,
    check_scheduled,
    check_self_hosted,
    check_session,
    check_session_of_task,
    check_spans,
    sees_session,
    wake_for_files,
)
from guardhouse.hub.clock import now_ms
from guardhouse.hub.concerns import (
    Concern,
    NotVisible,
    check_creates,
    check_edits,
    check_edits_resource,
    check_runs,
    check_sees,
    check_sees_fanout,
    check_sees_resource,
    check_sees_work,
    check_token,
    reach_of,
)
from guardhouse.hub.store import approvals, environments, fanouts, joins, schedules, teams, tokens
from guardhouse.hub.store.environments import EnvironmentRecord

if TYPE_CHECKING:
    from guardhouse.hub.api.door import Call

__all__ = [
    "check_concern",
    "check_is_no_sandbox",
    "environment_not_found",
    "mcp_server_not_found",
    "skill_not_found",
    "task_not_found",
]


def environment_not_found(reference: str) -> ApiError:
    """Return the 404 of an environment."""
    return ApiError(
        404, "environment_not_found", f"no environment {reference!r}", hint="'guardhouse env list' shows them all"
    )


def check_is_no_sandbox(environment: EnvironmentRecord) -> None:
    """Refuse a session's managed sandbox, which is reached through its session only.

    Raises:
        ApiError: 409.
    """
    if environment.kind == "cloud":
        raise ApiError(
            409,
            "session_needed",
            f"{environment.shown_name!r} is a session's managed sandbox",
            hint="start a task with its session_id instead",
        )


def mcp_server_not_found(reference: str) -> ApiError:
    """Return the 404 of an MCP server."""
    return ApiError(
        404, "mcp_server_not_found", f"no MCP server {reference!r}", hint="'guardhouse mcp-server list' shows them all"
    )


def skill_not_found(reference: str) -> ApiError:
    """Return the 404 of a skill."""
    return ApiError(404, "skill_not_found", f"no skill {reference!r}", hint="'guardhouse skill list' shows them all")


def task_not_found(task_id: str) -> ApiError:
    """Return the 404 of a task."""
    return ApiError(404, "task_not_found", f"no task {task_id!r}", hint="'guardhouse task list' shows the newest")


async def check_concern(call: "Call", concern: Concern) -> "Call":
    """Return ``call`` with what it is about, or refuse it.

    What a caller may not know of is answered like what is not there.

    Raises:
        ApiError: 404.
        AccessDenied: visible, but not theirs to change.
    """
    match concern:
        case Concern.NOTHING | Concern.LISTS:
            return call
        case Concern.SEE_ENVIRONMENT | Concern.EDIT_ENVIRONMENT:
            return await _environment(call, concern)
        case Concern.RUN_IN_ENVIRONMENT:
            return await _run_body(call)
        case Concern.RUN_IN_PATH:
            call = await _run(call, call.path["environment"])
            return await wake_for_files(call)
        case Concern.RUN_IN_MANY:
            return await _run_in_many(call)
        case Concern.CREATE_ENVIRONMENT | Concern.CREATE_RESOURCE:
            await _create(call, call.body.scope.team)
            return call
        case Concern.CREATE_SKILL:
            await _create(call, call.query.team)
            return call
        case Concern.SEE_SKILL | Concern.EDIT_SKILL:
            return _skill(call, edits=concern is Concern.EDIT_SKILL)
        case Concern.SEE_TASK:
            return await _task(call)
        case Concern.SEE_MCP_SERVER | Concern.EDIT_MCP_SERVER | Concern.USE_MCP_SERVER:
            return await _mcp_server(call, concern)
        case Concern.SEE_FANOUT:
            return await _fanout(call)
        case Concern.SEE_SCHEDULE:
            return await _schedule(call)
        case Concern.CREATE_SESSION:
            await check_new_session(call)
            return call
        case Concern.SEE_SESSION | Concern.EDIT_SESSION:
            return await check_session(call, edits=concern is Concern.EDIT_SESSION)
        case Concern.SEE_APPROVAL | Concern.DECIDE_APPROVAL:
            return await _approval(call, concern)
        case Concern.DECIDE_GRANT:
            await _grant(call)
            return call
        case Concern.OWN_TOKEN:
            await _token(call)
            return call
        case Concern.OWN_JOIN_TOKEN:
            await _join_token(call)
            return call


async def _environment(call: "Call", concern: Concern) -> "Call":
    reference = call.path["environment"]
    found = await call.services.database.read(partial(environments.find_environment, id_or_name=reference))
    if found is None:
        raise environment_not_found(reference)
    try:
        if concern is Concern.EDIT_ENVIRONMENT:
            check_edits(call.actor, found)
            check_self_hosted(found)
        else:
            check_sees(call.actor, found)
    except NotVisible as error:
        raise environment_not_found(reference) from error
    return replace(call, environment=found)


async def _run_body(call: "Call") -> "Call":
    if call.body.session_id is not None:
        call = await check_session_of_task(call)
    if call.body.environment_id is not None:
        call = await _run(call, call.body.environment_id)
        if isinstance(call.body, ScheduleCreate):
            check_scheduled(call)
        return call
    if call.session is None:
        raise ApiError(
            400, "invalid_body", "a task names an environment_id or a session_id", hint="see /api/v1/openapi.json"
        )
    return call


async def _run(call: "Call", reference: str) -> "Call":
    found = await call.services.links.lookup(reference)
    if found is None:
        raise environment_not_found(reference)
    try:
        check_runs(call.actor, found)
    except NotVisible as error:
        raise environment_not_found(reference) from error
    return replace(call, environment=found)


async def _run_in_many(call: "Call") -> "Call":
    """Named ones are bounded as one alone is; tags choose among those that the caller sees."""
    check_spans(call.body.session_id)
    tags, named = call.body.tags, call.body.environments
    if bool(tags) == bool(named):
        raise ApiError(400, "invalid_body", "give either tags or environments", hint="see /api/v1/openapi.json")
    if named:
        found = {}
        for reference in named:
            environment = (await _run(call, reference)).environment
            if environment is not None:
                check_is_no_sandbox(environment)
                found[environment.id] = environment.shown_name
        return replace(call, environments=tuple(found.items()))
    chosen = await call.services.database.read(
        partial(fanouts.environments_with_tags, tags=tags, reach=reach_of(call.actor), limit=CHILDREN_MAX + 1)
    )
    if len(chosen) > CHILDREN_MAX:
        raise ApiError(
            400, "too_many_environments", f"over {CHILDREN_MAX} environments have these tags", hint="add a tag"
        )
    return replace(call, environments=tuple(chosen))


async def _create(call: "Call", wanted: str | None) -> None:
    team = None
    if wanted is not None:
        team = await call.services.database.read(partial(teams.find_team, id_or_name=wanted))
        if team is None:
            raise ApiError(404, "team_not_found", f"no team {wanted!r}", hint="create the team first")
    check_creates(call.actor, team.id if team is not None else None)


async def _task(call: "Call") -> "Call":
    task_id = call.path["task"]
    record = await call.services.board.record(task_id)
    if record is None:
        raise task_not_found(task_id)
    try:
        check_sees_work(
            call.actor, await call.services.links.lookup(record.environment_id), asked_by=(record.created_by,)
        )
    except NotVisible as error:
        if record.session_id is None or not await sees_session(call, record.session_id):
            raise task_not_found(task_id) from error
    return replace(call, task=record)


async def _mcp_server(call: "Call", concern: Concern) -> "Call":
    reference = call.path["server"]
    missing = mcp_server_not_found(reference)
    try:
        if concern is Concern.USE_MCP_SERVER:
            call = await _run(call, call.body.environment_id)
            if call.environment is None:
                raise missing
            record = call.services.mcp_servers.choose(reference, call.actor, call.environment)
            return replace(call, mcp_server=record)
        found = call.services.mcp_servers.find(reference)
        if found is None:
            raise missing
        if concern is Concern.EDIT_MCP_SERVER:
            check_edits_resource(call.actor, found.team_id)
        else:
            check_sees_resource(call.actor, found.team_id)
    except NotVisible as error:
        raise missing from error
    return replace(call, mcp_server=found)


def _skill(call: "Call", *, edits: bool) -> "Call":
    reference = call.path["skill"]
    missing = skill_not_found(reference)
    found = call.services.skills.find(reference)
    if found is None:
        raise missing
    try:
        (check_edits_resource if edits else check_sees_resource)(call.actor, found.team_id)
    except NotVisible as error:
        raise missing from error
    return replace(call, skill=found)


async def _fanout(call: "Call") -> "Call":
    fanout_id = call.path["fanout"]
    missing = ApiError(
        404, "fanout_not_found", f"no fan-out {fanout_id!r}", hint="'guardhouse fanout list' shows the newest"
    )
    record = await call.services.fanouts.record(fanout_id)
    if record is None:
        raise missing
    try:
        check_sees_fanout(call.actor, asked_by=record.created_by)
    except NotVisible as error:
        raise missing from error
    return replace(call, fanout=record)


async def _schedule(call: "Call") -> "Call":
    schedule_id = call.path["schedule"]
    missing = ApiError(
        404, "schedule_not_found", f"no schedule {schedule_id!r}", hint="'guardhouse schedule list' shows them"
    )
    record = await call.services.database.read(partial(schedules.find_schedule, schedule_id=schedule_id))
    if record is None:
        raise missing
    environment = await call.services.links.lookup(record.environment_id)
    try:
        check_sees_work(call.actor, environment, asked_by=(record.created_by,))
    except NotVisible as error:
        raise missing from error
    return replace(call, schedule=record)


async def _approval(call: "Call", concern: Concern) -> "Call":
    approval_id = call.path["approval"]
    missing = ApiError(
        404, "approval_not_found", f"no approval {approval_id!r}", hint="'guardhouse approval list' shows them"
    )
    record = await call.services.desk.find(approval_id)
    if record is None:
        raise missing
    environment = await call.services.links.lookup(record.environment_id)
    try:
        # Whoever asked may look at it everywhere; deciding takes seeing the environment.
        own = () if concern is Concern.DECIDE_APPROVAL else (record.requester,)
        check_sees_work(call.actor, environment, asked_by=own)
    except NotVisible as error:
        raise missing from error
    return replace(call, approval=record)


async def _grant(call: "Call") -> None:
    grant_id = call.path["grant"]
    missing = ApiError(404, "grant_not_found", f"no grant {grant_id!r} holds", hint="list them first")
    grants = await call.services.database.read(partial(approvals.list_grants, now_ms=now_ms()))
    found = next((one for one in grants if one.id == grant_id), None)
    if found is None:
        raise missing
    try:
        check_sees_work(call.actor, await call.services.links.lookup(found.environment_id), asked_by=())
    except NotVisible as error:
        raise missing from error


async def _join_token(call: "Call") -> None:
    token_id = call.path["join_token"]
    missing = ApiError(404, "join_token_not_found", f"no join token {token_id!r}", hint="list them first")
    found = await call.services.database.read(partial(joins.find_join_token, token_id=token_id))
    if found is None:
        raise missing
    try:
        check_token(call.actor, person_id=found.person_id, created_by=found.created_by)
    except NotVisible as error:
        raise missing from error


async def _token(call: "Call") -> None:
    token_id = call.path["token"]
    missing = ApiError(
        404, "token_not_found", f"no valid token {token_id!r}", hint="'guardhouse token list' shows them all"
    )
    found = await call.services.database.read(partial(tokens.find_api_token, token_id=token_id))
    if found is None:
        raise missing
    try:
        check_token(call.actor, person_id=found.person_id, created_by=found.created_by)
    except NotVisible as error:
        raise missing from error

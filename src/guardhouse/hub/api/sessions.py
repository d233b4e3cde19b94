"""Routes of sessions: make, list, show, change, delete, history, export. Runs in the hub."""

from functools import partial
from typing import Any, cast

from sqlalchemy import Connection

from guardhouse.hub.api import schemas_sessions as schemas
from guardhouse.hub.api import views
from guardhouse.hub.api.concern import environment_not_found
from guardhouse.hub.api.cursors import parse_cursor, render_cursor
from guardhouse.hub.api.door import Call, Reply
from guardhouse.hub.api.environment_filter import environment_id_of
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.clock import iso_time, now_ms, relative_time
from guardhouse.hub.concerns import NotVisible, check_runs, reach_of
from guardhouse.hub.credentials import mint_id
from guardhouse.hub.sessions.choice import NothingToChoose, environment_gone, explain_unavailable
from guardhouse.hub.sessions.export import export_session
from guardhouse.hub.sessions.missing import session_not_found
from guardhouse.hub.sessions.rules import owners_of
from guardhouse.hub.store import audit, session_history, teams
from guardhouse.hub.store import sessions as store
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.sessions import SessionRecord

__all__ = [
    "NDJSON",
    "create_session",
    "delete_session",
    "export",
    "list_sessions",
    "show_choices",
    "show_history",
    "show_session",
    "update_session",
]

NDJSON = "application/x-ndjson"


def _the_session(call: Call) -> SessionRecord:
    if call.session is None:
        raise session_not_found(call.path["session"])
    return call.session


async def _view(call: Call, record: SessionRecord) -> schemas.Session:
    return (await _views(call, [record]))[0]


async def _views(call: Call, records: list[SessionRecord]) -> list[schemas.Session]:
    desk, loads = call.services.sessions, call.services.board.session_loads()
    return [_session(call, record, await desk.environment(record), loads[record.id]) for record in records]


def _session(call: Call, record: SessionRecord, environment: EnvironmentRecord | None, load: int) -> schemas.Session:
    standing = call.services.sessions.standing(record)
    bound, state, reason = _bound(call, record, environment, load)
    at_ms = now_ms()
    return schemas.Session(
        id=record.id,
        title=record.title,
        state=cast(Any, state),
        state_reason=reason,
        environment=schemas.ChosenEnvironment(
            kind=record.choice,
            tags=list(record.choice_tags),
            environment_id=record.choice_environment_id,
            environment_name=record.choice_environment_name,
        ),
        bound_environment=bound,
        warning=record.warning,
        notice=standing.loss if standing is not None else None,
        scope=schemas.SessionScope(kind=record.scope, team=record.team_name),
        created_by=record.created_by,
        created_by_name=record.created_by_name,
        created_at=iso_time(record.created_ms) or "",
        active_at=iso_time(record.active_ms) or "",
        active_ago=relative_time(record.active_ms, now=at_ms),
    )


def _bound(
    call: Call, record: SessionRecord, environment: EnvironmentRecord | None, load: int
) -> tuple[schemas.BoundEnvironment | None, str, str]:
    """Return what a session is bound to as it is now, the session's state, and the sentence that says why."""
    if record.bound_environment_id is None:
        return None, "new", "no task yet: the first one decides where it runs"
    if environment is None:
        status, why, selectable = "deleted", environment_gone(record), False
        state, reason = "unavailable", why
    else:
        presence = call.services.sessions.presence(environment)
        status, why, selectable = presence.status, presence.reason, presence.is_selectable
        standing = call.services.sessions.standing(record)
        if standing is not None and standing.is_frozen and not load:
            how = (
                "its runner is stopped in memory, the next task lets it go on"
                if standing.is_in_memory
                else "its runner was ended, the next task starts it again"
            )
            status, why, selectable = "frozen", f"idle: {how}", True
            state, reason = "frozen", why
        elif load:
            state, reason = "running", f"{load} task{'s' if load > 1 else ''} of it run or wait"
        elif selectable:
            state, reason = "ready", f"its environment is {status}"
        else:
            state, reason = "unavailable", explain_unavailable(record, why=why)
    return (
        schemas.BoundEnvironment(
            kind=cast(Any, record.bound_kind),
            id=record.bound_environment_id,
            name=record.bound_environment_name or record.bound_environment_id,
            status=cast(Any, status),
            status_reason=why,
            selectable=selectable,
            bound_at=iso_time(record.bound_ms) or "",
        ),
        state,
        reason,
    )


async def _choice(call: Call, choice: schemas.SessionChoice) -> dict[str, Any]:
    """Return the columns of a choice, checked: what is offline or pending cannot be selected."""
    if (choice.kind == "named") != (choice.environment is not None):
        raise ApiError(
            400,
            "invalid_body",
            "a choice of kind 'named' names an environment, the others none",
            hint='{"kind":"named","environment":"web-1"}',
        )
    if choice.tags and choice.kind != "auto":
        raise ApiError(400, "invalid_body", "tags are for Auto", hint='{"kind":"auto","tags":["linux"]}')
    columns: dict[str, Any] = {
        "choice": choice.kind,
        "choice_tags": tuple(dict.fromkeys(choice.tags)),
        "choice_environment_id": None,
        "choice_environment_name": None,
    }
    if choice.kind == "managed":
        refusal = call.services.sessions.managed_refusal(call.actor)
        if refusal is not None:
            raise ApiError(
                409,
                "environment_unavailable",
                f"the managed sandbox cannot be had: {refusal}",
                hint="choose Auto or a self-hosted environment",
            )
    if choice.environment is not None:
        found = await call.services.links.lookup(choice.environment)
        if found is None:
            raise environment_not_found(choice.environment)
        try:
            check_runs(call.actor, found)
        except NotVisible as error:
            raise environment_not_found(choice.environment) from error
        if found.kind == "cloud":
            raise ApiError(
                409,
                "environment_unavailable",
                f"{found.shown_name!r} is another session's managed sandbox",
                hint='{"kind":"managed"} makes one for this session',
            )
        presence = call.services.sessions.presence(found)
        if not presence.is_selectable:
            raise ApiError(
                409,
                "environment_unavailable",
                f"environment {found.shown_name!r} is {presence.status} and cannot be selected: {presence.reason}",
                hint="choose one that is online, or Auto",
                retryable=True,
            )
        columns |= {"choice_environment_id": found.id, "choice_environment_name": found.shown_name}
    return columns


async def _scope(call: Call, scope: schemas.SessionScope) -> dict[str, Any]:
    if (scope.kind == "team") != (scope.team is not None):
        raise ApiError(
            400, "invalid_body", "scope 'team' names a team, the others none", hint='{"kind":"team","team":"…"}'
        )
    if scope.team is None:
        return {"scope": scope.kind, "team_id": None}
    team = await call.services.database.read(partial(teams.find_team, id_or_name=scope.team))
    if team is None:
        raise ApiError(404, "team_not_found", f"no team {scope.team!r}", hint="create the team first")
    return {"scope": "team", "team_id": team.id}


async def create_session(call: Call) -> Reply:
    """Make a session. Nothing runs and nothing is bound before its first task."""
    body: schemas.SessionCreate = call.body
    at_ms = now_ms()
    scope = await _scope(call, body.scope)
    record = SessionRecord(
        id=mint_id("ses"),
        title=body.title or f"Session of {(iso_time(at_ms) or '')[:16].replace('T', ' ')}",
        created_by=call.actor.id,
        created_by_name=call.actor.name,
        person_id=call.actor.person.id if call.actor.person is not None else None,
        created_ms=at_ms,
        active_ms=at_ms,
        **scope,
        **await _choice(call, body.environment),
    )

    def insert(connection: Connection) -> SessionRecord | None:
        store.insert_session(connection, record)
        audit.record_audit_event(
            connection,
            at_ms=at_ms,
            actor=call.actor.id,
            action="session.create",
            target=record.id,
            address=call.address,
            title=record.title,
            scope=record.scope,
            team=record.team_id,
            choice=record.choice,
            tags=record.choice_tags,
            environment_chosen=record.choice_environment_id,
        )
        return store.find_session(connection, record.id)

    stored = await call.services.database.write(insert)
    return Reply(await _view(call, stored or record), status=201, headers={"location": f"/api/v1/sessions/{record.id}"})


async def list_sessions(call: Call) -> Reply:
    """Answer one page of sessions, newest first."""
    query: schemas.SessionQuery = call.query
    environment_id = await environment_id_of(call, query.environment)
    actor = call.actor
    records = await call.services.database.read(
        partial(
            store.list_sessions,
            wanted=store.SessionFilter(
                text=query.text,
                scope=query.scope,
                environment_id=environment_id,
                owners=owners_of(actor) if query.mine else None,
            ),
            sees=store.sees_conditions(
                reach_of(actor), caller=actor.id, person_id=actor.person.id if actor.person is not None else None
            ),
            before=parse_cursor(query.cursor),
            limit=query.limit + 1,
        )
    )
    page = records[: query.limit]
    return Reply(
        schemas.SessionList(
            sessions=await _views(call, page),
            next_cursor=render_cursor(page[-1].created_ms, page[-1].id) if len(records) > query.limit else None,
        )
    )


async def show_session(call: Call) -> Reply:
    """Answer one session, with what it is bound to and how that is now."""
    return Reply(await _view(call, _the_session(call)))


async def update_session(call: Call) -> Reply:
    """Change title or scope, or before the first task where it is to run."""
    body: schemas.SessionUpdate = call.body
    found = _the_session(call)
    values: dict[str, Any] = {}
    if body.title is not None:
        values["title"] = body.title
    if body.scope is not None:
        values |= await _scope(call, body.scope)
    if body.environment is not None:
        values |= await _choice(call, body.environment)

    def change(connection: Connection) -> SessionRecord:
        now = store.find_session(connection, found.id)
        if now is None:
            raise session_not_found(found.id)
        if body.environment is not None and now.is_bound:
            raise ApiError(
                409,
                "session_locked",
                f"session {found.id} is bound to environment {now.bound_environment_name!r} since its first task",
                hint="start a new session for another environment",
            )
        changed = store.update_session(connection, found.id, **values)
        audit.record_audit_event(
            connection,
            at_ms=now_ms(),
            actor=call.actor.id,
            action="session.update",
            target=found.id,
            address=call.address,
            **values,
        )
        if changed is None:
            raise session_not_found(found.id)
        return changed

    changed = await call.services.database.write(change)
    if body.scope is not None:
        await call.services.sessions.changed(changed)
    return Reply(await _view(call, changed))


async def delete_session(call: Call) -> Reply:
    """Delete a session with its finished tasks and their output. What the audit log says of them stays."""
    query: schemas.SessionDeleteQuery = call.query
    found = _the_session(call)

    def remove(connection: Connection) -> None:
        running = store.count_live_tasks(connection, found.id)
        if running:
            raise ApiError(
                409,
                "session_busy",
                f"{running} task{'s' if running > 1 else ''} of session {found.id} run or wait",
                hint="cancel them or wait for their end, then delete it",
                retryable=True,
            )
        deleted = store.delete_session(connection, found.id, keep_tasks=query.keep_tasks)
        audit.record_audit_event(
            connection,
            at_ms=now_ms(),
            actor=call.actor.id,
            action="session.delete",
            target=found.id,
            address=call.address,
            title=found.title,
            tasks_deleted=deleted,
            keep_tasks=query.keep_tasks,
        )

    await call.services.database.write(remove)
    await call.services.sessions.deleted(found)
    return Reply(None, status=204)


async def show_history(call: Call) -> Reply:
    """Answer one page of what ran, oldest first, each task with its decision, its approvals and its programs."""
    query: schemas.HistoryQuery = call.query
    found = _the_session(call)
    steps = await call.services.database.read(
        partial(
            session_history.list_steps,
            session_id=found.id,
            after=parse_cursor(query.cursor),
            limit=query.limit + 1,
            whole=False,
        )
    )
    page = steps[: query.limit]
    return Reply(
        schemas.SessionHistory(
            steps=[
                schemas.SessionStep(
                    task=views.task_view(step.task, whole=False),
                    decision=step.decision,
                    executed=step.executed,
                    refused=step.refused,
                    approvals=step.approvals,
                )
                for step in page
            ],
            next_cursor=f"{page[-1].task.created_ms}.{page[-1].task.id}" if len(steps) > query.limit else None,
        )
    )


async def export(call: Call) -> Reply:
    """Answer a session as lines of JSON."""
    found = _the_session(call)
    lines = export_session(call.services.database, await _view(call, found), found.id)
    return Reply(lines, media_type=NDJSON, headers={"x-accel-buffering": "no"})


async def show_choices(call: Call) -> Reply:
    """Answer what a new session would find now: what Auto would choose, and whether there is a managed sandbox."""
    query: schemas.ChoicesQuery = call.query
    desk = call.services.sessions
    refusal = desk.managed_refusal(call.actor)
    wanted = SessionRecord(
        id="", title="", scope="personal", team_id=None, created_by=call.actor.id, created_by_name=call.actor.name,
        person_id=None, created_ms=0, active_ms=0, choice="auto",
        choice_tags=tuple(tag for tag in (query.tags or "").split(",") if tag),
    )  # fmt: skip
    auto, note = None, None
    try:
        picked = await desk.pick(wanted, call.actor)
    except NothingToChoose as error:
        note = str(error)
    else:
        note = picked.warning
        found = await call.services.links.lookup(picked.environment_id) if picked.environment_id else None
        auto = (
            schemas.AutoChoice(kind="cloud", id=None, name="managed sandbox")
            if found is None
            else schemas.AutoChoice(kind="byoc", id=found.id, name=found.shown_name)
        )
    return Reply(
        schemas.SessionChoices(auto=auto, auto_note=note, managed_available=refusal is None, managed_note=refusal)
    )

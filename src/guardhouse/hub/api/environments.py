"""Routes of environments, their tokens, and teams. Runs in the hub."""

from functools import partial

from sqlalchemy import Connection

from guardhouse.hub.api import schemas_environments, schemas_people, views
from guardhouse.hub.api.concern import environment_not_found
from guardhouse.hub.api.door import Call, Reply
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.clock import iso_time, now_ms
from guardhouse.hub.concerns import reach_of
from guardhouse.hub.credentials import RUNNER_TOKEN_PREFIX, mint_id, mint_token, token_digest, token_hint
from guardhouse.hub.store import audit, environments, joins, teams, tokens
from guardhouse.hub.store.environments import EnvironmentRecord

__all__ = [
    "create_environment",
    "create_team",
    "delete_environment",
    "environment_not_found",
    "environment_view",
    "find_environment",
    "list_environments",
    "list_teams",
    "rotate_token",
    "show_environment",
    "show_token",
    "update_environment",
]

# Rows read at a time while a status, which the store does not know, is being looked for.
_SCAN_ROWS = 500


async def find_environment(call: Call, reference: str) -> EnvironmentRecord:
    """Return the environment that the route is about, else the one with this id or name.

    Raises:
        ApiError: 404.
    """
    if call.environment is not None:
        return call.environment
    record = await call.services.database.read(lambda c: environments.find_environment(c, reference))
    if record is None:
        raise environment_not_found(reference)
    return record


def environment_view(call: Call, record: EnvironmentRecord) -> schemas_environments.Environment:
    """Return an environment as it is now."""
    at_ms = now_ms()
    instance = call.services.links.instance(record.id)
    return views.environment_view(
        record,
        call.services.presence(record, at_ms=at_ms),
        instance,
        now_ms=at_ms,
        offered_version=call.services.config.runner_version,
    )


async def list_environments(call: Call) -> Reply:
    """Answer one page of environments."""
    query: schemas_environments.EnvironmentQuery = call.query
    found: list[EnvironmentRecord] = []
    after = query.cursor
    # A status is decided row by row: where most have it a page's worth of rows will do, where few do, many are read.
    scanned = query.limit + 1
    while True:
        wanted = query.limit + 1 - len(found) if query.status is None else min(scanned, _SCAN_ROWS)
        scanned *= 4
        rows = await call.services.database.read(
            partial(
                environments.list_environments,
                tag=query.tag,
                scope=query.scope,
                text=query.text,
                kind=query.kind,
                after=after,
                limit=wanted,
                reach=reach_of(call.actor),
            )
        )
        at_ms = now_ms()
        found += [row for row in rows if query.status in (None, call.services.presence(row, at_ms=at_ms).status)]
        if len(rows) < wanted or len(found) > query.limit:
            break
        after = rows[-1].shown_name
    page = found[: query.limit]
    more = len(found) > query.limit
    return Reply(
        schemas_environments.EnvironmentList(
            environments=[environment_view(call, row) for row in page],
            next_cursor=page[-1].shown_name if more else None,
        )
    )


async def create_environment(call: Call) -> Reply:
    """Create an environment and its token."""
    body: schemas_environments.EnvironmentCreate = call.body
    services = call.services
    if body.name and body.name.startswith("env_"):
        raise ApiError(400, "invalid_body", "a name must not look like an id (env_…)", hint="choose another name")
    if (body.scope.kind == "team") != (body.scope.team is not None):
        raise ApiError(
            400, "invalid_body", "scope 'team' names a team, scope 'account' none", hint='{"kind":"team","team":"…"}'
        )
    at_ms = now_ms()
    environment_id = mint_id("env")
    secret, token = _mint_runner_token(call, environment_id, at_ms)
    tags = tuple(dict.fromkeys(body.tags))

    def insert(connection: Connection) -> EnvironmentRecord:
        team = None
        if body.scope.team is not None:
            team = teams.find_team(connection, body.scope.team)
            if team is None:
                raise ApiError(404, "team_not_found", f"no team {body.scope.team!r}", hint="create the team first")
        record = environments.insert_environment(
            connection,
            environment_id=environment_id,
            name=body.name or None,
            team_id=team.id if team else None,
            tags=tags,
            created_ms=at_ms,
            created_by=call.actor.id,
        )
        tokens.insert_runner_token(connection, token)
        audit.record_audit_event(
            connection,
            at_ms=at_ms,
            actor=call.actor.id,
            action="environment.create",
            target=environment_id,
            environment=environment_id,
            address=call.address,
            name=body.name,
            tags=tags,
        )
        return record

    record = await services.database.write(insert)
    services.credentials.add_runner_token(token)
    services.links.forget_known()
    return Reply(
        schemas_environments.EnvironmentCreated(
            environment=environment_view(call, record), token=secret, connect_url=services.connect_url
        ),
        status=201,
    )


def _mint_runner_token(call: Call, environment_id: str, at_ms: int) -> tuple[str, tokens.RunnerTokenRecord]:
    secret = mint_token(RUNNER_TOKEN_PREFIX)
    token_id = mint_id("wtk")
    return secret, tokens.RunnerTokenRecord(
        id=token_id,
        environment_id=environment_id,
        digest=token_digest(secret),
        sealed=call.services.sealer.seal(secret, owner=f"{environment_id}/{token_id}"),
        hint=token_hint(secret),
        created_ms=at_ms,
        created_by=call.actor.id,
        expires_ms=None,
        last_used_ms=None,
    )


async def show_environment(call: Call) -> Reply:
    """Answer one environment."""
    return Reply(environment_view(call, await find_environment(call, call.path["environment"])))


async def update_environment(call: Call) -> Reply:
    """Change name or tags."""
    body: schemas_environments.EnvironmentUpdate = call.body
    found = await find_environment(call, call.path["environment"])
    if body.name and body.name.startswith("env_"):
        raise ApiError(400, "invalid_body", "a name must not look like an id (env_…)", hint="choose another name")
    tags = None if body.tags is None else tuple(dict.fromkeys(body.tags))

    def change(connection: Connection) -> EnvironmentRecord | None:
        record = environments.update_environment(connection, found.id, name=body.name, tags=tags)
        audit.record_audit_event(
            connection,
            at_ms=now_ms(),
            actor=call.actor.id,
            action="environment.update",
            target=found.id,
            environment=found.id,
            address=call.address,
            name=body.name,
            tags=tags,
        )
        return record

    record = await call.services.database.write(change)
    call.services.links.forget_known()
    call.services.skill_courier.nudge(found.id)
    if record is None:
        raise environment_not_found(call.path["environment"])
    return Reply(environment_view(call, record))


async def delete_environment(call: Call) -> Reply:
    """Delete an environment: its token is worthless at once, its runner is disconnected, its tasks end."""
    found = await find_environment(call, call.path["environment"])
    services = call.services
    services.credentials.drop_environment(found.id)
    services.mcp_servers.drop_environment(found.id)
    services.skills.drop_environment(found.id)

    def remove(connection: Connection) -> None:
        environments.delete_environment(connection, found.id)
        audit.record_audit_event(
            connection,
            at_ms=now_ms(),
            actor=call.actor.id,
            action="environment.delete",
            target=found.id,
            environment=found.id,
            address=call.address,
            name=found.name,
        )

    await services.database.write(remove)
    services.links.forget_known()
    services.links.drained.pop(found.id, None)
    services.board.timeouts.forget([found.id])
    services.links.close(found.id, reason="the environment was deleted")
    await services.board.lose_environment(found.id, reason="the environment was deleted")
    return Reply(None, status=204)


async def show_token(call: Call) -> Reply:
    """Answer the current runner token, and write down who looked."""
    found = await find_environment(call, call.path["environment"])
    services = call.services

    def look(connection: Connection) -> tokens.RunnerTokenRecord | None:
        record = tokens.current_runner_token(connection, found.id)
        audit.record_audit_event(
            connection,
            at_ms=now_ms(),
            actor=call.actor.id,
            action="environment.token.view",
            target=found.id,
            environment=found.id,
            address=call.address,
            hint=record.hint if record else None,
        )
        return record

    record = await services.database.write(look)
    if record is None:
        raise ApiError(
            404,
            "no_runner_token",
            f"environment {found.shown_name!r} has no token: its machine joined with a key of its own",
            hint="'guardhouse env rotate' makes a token and ends the key",
        )
    return Reply(
        schemas_environments.RunnerToken(
            environment_id=found.id,
            token=services.sealer.open(record.sealed, owner=f"{found.id}/{record.id}"),
            connect_url=services.connect_url,
            created_at=iso_time(record.created_ms) or "",
        )
    )


async def rotate_token(call: Call) -> Reply:
    """Make a new runner token; the old one works until the overlap ends."""
    body: schemas_environments.TokenRotate = call.body
    found = await find_environment(call, call.path["environment"])
    services = call.services
    at_ms = now_ms()
    until_ms = at_ms + body.overlap_s * 1000
    secret, token = _mint_runner_token(call, found.id, at_ms)

    def rotate(connection: Connection) -> None:
        tokens.rotate_runner_tokens(connection, token, overlap_until_ms=until_ms, now_ms=at_ms)
        joins.end_runner_keys(connection, found.id, at_ms=until_ms)
        audit.record_audit_event(
            connection,
            at_ms=at_ms,
            actor=call.actor.id,
            action="environment.token.rotate",
            target=found.id,
            environment=found.id,
            address=call.address,
            overlap_s=body.overlap_s,
            hint=token.hint,
        )

    await services.database.write(rotate)
    services.credentials.add_runner_token(token, others_end_ms=until_ms)
    services.credentials.end_runner_keys(found.id, at_ms=until_ms)
    if body.overlap_s == 0:
        services.links.close(found.id, reason="its token was rotated away")
    return Reply(
        schemas_environments.RunnerToken(
            environment_id=found.id,
            token=secret,
            connect_url=services.connect_url,
            created_at=iso_time(at_ms) or "",
            overlap_until=iso_time(until_ms),
        )
    )


async def list_teams(call: Call) -> Reply:
    """Answer every team."""
    records = await call.services.database.read(teams.list_teams)
    return Reply(schemas_people.TeamList(teams=[views.team_view(record) for record in records]))


async def create_team(call: Call) -> Reply:
    """Create a team."""
    body: schemas_people.TeamCreate = call.body
    if body.name == "account" or body.name.startswith("team_"):
        raise ApiError(400, "invalid_body", f"a team cannot be called {body.name!r}", hint="choose another name")
    record = teams.TeamRecord(id=mint_id("team"), name=body.name, created_ms=now_ms(), created_by=call.actor.id)

    def insert(connection: Connection) -> None:
        teams.insert_team(connection, record)
        audit.record_audit_event(
            connection,
            at_ms=record.created_ms,
            actor=call.actor.id,
            action="team.create",
            target=record.id,
            address=call.address,
            name=record.name,
        )

    await call.services.database.write(insert)
    return Reply(views.team_view(record), status=201)

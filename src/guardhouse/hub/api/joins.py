"""Routes of join tokens: made by people, swapped by a machine for an environment and its key. Runs in the hub."""

from functools import partial

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection

from guardhouse.hub.api import schemas_join as schemas
from guardhouse.hub.api.door import Call, Reply
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.api.schemas_environments import EnvironmentScope
from guardhouse.hub.authorize import AccessDenied, AuthenticationFailed, Principal
from guardhouse.hub.clock import iso_time, now_ms
from guardhouse.hub.concerns import NotVisible, check_creates, check_token
from guardhouse.hub.credentials import JOIN_PREFIX, mint_id, mint_token, token_digest
from guardhouse.hub.store import audit, environments, joins, teams
from guardhouse.hub.store.joins import JoinTokenRecord, RunnerKeyRecord
from guardhouse.wire.proof import join_text

__all__ = ["create_join_token", "delete_join_token", "join", "list_join_tokens"]


def _view(record: JoinTokenRecord, team_names: dict[str, str]) -> schemas.JoinToken:
    scope = EnvironmentScope()
    if record.team_id is not None:
        scope = EnvironmentScope(kind="team", team=team_names.get(record.team_id, record.team_id))
    return schemas.JoinToken(
        id=record.id,
        name=record.name,
        scope=scope,
        tags=msgspec.json.decode(record.tags, type=list[str]),
        uses_left=record.uses_left,
        created_at=iso_time(record.created_ms) or "",
        created_by=record.created_by,
        expires_at=iso_time(record.expires_ms) or "",
    )


def _may_see(actor: Principal, record: JoinTokenRecord) -> bool:
    try:
        check_token(actor, person_id=record.person_id, created_by=record.created_by)
    except NotVisible:
        return False
    return True


def _team_names(connection: Connection) -> dict[str, str]:
    return {team.id: team.name for team in teams.list_teams(connection)}


async def create_join_token(call: Call) -> Reply:
    """Make a token with which machines become environments of this scope and these tags, each with a key of its own."""
    body: schemas.JoinTokenCreate = call.body
    if (body.scope.kind == "team") != (body.scope.team is not None):
        raise ApiError(400, "invalid_body", "scope 'team' names a team, scope 'account' none")
    if body.name is not None and (body.uses != 1 or body.name.startswith("env_")):
        raise ApiError(
            400, "invalid_body", "a name is for one environment and looks like no id", hint="leave name or uses out"
        )
    at_ms = now_ms()
    secret = mint_token(JOIN_PREFIX)

    def insert(connection: Connection) -> JoinTokenRecord:
        team = teams.find_team(connection, body.scope.team) if body.scope.team is not None else None
        record = JoinTokenRecord(
            id=mint_id("jtk"),
            digest=token_digest(secret),
            name=body.name,
            team_id=team.id if team is not None else None,
            tags=msgspec.json.encode(list(dict.fromkeys(body.tags))).decode(),
            uses_left=body.uses,
            created_ms=at_ms,
            created_by=call.actor.id,
            person_id=call.actor.person.id if call.actor.person is not None else None,
            expires_ms=at_ms + body.expires_in_s * 1000,
        )
        joins.insert_join_token(connection, record)
        audit.record_audit_event(
            connection,
            at_ms=at_ms,
            actor=call.actor.id,
            action="join_token.create",
            target=record.id,
            address=call.address,
            name=record.name,
            team=record.team_id,
            tags=body.tags,
            uses=body.uses,
            expires_ms=record.expires_ms,
        )
        return record

    record = await call.services.database.write(insert)
    names = await call.services.database.read(_team_names)
    return Reply(
        schemas.JoinTokenCreated(join_token=_view(record, names), secret=secret, hub_url=call.services.public_url),
        status=201,
    )


async def list_join_tokens(call: Call) -> Reply:
    """Answer the join tokens that still work: admins all, others their own."""
    records = await call.services.database.read(partial(joins.list_join_tokens, now_ms=now_ms()))
    names = await call.services.database.read(_team_names)
    return Reply(
        schemas.JoinTokenList(join_tokens=[_view(record, names) for record in records if _may_see(call.actor, record)])
    )


async def delete_join_token(call: Call) -> Reply:
    """End a join token. Machines that joined with it stay."""
    token_id = call.path["join_token"]
    at_ms = now_ms()

    def remove(connection: Connection) -> None:
        joins.delete_join_token(connection, token_id)
        audit.record_audit_event(
            connection,
            at_ms=at_ms,
            actor=call.actor.id,
            action="join_token.delete",
            target=token_id,
            address=call.address,
        )

    await call.services.database.write(remove)
    return Reply(None, status=204)


def _may_still(call: Call, record: JoinTokenRecord, *, at_ms: int) -> bool:
    """Whether the person who made a join token may make such an environment now, too."""
    if record.person_id is None:
        return True
    try:
        check_creates(call.services.credentials.standing(record.person_id, now_ms=at_ms), record.team_id)
    except (AuthenticationFailed, AccessDenied):
        return False
    return True


def _refused() -> ApiError:
    return ApiError(
        401,
        "bad_join_token",
        "this join token is unknown, over or used up, or who made it may not any more",
        hint="make one: guardhouse env join-token create",
    )


async def join(call: Call) -> Reply:
    """Swap a join token for an environment whose runner proves itself by the machine's own key.

    The same key again answers with the same environment, so that a lost answer costs no second use.
    """
    body: schemas.JoinRequest = call.body
    services = call.services
    at_ms = now_ms()
    digest = token_digest(body.token)
    source = services.credentials.check_may_guess(digest, address=call.address)
    found = await services.database.read(partial(joins.find_join_token, digest=digest))
    if found is None or found.expires_ms <= at_ms or not _may_still(call, found, at_ms=at_ms):
        services.credentials.note_guess(source, digest, right=False)
        raise _refused()
    public_key = bytes.fromhex(body.public_key)
    try:
        text = join_text(token=body.token, public_key=public_key)
        Ed25519PublicKey.from_public_bytes(public_key).verify(bytes.fromhex(body.signature), text)
    except (InvalidSignature, ValueError) as error:
        services.credentials.note_guess(source, digest, right=False)
        raise ApiError(400, "bad_signature", "the signature is not the key's", hint="use 'guardhouse join'") from error
    key = RunnerKeyRecord(
        public_key=public_key,
        environment_id=mint_id("env"),
        join_token_id=found.id,
        created_ms=at_ms,
        expires_ms=None,
    )

    def store(connection: Connection) -> tuple[RunnerKeyRecord, str | None]:
        known = joins.find_runner_key(connection, public_key)
        if known is not None:
            environment = environments.find_environment(connection, known.environment_id)
            if known.join_token_id != found.id or known.expires_ms is not None or environment is None:
                raise _refused()
            return known, environment.name
        if not joins.use_join_token(connection, found.id, now_ms=at_ms):
            raise _refused()
        environments.insert_environment(
            connection,
            environment_id=key.environment_id,
            name=found.name,
            team_id=found.team_id,
            tags=tuple(msgspec.json.decode(found.tags, type=list[str])),
            created_ms=at_ms,
            created_by=found.created_by,
        )
        joins.insert_runner_key(connection, key)
        audit.record_audit_event(
            connection,
            at_ms=at_ms,
            actor=found.id,
            action="environment.join",
            target=key.environment_id,
            environment=key.environment_id,
            address=call.address,
            name=found.name,
            public_key=body.public_key,
            join_token_by=found.created_by,
        )
        return key, found.name

    stored, name = await services.database.write(store)
    services.credentials.add_runner_key(stored)
    services.links.forget_known()
    return Reply(
        schemas.Joined(environment_id=stored.environment_id, name=name, connect_url=services.connect_url), status=201
    )

"""Routes of API tokens and of who asks. Runs in the hub."""

from typing import Any, cast

from sqlalchemy import Connection

from guardhouse import __version__
from guardhouse.hub.api import schemas_tokens, views
from guardhouse.hub.api.concern import environment_not_found
from guardhouse.hub.api.door import Call, Reply
from guardhouse.hub.api.environments import find_environment
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.authorize import AccessDenied, Principal, Scope, check_grant
from guardhouse.hub.clock import iso_time, now_ms
from guardhouse.hub.concerns import NotVisible, check_runs, check_token
from guardhouse.hub.credentials import API_TOKEN_PREFIX, mint_id, mint_token, token_digest, token_hint
from guardhouse.hub.store import audit, joins, tokens

__all__ = ["create_token", "list_tokens", "revoke_token", "self_view", "show_self"]


def self_view(actor: Principal) -> schemas_tokens.Self:
    """Return who asks."""
    return schemas_tokens.Self(
        id=actor.id,
        name=actor.name,
        kind="person" if actor.sign_in_id is not None else "token",
        email=actor.person.email if actor.person is not None else None,
        role=cast(Any, actor.person.role) if actor.person is not None else None,
        teams=sorted(actor.teams),
        scopes=cast(Any, sorted(actor.scopes)),
        expires_at=iso_time(actor.expires_ms),
        hub_version=__version__,
    )


async def show_self(call: Call) -> Reply:
    """Answer who asks."""
    return Reply(self_view(call.actor))


async def list_tokens(call: Call) -> Reply:
    """Answer every API token that the caller may see, without secrets: admins all, others their own."""
    records = await call.services.database.read(tokens.list_api_tokens)
    at_ms = now_ms()
    return Reply(
        schemas_tokens.TokenList(
            tokens=[views.token_view(record, now_ms=at_ms) for record in records if _may_see(call.actor, record)]
        )
    )


def _may_see(actor: Principal, record: tokens.ApiTokenRecord) -> bool:
    try:
        check_token(actor, person_id=record.person_id, created_by=record.created_by)
    except NotVisible:
        return False
    return True


async def _narrowing(
    call: Call, body: schemas_tokens.TokenCreate
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Return the environments (ids) and tags that a new token is narrowed to."""
    actor = call.actor
    if actor.is_narrowed:
        if body.environments is not None or body.tags is not None:
            raise AccessDenied(
                f"{actor.name!r} is narrowed itself; its tokens are narrowed alike, name no environments"
            )
        return (
            None if actor.environments is None else tuple(sorted(actor.environments)),
            None if actor.tags is None else tuple(sorted(actor.tags)),
        )
    ids = None
    if body.environments is not None:
        found = []
        for reference in dict.fromkeys(body.environments):
            environment = await find_environment(call, reference)
            try:
                check_runs(actor, environment)
            except NotVisible as error:
                raise environment_not_found(reference) from error
            found.append(environment.id)
        ids = tuple(found)
    return ids, None if body.tags is None else tuple(dict.fromkeys(body.tags))


def _check_decides(actor: Principal, scopes: frozenset[Scope]) -> None:
    """Refuse an access token of the provider to make one that would approve what the access token asked for."""
    is_access_token = actor.person is not None and actor.id == actor.person.id and actor.sign_in_id is None
    if is_access_token and not actor.is_admin and Scope.APPROVALS_DECIDE in scopes:
        raise AccessDenied(
            f"an access token of {actor.name!r} cannot make a token that decides approvals: sign in, or use"
            " 'guardhouse login'"
        )


async def create_token(call: Call) -> Reply:
    """Create an API token with some of the asker's own scopes, and no longer life than the asker's."""
    body: schemas_tokens.TokenCreate = call.body
    actor = call.actor
    scopes = frozenset(Scope(scope) for scope in body.scopes)
    check_grant(actor, scopes)
    _check_decides(actor, scopes)
    at_ms = now_ms()
    expires_ms = None if body.expires_in_s is None else at_ms + body.expires_in_s * 1000
    if actor.expires_ms is not None:
        expires_ms = min(actor.expires_ms, expires_ms or actor.expires_ms)
    if actor.sign_in_id is not None:
        # A browser's sign-in ends soon; what people make with it is meant to stay.
        expires_ms = None if body.expires_in_s is None else at_ms + body.expires_in_s * 1000
    environments, tags = await _narrowing(call, body)
    secret = mint_token(API_TOKEN_PREFIX)
    record = tokens.ApiTokenRecord(
        id=mint_id("tok"),
        name=body.name,
        digest=token_digest(secret),
        hint=token_hint(secret),
        scopes=tuple(sorted(scopes)),
        created_ms=at_ms,
        created_by=actor.id,
        expires_ms=expires_ms,
        revoked_ms=None,
        last_used_ms=None,
        person_id=actor.person.id if actor.person is not None else None,
        environments=environments,
        tags=tags,
    )

    def insert(connection: Connection) -> None:
        tokens.insert_api_token(connection, record)
        audit.record_audit_event(
            connection,
            at_ms=at_ms,
            actor=actor.id,
            action="token.create",
            target=record.id,
            address=call.address,
            name=record.name,
            scopes=record.scopes,
            person=record.person_id,
            environments=record.environments,
            tags=record.tags,
            expires_ms=record.expires_ms,
        )

    await call.services.database.write(insert)
    call.services.credentials.add_api_token(record)
    return Reply(schemas_tokens.TokenCreated(token=views.token_view(record, now_ms=at_ms), secret=secret), status=201)


async def revoke_token(call: Call) -> Reply:
    """Revoke an API token; the next request with it is refused. With ``made`` also what was made with it, and so on.

    API tokens, of whatever scopes, and join tokens; environments, people and tasks stay.
    """
    query: schemas_tokens.TokenRevoke = call.query
    token_id = call.path["token"]
    at_ms = now_ms()

    def revoke(connection: Connection) -> list[str]:
        ids = [token_id]
        if query.made:
            ids += _made_with(token_id, tokens.list_api_tokens(connection))
        revoked = [one for one in ids if tokens.revoke_api_token(connection, one, at_ms=at_ms)]
        for one in revoked:
            _record_end(connection, call, action="token.revoke", target=one, made_with=token_id, at_ms=at_ms)
        if query.made:
            for one in joins.delete_join_tokens_of(connection, ids):
                _record_end(connection, call, action="join_token.delete", target=one, made_with=token_id, at_ms=at_ms)
                revoked.append(one)
        return revoked

    revoked = await call.services.database.write(revoke)
    if not revoked:
        raise ApiError(
            404, "token_not_found", f"no valid token {token_id!r}", hint="'guardhouse token list' shows them all"
        )
    for one in revoked:
        call.services.credentials.drop_api_token(one)
    return Reply(None, status=204)


def _record_end(connection: Connection, call: Call, *, action: str, target: str, made_with: str, at_ms: int) -> None:
    more: dict[str, Any] = {} if target == made_with else {"made_with": made_with}
    audit.record_audit_event(
        connection, at_ms=at_ms, actor=call.actor.id, action=action, target=target, address=call.address, **more
    )


def _made_with(token_id: str, records: list[tokens.ApiTokenRecord]) -> list[str]:
    """Return the ids of the tokens that were made with this one, with those, and so on."""
    made: list[str] = []
    makers = {token_id}
    while found := [one.id for one in records if one.created_by in makers and one.id not in made]:
        made += found
        makers = set(found)
    return made

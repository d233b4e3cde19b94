"""Routes of API tokens and of who asks. Runs in the hub."""

from typing import Any, cast

from sqlalchemy import Connection

from guardhouse import __version__
from guardhouse.hub.api import schemas, views
from guardhouse.hub.api.door import Call, Reply
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.authorize import Scope, check_grant
from guardhouse.hub.clock import iso_time, now_ms
from guardhouse.hub.credentials import API_TOKEN_PREFIX, mint_id, mint_token, token_digest, token_hint
from guardhouse.hub.store import audit, tokens

__all__ = ["create_token", "list_tokens", "revoke_token", "show_self"]


async def show_self(call: Call) -> Reply:
    """Answer who asks."""
    actor = call.actor
    return Reply(
        schemas.Self(
            id=actor.id,
            name=actor.name,
            scopes=cast(Any, sorted(actor.scopes)),
            expires_at=iso_time(actor.expires_ms),
            hub_version=__version__,
        )
    )


async def list_tokens(call: Call) -> Reply:
    """Answer every API token, without secrets."""
    records = await call.services.database.read(tokens.list_api_tokens)
    at_ms = now_ms()
    return Reply(schemas.TokenList(tokens=[views.token_view(record, now_ms=at_ms) for record in records]))


async def create_token(call: Call) -> Reply:
    """Create an API token with some of the asker's own scopes, and no longer life than the asker's."""
    body: schemas.TokenCreate = call.body
    actor = call.actor
    scopes = frozenset(Scope(scope) for scope in body.scopes)
    check_grant(actor, scopes)
    at_ms = now_ms()
    expires_ms = None if body.expires_in_s is None else at_ms + body.expires_in_s * 1000
    if actor.expires_ms is not None:
        expires_ms = min(actor.expires_ms, expires_ms or actor.expires_ms)
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
        )

    await call.services.database.write(insert)
    call.services.credentials.add_api_token(record)
    return Reply(schemas.TokenCreated(token=views.token_view(record, now_ms=at_ms), secret=secret), status=201)


async def revoke_token(call: Call) -> Reply:
    """Revoke an API token; the next request with it is refused."""
    token_id = call.path["token"]
    at_ms = now_ms()

    def revoke(connection: Connection) -> bool:
        revoked = tokens.revoke_api_token(connection, token_id, at_ms=at_ms)
        if revoked:
            audit.record_audit_event(
                connection,
                at_ms=at_ms,
                actor=call.actor.id,
                action="token.revoke",
                target=token_id,
                address=call.address,
            )
        return revoked

    if not await call.services.database.write(revoke):
        raise ApiError(
            404, "token_not_found", f"no valid token {token_id!r}", hint="'guardhouse token list' shows them all"
        )
    call.services.credentials.drop_api_token(token_id)
    return Reply(None, status=204)

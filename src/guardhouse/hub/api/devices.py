"""Routes of signing a terminal in: it asks for a code, a person who is signed in approves it, it collects its token.

The token is made when it is collected, so its secret is in nobody's memory before. Runs in the hub.
"""

from typing import Any, cast

import msgspec
from sqlalchemy import Connection

from guardhouse.hub.api import device_page, schemas_tokens, views
from guardhouse.hub.api import schemas_device as device_schemas
from guardhouse.hub.api.door import Call, Reply
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.api.sign_in import person_by_password
from guardhouse.hub.authorize import AuthenticationFailed, Principal, Scope, check_grant
from guardhouse.hub.clock import iso_time, now_ms
from guardhouse.hub.credentials import API_TOKEN_PREFIX, mint_id, mint_token, token_digest, token_hint
from guardhouse.hub.people.devices import (
    DEVICE_SIGN_IN_VALID_MS,
    POLL_INTERVAL_S,
    DeviceSignIn,
    DeviceSignInUnknown,
    TooManyDevices,
    normal_user_code,
)
from guardhouse.hub.source import source_of
from guardhouse.hub.store import audit, people, tokens
from guardhouse.hub.store.people import PersonRecord
from guardhouse.hub.store.tokens import ApiTokenRecord

__all__ = [
    "DEVICE_PAGE_PATH",
    "approve_device",
    "begin_device_sign_in",
    "collect_device_token",
    "deny_device",
    "end_own_token",
    "show_device",
    "show_device_page",
    "token_by_password",
]

DEVICE_PAGE_PATH = "/device"


async def show_device_page(call: Call) -> Reply:
    """Answer the page on which a person approves a terminal."""
    del call
    return Reply(
        device_page.PAGE,
        media_type="text/html; charset=utf-8",
        headers={"content-security-policy": device_page.CONTENT_SECURITY_POLICY},
    )


async def begin_device_sign_in(call: Call) -> Reply:
    """Answer a code that a person approves in a browser, and the secret with which the terminal then gets its token."""
    body: device_schemas.DeviceSignInBegin = call.body
    services = call.services
    try:
        made, secret = services.device_sign_ins.begin(
            name=body.name,
            scopes=None if body.scopes is None else tuple(sorted(set(body.scopes))),
            token_life_ms=body.expires_in_s * 1000,
            source=source_of(call.address),
            address=call.address,
            now_ms=now_ms(),
        )
    except TooManyDevices as error:
        raise ApiError(
            429, "too_many_devices", str(error), hint="try again later", retryable=True, retry_after_s=60
        ) from error
    return Reply(
        device_schemas.DeviceSignInBegun(
            device_code=secret,
            user_code=made.user_code,
            verification_uri=services.public_url + DEVICE_PAGE_PATH,
            expires_in_s=DEVICE_SIGN_IN_VALID_MS // 1000,
            interval_s=POLL_INTERVAL_S,
        ),
        status=201,
    )


def _check_signed_in(call: Call) -> None:
    if call.actor.sign_in_id is None:
        raise ApiError(
            403,
            "not_signed_in",
            "an API token cannot approve a device: its token would outlive and outdo it",
            hint=f"sign in at {call.services.public_url}{DEVICE_PAGE_PATH}",
        )


def _find(call: Call) -> DeviceSignIn:
    """Return the terminal that the path names; a wrong code counts as a guess of the caller's source."""
    _check_signed_in(call)
    credentials, at_ms = call.services.credentials, now_ms()
    guess = token_digest(f"device\0{normal_user_code(call.path['user_code'])}")
    source = credentials.check_may_guess(guess, address=call.address)
    try:
        return call.services.device_sign_ins.find(call.path["user_code"], now_ms=at_ms)
    except DeviceSignInUnknown as error:
        credentials.note_guess(source, guess, right=False)
        raise ApiError(
            404, "device_not_found", str(error), hint="'guardhouse login' shows a new code; it works for ten minutes"
        ) from error


async def show_device(call: Call) -> Reply:
    """Answer which terminal waits under a code, so that a person sees what they approve. Needs a sign-in."""
    found = _find(call)
    return Reply(
        device_schemas.DeviceSignInShown(
            user_code=found.user_code,
            name=found.name,
            address=found.address,
            scopes=None if found.scopes is None else cast(Any, list(found.scopes)),
            token_life_s=found.token_life_ms // 1000,
            asked_at=iso_time(found.created_ms) or "",
            expires_at=iso_time(found.expires_ms) or "",
        )
    )


async def approve_device(call: Call) -> Reply:
    """Let the terminal have a token of the caller's person. Needs a sign-in, not a token."""
    found = _find(call)
    if found.scopes is not None:
        check_grant(call.actor, frozenset(Scope(scope) for scope in found.scopes))
    return await _answer(call, found, action="device.approve", person_id=call.actor.id)


async def deny_device(call: Call) -> Reply:
    """Refuse the terminal; it is told so. Needs a sign-in, not a token."""
    return await _answer(call, _find(call), action="device.deny", person_id=None)


async def _answer(call: Call, found: DeviceSignIn, *, action: str, person_id: str | None) -> Reply:
    """Record an answer, then let it count; a second one that comes meanwhile finds no terminal."""
    waiting = call.services.device_sign_ins
    try:
        with waiting.answering(found.user_code, now_ms=now_ms()) as held:
            await _record_answer(call, held, action=action)
            waiting.answer(held, person_id=person_id)
    except DeviceSignInUnknown as error:
        raise ApiError(404, "device_not_found", str(error), hint="'guardhouse login' shows a new code") from error
    return Reply(None, status=204)


async def _record_answer(call: Call, found: DeviceSignIn, *, action: str) -> None:
    def record(connection: Connection) -> None:
        audit.record_audit_event(
            connection,
            at_ms=now_ms(),
            actor=call.actor.id,
            action=action,
            target=found.id,
            address=call.address,
            name=found.name,
            device_address=found.address,
            scopes=found.scopes,
        )

    await call.services.database.write(record)


async def collect_device_token(call: Call) -> Reply:
    """Answer the token once the terminal was approved, and 202 before that."""
    body: device_schemas.DeviceCollect = call.body
    services, at_ms = call.services, now_ms()
    guess = token_digest(body.device_code)
    source = services.credentials.check_may_guess(guess, address=call.address)
    try:
        found = services.device_sign_ins.collect(body.device_code, now_ms=at_ms)
    except DeviceSignInUnknown as error:
        services.credentials.note_guess(source, guess, right=False)
        raise ApiError(401, "bad_device_code", str(error), hint="run 'guardhouse login' again") from error
    if found.is_denied:
        raise ApiError(403, "device_denied", "this device sign-in was refused", hint="ask whoever refused it")
    if found.person_id is None:
        return Reply(device_schemas.DevicePending(interval_s=POLL_INTERVAL_S), status=202)
    try:
        principal = services.credentials.standing(found.person_id, now_ms=at_ms)
    except AuthenticationFailed as error:
        raise ApiError(
            403, "device_denied", "whoever approved it was disabled since", hint="ask an owner or admin"
        ) from error
    scopes = None if found.scopes is None else principal.scopes & frozenset(Scope(one) for one in found.scopes)
    try:
        return await _issue(call, principal, scopes, name=found.name, life_ms=found.token_life_ms, device=found.id)
    except BaseException:  # cancelled too: what was not handed out can be fetched again
        services.device_sign_ins.put_back(found)
        raise


async def token_by_password(call: Call) -> Reply:
    """Answer an API token of whoever's address and password these are, for a terminal without a browser."""
    body: device_schemas.PasswordLogin = call.body
    person = await person_by_password(call, body.email, body.password)
    principal = call.services.credentials.standing(person.id, now_ms=now_ms())
    scopes = None if body.scopes is None else frozenset(Scope(scope) for scope in body.scopes)
    if scopes is not None:
        check_grant(principal, scopes)
    return await _issue(
        call, principal, scopes, name=body.name, life_ms=body.expires_in_s * 1000, how="password", signs_in=person
    )


async def _issue(
    call: Call,
    principal: Principal,
    scopes: frozenset[Scope] | None,
    *,
    name: str,
    life_ms: int,
    signs_in: PersonRecord | None = None,
    device: str | None = None,
    how: str | None = None,
) -> Reply:
    """Store a token of the person's own and answer it; with ``scopes`` None it may do all that they may."""
    services, at_ms = call.services, now_ms()
    if scopes is None:
        # "admin" contains the others.
        scopes = frozenset({Scope.ADMIN}) if principal.is_admin else principal.scopes
    secret = mint_token(API_TOKEN_PREFIX)
    record = ApiTokenRecord(
        id=mint_id("tok"),
        name=name,
        digest=token_digest(secret),
        hint=token_hint(secret),
        scopes=tuple(sorted(scopes)),
        created_ms=at_ms,
        created_by=principal.id,
        expires_ms=at_ms + life_ms,
        revoked_ms=None,
        last_used_ms=None,
        person_id=principal.id,
    )
    person = None if signs_in is None else msgspec.structs.replace(signs_in, last_sign_in_ms=at_ms)

    def insert(connection: Connection) -> None:
        if person is not None:
            people.update_person(connection, person.id, last_sign_in_ms=at_ms, password=person.password)
        tokens.insert_api_token(connection, record)
        audit.record_audit_event(
            connection,
            at_ms=at_ms,
            actor=principal.id,
            action="token.create",
            target=record.id,
            address=call.address,
            name=record.name,
            scopes=record.scopes,
            person=record.person_id,
            expires_ms=record.expires_ms,
            device=device,
            how=how,
        )

    await services.database.write(insert)
    if person is not None:
        services.credentials.put_person(person)
    services.credentials.add_api_token(record)
    return Reply(schemas_tokens.TokenCreated(token=views.token_view(record, now_ms=at_ms), secret=secret), status=201)


async def end_own_token(call: Call) -> Reply:
    """Revoke the API token that asks, whatever its scopes: a terminal signs out."""
    token_id, at_ms = call.actor.id, now_ms()

    def revoke(connection: Connection) -> bool:
        revoked = tokens.revoke_api_token(connection, token_id, at_ms=at_ms)
        if revoked:
            audit.record_audit_event(
                connection,
                at_ms=at_ms,
                actor=token_id,
                action="token.revoke",
                target=token_id,
                address=call.address,
            )
        return revoked

    if not await call.services.database.write(revoke):
        raise ApiError(
            400, "no_token", "this request was not made with an API token of this hub", hint="sign out instead"
        )
    call.services.credentials.drop_api_token(token_id)
    return Reply(None, status=204)

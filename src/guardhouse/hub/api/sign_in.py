"""Routes of signing in and out, of one-time links and of one's own password. Runs in the hub."""

import hashlib
import math
from functools import partial

import msgspec
import structlog
from sqlalchemy import Connection

from guardhouse.hub.api import schemas_people as schemas
from guardhouse.hub.api import tokens as token_routes
from guardhouse.hub.api.browser import clear_cookie, sign_in_cookie
from guardhouse.hub.api.door import Call, Reply
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.api.people import end_sign_ins
from guardhouse.hub.authorize import ROLE_SCOPES, SIGN_IN_ABSOLUTE_MS, Principal, Role
from guardhouse.hub.clock import iso_time, now_ms, steady_ms
from guardhouse.hub.credentials import SIGN_IN_PREFIX, mint_id, mint_token, token_digest
from guardhouse.hub.oidc.provider import ProviderUnavailable
from guardhouse.hub.oidc.sessions import end_session_url
from guardhouse.hub.people.passwords import check_password
from guardhouse.hub.store import audit, people
from guardhouse.hub.store.people import LinkRecord, PersonRecord, SignInRecord

__all__ = [
    "accept_link",
    "change_password",
    "end_sign_in",
    "list_sign_ins",
    "own_person",
    "person_by_password",
    "show_welcome",
    "sign_in",
    "sign_out",
    "signed_in",
]

_log = structlog.get_logger("guardhouse.hub.people")

_WELCOME = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Guardhouse hub</title></head>
<body>
<main>
<h1>Welcome</h1>
<p>The address of this page holds a secret that works once. Set your password with it from a terminal:</p>
<p><code>guardhouse user accept 'THE WHOLE ADDRESS'</code></p>
</main>
</body>
</html>
"""


async def show_welcome(call: Call) -> Reply:
    """Answer the page that a one-time link opens; the link's secret never reaches the hub this way."""
    del call
    return Reply(_WELCOME.encode(), media_type="text/html; charset=utf-8")


async def sign_in(call: Call) -> Reply:
    """Sign a person in by their password; the answer sets the cookie. Every failure reads alike."""
    body: schemas.SignInRequest = call.body
    return await signed_in(call, await person_by_password(call, body.email, body.password), how="password")


async def person_by_password(call: Call, address: str, password: str) -> PersonRecord:
    """Return whose address and password these are, with a newer hash where the stored one is due for it.

    Raises:
        ApiError: 401, they are nobody's, or 429, too many wrong ones came for this address or from there.
    """
    services = call.services
    at_ms = now_ms()
    email = address.lower()
    guess = hashlib.sha256(f"{email}\0{password}".encode("utf-8", "surrogatepass")).digest()

    def check() -> str:
        source = services.credentials.check_may_guess(guess, address=call.address)
        wait_s = services.lockout.wait_s(email, now_ms=steady_ms())
        if wait_s:
            raise ApiError(
                429,
                "locked",
                f"too many wrong passwords for this address; try again in {math.ceil(wait_s)} s",
                hint="an owner or admin can make a link for a new password",
                retryable=True,
            )
        return source

    source = check()
    person = services.credentials.person_by_email(email)
    usable = person is not None and person.disabled_ms is None
    right = await services.passwords.is_right(password, person.password if person and usable else None, check=check)
    services.credentials.note_guess(source, guess, right=right)
    locks = services.lockout.note(email, right=right, now_ms=steady_ms())
    if not right or person is None:
        await _record_failure(call, email, person, locks=locks, at_ms=at_ms)
        raise ApiError(401, "sign_in_failed", "address or password is wrong", hint="ask an owner or admin for a link")
    if person.password is not None and services.passwords.needs_rehash(person.password):
        person = msgspec.structs.replace(person, password=await services.passwords.hash(password))
    return person


async def _record_failure(call: Call, email: str, person: PersonRecord | None, *, locks: bool, at_ms: int) -> None:
    _log.warning("sign_in_failed", address=call.address, locked=locks)

    def note(connection: Connection) -> None:
        audit.record_audit_event(
            connection,
            at_ms=at_ms,
            actor="anonymous",
            action="sign_in.fail",
            target=person.id if person is not None else None,
            address=call.address,
            email=email,
            locked=locks,
        )

    await call.services.database.write(note, durable=False)


async def signed_in(
    call: Call, person: PersonRecord, *, how: str, link: LinkRecord | None = None, id_token: str | None = None
) -> Reply:
    """Store a sign-in and answer who it is, with the cookie; ``id_token`` is what the provider said, if it did."""
    services = call.services
    at_ms = now_ms()
    secret = mint_token(SIGN_IN_PREFIX)
    person = msgspec.structs.replace(person, last_sign_in_ms=at_ms)
    record = SignInRecord(
        id=mint_id("sin"),
        person_id=person.id,
        digest=token_digest(secret),
        created_ms=at_ms,
        rotated_ms=at_ms,
        last_used_ms=at_ms,
        expires_ms=at_ms + SIGN_IN_ABSOLUTE_MS,
        address=call.address,
        user_agent=call.user_agent,
    )

    def store(connection: Connection) -> None:
        if link is not None:
            _use_link(connection, person, link, call, at_ms=at_ms)
        else:
            people.update_person(connection, person.id, last_sign_in_ms=at_ms, password=person.password)
        people.insert_sign_in(connection, record)
        audit.record_audit_event(
            connection,
            at_ms=at_ms,
            actor=person.id,
            action="sign_in.ok",
            target=person.id,
            address=call.address,
            email=person.email,
            how=how,
            sign_in=record.id,
        )

    await services.database.write(store)
    services.credentials.put_person(person)
    services.credentials.add_sign_in(record)
    if id_token is not None:
        services.provider_sessions.keep(record.id, id_token)
    services.lockout.note(person.email, right=True, now_ms=steady_ms())
    principal = Principal(
        id=person.id,
        name=person.name,
        scopes=ROLE_SCOPES[Role(person.role)],
        expires_ms=record.expires_ms,
        person=person,
        teams=services.credentials.teams_of(person.id),
        sign_in_id=record.id,
    )
    return Reply(token_routes.self_view(principal), headers={"set-cookie": sign_in_cookie(services.public_url, secret)})


def _use_link(connection: Connection, person: PersonRecord, link: LinkRecord, call: Call, *, at_ms: int) -> None:
    if people.use_link(connection, link.digest, now_ms=at_ms) is None:
        raise _bad_link()
    if link.person_id is None:
        if people.count_active_owners(connection):
            raise _bad_link()
        people.insert_person(connection, person)
    else:
        people.update_person(connection, person.id, password=person.password, name=person.name, last_sign_in_ms=at_ms)
    audit.record_audit_event(
        connection,
        at_ms=at_ms,
        actor=person.id,
        action="link.use",
        target=person.id,
        address=call.address,
        purpose=link.purpose,
        email=person.email,
        role=person.role,
    )


def _bad_link() -> ApiError:
    return ApiError(
        401, "bad_link", "this link is unknown, over or was used already", hint="ask an owner or admin for a new one"
    )


async def accept_link(call: Call) -> Reply:
    """Set a password with a one-time link, and sign in with it. The first owner's link makes the owner."""
    body: schemas.LinkAccept = call.body
    services = call.services
    at_ms = now_ms()
    digest = token_digest(body.token)
    source = services.credentials.check_may_guess(digest, address=call.address)
    link = await services.database.read(partial(people.find_link, digest=digest, now_ms=at_ms))
    if link is None:
        services.credentials.note_guess(source, digest, right=False)
        raise _bad_link()
    if link.person_id is None:
        if body.email is None:
            raise ApiError(400, "invalid_body", "the first owner gives an email address", hint="send email and name")
        person = PersonRecord(
            id=mint_id("usr"),
            email=body.email.lower(),
            name=body.name or body.email.partition("@")[0],
            role=Role.OWNER.value,
            created_ms=at_ms,
            created_by=link.created_by,
        )
    else:
        found = services.credentials.person(link.person_id)
        if found is None or found.disabled_ms is not None:
            raise _bad_link()
        person = msgspec.structs.replace(found, name=body.name or found.name)
    check_password(body.password, email=person.email, name=person.name)
    person = msgspec.structs.replace(person, password=await services.passwords.hash(body.password))
    if link.person_id is not None:
        await end_sign_ins(call, person.id)
    return await signed_in(call, person, how="link", link=link)


async def sign_out(call: Call) -> Reply:
    """End this browser's sign-in; 200 says where to sign out at the provider, where it was made there.

    With an API token there is nothing to end.
    """
    sign_in_id, services = call.actor.sign_in_id, call.services
    if sign_in_id is None:
        raise ApiError(400, "not_signed_in", "an API token is not signed in", hint="revoke the token instead")
    began_ms = next(
        (
            one.created_ms
            for one in services.credentials.sign_ins_of(call.actor.id, now_ms=now_ms())
            if one.id == sign_in_id
        ),
        services.started_ms,
    )
    id_token = services.provider_sessions.take(sign_in_id)
    await _end(call, sign_in_id)
    url = None
    # What a hub before this one knew of a sign-in is forgotten: then the person's link to the provider tells.
    if id_token is not None or began_ms < services.started_ms:
        url = await _end_session_url(call, id_token)
    headers = {"set-cookie": clear_cookie(services.public_url)}
    if url is None:
        return Reply(None, status=204, headers=headers)
    return Reply(schemas.SignedOut(end_session_url=url), headers=headers)


async def _end_session_url(call: Call, id_token: str | None) -> str | None:
    """Return where the browser is signed out at the provider; None where it has no such place or does not answer."""
    provider, services = call.services.provider, call.services
    if provider is None or own_person(call).issuer != provider.settings.issuer:
        return None
    try:
        discovery = await provider.discovery()
    except ProviderUnavailable as error:
        # Signed out here all the same; the provider's own session goes on, as it says itself when it is back.
        _log.warning("provider_sign_out_skipped", error=str(error))
        return None
    if discovery.end_session_endpoint is None:
        return None
    return end_session_url(
        discovery.end_session_endpoint,
        client_id=provider.settings.client_id,
        back_to=f"{services.public_url}/",
        id_token=id_token,
    )


async def _end(call: Call, sign_in_id: str) -> None:
    at_ms = now_ms()

    def end(connection: Connection) -> None:
        people.delete_sign_ins(connection, ids=[sign_in_id])
        audit.record_audit_event(
            connection,
            at_ms=at_ms,
            actor=call.actor.id,
            action="sign_out",
            target=call.actor.id,
            address=call.address,
            sign_in=sign_in_id,
        )

    call.services.credentials.drop_sign_ins([sign_in_id])
    call.services.provider_sessions.forget([sign_in_id])
    await call.services.database.write(end)


def own_person(call: Call) -> PersonRecord:
    """Return the caller's person.

    Raises:
        ApiError: 400, a token that belongs to nobody.
    """
    if call.actor.person is None:
        raise ApiError(400, "no_person", "this API token belongs to no person", hint="sign in, or use a token of yours")
    return call.actor.person


async def list_sign_ins(call: Call) -> Reply:
    """Answer where the caller's person is signed in."""
    person = own_person(call)
    found = call.services.credentials.sign_ins_of(person.id, now_ms=now_ms())
    return Reply(
        schemas.SignInList(
            sign_ins=[
                schemas.SignInShown(
                    id=one.id,
                    current=one.id == call.actor.sign_in_id,
                    created_at=iso_time(one.created_ms) or "",
                    last_used_at=iso_time(one.last_used_ms) or "",
                    expires_at=iso_time(one.expires_ms) or "",
                    address=one.address,
                    user_agent=one.user_agent,
                )
                for one in found
            ]
        )
    )


async def end_sign_in(call: Call) -> Reply:
    """End one of the caller's own sign-ins."""
    person = own_person(call)
    wanted = call.path["sign_in"]
    if wanted not in {one.id for one in call.services.credentials.sign_ins_of(person.id, now_ms=now_ms())}:
        raise ApiError(404, "sign_in_not_found", f"no sign-in {wanted!r} of yours", hint="list them first")
    await _end(call, wanted)
    return Reply(None, status=204)


async def change_password(call: Call) -> Reply:
    """Change one's own password; every other sign-in ends."""
    body: schemas.PasswordChange = call.body
    services = call.services
    person = own_person(call)
    at_ms = now_ms()

    def check() -> None:
        wait_s = services.lockout.wait_s(person.email, now_ms=steady_ms())
        if wait_s:
            raise ApiError(
                429, "locked", f"too many wrong passwords; try again in {math.ceil(wait_s)} s", retryable=True
            )

    check()
    right = await services.passwords.is_right(body.current, person.password, check=check)
    services.lockout.note(person.email, right=right, now_ms=steady_ms())
    if not right:
        raise ApiError(403, "wrong_password", "the current password is wrong", hint="ask for a link if it is lost")
    check_password(body.new, email=person.email, name=person.name)
    changed = msgspec.structs.replace(person, password=await services.passwords.hash(body.new))

    def store(connection: Connection) -> None:
        people.update_person(connection, person.id, password=changed.password)
        audit.record_audit_event(
            connection,
            at_ms=at_ms,
            actor=call.actor.id,
            action="person.password",
            target=person.id,
            address=call.address,
        )

    await services.database.write(store)
    services.credentials.put_person(changed)
    await end_sign_ins(call, person.id, but=call.actor.sign_in_id)
    return Reply(None, status=204)

"""Routes of signing in through the identity provider, and of linking one's person to it. Runs in the hub."""

import hashlib

import msgspec
import structlog
from sqlalchemy import Connection

from guardhouse.hub.api import schemas_oidc as schemas
from guardhouse.hub.api.browser import clear_flow_cookie, flow_cookie, flow_cookie_name
from guardhouse.hub.api.door import Call, Reply
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.api.people import end_sign_ins
from guardhouse.hub.api.sign_in import own_person, signed_in
from guardhouse.hub.authorize import Role
from guardhouse.hub.clock import now_ms
from guardhouse.hub.credentials import mint_id
from guardhouse.hub.oidc.flow import Flow, FlowRefused, authorization_url
from guardhouse.hub.oidc.persons import (
    Identity,
    PersonRefused,
    add_userinfo,
    decide_person,
    lacks_claims,
    read_identity,
    wanted_groups,
)
from guardhouse.hub.oidc.provider import Provider
from guardhouse.hub.oidc.tokens import TokenRefused, check_id_token
from guardhouse.hub.store import audit, people, teams
from guardhouse.hub.store.people import PersonRecord

__all__ = ["begin_link", "begin_sign_in", "finish_sign_in", "show_sign_in_methods", "unlink_person"]

_log = structlog.get_logger("guardhouse.hub.oidc")

CALLBACK_PATH = "/api/v1/sign-in/oidc/callback"


def _provider(call: Call) -> Provider:
    if call.services.provider is None:
        raise ApiError(
            404,
            "no_provider",
            "this hub has no identity provider",
            hint="sign in with a password, or see --oidc-issuer",
        )
    return call.services.provider


async def show_sign_in_methods(call: Call) -> Reply:
    """Answer how people sign in here."""
    provider = call.services.provider
    return Reply(schemas.SignInMethods(password=True, oidc_issuer=provider.settings.issuer if provider else None))


async def _leave(call: Call, *, person_id: str | None, to: str | None = None) -> tuple[str, str]:
    """Return where the provider asks, and the cookie of the sign-in on its way."""
    provider, services = _provider(call), call.services
    discovery = await provider.discovery()
    flow, cookie = services.oidc_flows.begin(now_ms=now_ms(), person_id=person_id, to=to)
    url = authorization_url(
        discovery.authorization_endpoint,
        flow,
        client_id=provider.settings.client_id,
        redirect_uri=services.public_url + CALLBACK_PATH,
        scopes=provider.settings.scopes,
    )
    return url, flow_cookie(services.public_url, cookie)


async def begin_sign_in(call: Call) -> Reply:
    """Send the browser to the identity provider."""
    query: schemas.OidcBegin = call.query
    url, cookie = await _leave(call, person_id=None, to=query.to)
    return Reply(None, status=302, headers={"location": url}, cookies=(cookie,))


async def begin_link(call: Call) -> Reply:
    """Answer where to go to link one's own person to an identity of the provider. Needs a sign-in, not a token."""
    person = own_person(call)
    if call.actor.sign_in_id is None:
        raise ApiError(
            403, "not_signed_in", "an API token cannot link a person", hint="sign in with the password first"
        )
    url, cookie = await _leave(call, person_id=person.id)
    return Reply(schemas.LinkBegun(url=url), cookies=(cookie,))


async def finish_sign_in(call: Call) -> Reply:
    """Take what the provider sends the browser back with, and sign in. Refusals read alike; the log has the reason."""
    query: schemas.OidcCallback = call.query
    provider, services = _provider(call), call.services
    at_ms = now_ms()
    guess = hashlib.sha256(f"oidc\0{query.state}".encode("utf-8", "replace")).digest()
    source = services.credentials.check_may_guess(guess, address=call.address)
    try:
        flow = services.oidc_flows.finish(
            call.cookies.get(flow_cookie_name(services.public_url)), state=query.state, now_ms=at_ms
        )
        identity, id_token = await _identity(call, provider, flow)
        person, linking = await _person(call, provider, flow, identity)
    except (FlowRefused, TokenRefused, PersonRefused) as error:
        services.credentials.note_guess(source, guess, right=False)
        await _record_failure(call, str(error), at_ms=at_ms)
        shown = str(error) if not isinstance(error, TokenRefused) else "the provider's answer proves nothing here"
        raise ApiError(
            401, "sign_in_failed", shown, hint="begin again; the hub's audit log has the reason of a refusal"
        ) from error
    if linking:
        await end_sign_ins(call, person.id, but=None)
    reply = await signed_in(call, person, how="oidc", id_token=id_token)
    cookies = (reply.headers["set-cookie"], clear_flow_cookie(services.public_url))
    return Reply(None, status=303, headers={"location": f"{services.public_url}/{flow.to or ''}"}, cookies=cookies)


async def _identity(call: Call, provider: Provider, flow: Flow) -> tuple[Identity, str]:
    """Return who the provider says it is, and the ID token that says so."""
    query: schemas.OidcCallback = call.query
    settings = provider.settings
    discovery = await provider.discovery()
    # RFC 9207: an answer of another provider must not reach this one's token endpoint.
    if query.iss != settings.issuer and (query.iss is not None or discovery.names_issuer):
        raise TokenRefused(f"the answer is of the issuer {query.iss!r}")
    if query.error is not None or query.code is None:
        raise TokenRefused(f"the provider refused: {query.error or 'no code'} {query.error_description or ''}".strip())
    given = await provider.exchange(
        query.code, verifier=flow.verifier, redirect_uri=call.services.public_url + CALLBACK_PATH
    )
    claims = await provider.with_keys(
        lambda keys: check_id_token(
            given.id_token,
            keys,
            issuer=settings.issuer,
            client_id=settings.client_id,
            nonce=flow.nonce,
            now_s=now_ms() / 1000,
        )
    )
    if lacks_claims(claims, settings):
        claims = add_userinfo(claims, await provider.userinfo(given.access_token, subject=claims["sub"]))
    return read_identity(claims, settings), given.id_token


async def _person(call: Call, provider: Provider, flow: Flow, identity: Identity) -> tuple[PersonRecord, bool]:
    """Return who signs in, stored, and whether they were linked to the provider just now."""
    services, settings = call.services, provider.settings
    at_ms = now_ms()

    def store(connection: Connection) -> tuple[PersonRecord, bool]:
        linked = people.find_person_by_subject(connection, issuer=identity.issuer, subject=identity.subject)
        same_email = people.find_person(connection, identity.email) if identity.email is not None else None
        linking = people.find_person(connection, flow.person_id) if flow.person_id is not None else None
        if flow.person_id is not None and linking is None:
            raise PersonRefused("the person to link is gone")
        decision = decide_person(identity, settings, linked=linked, same_email=same_email, linking=linking)
        person = decision.person
        if person is None:
            person = _new_person(identity, at_ms=at_ms)
            people.insert_person(connection, person)
        if decision.action == "link":
            # An invitation that is still on its way would be a second key to the same account.
            people.delete_links(connection, person.id)
        role, wanted = wanted_groups(identity, settings, role=person.role)
        person = (
            people.update_person(connection, person.id, role=role, issuer=identity.issuer, subject=identity.subject)
            or person
        )
        changed = _set_teams(connection, person, wanted, at_ms=at_ms)
        if decision.action != "known" or changed or role != (decision.person or person).role:
            audit.record_audit_event(
                connection,
                at_ms=at_ms,
                actor=person.id,
                action={"known": "person.mapped", "link": "person.link", "make": "person.provision"}[decision.action],
                target=person.id,
                address=call.address,
                email=person.email,
                issuer=identity.issuer,
                subject=identity.subject,
                role=role,
                teams=changed,
            )
        return person, decision.action == "link"

    person, linking = await services.database.write(store)
    services.credentials.put_person(person)
    services.credentials.put_memberships(await services.database.read(people.list_memberships))
    return person, linking


def _new_person(identity: Identity, *, at_ms: int) -> PersonRecord:
    if identity.email is None:
        raise PersonRefused("the provider has verified no address")
    return PersonRecord(
        id=mint_id("usr"),
        email=identity.email,
        name=identity.name or identity.email.partition("@")[0],
        role=Role.MEMBER.value,
        created_ms=at_ms,
        created_by="oidc",
    )


def _set_teams(connection: Connection, person: PersonRecord, wanted: dict[str, bool], *, at_ms: int) -> dict[str, bool]:
    """Put a person into teams and take them out of others; return what changed. A team that is not there is logged."""
    changed = {}
    for reference, inside in wanted.items():
        team = teams.find_team(connection, reference)
        if team is None:
            _log.warning("mapped_team_missing", team=reference)
        elif inside and people.add_member(connection, team.id, person.id, at_ms=at_ms, actor="oidc"):
            changed[team.id] = True
        elif not inside and people.remove_member(connection, team.id, person.id):
            changed[team.id] = False
    return changed


async def _record_failure(call: Call, reason: str, *, at_ms: int) -> None:
    _log.warning("sign_in_failed", address=call.address, how="oidc", reason=reason)

    def note(connection: Connection) -> None:
        audit.record_audit_event(
            connection,
            at_ms=at_ms,
            actor="anonymous",
            action="sign_in.fail",
            target=None,
            address=call.address,
            how="oidc",
            reason=reason[:512],
        )

    await call.services.database.write(note, durable=False)


async def unlink_person(call: Call) -> Reply:
    """Forget a person's identity at the provider, and end their sign-ins. The last owner keeps a way in."""
    reference = call.path["person"]
    at_ms = now_ms()

    def unlink(connection: Connection) -> PersonRecord | None:
        found = people.find_person(connection, reference)
        if found is None:
            return None
        if found.role == Role.OWNER and not call.actor.is_owner:
            raise ApiError(403, "access_denied", "only owners change owners", hint="ask an owner")
        owners = people.count_active_owners(connection)
        record = people.update_person(connection, found.id, issuer=None, subject=None)
        if owners and not people.count_active_owners(connection):
            raise ApiError(
                409, "last_owner", f"{found.email!r} is the last owner who can sign in", hint="set a password first"
            )
        audit.record_audit_event(
            connection,
            at_ms=at_ms,
            actor=call.actor.id,
            action="person.unlink",
            target=found.id,
            address=call.address,
            email=found.email,
            issuer=found.issuer,
            subject=found.subject,
        )
        return record

    record = await call.services.database.write(unlink)
    if record is None:
        raise ApiError(
            404, "person_not_found", f"no person {reference!r}", hint="'guardhouse user list' shows everybody"
        )
    call.services.credentials.put_person(msgspec.structs.replace(record, issuer=None, subject=None))
    await end_sign_ins(call, record.id)
    return Reply(None, status=204)

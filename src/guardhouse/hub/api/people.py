"""Routes of people: inviting, changing, disabling, their teams. Runs in the hub."""

from functools import partial
from typing import Any

from sqlalchemy import Connection

from guardhouse.hub.api import schemas_people as schemas
from guardhouse.hub.api import views
from guardhouse.hub.api.door import Call, Reply
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.authorize import AccessDenied, Role
from guardhouse.hub.clock import iso_time, now_ms
from guardhouse.hub.credentials import LINK_PREFIX, mint_id, mint_token, token_digest
from guardhouse.hub.store import audit, people, teams
from guardhouse.hub.store.people import LinkRecord, PersonRecord

__all__ = [
    "add_team_member",
    "invite_person",
    "list_people",
    "list_team_members",
    "make_link",
    "person_not_found",
    "remove_team_member",
    "reset_person",
    "show_person",
    "update_person",
]

INVITE_MS = 7 * 86_400_000
RESET_MS = 86_400_000


def make_link(*, purpose: str, person_id: str | None, actor: str, at_ms: int, valid_ms: int) -> tuple[LinkRecord, str]:
    """Return a new one-time link's record and its secret."""
    secret = mint_token(LINK_PREFIX)
    record = LinkRecord(
        id=mint_id("lnk"),
        digest=token_digest(secret),
        purpose=purpose,
        person_id=person_id,
        created_ms=at_ms,
        created_by=actor,
        expires_ms=at_ms + valid_ms,
    )
    return record, secret


def link_url(public_url: str, secret: str) -> str:
    """Return the address with the secret behind ``#``: browsers send that part to nobody."""
    return f"{public_url}/welcome#{secret}"


def person_not_found(reference: str) -> ApiError:
    """Return the 404 of a person."""
    return ApiError(404, "person_not_found", f"no person {reference!r}", hint="'guardhouse user list' shows everybody")


def _check_owner(call: Call, *, role: str) -> None:
    """Refuse unless the caller may make or change somebody with ``role``."""
    if role == Role.OWNER and not call.actor.is_owner:
        raise AccessDenied(f"{call.actor.name!r} is no owner: only owners make, change or disable owners")


async def _person(call: Call) -> PersonRecord:
    reference = call.path["person"]
    found = await call.services.database.read(partial(people.find_person, id_or_email=reference))
    if found is None:
        raise person_not_found(reference)
    return found


async def _memberships(call: Call) -> dict[str, frozenset[str]]:
    memberships = await call.services.database.read(people.list_memberships)
    call.services.credentials.put_memberships(memberships)
    return memberships


async def _view(call: Call, record: PersonRecord) -> schemas.Person:
    return views.person_view(record, (await _memberships(call)).get(record.id, frozenset()))


async def list_people(call: Call) -> Reply:
    """Answer everybody of the account."""
    records = await call.services.database.read(people.list_people)
    memberships = await _memberships(call)
    return Reply(
        schemas.PersonList(
            people=[views.person_view(record, memberships.get(record.id, frozenset())) for record in records]
        )
    )


async def show_person(call: Call) -> Reply:
    """Answer one person."""
    return Reply(await _view(call, await _person(call)))


async def invite_person(call: Call) -> Reply:
    """Make a person and a one-time link with which they set their password."""
    body: schemas.PersonInvite = call.body
    _check_owner(call, role=body.role)
    at_ms = now_ms()
    email = body.email.lower()
    record = PersonRecord(
        id=mint_id("usr"),
        email=email,
        name=body.name or email.partition("@")[0],
        role=body.role,
        created_ms=at_ms,
        created_by=call.actor.id,
    )
    link, secret = make_link(
        purpose="invite", person_id=record.id, actor=call.actor.id, at_ms=at_ms, valid_ms=INVITE_MS
    )

    def insert(connection: Connection) -> None:
        people.insert_person(connection, record)
        joined = []
        for reference in dict.fromkeys(body.teams):
            team = teams.find_team(connection, reference)
            if team is None:
                raise ApiError(404, "team_not_found", f"no team {reference!r}", hint="create the team first")
            people.add_member(connection, team.id, record.id, at_ms=at_ms, actor=call.actor.id)
            joined.append(team.id)
        people.insert_link(connection, link)
        _record(connection, call, "person.invite", record.id, at_ms=at_ms, email=email, role=record.role, teams=joined)

    await call.services.database.write(insert)
    call.services.credentials.put_person(record)
    return Reply(
        schemas.LinkCreated(
            person=await _view(call, record),
            link=link_url(call.services.public_url, secret),
            expires_at=iso_time(link.expires_ms) or "",
        ),
        status=201,
    )


async def update_person(call: Call) -> Reply:
    """Change name or role, disable or enable. The last owner who can sign in stays one."""
    body: schemas.PersonUpdate = call.body
    found = await _person(call)
    _check_owner(call, role=found.role)
    if body.role is not None:
        _check_owner(call, role=body.role)
    at_ms = now_ms()
    values: dict[str, Any] = {}
    if body.name is not None:
        values["name"] = body.name
    if body.role is not None:
        values["role"] = body.role
    if body.disabled is not None:
        values["disabled_ms"] = at_ms if body.disabled else None

    def change(connection: Connection) -> PersonRecord | None:
        owners = people.count_active_owners(connection)
        record = people.update_person(connection, found.id, **values)
        if owners and not people.count_active_owners(connection):
            raise ApiError(
                409, "last_owner", f"{found.email!r} is the last owner who can sign in", hint="make another owner first"
            )
        _record(connection, call, "person.update", found.id, at_ms=at_ms, email=found.email, **_said(body))
        return record

    record = await call.services.database.write(change)
    if record is None:
        raise person_not_found(call.path["person"])
    call.services.credentials.put_person(record)
    if body.disabled:
        await end_sign_ins(call, record.id)
    return Reply(await _view(call, record))


def _said(body: schemas.PersonUpdate) -> dict[str, object]:
    return {name: getattr(body, name) for name in ("name", "role", "disabled") if getattr(body, name) is not None}


async def end_sign_ins(call: Call, person_id: str, *, but: str | None = None) -> None:
    """End a person's sign-ins, all or all ``but`` one."""
    credentials = call.services.credentials
    ids = [one.id for one in credentials.sign_ins_of(person_id, now_ms=now_ms()) if one.id != but]
    credentials.drop_sign_ins(ids)
    call.services.provider_sessions.forget(ids)
    await call.services.database.write(partial(people.delete_sign_ins, ids=ids))


async def reset_person(call: Call) -> Reply:
    """Make a one-time link for a new password. The old one works until the link is used."""
    found = await _person(call)
    _check_owner(call, role=found.role)
    at_ms = now_ms()
    link, secret = make_link(purpose="reset", person_id=found.id, actor=call.actor.id, at_ms=at_ms, valid_ms=RESET_MS)

    def insert(connection: Connection) -> None:
        people.insert_link(connection, link)
        _record(connection, call, "person.reset", found.id, at_ms=at_ms, email=found.email)

    await call.services.database.write(insert)
    return Reply(
        schemas.LinkCreated(
            person=await _view(call, found),
            link=link_url(call.services.public_url, secret),
            expires_at=iso_time(link.expires_ms) or "",
        )
    )


# Teams.


async def list_team_members(call: Call) -> Reply:
    """Answer who is in a team."""
    team = await _team(call)
    members = await call.services.database.read(partial(people.list_members, team_id=team.id))
    return Reply(
        schemas.MemberList(members=[schemas.Member(id=one.id, name=one.name, email=one.email) for one in members])
    )


async def _team(call: Call) -> teams.TeamRecord:
    reference = call.path["team"]
    found = await call.services.database.read(partial(teams.find_team, id_or_name=reference))
    if found is None:
        raise ApiError(404, "team_not_found", f"no team {reference!r}", hint="'guardhouse team list' shows them all")
    return found


async def add_team_member(call: Call) -> Reply:
    """Put a person in a team: they see and edit its environments from now on."""
    team, person = await _team(call), await _person(call)
    at_ms = now_ms()

    def add(connection: Connection) -> None:
        if people.add_member(connection, team.id, person.id, at_ms=at_ms, actor=call.actor.id):
            _record(connection, call, "team.member.add", team.id, at_ms=at_ms, person=person.id, email=person.email)

    await call.services.database.write(add)
    await _memberships(call)
    return Reply(None, status=204)


async def remove_team_member(call: Call) -> Reply:
    """Take a person out of a team."""
    team, person = await _team(call), await _person(call)
    at_ms = now_ms()

    def remove(connection: Connection) -> None:
        if people.remove_member(connection, team.id, person.id):
            _record(connection, call, "team.member.remove", team.id, at_ms=at_ms, person=person.id, email=person.email)

    await call.services.database.write(remove)
    await _memberships(call)
    return Reply(None, status=204)


def _record(connection: Connection, call: Call, action: str, target: str, *, at_ms: int, **detail: Any) -> None:
    audit.record_audit_event(
        connection, at_ms=at_ms, actor=call.actor.id, action=action, target=target, address=call.address, **detail
    )

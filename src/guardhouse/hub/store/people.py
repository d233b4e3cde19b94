"""People, the teams they are in, their sign-ins and one-time links.

Knows nothing of passwords beyond their hash, and nothing of who may change what. Runs in the hub's store threads.
"""

from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from guardhouse.hub.schema import ACCOUNT_ID, one_time_links, people, sign_ins, team_members
from guardhouse.hub.store.environments import NameTaken

__all__ = [
    "LinkRecord",
    "PersonRecord",
    "SignInRecord",
    "add_member",
    "count_active_owners",
    "delete_links",
    "delete_sign_ins",
    "find_link",
    "find_person",
    "find_person_by_subject",
    "insert_link",
    "insert_person",
    "insert_sign_in",
    "list_members",
    "list_memberships",
    "list_people",
    "list_sign_ins",
    "remove_member",
    "touch_sign_in",
    "update_person",
    "use_link",
]


class PersonRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One person; ``password`` is an argon2id hash or None. Times are Unix ms."""

    id: str
    email: str
    name: str
    role: str
    password: str | None = None
    issuer: str | None = None
    subject: str | None = None
    created_ms: int
    created_by: str
    disabled_ms: int | None = None
    last_sign_in_ms: int | None = None


class SignInRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A browser that is signed in. Times are Unix ms; ``expires_ms`` is the absolute end."""

    id: str
    person_id: str
    digest: bytes
    created_ms: int
    rotated_ms: int
    last_used_ms: int
    expires_ms: int
    address: str | None
    user_agent: str | None


class LinkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A link that works once. ``person_id`` is None for the first owner's."""

    id: str
    digest: bytes
    purpose: str
    person_id: str | None
    created_ms: int
    created_by: str
    expires_ms: int


_PERSON = [people.c[name] for name in PersonRecord.__struct_fields__]
_SIGN_IN = [sign_ins.c[name] for name in SignInRecord.__struct_fields__]
_LINK = [one_time_links.c[name] for name in LinkRecord.__struct_fields__]


def _email_taken(email: str) -> NameTaken:
    return NameTaken(
        f"email taken: {email!r} is a person of this account already; find them with 'guardhouse user list'"
    )


def insert_person(connection: Connection, record: PersonRecord) -> None:
    """Store a new person.

    Raises:
        NameTaken: the account has one with this address.
    """
    try:
        connection.execute(insert(people).values(account_id=ACCOUNT_ID, **msgspec.structs.asdict(record)))
    except IntegrityError as error:
        raise _email_taken(record.email) from error


def list_people(connection: Connection) -> list[PersonRecord]:
    """Return everybody, disabled people too, by address."""
    return [PersonRecord(**row) for row in connection.execute(select(*_PERSON).order_by(people.c.email)).mappings()]


def find_person(connection: Connection, id_or_email: str) -> PersonRecord | None:
    """Return the person with this id or address, or None."""
    query = select(*_PERSON).where(or_(people.c.id == id_or_email, people.c.email == id_or_email.lower()))
    row = connection.execute(query).mappings().first()
    return PersonRecord(**row) if row is not None else None


def find_person_by_subject(connection: Connection, *, issuer: str, subject: str) -> PersonRecord | None:
    """Return whom an identity provider knows under ``subject``, or None."""
    row = (
        connection.execute(select(*_PERSON).where(people.c.issuer == issuer, people.c.subject == subject))
        .mappings()
        .first()
    )
    return PersonRecord(**row) if row is not None else None


def update_person(connection: Connection, person_id: str, **values: Any) -> PersonRecord | None:
    """Change columns of a person and return them as they are now, or None when there is no such person."""
    if values:
        connection.execute(update(people).where(people.c.id == person_id).values(**values))
    return find_person(connection, person_id)


def count_active_owners(connection: Connection) -> int:
    """Return how many owners can still sign in."""
    query = select(func.count()).select_from(people)
    return connection.execute(
        query.where(
            people.c.role == "owner",
            people.c.disabled_ms.is_(None),
            or_(people.c.password.is_not(None), people.c.subject.is_not(None)),
        )
    ).scalar_one()


# Teams.


def list_memberships(connection: Connection) -> dict[str, frozenset[str]]:
    """Return each person's team ids."""
    found: dict[str, set[str]] = {}
    for team_id, person_id in connection.execute(select(team_members.c.team_id, team_members.c.person_id)):
        found.setdefault(person_id, set()).add(team_id)
    return {person_id: frozenset(teams) for person_id, teams in found.items()}


def list_members(connection: Connection, team_id: str) -> list[PersonRecord]:
    """Return a team's people, by address."""
    query = (
        select(*_PERSON)
        .join(team_members, team_members.c.person_id == people.c.id)
        .where(team_members.c.team_id == team_id)
        .order_by(people.c.email)
    )
    return [PersonRecord(**row) for row in connection.execute(query).mappings()]


def add_member(connection: Connection, team_id: str, person_id: str, *, at_ms: int, actor: str) -> bool:
    """Put a person in a team; return False when they are in it already."""
    here = (team_members.c.team_id == team_id, team_members.c.person_id == person_id)
    if connection.execute(select(team_members.c.team_id).where(*here)).first() is not None:
        return False
    connection.execute(
        insert(team_members).values(team_id=team_id, person_id=person_id, created_ms=at_ms, created_by=actor)
    )
    return True


def remove_member(connection: Connection, team_id: str, person_id: str) -> bool:
    """Take a person out of a team; return whether they were in it."""
    return bool(
        connection.execute(
            delete(team_members).where(team_members.c.team_id == team_id, team_members.c.person_id == person_id)
        ).rowcount
    )


# Sign-ins.


def insert_sign_in(connection: Connection, record: SignInRecord) -> None:
    """Store a new sign-in and throw away those whose time is over."""
    connection.execute(delete(sign_ins).where(sign_ins.c.expires_ms <= record.created_ms))
    connection.execute(insert(sign_ins).values(**msgspec.structs.asdict(record)))


def list_sign_ins(connection: Connection, *, now_ms: int) -> list[SignInRecord]:
    """Return every sign-in whose absolute end has not come."""
    query = select(*_SIGN_IN).where(sign_ins.c.expires_ms > now_ms).order_by(sign_ins.c.created_ms)
    return [SignInRecord(**row) for row in connection.execute(query).mappings()]


def touch_sign_in(connection: Connection, sign_in_id: str, **values: Any) -> None:
    """Change when a sign-in was used last, or its digest."""
    connection.execute(update(sign_ins).where(sign_ins.c.id == sign_in_id).values(**values))


def delete_sign_ins(connection: Connection, *, ids: list[str]) -> None:
    """End sign-ins."""
    connection.execute(delete(sign_ins).where(sign_ins.c.id.in_(ids)))


# One-time links.


def insert_link(connection: Connection, record: LinkRecord) -> None:
    """Store a new link; the ones before it for the same person (or the first owner) work no more."""
    connection.execute(
        delete(one_time_links).where(
            or_(
                one_time_links.c.expires_ms <= record.created_ms,
                one_time_links.c.person_id.is_(None)
                if record.person_id is None
                else one_time_links.c.person_id == record.person_id,
            )
        )
    )
    connection.execute(insert(one_time_links).values(**msgspec.structs.asdict(record)))


def delete_links(connection: Connection, person_id: str) -> None:
    """End every one-time link of a person."""
    connection.execute(delete(one_time_links).where(one_time_links.c.person_id == person_id))


def find_link(connection: Connection, digest: bytes, *, now_ms: int) -> LinkRecord | None:
    """Return the link with this digest that still works, or None."""
    row = (
        connection.execute(
            select(*_LINK).where(one_time_links.c.digest == digest, one_time_links.c.expires_ms > now_ms)
        )
        .mappings()
        .first()
    )
    return LinkRecord(**row) if row is not None else None


def use_link(connection: Connection, digest: bytes, *, now_ms: int) -> LinkRecord | None:
    """Return the link with this digest and end it, or None when it does not work any more."""
    found = find_link(connection, digest, now_ms=now_ms)
    if found is not None:
        connection.execute(delete(one_time_links).where(one_time_links.c.id == found.id))
    return found

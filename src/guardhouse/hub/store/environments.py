"""Environment records: created by people, filled in by heartbeats (`guardhouse.hub.store.heartbeats`).

Knows nothing of connections that stand now; `guardhouse.hub.presence` adds those. Runs in the hub's store threads.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from guardhouse.errors import Refusal
from guardhouse.hub.reach import EVERYTHING, Reach
from guardhouse.hub.schema import ACCOUNT_ID, environment_tags, environments, teams

__all__ = [
    "EnvironmentRecord",
    "NameTaken",
    "delete_environment",
    "find_environment",
    "find_environments",
    "insert_environment",
    "list_drained",
    "list_environments",
    "reach_conditions",
    "set_drain",
    "update_environment",
]


class NameTaken(Refusal):
    """Another environment of the account has this name."""


class EnvironmentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One row, its tags decoded and its team's name beside it. Times are Unix ms."""

    id: str
    name: str | None
    kind: str
    team_id: str | None
    team_name: str | None
    tags: tuple[str, ...]
    created_ms: int
    created_by: str
    machine: dict[str, Any] | None
    metrics: dict[str, Any] | None
    version: str | None
    protocol: str | None
    remote_address: str | None
    first_seen_ms: int | None
    last_heartbeat_ms: int | None
    disconnected_ms: int | None
    disconnect_reason: str | None
    # Since when it takes no new tasks, who said so and why; None: it takes them.
    drain_ms: int | None = None
    drain_by: str | None = None
    drain_reason: str | None = None
    # Whose managed sandbox it is, of a personal session.
    owner: str | None = None

    @property
    def shown_name(self) -> str:
        """The name, or the id while a blank one waits for the first heartbeat."""
        return self.name or self.id


def _query() -> Select[Any]:
    return select(environments, teams.c.name.label("team_name")).outerjoin(teams, environments.c.team_id == teams.c.id)


def _record(row: RowMapping) -> EnvironmentRecord:
    fields = {name: row[name] for name in EnvironmentRecord.__struct_fields__}
    fields["tags"] = tuple(msgspec.json.decode(row["tags"], type=list[str]))
    for name in ("machine", "metrics"):
        fields[name] = msgspec.json.decode(row[name], type=dict[str, Any]) if row[name] else None
    return EnvironmentRecord(**fields)


def insert_environment(
    connection: Connection,
    *,
    environment_id: str,
    name: str | None,
    team_id: str | None,
    tags: tuple[str, ...],
    created_ms: int,
    created_by: str,
) -> EnvironmentRecord:
    """Store a new environment.

    Raises:
        NameTaken: the account has one of this name.
    """
    try:
        connection.execute(
            insert(environments).values(
                id=environment_id,
                account_id=ACCOUNT_ID,
                name=name,
                team_id=team_id,
                kind="byoc",
                tags=msgspec.json.encode(tags).decode(),
                created_ms=created_ms,
                created_by=created_by,
            )
        )
    except IntegrityError as error:
        raise name_taken(name) from error
    _store_tags(connection, environment_id, tags)
    return _existing(connection, environment_id)


def name_taken(name: str | None) -> NameTaken:
    """Return the refusal for a name that is in use."""
    return NameTaken(f"environment name taken: {name!r} is in use in this account; choose another or delete that one")


def _store_tags(connection: Connection, environment_id: str, tags: tuple[str, ...]) -> None:
    connection.execute(delete(environment_tags).where(environment_tags.c.environment_id == environment_id))
    if tags:
        connection.execute(insert(environment_tags), [{"environment_id": environment_id, "tag": tag} for tag in tags])


def _existing(connection: Connection, environment_id: str) -> EnvironmentRecord:
    return _record(connection.execute(_query().where(environments.c.id == environment_id)).mappings().one())


def find_environment(connection: Connection, id_or_name: str) -> EnvironmentRecord | None:
    """Return the environment with this id, else the one with this name, else None."""
    # With its account, so that the names' index is used: without, every request reads through all environments.
    has_name = and_(environments.c.account_id == ACCOUNT_ID, environments.c.name == id_or_name)
    rows = connection.execute(_query().where(or_(environments.c.id == id_or_name, has_name))).mappings()
    found = [_record(row) for row in rows]
    return min(found, key=lambda record: record.id != id_or_name) if found else None


def find_environments(connection: Connection, ids: Sequence[str]) -> dict[str, EnvironmentRecord]:
    """Return the environments with these ids, by id; one that is gone is missing."""
    rows = connection.execute(_query().where(environments.c.id.in_(ids))).mappings()
    return {row["id"]: _record(row) for row in rows}


def reach_conditions(reach: Reach) -> list[ColumnElement[bool]]:
    """Return what keeps a query on environments to those within ``reach``."""
    wanted: list[ColumnElement[bool]] = []
    if reach.teams is not None:
        wanted.append(or_(environments.c.team_id.is_(None), environments.c.team_id.in_(sorted(reach.teams))))
        wanted.append(or_(environments.c.owner.is_(None), environments.c.owner.in_(sorted(reach.owners))))
    narrowed: list[ColumnElement[bool]] = []
    if reach.environments is not None:
        narrowed.append(environments.c.id.in_(sorted(reach.environments)))
    if reach.tags is not None:
        tagged = select(environment_tags.c.environment_id).where(environment_tags.c.tag.in_(sorted(reach.tags)))
        narrowed.append(environments.c.id.in_(tagged))
    return [*wanted, or_(*narrowed)] if narrowed else wanted


def list_environments(
    connection: Connection,
    *,
    tag: str | None = None,
    scope: str | None = None,
    text: str | None = None,
    after: str | None = None,
    limit: int,
    kind: str | None = None,
    reach: Reach = EVERYTHING,
) -> list[EnvironmentRecord]:
    """Return up to ``limit`` environments in the order of their shown names, from behind the name ``after``.

    Args:
        scope: ``account``, a team's id, or a team's name.
        text: found in the name, the id or the machine's facts, letter case aside.
        kind: ``byoc``, or ``cloud`` for managed sandboxes.
        reach: only those that the caller sees.
    """
    wanted = reach_conditions(reach)
    if kind is not None:
        wanted.append(environments.c.kind == kind)
    if tag is not None:
        wanted.append(
            environments.c.id.in_(select(environment_tags.c.environment_id).where(environment_tags.c.tag == tag))
        )
    if scope == "account":
        wanted.append(environments.c.team_id.is_(None))
    elif scope is not None:
        wanted.append(or_(environments.c.team_id == scope, teams.c.name == scope))
    if text:
        wanted.append(
            or_(
                environments.c.name.icontains(text, autoescape=True),
                environments.c.id.icontains(text, autoescape=True),
                environments.c.machine.icontains(text, autoescape=True),
            )
        )
    shown_name = func.coalesce(environments.c.name, environments.c.id)
    if after is not None:
        wanted.append(shown_name > after)
    query = _query().where(*wanted).order_by(shown_name).limit(limit)
    return [_record(row) for row in connection.execute(query).mappings()]


def update_environment(
    connection: Connection, environment_id: str, *, name: str | None = None, tags: tuple[str, ...] | None = None
) -> EnvironmentRecord | None:
    """Change name or tags (None leaves them) and return the record, or None when it is gone.

    Raises:
        NameTaken: another environment has the new name.
    """
    values: dict[str, Any] = {}
    if name is not None:
        values["name"] = name
    if tags is not None:
        values["tags"] = msgspec.json.encode(tags).decode()
    if values:
        try:
            changed = connection.execute(
                update(environments).where(environments.c.id == environment_id).values(**values)
            ).rowcount
        except IntegrityError as error:
            raise name_taken(name) from error
        if not changed:
            return None
    if tags is not None:
        _store_tags(connection, environment_id, tags)
    return find_environment(connection, environment_id)


def delete_environment(connection: Connection, environment_id: str) -> bool:
    """Delete the record with its tokens and tags; its tasks stay. Return whether it existed."""
    return bool(connection.execute(delete(environments).where(environments.c.id == environment_id)).rowcount)


def set_drain(
    connection: Connection, environment_id: str, *, at_ms: int | None, by: str | None, reason: str | None
) -> EnvironmentRecord | None:
    """Store since when an environment takes no new tasks, None for one that does, and return the record."""
    connection.execute(
        update(environments)
        .where(environments.c.id == environment_id)
        .values(drain_ms=at_ms, drain_by=by, drain_reason=reason)
    )
    return find_environment(connection, environment_id)


def list_drained(connection: Connection) -> list[EnvironmentRecord]:
    """Return the environments that take no new tasks."""
    query = _query().where(environments.c.drain_ms.is_not(None))
    return [_record(row) for row in connection.execute(query).mappings()]

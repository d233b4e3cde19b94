"""Teams: what a team-scoped environment belongs to. Members come with people. Runs in the hub's store threads."""

import msgspec
from sqlalchemy import Connection, insert, or_, select
from sqlalchemy.exc import IntegrityError

from guardhouse.hub.schema import ACCOUNT_ID, teams
from guardhouse.hub.store.environments import NameTaken

__all__ = ["TeamRecord", "find_team", "insert_team", "list_teams"]


class TeamRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One team."""

    id: str
    name: str
    created_ms: int
    created_by: str


_COLUMNS = [teams.c[name] for name in TeamRecord.__struct_fields__]


def insert_team(connection: Connection, record: TeamRecord) -> None:
    """Store a new team.

    Raises:
        NameTaken: the account has one of this name.
    """
    try:
        connection.execute(insert(teams).values(account_id=ACCOUNT_ID, **msgspec.structs.asdict(record)))
    except IntegrityError as error:
        raise NameTaken(f"team name taken: {record.name!r} is in use in this account; choose another") from error


def list_teams(connection: Connection) -> list[TeamRecord]:
    """Return every team, by name."""
    return [TeamRecord(**row) for row in connection.execute(select(*_COLUMNS).order_by(teams.c.name)).mappings()]


def find_team(connection: Connection, id_or_name: str) -> TeamRecord | None:
    """Return the team with this id or name, or None."""
    query = select(*_COLUMNS).where(or_(teams.c.id == id_or_name, teams.c.name == id_or_name))
    row = connection.execute(query).mappings().first()
    return TeamRecord(**row) if row is not None else None

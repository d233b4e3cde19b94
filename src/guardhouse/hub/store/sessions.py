"""Session records: made by people and programs, bound to one environment by their first task.

Binding is an UPDATE that names the unbound state, so that the database itself keeps the promise that a session never
moves. Knows nothing of who may see one (`guardhouse.hub.sessions.rules`). Runs in the hub's store threads.
"""

from typing import Any, Final, Literal

import msgspec
from sqlalchemy import ColumnElement, Connection, RowMapping, Select, and_, delete, exists, insert, or_, select, update

from guardhouse.hub.reach import EVERYTHING, Reach
from guardhouse.hub.schema import ACCOUNT_ID, environment_tags, environments, sessions, tasks, teams
from guardhouse.hub.store.environments import reach_conditions
from guardhouse.hub.store.tasks import LIVE_STATES

__all__ = [
    "SessionFilter",
    "SessionRecord",
    "bind_session",
    "count_live_tasks",
    "delete_old_sessions",
    "delete_session",
    "find_session",
    "insert_session",
    "list_candidates",
    "list_sessions",
    "sees_conditions",
    "touch_session",
    "update_session",
]


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One row, its tags decoded and its team's name beside it. Times are Unix ms; ``bound_*`` are None before."""

    id: str
    title: str
    scope: Literal["personal", "team", "account"]
    team_id: str | None
    team_name: str | None = None
    created_by: str
    created_by_name: str
    person_id: str | None
    created_ms: int
    active_ms: int
    choice: Literal["auto", "managed", "named"]
    choice_tags: tuple[str, ...] = ()
    choice_environment_id: str | None = None
    choice_environment_name: str | None = None
    bound_environment_id: str | None = None
    bound_environment_name: str | None = None
    bound_kind: str | None = None
    bound_ms: int | None = None
    warning: str | None = None

    @property
    def is_bound(self) -> bool:
        """Whether its environment is decided for good."""
        return self.bound_environment_id is not None

    @property
    def owner(self) -> str:
        """The person whose it is, or the token of the account that made it."""
        return self.person_id or self.created_by


class SessionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which sessions a list is for; None asks for all.

    Attributes:
        text: found in the title, letter case aside.
        scope: ``personal``, ``account``, ``team``, or a team's id or name.
        environment_id: bound there.
        owners: made by one of these tokens or persons.
    """

    text: str | None = None
    scope: str | None = None
    environment_id: str | None = None
    owners: frozenset[str] | None = None


_STORED: Final = [name for name in SessionRecord.__struct_fields__ if name != "team_name"]


def _query() -> Select[Any]:
    columns = [sessions.c[name] for name in _STORED]
    return select(*columns, teams.c.name.label("team_name")).outerjoin(teams, sessions.c.team_id == teams.c.id)


def _record(row: RowMapping) -> SessionRecord:
    fields = dict(row)
    fields["choice_tags"] = tuple(msgspec.json.decode(row["choice_tags"], type=list[str]))
    return SessionRecord(**fields)


def _row(record: SessionRecord) -> dict[str, Any]:
    fields = {name: getattr(record, name) for name in _STORED}
    fields["choice_tags"] = msgspec.json.encode(record.choice_tags).decode()
    return fields


def insert_session(connection: Connection, record: SessionRecord) -> None:
    """Store a new session."""
    connection.execute(insert(sessions).values(account_id=ACCOUNT_ID, **_row(record)))


def find_session(connection: Connection, session_id: str) -> SessionRecord | None:
    """Return the session, or None."""
    row = connection.execute(_query().where(sessions.c.id == session_id)).mappings().first()
    return _record(row) if row is not None else None


def sees_conditions(reach: Reach, *, caller: str, person_id: str | None) -> list[ColumnElement[bool]]:
    """Return what keeps a query on sessions to those that `guardhouse.hub.sessions.rules.check_sees_session` shows.

    Args:
        reach: of who asks; of it only the teams and a narrowed token's limits count.
        caller: the id of the token or sign-in's person that asks.
        person_id: the person behind a token.
    """
    wanted: list[ColumnElement[bool]] = []
    if reach.teams is not None:
        wanted.append(
            or_(
                sessions.c.scope == "account",
                and_(sessions.c.scope == "team", sessions.c.team_id.in_(sorted(reach.teams))),
                sessions.c.person_id == person_id,
            )
        )
    if reach.environments is not None or reach.tags is not None:
        only = Reach(environments=reach.environments, tags=reach.tags)
        wanted.append(sessions.c.bound_environment_id.in_(select(environments.c.id).where(*reach_conditions(only))))
    return [or_(sessions.c.created_by == caller, and_(*wanted))] if wanted else []


def list_sessions(
    connection: Connection,
    *,
    wanted: SessionFilter,
    sees: list[ColumnElement[bool]],
    before: tuple[int, str] | None,
    limit: int,
) -> list[SessionRecord]:
    """Return up to ``limit`` sessions, newest first.

    Args:
        sees: `sees_conditions` of who asks.
        before: creation time (Unix ms) and id of the last one that the reader has.
    """
    found = [*sees]
    if wanted.text:
        found.append(sessions.c.title.icontains(wanted.text, autoescape=True))
    if wanted.scope in ("personal", "account", "team"):
        found.append(sessions.c.scope == wanted.scope)
    elif wanted.scope is not None:
        found.append(or_(sessions.c.team_id == wanted.scope, teams.c.name == wanted.scope))
    if wanted.environment_id is not None:
        found.append(sessions.c.bound_environment_id == wanted.environment_id)
    if wanted.owners is not None:
        owners = sorted(wanted.owners)
        found.append(or_(sessions.c.created_by.in_(owners), sessions.c.person_id.in_(owners)))
    if before is not None:
        at_ms, session_id = before
        found.append(
            or_(sessions.c.created_ms < at_ms, and_(sessions.c.created_ms == at_ms, sessions.c.id < session_id))
        )
    query = _query().where(*found).order_by(sessions.c.created_ms.desc(), sessions.c.id.desc()).limit(limit)
    return [_record(row) for row in connection.execute(query).mappings()]


def update_session(connection: Connection, session_id: str, **values: Any) -> SessionRecord | None:
    """Change ``values`` of a session and return it, or None when it is gone."""
    if "choice_tags" in values:
        values["choice_tags"] = msgspec.json.encode(values["choice_tags"]).decode()
    if values:
        connection.execute(update(sessions).where(sessions.c.id == session_id).values(**values))
    return find_session(connection, session_id)


def bind_session(
    connection: Connection,
    session_id: str,
    *,
    environment_id: str,
    environment_name: str,
    kind: str,
    warning: str | None,
    at_ms: int,
) -> bool:
    """Bind an unbound session for good; return False, changing nothing, when it is bound or gone."""
    changed = connection.execute(
        update(sessions)
        .where(sessions.c.id == session_id, sessions.c.bound_environment_id.is_(None))
        .values(
            bound_environment_id=environment_id,
            bound_environment_name=environment_name,
            bound_kind=kind,
            bound_ms=at_ms,
            active_ms=at_ms,
            warning=warning,
        )
    )
    return bool(changed.rowcount)


def touch_session(connection: Connection, session_id: str, *, at_ms: int) -> bool:
    """Store that something was asked of a session; return whether it is still there."""
    return bool(
        connection.execute(update(sessions).where(sessions.c.id == session_id).values(active_ms=at_ms)).rowcount
    )


def count_live_tasks(connection: Connection, session_id: str) -> int:
    """Return how many tasks of a session have no result yet."""
    query = select(tasks.c.id).where(tasks.c.session_id == session_id, tasks.c.state.in_(LIVE_STATES))
    return len(connection.execute(query).all())


def delete_session(connection: Connection, session_id: str, *, keep_tasks: bool) -> int:
    """Delete a session and, unless they are kept, its finished tasks with their output; return how many of these."""
    connection.execute(delete(sessions).where(sessions.c.id == session_id))
    if keep_tasks:
        return 0
    finished = and_(tasks.c.session_id == session_id, tasks.c.state.not_in(LIVE_STATES))
    return connection.execute(delete(tasks).where(finished)).rowcount


def delete_old_sessions(connection: Connection, *, before_ms: int, limit: int) -> int:
    """Delete up to ``limit`` sessions that nobody used since ``before_ms`` and that have no task left."""
    has_tasks = exists(select(tasks.c.id).where(tasks.c.session_id == sessions.c.id))
    old = select(sessions.c.id).where(sessions.c.active_ms < before_ms, ~has_tasks).limit(limit).scalar_subquery()
    return connection.execute(delete(sessions).where(sessions.c.id.in_(old))).rowcount


def list_candidates(connection: Connection, *, tags: tuple[str, ...], reach: Reach = EVERYTHING) -> dict[str, str]:
    """Return the ids, with the names, of self-hosted environments within ``reach`` that have all ``tags``."""
    wanted = [environments.c.kind == "byoc", *reach_conditions(reach)]
    wanted += [
        environments.c.id.in_(select(environment_tags.c.environment_id).where(environment_tags.c.tag == tag))
        for tag in tags
    ]
    rows = connection.execute(select(environments.c.id, environments.c.name).where(*wanted))
    return {environment_id: name or environment_id for environment_id, name in rows}

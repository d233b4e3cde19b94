"""Approvals: what runners asked, what people said, and what that grants for longer.

Every change of state is an UPDATE that names ``pending``, so that the first decision counts however many race. Knows
nothing of who may decide. Runs in the hub's store threads.
"""

from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, delete, func, insert, or_, select, update

from guardhouse.hub.reach import EVERYTHING, Reach
from guardhouse.hub.schema import ACCOUNT_ID, approval_grants, approvals, environments, notifications
from guardhouse.hub.store.environments import reach_conditions

__all__ = [
    "RULE_MAX_CHARS",
    "ApprovalRecord",
    "GrantRecord",
    "Notification",
    "Vote",
    "close_approval",
    "count_pending",
    "delete_grant",
    "delete_notification",
    "delete_old_approvals",
    "find_approval",
    "find_question",
    "insert_approval",
    "insert_grant",
    "insert_notification",
    "list_approvals",
    "list_grants",
    "list_pending",
    "next_notifications",
    "postpone_notification",
    "store_votes",
    "waited_ms",
]

# What is kept of a question's rule and of its place.
RULE_MAX_CHARS: Final = 4_096


class Vote(msgspec.Struct, frozen=True, kw_only=True):
    """One person's yes. ``by`` is the id that asked (a token's or person's), ``person`` whose it is.

    ``scope`` and ``for_s`` are how far they let it reach; a vote of an earlier version reached once.
    """

    by: str
    person: str | None
    name: str
    at_ms: int
    note: str = ""
    scope: str = "once"
    for_s: int | None = None


class ApprovalRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One question. ``argv`` and ``explanation`` are JSON text; times are Unix ms by the hub's clock."""

    id: str
    environment_id: str
    environment_name: str | None
    question_id: str
    task_id: str
    session_key: str
    command: str
    gate: str
    argv: str | None
    path: str
    started_by: str
    rule: str
    because: str
    place: str
    profile: str
    workdir: str
    requested_by: str
    requester: str
    explanation: str | None
    asked_ms: int
    expires_ms: int
    state: str
    decided_ms: int | None = None
    decided_by: str | None = None
    decided_by_name: str | None = None
    scope: str | None = None
    valid_until_ms: int | None = None
    note: str | None = None
    votes_needed: int = 1
    votes: str = "[]"

    @property
    def words(self) -> list[str] | None:
        """The argument vector that the exec gate asks about."""
        return None if self.argv is None else msgspec.json.decode(self.argv, type=list[str])

    @property
    def given(self) -> list[Vote]:
        """Who has said yes so far."""
        return msgspec.json.decode(self.votes, type=list[Vote])


class GrantRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An answer for later questions too. ``deciders`` is a JSON list of ids."""

    id: str
    approval_id: str
    verdict: str
    scope: str
    environment_id: str
    session_key: str
    gate: str
    rule: str
    place: str
    deciders: str
    decided_by_name: str
    created_ms: int
    valid_until_ms: int

    def covers(self, asked: ApprovalRecord, *, rule: str, place: str) -> bool:
        """Tell whether this answers what ``rule`` at ``place`` asks in ``asked``, apart from its time."""
        same = self.environment_id == asked.environment_id and self.rule == rule and self.place == place
        if self.scope == "rule":
            return same
        return same and self.session_key == asked.session_key and self.gate == asked.gate


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """A message on its way; ``body`` is JSON text."""

    id: str
    channel: str
    subject: str
    body: str
    created_ms: int
    next_ms: int
    attempts: int = 0


_COLUMNS: Final = [approvals.c[name] for name in ApprovalRecord.__struct_fields__]
_GRANT: Final = [approval_grants.c[name] for name in GrantRecord.__struct_fields__]
_NOTE: Final = [notifications.c[name] for name in Notification.__struct_fields__]


def insert_approval(connection: Connection, record: ApprovalRecord) -> None:
    """Store a new question."""
    connection.execute(insert(approvals).values(account_id=ACCOUNT_ID, **msgspec.structs.asdict(record)))


def find_approval(connection: Connection, approval_id: str) -> ApprovalRecord | None:
    """Return the question with the hub's own id, or None."""
    row = connection.execute(select(*_COLUMNS).where(approvals.c.id == approval_id)).mappings().first()
    return ApprovalRecord(**row) if row is not None else None


def find_question(connection: Connection, *, environment_id: str, question_id: str) -> ApprovalRecord | None:
    """Return what an environment's runner asked under its own id, or None."""
    query = select(*_COLUMNS).where(
        approvals.c.environment_id == environment_id, approvals.c.question_id == question_id
    )
    row = connection.execute(query).mappings().first()
    return ApprovalRecord(**row) if row is not None else None


def list_pending(connection: Connection) -> list[ApprovalRecord]:
    """Return every open question, oldest first: what a starting hub takes up again."""
    query = select(*_COLUMNS).where(approvals.c.state == "pending").order_by(approvals.c.asked_ms)
    return [ApprovalRecord(**row) for row in connection.execute(query).mappings()]


def count_pending(connection: Connection, environment_id: str) -> int:
    """Return how many open questions an environment has."""
    query = select(func.count()).select_from(approvals)
    return connection.execute(
        query.where(approvals.c.state == "pending", approvals.c.environment_id == environment_id)
    ).scalar_one()


def list_approvals(
    connection: Connection,
    *,
    state: str | None = None,
    environment_id: str | None = None,
    task_id: str | None = None,
    before: tuple[int, str] | None = None,
    limit: int,
    reach: Reach = EVERYTHING,
) -> list[ApprovalRecord]:
    """Return up to ``limit`` questions, newest first; ``before`` is time and id of the last one that is known."""
    wanted: list[ColumnElement[bool]] = []
    if not reach.is_everything:
        seen = select(environments.c.id).where(*reach_conditions(reach))
        wanted.append(or_(approvals.c.environment_id.in_(seen), approvals.c.requester.in_(sorted(reach.own))))
    for column, value in (
        (approvals.c.state, state),
        (approvals.c.environment_id, environment_id),
        (approvals.c.task_id, task_id),
    ):
        if value is not None:
            wanted.append(column == value)
    if before is not None:
        at_ms, last = before
        wanted.append(or_(approvals.c.asked_ms < at_ms, (approvals.c.asked_ms == at_ms) & (approvals.c.id < last)))
    query = select(*_COLUMNS).where(*wanted).order_by(approvals.c.asked_ms.desc(), approvals.c.id.desc()).limit(limit)
    return [ApprovalRecord(**row) for row in connection.execute(query).mappings()]


def waited_ms(connection: Connection, task_id: str, *, now_ms: int) -> int:
    """Return how long a task has waited for people in all; times in which several questions were open count once."""
    query = select(approvals.c.asked_ms, approvals.c.decided_ms).where(approvals.c.task_id == task_id)
    total_ms, until_ms = 0, 0
    for asked_ms, decided_ms in connection.execute(query.order_by(approvals.c.asked_ms)):
        end_ms = now_ms if decided_ms is None else decided_ms
        total_ms += max(0, end_ms - max(asked_ms, until_ms))
        until_ms = max(until_ms, end_ms)
    return total_ms


def store_votes(connection: Connection, approval_id: str, votes: list[Vote]) -> bool:
    """Store who has said yes to an open question; return whether it is open."""
    return bool(
        connection.execute(
            update(approvals)
            .where(approvals.c.id == approval_id, approvals.c.state == "pending")
            .values(votes=msgspec.json.encode(votes).decode())
        ).rowcount
    )


def close_approval(connection: Connection, approval_id: str, *, state: str, at_ms: int, **values: Any) -> bool:
    """Give an open question its one end; return False, changing nothing, when it has one."""
    return bool(
        connection.execute(
            update(approvals)
            .where(approvals.c.id == approval_id, approvals.c.state == "pending")
            .values(state=state, decided_ms=at_ms, **values)
        ).rowcount
    )


def delete_old_approvals(connection: Connection, *, before_ms: int) -> int:
    """Delete questions that were answered before ``before_ms``; the audit log keeps what was decided."""
    return connection.execute(
        delete(approvals).where(approvals.c.state != "pending", approvals.c.decided_ms < before_ms)
    ).rowcount


# Grants.


def insert_grant(connection: Connection, record: GrantRecord) -> None:
    """Store a grant, and throw away those whose time is over."""
    connection.execute(delete(approval_grants).where(approval_grants.c.valid_until_ms <= record.created_ms))
    connection.execute(insert(approval_grants).values(**msgspec.structs.asdict(record)))


def list_grants(
    connection: Connection, *, now_ms: int, environment_id: str | None = None, reach: Reach = EVERYTHING
) -> list[GrantRecord]:
    """Return the grants that hold at ``now_ms``, newest first."""
    query = select(*_GRANT).where(approval_grants.c.valid_until_ms > now_ms)
    if environment_id is not None:
        query = query.where(approval_grants.c.environment_id == environment_id)
    if not reach.is_everything:
        seen = select(environments.c.id).where(*reach_conditions(reach))
        query = query.where(approval_grants.c.environment_id.in_(seen))
    rows = connection.execute(query.order_by(approval_grants.c.created_ms.desc())).mappings()
    return [GrantRecord(**row) for row in rows]


def delete_grant(connection: Connection, grant_id: str) -> GrantRecord | None:
    """End a grant and return it; None when there is none."""
    row = connection.execute(select(*_GRANT).where(approval_grants.c.id == grant_id)).mappings().first()
    if row is not None:
        connection.execute(delete(approval_grants).where(approval_grants.c.id == grant_id))
    return GrantRecord(**row) if row is not None else None


# Messages on their way.


def insert_notification(connection: Connection, record: Notification) -> None:
    """Put a message on its way."""
    connection.execute(insert(notifications).values(**msgspec.structs.asdict(record)))


def next_notifications(connection: Connection, *, channel: str, limit: int) -> list[Notification]:
    """Return the messages of a channel that are due first."""
    query = (
        select(*_NOTE)
        .where(notifications.c.channel == channel)
        .order_by(notifications.c.next_ms, notifications.c.id)
        .limit(limit)
    )
    return [Notification(**row) for row in connection.execute(query).mappings()]


def postpone_notification(connection: Connection, notification_id: str, *, next_ms: int, attempts: int) -> None:
    """Store that a message is tried again later."""
    connection.execute(
        update(notifications).where(notifications.c.id == notification_id).values(next_ms=next_ms, attempts=attempts)
    )


def delete_notification(connection: Connection, notification_id: str) -> None:
    """Forget a message that arrived, or that is given up."""
    connection.execute(delete(notifications).where(notifications.c.id == notification_id))

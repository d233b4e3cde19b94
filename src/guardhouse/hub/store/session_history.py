"""What ran in a session: its tasks in order, and beside each what was decided, by whom, and what really ran.

Decisions and programs are read from the audit log, which keeps them short and whole; results stay where they are.
Runs in the hub's store threads.
"""

from collections import defaultdict
from typing import Any

import msgspec
from sqlalchemy import Connection, and_, or_, select

from guardhouse.hub.schema import approvals, audit_events, tasks
from guardhouse.hub.store.tasks import TaskRecord

__all__ = ["Step", "list_steps"]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One task and what the audit log and the approvals have of it.

    Attributes:
        decision: verdict, rule and policies, as the task's end was recorded; None while it runs.
        executed: programs that ran or were refused, one a line; None where none is known.
        refused: argv and reason of those that were refused.
        approvals: id, state, rule, scope and who decided.
    """

    task: TaskRecord
    decision: Any = None
    executed: str | None = None
    refused: Any = None
    approvals: list[dict[str, Any]] = []


def list_steps(
    connection: Connection, session_id: str, *, after: tuple[int, str] | None, limit: int, whole: bool
) -> list[Step]:
    """Return up to ``limit`` steps, oldest first, behind the task created at ``after`` (Unix ms, id).

    Args:
        whole: with the tasks' args and results; without, they are ``{}`` and None.
    """
    left_out = set() if whole else {"args", "result"}
    columns = [tasks.c[name] for name in TaskRecord.__struct_fields__ if name not in left_out]
    wanted = [tasks.c.session_id == session_id]
    if after is not None:
        at_ms, task_id = after
        wanted.append(or_(tasks.c.created_ms > at_ms, and_(tasks.c.created_ms == at_ms, tasks.c.id > task_id)))
    query = select(*columns).where(*wanted).order_by(tasks.c.created_ms, tasks.c.id).limit(limit)
    filler: dict[str, Any] = {} if whole else {"args": b"{}"}
    found = [TaskRecord(**row, **filler) for row in connection.execute(query).mappings()]
    ids = [task.id for task in found]
    facts = _facts(connection, ids)
    answers = _answers(connection, ids)
    return [Step(task=task, approvals=answers[task.id], **facts[task.id]) for task in found]


def _facts(connection: Connection, task_ids: list[str]) -> defaultdict[str, dict[str, Any]]:
    facts: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    columns = audit_events.c
    query = (
        select(columns.task, columns.action, columns.executed, columns.detail)
        .where(columns.task.in_(task_ids), columns.action.in_(["task.end", "task.exec"]))
        .order_by(columns.seq)
    )
    for task_id, action, executed, text in connection.execute(query):
        detail = msgspec.json.decode(text, type=dict[str, Any])
        if action == "task.end":
            facts[task_id]["decision"] = detail.get("decision")
        else:
            facts[task_id] |= {"executed": executed, "refused": detail.get("refused") or None}
    return facts


def _answers(connection: Connection, task_ids: list[str]) -> defaultdict[str, list[dict[str, Any]]]:
    answers: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    shown = ("id", "state", "gate", "rule", "scope", "decided_by", "decided_by_name", "note")
    query = (
        select(approvals.c.task_id, *(approvals.c[name] for name in shown))
        .where(approvals.c.task_id.in_(task_ids))
        .order_by(approvals.c.asked_ms)
    )
    for row in connection.execute(query).mappings():
        answers[row["task_id"]].append({name: row[name] for name in shown})
    return answers

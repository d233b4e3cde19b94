"""What is written of a question, each in its caller's transaction and each with its audit record. Runs in the hub."""

from typing import Any, Final

import msgspec
from sqlalchemy import Connection

from guardhouse import limits
from guardhouse.hub.approvals.rules import Decided, Decider
from guardhouse.hub.audit.policies import policies_of_explanation
from guardhouse.hub.credentials import mint_id
from guardhouse.hub.store import approvals as store
from guardhouse.hub.store import audit
from guardhouse.hub.store.approvals import ApprovalRecord, GrantRecord, Vote
from guardhouse.wire.messages_v1 import ApprovalScope

__all__ = ["GRANT_DEFAULT_S", "NOBODY", "close_question", "record_vote", "store_decision", "store_question"]

GRANT_DEFAULT_S: Final = 12 * 3_600
# How a runner is told of an end that no person gave.
NOBODY: Final = "hub"


def store_question(connection: Connection, record: ApprovalRecord, *, at_ms: int) -> None:
    """Store a question with its audit record; one too many of its environment is denied at once."""
    crowded = store.count_pending(connection, record.environment_id) >= limits.APPROVALS_OPEN_MAX
    store.insert_approval(connection, record)
    audit.record_audit_event(
        connection,
        at_ms=at_ms,
        actor="runner",
        action="approval.ask",
        target=record.id,
        address=None,
        environment=record.environment_id,
        task=record.task_id,
        command=record.command,
        executed=None if record.words is None else audit.executed_text([record.words]),
        **_question_facts(record),
    )
    if crowded:
        close_question(
            connection,
            record,
            state="denied",
            at_ms=at_ms,
            actor=NOBODY,
            note=f"{limits.APPROVALS_OPEN_MAX} questions of this environment are open already",
        )


def store_decision(
    connection: Connection,
    current: ApprovalRecord,
    said: Decided,
    by: Decider,
    votes: list[Vote],
    *,
    at_ms: int,
) -> None:
    """Give a question its answer, and with a scope beyond this once the grant that answers later ones."""
    until_ms = None
    if said.scope is not ApprovalScope.ONCE:
        until_ms = at_ms + (GRANT_DEFAULT_S if said.for_s is None else said.for_s) * 1000
    names = " and ".join(dict.fromkeys(vote.name for vote in votes)) if said.allow else by.name
    store.store_votes(connection, current.id, votes)
    close_question(
        connection,
        current,
        state="approved" if said.allow else "denied",
        at_ms=at_ms,
        actor=by.id,
        note=said.note,
        scope=said.scope.value,
        valid_until_ms=until_ms,
        decided_by_name=names,
        address=by.address,
    )
    if until_ms is not None:
        deciders = {vote.person or vote.by for vote in votes}
        store.insert_grant(
            connection,
            GrantRecord(
                id=mint_id("grt"),
                approval_id=current.id,
                verdict="allow" if said.allow else "deny",
                scope=said.scope.value,
                environment_id=current.environment_id,
                session_key=current.session_key,
                gate=current.gate,
                rule=current.rule,
                place=current.place,
                deciders=msgspec.json.encode(sorted(deciders)).decode(),
                decided_by_name=names,
                created_ms=at_ms,
                valid_until_ms=until_ms,
            ),
        )


def close_question(
    connection: Connection,
    record: ApprovalRecord,
    *,
    state: str,
    at_ms: int,
    actor: str,
    note: str,
    scope: str | None = None,
    valid_until_ms: int | None = None,
    decided_by_name: str | None = None,
    address: str | None = None,
    grant: str | None = None,
) -> None:
    """Give an open question its one end, with its audit record; one that has its end keeps it."""
    closed = store.close_approval(
        connection,
        record.id,
        state=state,
        at_ms=at_ms,
        decided_by=actor,
        decided_by_name=decided_by_name,
        scope=scope,
        valid_until_ms=valid_until_ms,
        note=note,
    )
    if not closed:
        return
    verb = {"approved": "approve", "denied": "deny", "expired": "expire", "withdrawn": "withdraw"}[state]
    audit.record_audit_event(
        connection,
        at_ms=at_ms,
        actor=actor,
        action=f"approval.{verb}",
        target=record.id,
        address=address,
        environment=record.environment_id,
        task=record.task_id,
        command=record.command,
        decided_by=decided_by_name,
        scope=scope,
        valid_until_ms=valid_until_ms,
        note=note,
        grant=grant,
        **_question_facts(record),
    )


def record_vote(connection: Connection, record: ApprovalRecord, said: Decided, by: Decider, *, at_ms: int) -> None:
    """Put a yes that is not the last one needed into the audit log."""
    audit.record_audit_event(
        connection,
        at_ms=at_ms,
        actor=by.id,
        action="approval.vote",
        target=record.id,
        address=by.address,
        environment=record.environment_id,
        task=record.task_id,
        command=record.command,
        note=said.note,
        scope=said.scope.value,
        for_s=said.for_s,
        **_question_facts(record),
    )


def _question_facts(record: ApprovalRecord) -> dict[str, Any]:
    return {
        "gate": record.gate,
        "rule": record.rule,
        "place": record.place,
        "argv": record.words,
        "path": record.path,
        "requester": record.requester,
        "requested_by": record.requested_by,
        "policies": policies_of_explanation(record.explanation),
    }

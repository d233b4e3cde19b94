"""Routes of approvals: list, show, approve, deny; and of what they grant for longer. Runs in the hub."""

from functools import partial
from typing import Any, cast

import msgspec
from sqlalchemy import Connection

from guardhouse.errors import InvariantError
from guardhouse.hub.api import schemas_approvals as schemas
from guardhouse.hub.api.cursors import parse_cursor, render_cursor
from guardhouse.hub.api.door import Call, Reply
from guardhouse.hub.api.environment_filter import environment_id_of
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.approvals.rules import Decided, Decider
from guardhouse.hub.audit.policies import policies_of_report
from guardhouse.hub.clock import iso_time, now_ms
from guardhouse.hub.concerns import reach_of
from guardhouse.hub.store import approvals as store
from guardhouse.hub.store import audit
from guardhouse.hub.store.approvals import ApprovalRecord, GrantRecord
from guardhouse.wire.messages_v1 import ApprovalScope

__all__ = ["approve", "deny", "list_approvals", "list_grants", "revoke_grant", "show_approval"]


def approval_view(record: ApprovalRecord, *, whole: bool) -> schemas.Approval:
    """Return a question as it is shown; its explanation only when ``whole``."""
    return schemas.Approval(
        id=record.id,
        state=cast(Any, record.state),
        environment_id=record.environment_id,
        environment_name=record.environment_name,
        task_id=record.task_id,
        gate=cast(Any, record.gate),
        command=record.command,
        argv=record.words,
        path=record.path,
        started_by=record.started_by,
        rule=record.rule,
        because=record.because,
        place=record.place,
        profile=record.profile,
        workdir=record.workdir,
        requested_by=record.requested_by,
        requester=record.requester,
        asked_at=iso_time(record.asked_ms) or "",
        expires_at=iso_time(record.expires_ms) or "",
        votes_needed=record.votes_needed,
        votes=[
            schemas.ApprovalVote(
                by=one.person or one.by,
                name=one.name,
                at=iso_time(one.at_ms) or "",
                note=one.note,
                scope=cast(Any, one.scope),
                for_s=one.for_s,
            )
            for one in record.given
        ],
        decided_at=iso_time(record.decided_ms),
        decided_by=record.decided_by,
        decided_by_name=record.decided_by_name,
        scope=cast(Any, record.scope),
        valid_until=iso_time(record.valid_until_ms),
        note=record.note,
        explanation=msgspec.Raw(record.explanation.encode()) if whole and record.explanation is not None else None,
    )


async def list_approvals(call: Call) -> Reply:
    """Answer one page of approvals, newest first."""
    query: schemas.ApprovalQuery = call.query
    environment_id = await environment_id_of(call, query.environment)
    records = await call.services.database.read(
        partial(
            store.list_approvals,
            state=query.state,
            environment_id=environment_id,
            task_id=query.task,
            before=parse_cursor(query.cursor),
            limit=query.limit + 1,
            reach=reach_of(call.actor),
        )
    )
    page = records[: query.limit]
    more = len(records) > query.limit
    return Reply(
        schemas.ApprovalList(
            approvals=[approval_view(record, whole=False) for record in page],
            next_cursor=render_cursor(page[-1].asked_ms, page[-1].id) if more else None,
        )
    )


def _the_approval(call: Call) -> ApprovalRecord:
    if call.approval is None:
        raise InvariantError("a route of one approval was called without it")
    return call.approval


async def show_approval(call: Call) -> Reply:
    """Answer one approval with the explanation of gate one."""
    return Reply(approval_view(_the_approval(call), whole=True))


async def approve(call: Call) -> Reply:
    """Let it run: now, for this session, or for this rule. Under the two-person rule the first yes waits for more."""
    return await _decide(call, allow=True)


async def deny(call: Call) -> Reply:
    """Say no; the note is shown to whoever asked."""
    return await _decide(call, allow=False)


async def _decide(call: Call, *, allow: bool) -> Reply:
    body: schemas.ApprovalDecide = call.body
    actor = call.actor
    if body.scope == "once" and body.for_s is not None:
        raise ApiError(400, "invalid_body", "for_s is for the scopes session and rule", hint="give a scope")
    said = Decided(allow=allow, scope=ApprovalScope(body.scope), for_s=body.for_s, note=body.note)
    by = Decider(
        id=actor.id,
        person=actor.person.id if actor.person is not None else None,
        name=actor.person.name if actor.person is not None else actor.name,
        is_admin=actor.is_admin,
        is_browser=actor.sign_in_id is not None,
        address=call.address,
    )
    record = await call.services.desk.decide(_the_approval(call), said, by)
    return Reply(approval_view(record, whole=True), status=200 if record.state != "pending" else 202)


async def list_grants(call: Call) -> Reply:
    """Answer what people said for longer and what still holds."""
    grants = await call.services.database.read(partial(store.list_grants, now_ms=now_ms(), reach=reach_of(call.actor)))
    return Reply(
        schemas.ApprovalGrantList(
            grants=[
                schemas.ApprovalGrant(
                    id=one.id,
                    approval_id=one.approval_id,
                    verdict=cast(Any, one.verdict),
                    scope=cast(Any, one.scope),
                    environment_id=one.environment_id,
                    rule=one.rule,
                    place=one.place,
                    decided_by_name=one.decided_by_name,
                    created_at=iso_time(one.created_ms) or "",
                    valid_until=iso_time(one.valid_until_ms) or "",
                )
                for one in grants
                if call.services.desk.stands(one)
            ]
        )
    )


async def revoke_grant(call: Call) -> Reply:
    """End a grant: the next question of that rule comes before people again."""
    grant_id = call.path["grant"]
    at_ms = now_ms()

    def end(connection: Connection) -> GrantRecord | None:
        ended = store.delete_grant(connection, grant_id)
        if ended is not None:
            audit.record_audit_event(
                connection,
                at_ms=at_ms,
                actor=call.actor.id,
                action="approval.revoke",
                target=grant_id,
                address=call.address,
                environment=ended.environment_id,
                rule=ended.rule,
                place=ended.place,
                scope=ended.scope,
                verdict=ended.verdict,
                policies=policies_of_report(call.services.links.reported_policy(ended.environment_id)),
            )
        return ended

    if await call.services.database.write(end) is None:
        raise ApiError(404, "grant_not_found", f"no grant {grant_id!r} holds", hint="list them first")
    return Reply(None, status=204)

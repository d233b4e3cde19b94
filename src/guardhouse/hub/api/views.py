"""Stored records to what the REST interface shows. Pure copying; computes nothing but presence and durations.

Runs in the hub.
"""

from typing import Any, cast

import msgspec

from guardhouse.hub.api import schemas_audit, schemas_environments, schemas_people, schemas_tasks, schemas_tokens
from guardhouse.hub.audit.chain import AuditRecord
from guardhouse.hub.clock import iso_time, relative_time
from guardhouse.hub.condition import newer_version
from guardhouse.hub.presence import ConnectedInstance, Presence
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.people import PersonRecord
from guardhouse.hub.store.tasks import TaskRecord
from guardhouse.hub.store.teams import TeamRecord
from guardhouse.hub.store.tokens import ApiTokenRecord

__all__ = ["audit_view", "environment_view", "person_view", "task_view", "team_view", "token_view"]


def _time(at_ms: int) -> str:
    return cast(str, iso_time(at_ms))


def environment_view(
    record: EnvironmentRecord,
    presence: Presence,
    instance: ConnectedInstance | None,
    *,
    now_ms: int,
    offered_version: str,
) -> schemas_environments.Environment:
    """Return an environment as the list and the page show it; ``offered_version`` is what its runner could be."""
    return schemas_environments.Environment(
        id=record.id,
        name=record.shown_name,
        name_is_pending=record.name is None,
        kind=cast(Any, record.kind),
        scope=schemas_environments.EnvironmentScope(kind="team", team=record.team_name)
        if record.team_id
        else schemas_environments.EnvironmentScope(),
        tags=list(record.tags),
        status=presence.status,
        status_reason=presence.reason,
        selectable=presence.is_selectable,
        version=record.version,
        machine=record.machine,
        metrics=record.metrics,
        first_seen_at=iso_time(record.first_seen_ms),
        last_heartbeat_at=iso_time(presence.last_heartbeat_ms),
        last_heartbeat_ago=relative_time(presence.last_heartbeat_ms, now=now_ms),
        connection=None
        if instance is None
        else schemas_environments.Instance(
            connected_at=_time(instance.connected_ms),
            remote_address=instance.remote_address,
            protocol=instance.protocol,
            tasks_in_flight=instance.tasks_in_flight,
            draining=instance.draining,
        ),
        conditions=[
            schemas_environments.EnvironmentCondition(code=cast(Any, one.code), text=one.text, degrades=one.degrades)
            for one in presence.conditions
        ],
        drain=None
        if record.drain_ms is None
        else schemas_environments.EnvironmentDrain(
            since=_time(record.drain_ms), by=record.drain_by, reason=record.drain_reason
        ),
        upgrade_available=offered_version
        if record.protocol == "guardhouse.v1" and newer_version(record.version, offered_version)
        else None,
        created_at=_time(record.created_ms),
        created_by=record.created_by,
    )


def task_view(record: TaskRecord, *, whole: bool) -> schemas_tasks.Task:
    """Return a task; its args and result only when ``whole``."""
    ended = record.finished_ms
    # "Started" is its first output; a command that is quiet at first runs from when it was taken on.
    began = record.accepted_ms or record.sent_ms or record.started_ms
    return schemas_tasks.Task(
        id=record.id,
        environment_id=record.environment_id,
        environment_name=record.environment_name,
        operation=record.operation,
        command=record.command,
        state=cast(Any, record.state),
        state_reason=record.state_reason,
        finished=record.is_finished,
        success=record.success,
        exit_code=record.exit_code,
        error=record.error,
        error_code=record.error_code,
        stdout_bytes=record.stdout_bytes,
        stderr_bytes=record.stderr_bytes,
        output_note=record.output_note,
        cancel_requested_at=iso_time(record.cancel_ms),
        cancel_reason=record.cancel_reason,
        requested_by=record.created_by,
        session_id=record.session_id,
        origin=record.origin,
        trace_id=record.trace_id,
        protocol=record.protocol,
        timeout_s=record.timeout_ms / 1000,
        created_at=_time(record.created_ms),
        sent_at=iso_time(record.sent_ms),
        accepted_at=iso_time(record.accepted_ms),
        started_at=iso_time(record.started_ms),
        finished_at=iso_time(ended),
        duration_s=(ended - began) / 1000 if ended is not None and began is not None else None,
        args=msgspec.Raw(record.args) if whole else None,
        result=msgspec.Raw(record.result) if whole and record.result is not None else None,
    )


def team_view(record: TeamRecord) -> schemas_people.Team:
    """Return a team."""
    return schemas_people.Team(id=record.id, name=record.name, created_at=_time(record.created_ms))


def token_view(record: ApiTokenRecord, *, now_ms: int) -> schemas_tokens.Token:
    """Return an API token without its secret."""
    expired = record.expires_ms is not None and record.expires_ms <= now_ms
    return schemas_tokens.Token(
        id=record.id,
        name=record.name,
        hint=record.hint,
        scopes=cast(Any, list(record.scopes)),
        created_at=_time(record.created_ms),
        created_by=record.created_by,
        expires_at=iso_time(record.expires_ms),
        revoked_at=iso_time(record.revoked_ms),
        valid=record.revoked_ms is None and not expired,
        last_used_at=iso_time(record.last_used_ms),
        person_id=record.person_id,
        environments=None if record.environments is None else list(record.environments),
        tags=None if record.tags is None else list(record.tags),
    )


def person_view(record: PersonRecord, teams: frozenset[str]) -> schemas_people.Person:
    """Return a person."""
    known = record.password is not None or record.subject is not None
    state = "disabled" if record.disabled_ms is not None else "active" if known else "invited"
    return schemas_people.Person(
        id=record.id,
        email=record.email,
        name=record.name,
        role=cast(Any, record.role),
        state=cast(Any, state),
        teams=sorted(teams),
        created_at=_time(record.created_ms),
        created_by=record.created_by,
        last_sign_in_at=iso_time(record.last_sign_in_ms),
    )


def audit_view(record: AuditRecord) -> schemas_audit.AuditEvent:
    """Return one deed."""
    return schemas_audit.AuditEvent(
        seq=record.seq,
        at=_time(record.at_ms),
        actor=record.actor,
        action=record.action,
        target=record.target,
        address=record.address,
        environment=record.environment,
        task=record.task,
        command=record.command,
        executed=record.executed,
        detail=msgspec.json.decode(record.detail, type=dict[str, Any]),
        hash=record.hash.hex(),
    )

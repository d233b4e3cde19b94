"""One request for a task: what is asked, checked, and the record that is made of it.

Knows neither the store nor who is connected. Runs in the hub.
"""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import Connection

from guardhouse import limits
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.credentials import mint_id
from guardhouse.hub.store import audit
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.tasks import TaskRecord, TaskState
from guardhouse.hub.tasks.runners import Runner
from guardhouse.hub.trace_context import TraceContext, derived_trace_id
from guardhouse.wire import parse_args

__all__ = [
    "CheckedArgs",
    "TaskRequested",
    "check_args",
    "command_summary",
    "new_record",
    "record_creation",
    "request_digest",
]

# What an envelope adds to the arguments that it carries.
ENVELOPE_BYTES: Final = 4_096
COMMAND_MAX_CHARS: Final = 8_192


@dataclass(frozen=True, kw_only=True)
class TaskRequested:
    """One checked request for a task. ``on_insert`` stores what belongs to it, in the transaction that stores it."""

    environment: EnvironmentRecord
    operation: str
    args: dict[str, Any]
    idempotency_key: str | None
    queue_s: float
    profile: str | None
    created_by: str
    requested_by: str
    address: str | None
    session_id: str | None = None
    # The fan-out or schedule that it is a part of, or the skill's version that it brings.
    origin: str | None = None
    trace: TraceContext | None = None
    on_insert: Callable[[Connection], None] | None = None
    # The record of an MCP server that is filled in when a runner is given the task.
    mcp_server_id: str | None = None

    @property
    def digest(self) -> bytes:
        """What tells it from another request under the same idempotency key."""
        return request_digest(
            self.environment.id,
            self.operation,
            self.profile,
            self.args,
            *([self.session_id] if self.session_id is not None else []),
            *([{"mcp_server": self.mcp_server_id}] if self.mcp_server_id is not None else []),
        )


@dataclass(frozen=True, kw_only=True)
class CheckedArgs:
    """Arguments of an operation that a runner can be given: as they are stored, and the task's own limit of time."""

    encoded: bytes
    timeout_ms: int


def check_args(operation: str, args: dict[str, Any]) -> CheckedArgs:
    """Return checked arguments.

    Raises:
        PeerError: operation or args are wrong.
        ApiError: 413, they fit no message.
    """
    typed = parse_args(operation, args)
    encoded = msgspec.json.encode(args)
    if len(encoded) > limits.MESSAGE_MAX_BYTES - ENVELOPE_BYTES:
        raise ApiError(413, "oversized", f"args of {len(encoded)} bytes do not fit a message", hint="send less")
    timeout_s = getattr(typed, "timeout_s", limits.BASH_TIMEOUT_DEFAULT_S)
    return CheckedArgs(encoded=encoded, timeout_ms=int(timeout_s * 1000))


def request_digest(*parts: Any) -> bytes:
    """Return what tells two requests under one idempotency key apart."""
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).digest()


def new_record(asked: TaskRequested, args: CheckedArgs, *, at_ms: int, sent_to: Runner | None) -> TaskRecord:
    """Return the task that ``asked`` makes: about to be sent to a runner, or in line where ``sent_to`` is None."""
    return TaskRecord(
        id=mint_id("tsk"),
        environment_id=asked.environment.id,
        environment_name=asked.environment.name,
        operation=asked.operation,
        profile=asked.profile,
        session_id=asked.session_id,
        requested_by=asked.requested_by,
        args=args.encoded,
        command=command_summary(asked.operation, asked.args),
        state=TaskState.QUEUED if sent_to is None else TaskState.SENT,
        idempotency_key=asked.idempotency_key,
        request_digest=asked.digest,
        trace_id=_trace_id(asked),
        created_by=asked.created_by,
        protocol=None if sent_to is None else sent_to.protocol,
        memory_id=None if sent_to is None else sent_to.memory_id,
        timeout_ms=args.timeout_ms,
        created_ms=at_ms,
        queue_until_ms=at_ms + int(asked.queue_s * 1000) if asked.queue_s > 0 else None,
        sent_ms=None if sent_to is None else at_ms,
        origin=asked.origin,
        mcp_server_id=asked.mcp_server_id,
    )


def record_creation(
    connection: Connection, asked: TaskRequested, task: TaskRecord, *, policies: dict[str, Any] | None
) -> None:
    """Put into the audit log that ``task`` was asked for; ``policies`` are those in force at its runner."""
    audit.record_audit_event(
        connection,
        at_ms=task.created_ms,
        actor=asked.created_by,
        action="task.create",
        target=task.id,
        address=asked.address,
        environment=asked.environment.id,
        task=task.id,
        command=_command(asked.operation, asked.args),
        operation=asked.operation,
        profile=asked.profile,
        environment_name=asked.environment.name,
        requested_by=asked.requested_by,
        origin=asked.origin,
        mcp_server=asked.mcp_server_id,
        policies=policies,
    )


def _trace_id(asked: TaskRequested) -> str:
    if asked.trace is not None:
        return asked.trace.trace_id
    return derived_trace_id(asked.origin) if asked.origin is not None else secrets.token_hex(16)


def _command(operation: str, args: dict[str, Any]) -> str:
    """Return the whole of what `command_summary` shortens: what the audit log keeps."""
    command = args.get("command")
    return command if operation == "bash" and isinstance(command, str) else command_summary(operation, args)


def command_summary(operation: str, args: dict[str, Any]) -> str:
    """Return what lists show and search finds: the command, path, pattern or address that the operation is about."""
    for key in ("command", "path", "pattern", "url", "skill_name", "tool_name"):
        value = args.get(key)
        if isinstance(value, str):
            return value[:COMMAND_MAX_CHARS]
    return operation

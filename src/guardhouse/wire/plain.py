"""What a message looks like to a peer that speaks only the plain protocol. Runs in the runner and in the hub."""

from typing import Final

import msgspec

from guardhouse.errors import InvariantError
from guardhouse.wire import messages
from guardhouse.wire.messages import Message

__all__ = ["as_plain", "is_plain"]

# The fields that WIRE_PROTOCOL's table does not have, for each type that it does have.
_V1_FIELDS: Final[dict[type[Message], tuple[str, ...]]] = {
    messages.Welcome: ("output_window_bytes", "hub_version"),
    messages.Heartbeat: (
        *("tasks_running", "tasks_waiting", "executor_delay_ms", "draining"),
        *("policy_digest", "narrowing_digest"),
    ),
    messages.TaskRequest: ("session_id", "requested_by", "profile", "parent_span_id"),
    messages.TaskCancel: ("reason",),
    messages.TaskOutput: ("data_b64", "seq", "offset"),
    messages.TaskResult: ("error_code", "stdout_bytes", "stderr_bytes", "decision", "spans"),
    messages.McpCall: (),
    messages.McpResult: (),
}


def is_plain(kind: type[Message]) -> bool:
    """Return whether the plain protocol has this type of message."""
    return kind in _V1_FIELDS


def as_plain(message: Message) -> Message:
    """Return ``message`` with nothing in it that only ``guardhouse.v1`` has.

    Raises:
        InvariantError: the plain protocol has no such message, so a session queued what its peer cannot read.
    """
    if not is_plain(type(message)):
        raise InvariantError(f"{message.TYPE} was queued for a plain-protocol peer")
    changes = {name: None for name in _V1_FIELDS[type(message)] if getattr(message, name) is not None}
    return msgspec.structs.replace(message, **changes) if changes else message

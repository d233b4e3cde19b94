"""What the platform and a runner say to each other: one frame to one typed message and back.

Knows the message types, who may send which, and the limits of a frame. Knows nothing of sockets, clocks or tasks,
so the fuzz target and the tests drive it directly. Runs in the runner and in the hub.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from guardhouse import limits
from guardhouse.errors import PeerError, Refusal
from guardhouse.wire import messages, messages_files, messages_v1
from guardhouse.wire.json_text import parse_json
from guardhouse.wire.messages import Direction, Message, Unknown
from guardhouse.wire.scalars import Name
from guardhouse.wire.typed import parse_typed

__all__ = [
    "INVALID_PAYLOAD",
    "TYPES",
    "Envelope",
    "FrameTooLarge",
    "InvalidPayloadError",
    "UnsendableMessage",
    "parse_frame",
    "render_frame",
]

INVALID_PAYLOAD: Final = "invalid_payload"

_TO_RUNNER: Final[tuple[type[Message], ...]] = (
    messages.Welcome,
    messages.TaskRequest,
    messages.TaskCancel,
    messages.McpCall,
    messages_v1.RunnerResume,
    messages_v1.OutputAck,
    messages_v1.ResultAck,
    messages_v1.HubGoodbye,
    messages_v1.HubDraining,
    messages_v1.ApprovalDecision,
    messages_v1.PolicySet,
    messages_files.FileRead,
    messages_files.FileWrite,
)
_TO_HUB: Final[tuple[type[Message], ...]] = (
    messages.Heartbeat,
    messages.TaskOutput,
    messages.TaskResult,
    messages.McpResult,
    messages_v1.RunnerHello,
    messages_v1.TaskAccepted,
    messages_v1.TaskRejected,
    messages_v1.TaskCancelAck,
    messages_v1.RunnerDraining,
    messages_v1.RunnerGoodbye,
    messages_v1.ApprovalRequest,
    messages_v1.ApprovalWithdrawn,
    messages_v1.PolicyReport,
    messages_v1.PolicyAnswer,
    messages_files.FileResult,
)
TYPES: Final[dict[Direction, dict[str, type[Message]]]] = {
    Direction.TO_RUNNER: {kind.TYPE: kind for kind in _TO_RUNNER},
    Direction.TO_HUB: {kind.TYPE: kind for kind in _TO_HUB},
}
_DIRECTION: Final = {kind: direction for direction, kinds in TYPES.items() for kind in kinds.values()}
# Requests are small; a result may list very many files.
_MAX_NODES: Final = {
    Direction.TO_RUNNER: limits.MESSAGE_MAX_NODES,
    Direction.TO_HUB: limits.TASK_RESULT_MAX_NODES,
}


class Envelope(Struct, frozen=True, kw_only=True):
    """One message as it travels. ``id`` and ``timestamp_ms`` (Unix) are the sender's word and decide nothing."""

    id: str
    type: str
    payload: Message
    timestamp_ms: int


class InvalidPayloadError(PeerError):
    """A known type whose payload is not what its type says. ``reference`` is the task or call it names, if any."""

    def __init__(self, message: str, *, type_name: str, reference: str | None) -> None:
        super().__init__(message, code=INVALID_PAYLOAD)
        self.type_name = type_name
        self.reference = reference


class UnsendableMessage(Refusal):
    """A message of ours that the other side would refuse. Said here, because there it would end the connection.

    Its sender puts a smaller one in its place: `RunnerSession.replace_result` for a result, a denial for an
    approval that cannot be asked for.
    """


class FrameTooLarge(UnsendableMessage):
    """It is larger than one frame may be; send less of it, or in parts."""


class _Incoming(Struct, frozen=True):
    """The envelope before its payload is typed. A peer that leaves out ``id`` or ``timestamp`` is understood."""

    type: Annotated[str, Meta(min_length=1, max_length=limits.WIRE_NAME_MAX_CHARS)]
    id: Name = ""
    payload: Any = None
    timestamp: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] = 0


def parse_frame(data: bytes | str, *, direction: Direction) -> Envelope:
    """Return the one message in a frame; a type unknown in ``direction`` becomes `Unknown`.

    Raises:
        PeerError: ``oversized``, ``malformed`` (no JSON within bounds, or no envelope).
        InvalidPayloadError: a known type with a wrong payload; its code is ``invalid_payload``.
    """
    value = parse_json(data, max_nodes=_MAX_NODES[direction])
    incoming = parse_typed(value, _Incoming, what="envelope", code="malformed")
    kind = TYPES[direction].get(incoming.type)
    payload: Message
    if kind is None:
        payload = Unknown(type=incoming.type)
    else:
        try:
            payload = parse_typed(incoming.payload, kind, what=incoming.type, code=INVALID_PAYLOAD)
        except PeerError as error:
            raise InvalidPayloadError(
                str(error), type_name=incoming.type, reference=_reference(incoming.payload)
            ) from error
    return Envelope(id=incoming.id, type=incoming.type, payload=payload, timestamp_ms=incoming.timestamp)


def render_frame(message: Message, *, message_id: str, timestamp_ms: int) -> str:
    """Return the text frame of ``message``.

    Everything but output (which a session makes within bounds, and which is the hot path) is read back first: a
    message that the peer refuses would end the connection, be sent again by the resumption and end it again.

    Raises:
        FrameTooLarge: it would be over ``limits.MESSAGE_MAX_BYTES``.
        UnsendableMessage: it breaks another limit of docs/wire_protocol.md, or a text in it holds a lone surrogate
            (a file name that did not go through `paths`).
    """
    try:
        encoded = msgspec.json.encode(
            {"id": message_id, "type": message.TYPE, "payload": message, "timestamp": timestamp_ms}
        )
    except UnicodeEncodeError as error:
        raise UnsendableMessage(f"cannot send {message.TYPE}: it holds text that is not Unicode") from error
    if len(encoded) > limits.MESSAGE_MAX_BYTES:
        raise FrameTooLarge(
            f"message too large: {message.TYPE} of {len(encoded)} bytes,"
            f" at most {limits.MESSAGE_MAX_BYTES} fit one frame; ask for less or for a part"
        )
    if not isinstance(message, messages.TaskOutput):
        try:
            parse_frame(encoded, direction=_DIRECTION[type(message)])
        except PeerError as error:
            raise UnsendableMessage(f"cannot send {message.TYPE}: {error}") from error
    return encoded.decode("utf-8")


def _reference(payload: Any) -> str | None:
    """Return the task or call id in a payload that is otherwise wrong, so that the asker can be answered."""
    if isinstance(payload, dict):
        for key in ("task_id", "call_id"):
            value = payload.get(key)
            if isinstance(value, str) and 0 < len(value) <= limits.WIRE_ID_MAX_CHARS and value.isprintable():
                return value
    return None

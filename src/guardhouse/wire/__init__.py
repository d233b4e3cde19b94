"""What a platform and a runner say to each other: messages and the session state machines. Pure."""

from typing import Final

from guardhouse.wire.envelope import (
    Envelope,
    FrameTooLarge,
    InvalidPayloadError,
    UnsendableMessage,
    parse_frame,
    render_frame,
)
from guardhouse.wire.messages import Direction
from guardhouse.wire.operations import parse_args, parse_result

__all__ = [
    "SUBPROTOCOL",
    "Direction",
    "Envelope",
    "FrameTooLarge",
    "InvalidPayloadError",
    "UnsendableMessage",
    "parse_args",
    "parse_frame",
    "parse_result",
    "render_frame",
]

# The WebSocket subprotocol that both sides offer; without it they speak the plain protocol.
SUBPROTOCOL: Final = "guardhouse.v1"

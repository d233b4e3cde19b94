"""What the parser process and its client say to each other: a 4-byte length, then one JSON object, both ways.

Knows no socket. Runs at both ends.
"""

import struct
from typing import Final, TypeVar

import msgspec

from guardhouse import limits
from guardhouse.errors import PeerError

__all__ = ["HEADER_BYTES", "Ask", "Starts", "parse_ask", "parse_length", "parse_starts", "render"]

_HEADER: Final = struct.Struct(">I")
HEADER_BYTES: Final = _HEADER.size
# JSON writes a control character as six; an answer holds an offset of at most seven digits for each character.
_FRAME_MAX_BYTES: Final = 8 * limits.COMMAND_TEXT_MAX_BYTES + 1_024


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where do commands begin in ``text``? ``bashlex``: ask the slow reader too."""

    text: str
    bashlex: bool = False


class Starts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Character offsets, or None where that reader cannot read the text or was not asked."""

    tree_sitter: tuple[int, ...] | None = None
    bashlex: tuple[int, ...] | None = None


T = TypeVar("T", Ask, Starts)


def render(message: Ask | Starts) -> bytes:
    """Return the frame of ``message``."""
    body = msgspec.json.encode(message)
    return _HEADER.pack(len(body)) + body


def parse_length(header: bytes) -> int:
    """Return the length of the body that follows ``header``.

    Raises:
        PeerError: it is longer than any message of ours can be.
    """
    length: int = _HEADER.unpack(header)[0]
    if length > _FRAME_MAX_BYTES:
        raise PeerError(f"parser frame of {length} bytes, at most {_FRAME_MAX_BYTES} are valid", code="oversized")
    return length


def parse_ask(body: bytes) -> Ask:
    """Return the request in ``body``; raises PeerError."""
    return _decode(body, Ask)


def parse_starts(body: bytes) -> Starts:
    """Return the answer in ``body``; raises PeerError."""
    return _decode(body, Starts)


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PeerError(f"invalid parser message: {error}") from error

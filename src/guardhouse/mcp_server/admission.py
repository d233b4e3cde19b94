"""What the endpoint asks before it serves a request: whether this caller may have one more of its kind under way.

Knows no number: the hub counts and decides. Knows no MCP but which message is a call and which a stream. Pure.
"""

from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Final, Protocol

import msgspec

__all__ = ["Admission", "Kind", "is_initialize", "kind_of"]

_LISTEN: Final = "subscriptions/listen"
_INITIALIZE: Final = "initialize"


class Kind(StrEnum):
    """What takes a place while it is served."""

    REQUEST = "request"
    """Anything, from before its body is read; it counts against the requests of a minute."""
    CALL = "call"
    """A message that asks for something."""
    STREAM = "stream"
    """One that stays open: a GET of the older era, ``subscriptions/listen`` of the newer."""


class Admission(Protocol):
    """How many of what each caller may have."""

    @property
    def sessions_max(self) -> int:
        """Sessions of the older era that one caller may have."""

    def admit(self, caller: str, kind: Kind) -> AbstractContextManager[None]:
        """Take a place for as long as the block lasts.

        Raises:
            HubRefused: 429, with ``retry_after_s``; nothing is taken then.
        """

    def note_sessions(self, count: int) -> None:
        """Note how many sessions of the older era there are."""


class _Peek(msgspec.Struct):
    method: str | None = None
    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def kind_of(body: bytes) -> Kind | None:
    """Return what a posted message takes a place as; None for an answer to a question of ours, and for a notice.

    These take none: whoever has all of their calls under way must still be able to answer one of them, or to cancel it.
    """
    peek = _peek(body)
    if peek.method is None or peek.id is msgspec.UNSET:
        return None
    return Kind.STREAM if peek.method == _LISTEN else Kind.CALL


def is_initialize(body: bytes) -> bool:
    """Whether a posted message opens a session of the older era."""
    return _peek(body).method == _INITIALIZE


def _peek(body: bytes) -> _Peek:
    try:
        return msgspec.json.decode(body, type=_Peek)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Whatever it is, the SDK answers it with the error that the protocol has for it.
        return _Peek(method="", id=msgspec.Raw())

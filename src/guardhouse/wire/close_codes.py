"""Which WebSocket close code a broken rule becomes (RFC 6455 section 7.4.1). Runs in the runner and in the hub."""

from typing import Final

from guardhouse.errors import PeerError

__all__ = ["GOING_AWAY", "NORMAL", "close_code", "close_reason"]

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
_POLICY: Final = 1008
_CODES: Final = {"oversized": 1009, "malformed": 1007, "idle": GOING_AWAY}

# A control frame holds 125 bytes, two of which are the code (RFC 6455 section 5.5).
_REASON_MAX_BYTES: Final = 123


def close_code(error: PeerError) -> int:
    """Return the code to close with: 1009 oversized, 1007 malformed, 1001 silent for too long, else 1008."""
    return _CODES.get(error.code, _POLICY)


def close_reason(error: PeerError) -> str:
    """Return the error's text cut on a character to what a close frame holds."""
    return str(error).encode("utf-8", "replace")[:_REASON_MAX_BYTES].decode("utf-8", "ignore")

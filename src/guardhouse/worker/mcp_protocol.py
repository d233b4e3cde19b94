"""What an MCP worker and its client say to each other: one connect, then any number of requests side by side.

The frames are those of `guardhouse.worker.protocol`, several in the air at a time, told apart by their id. Before the
first frame comes one byte, with which a local server's two pipes are handed over. Knows no socket. Runs at both ends.
"""

from typing import Any, Final, Literal

import msgspec

from guardhouse.errors import Refusal
from guardhouse.worker.protocol import Failure

__all__ = [
    "ADDRESS",
    "PIPES",
    "CallArgs",
    "ConnectArgs",
    "ConnectResult",
    "ListResult",
    "McpFailure",
    "error_of",
    "failure_of",
]

PIPES: Final = b"P"
"""The first byte where the server is a local program: its stdout and its stdin come along, in this order."""
ADDRESS: Final = b"A"
"""The first byte where the server has an address."""


class McpFailure(Refusal):
    """An MCP server that cannot be used, or a call that it did not answer with a result.

    Attributes:
        code: a short stable word: ``connect_failed``, ``address_refused``, ``port_refused``, ``unresolved``,
            ``invalid_url``, ``bad_answer``, ``server_error``, ``session_expired`` (the server has forgotten the session
            and did nothing), ``session_lost`` (it may have done something), ``too_large``, ``timed_out``,
            ``cancelled``.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class ConnectArgs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Open the one session of this worker.

    Attributes:
        transport: how the server speaks; ``stdio`` uses the pipes.
        url: in the normal form of `fetch_url.parse_fetch_url`.
        headers: sent with every request.
        networks: CIDR networks that may be reached although they are private.
        any_port: a rule of the policy names this port, so ports other than 80 and 443 are accepted.
    """

    transport: Literal["stdio", "sse", "streamable-http"]
    url: str = ""
    headers: dict[str, str] = {}
    networks: tuple[str, ...] = ()
    any_port: bool = False

    def __repr__(self) -> str:
        return f"ConnectArgs(transport={self.transport!r}, …)"


class ConnectResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who answered, and in which version of the protocol."""

    protocol_version: str
    server_name: str = ""
    server_version: str = ""
    transport: str = ""


class CallArgs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Call one tool; the reply's body is the result as the server wrote it, JSON."""

    tool_name: str
    arguments: dict[str, Any] = {}


class ListResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The reply's body is a JSON list of tools as the server wrote them; ``left_out`` says that there were more."""

    left_out: bool = False


def failure_of(error: McpFailure) -> Failure:
    """Return ``error`` as a reply carries it."""
    return Failure(family="refusal", code=error.code, text=str(error))


def error_of(failure: Failure) -> McpFailure:
    """Return the error that the worker raised, rebuilt."""
    return McpFailure(failure.text, code=failure.code)

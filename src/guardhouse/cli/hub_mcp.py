"""The options of `guardhouse hub` for what one token may ask of `/mcp`. Wiring only."""

from collections.abc import Callable
from typing import Any

import click

from guardhouse.hub.mcp_limits import McpLimits

__all__ = ["mcp_limits", "mcp_options"]

_USUAL = McpLimits()


def mcp_options(option: Callable[..., Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """Return what gives a command the options, each made by ``option``."""
    made = (
        option(
            "--mcp-rate-per-minute",
            type=click.IntRange(0),
            default=_USUAL.requests_per_minute,
            help="Requests of one token to /mcp; 0: all.",
        ),
        option("--mcp-calls", type=click.IntRange(1), default=_USUAL.calls, help="Its calls there at a time."),
        option("--mcp-streams", type=click.IntRange(1), default=_USUAL.streams, help="Its open streams there."),
        option(
            "--mcp-sessions",
            type=click.IntRange(1),
            default=_USUAL.sessions,
            help="Its sessions of the older protocol; one more ends the longest unused.",
        ),
    )

    def decorate(command: Any) -> Any:
        for one in reversed(made):
            command = one(command)
        return command

    return decorate


def mcp_limits(*, mcp_rate_per_minute: int, mcp_calls: int, mcp_streams: int, mcp_sessions: int) -> McpLimits:
    """Return the options as limits."""
    return McpLimits(
        requests_per_minute=mcp_rate_per_minute, calls=mcp_calls, streams=mcp_streams, sessions=mcp_sessions
    )

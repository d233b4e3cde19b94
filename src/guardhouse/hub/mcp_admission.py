"""How much one token may ask of `/mcp`: requests a minute, calls and streams at the same time, sessions.

Beside `guardhouse.hub.rates`, which counts the requests to the REST interface that a tool makes: an agent in a loop is
stopped here, with an answer that it can read, before it costs its owner's programs their share there. Runs in the hub.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from guardhouse.hub.clock import steady_ms
from guardhouse.hub.mcp_limits import McpLimits
from guardhouse.hub.rates import RateLimit, TooManyRequests
from guardhouse.mcp_server.admission import Kind
from guardhouse.mcp_server.hub_api import HubRefused

if TYPE_CHECKING:
    from guardhouse.hub.metrics import Metrics

__all__ = ["McpAdmission"]

# When a place may be free again: calls answer within 45 s unless told otherwise, most of them within a second or two.
PLACE_RETRY_S: Final = 5.0


class McpAdmission:
    """Counts what every token has under way."""

    def __init__(self, limits: McpLimits, metrics: "Metrics") -> None:
        self._limits = limits
        self._rate = RateLimit(limits.requests_per_minute)
        self._metrics = metrics
        self._under_way: dict[Kind, Counter[str]] = {kind: Counter() for kind in Kind}
        self._most = {Kind.REQUEST: limits.requests, Kind.CALL: limits.calls, Kind.STREAM: limits.streams}
        self._sessions = 0

    @property
    def sessions_max(self) -> int:
        """Sessions of the older era that one token may have."""
        return self._limits.sessions

    def figures(self) -> dict[str, int]:
        """Return what is under way now, of all tokens together."""
        return {
            "mcp_calls": self._under_way[Kind.CALL].total(),
            "mcp_streams": self._under_way[Kind.STREAM].total(),
            "mcp_sessions": self._sessions,
        }

    def note_sessions(self, count: int) -> None:
        """Note how many sessions of the older era there are."""
        self._sessions = count

    @contextmanager
    def admit(self, caller: str, kind: Kind) -> Iterator[None]:
        """Take a place for as long as the block lasts.

        Raises:
            HubRefused: 429; nothing is taken then.
        """
        under_way = self._under_way[kind]
        if under_way[caller] >= self._most[kind]:
            self._metrics.note_mcp_refusal(f"{kind}s")
            raise HubRefused(
                "busy",
                f"this token has {under_way[caller]} {kind}s under way at /mcp, which is all that it may have",
                hint="wait until one of them has ended: make fewer calls at the same time, or with a smaller wait_s",
                status=429,
                retryable=True,
                retry_after_s=PLACE_RETRY_S,
            )
        if kind is Kind.REQUEST:
            self._take(caller)
        under_way[caller] += 1
        try:
            yield
        finally:
            under_way[caller] -= 1
            if not under_way[caller]:
                del under_way[caller]

    def _take(self, caller: str) -> None:
        try:
            self._rate.take(caller, now_ms=steady_ms())
        except TooManyRequests as error:
            self._metrics.note_mcp_refusal("rate")
            raise HubRefused(
                "too_many_requests",
                f"this token has made more than {self._limits.requests_per_minute} requests to /mcp within a minute",
                hint=f"wait {max(1, round(error.wait_s))} s, then make the same call again",
                status=429,
                retryable=True,
                retry_after_s=error.wait_s,
            ) from error
        self._metrics.note_mcp_request()

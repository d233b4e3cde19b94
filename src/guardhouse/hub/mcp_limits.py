"""What one token may have at `/mcp`. Pure. Runs in the hub."""

from dataclasses import dataclass, fields

from guardhouse.errors import SetupError

__all__ = ["McpLimits"]


@dataclass(frozen=True, kw_only=True)
class McpLimits:
    """What one token may have at `/mcp`.

    Attributes:
        requests_per_minute: of any kind, as a bucket that refills; 0: no limit.
        calls: that are served at the same time.
        streams: that are open at the same time.
        sessions: of the older era; one more ends the one that was not used for longest.
    """

    requests_per_minute: int = 1_200
    calls: int = 16
    streams: int = 8
    sessions: int = 64

    def __post_init__(self) -> None:
        for each in fields(self):
            low = 0 if each.name == "requests_per_minute" else 1
            if getattr(self, each.name) < low:
                raise SetupError(f"/mcp: {each.name} must be at least {low}, got {getattr(self, each.name)}")

    @property
    def requests(self) -> int:
        """Of any kind under way: calls and streams, and as many calls again that still arrive or are answers."""
        return 2 * self.calls + self.streams

"""Where a tool call runs: an environment that it names, or a session's. Knows no MCP server."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from guardhouse.mcp_server.hub_api import HubApi, HubRefused

__all__ = ["EnvironmentName", "SessionId", "Target", "find_target"]

EnvironmentName = Annotated[
    str | None,
    Field(description="id or name of the environment; leave it out with session_id", min_length=1, max_length=128),
]
SessionId = Annotated[
    str | None, Field(description="session_id of open_session: its environment is used", min_length=1, max_length=64)
]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a task is asked for with; one of the two is there."""

    environment_id: str | None
    session_id: str | None

    @property
    def key(self) -> str:
        """What tells one target from another."""
        return self.session_id or self.environment_id or ""

    @property
    def body(self) -> dict[str, Any]:
        """What a request for a task says of it."""
        return {"environment_id": self.environment_id, "session_id": self.session_id}


async def find_target(hub: HubApi, environment: str | None, session_id: str | None) -> Target:
    """Return the target of a call.

    Raises:
        HubRefused: neither is given, or the hub has no such environment.
    """
    if environment is None and session_id is None:
        raise HubRefused(
            "invalid_arguments",
            "this call names neither environment nor session_id",
            hint="name an environment of list_environments, or a session of open_session",
        )
    found = await hub.environment(environment) if environment is not None else None
    return Target(environment_id=found["id"] if found is not None else None, session_id=session_id)

"""What the routes about the hub itself give. Runs in the hub."""

from typing import Literal

from guardhouse.hub.api.schemas import Output

__all__ = [
    "Health",
    "Readiness",
]


class Health(Output, frozen=True):
    """The process runs."""

    status: Literal["ok"]
    version: str


class Readiness(Output, frozen=True):
    """The store answers and takes writes, and the hub is not shutting down."""

    status: Literal["ready", "not_ready"]
    reason: str | None

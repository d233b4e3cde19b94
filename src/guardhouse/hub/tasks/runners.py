"""What the tasks of a hub need of the runners that are connected. Runs in the hub."""

from collections.abc import Mapping
from typing import Any, Protocol

from guardhouse.wire.messages import TaskRequest

__all__ = ["Runner", "Runners"]


class Runner(Protocol):
    """A connected runner, as the board sees it."""

    @property
    def is_ready(self) -> bool:
        """Whether it takes tasks now."""

    @property
    def protocol(self) -> str:
        """``guardhouse.v1`` or ``plain``."""

    @property
    def memory_id(self) -> str | None:
        """The name of its memory, under v1."""

    @property
    def policies_in_force(self) -> dict[str, Any] | None:
        """Which policies it said last are in force (`audit.policies`); None: it has said nothing."""

    def holds(self, task_id: str) -> bool:
        """Whether it was given the task on this connection, or goes on with it."""

    def request(self, request: TaskRequest) -> None:
        """Queue a request."""

    def cancel(self, task_id: str, *, reason: str | None) -> None:
        """Queue a cancel."""


class Runners(Protocol):
    """Who is connected."""

    @property
    def drained(self) -> Mapping[str, object]:
        """Environments, by id, that get no new tasks at the moment."""

    def find(self, environment_id: str) -> Runner | None:
        """Return the environment's runner, connected now, or None."""

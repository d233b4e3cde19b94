"""The application's task for one request, and the way to it, without a turn of the event loop for each event.

Trio's channels let every other task run at each send and receive, needed or not, and cost as much to make as a request
costs to authorize. Here only who must wait does: who reads the socket waits for that anyway, and the line is bounded.
Knows nothing of what is served. Runs in the hub.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio.task_group import TaskGroup, _handle
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, Scope

from guardhouse.errors import InvariantError

__all__ = ["HubTaskGroup"]


class _Line:
    """What has arrived for one application and was not taken yet."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # A list, since the limit is small, and thousands of connections have none: an empty deque takes 700 bytes more.
        self._events: list[Any] = []
        # Made by who must wait: for an event, and for room.
        self._arrived: trio.Event | None = None
        self._taken: trio.Event | None = None

    async def put(self, event: Any) -> None:
        """Put an event in line; wait while the line is full."""
        while len(self._events) >= self._limit:
            self._taken = self._taken or trio.Event()
            await self._taken.wait()
        last = self._events[-1] if self._events else event
        if last is not event and last["type"] == event["type"] == "http.request" and not event["body"]:
            # The end of a body whose last piece nobody has taken yet: said with that.
            last["more_body"] = event["more_body"]
            return
        self._events.append(event)
        if self._arrived is not None:
            self._arrived.set()
            self._arrived = None

    async def take(self) -> Any:
        """Return the next event; wait for it where there is none."""
        while not self._events:
            self._arrived = self._arrived or trio.Event()
            await self._arrived.wait()
        if self._taken is not None:
            self._taken.set()
            self._taken = None
        return self._events.pop(0)


class HubTaskGroup(TaskGroup):
    """Hypercorn's task group with a faster way to the application."""

    async def spawn_app(
        self,
        app: AppWrapper,
        config: Config,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        """Start ``app`` and return what hands it an event; that waits where the application has many unread."""
        if self._nursery is None:
            raise InvariantError("a request came to a connection whose task group is closed")
        line = _Line(config.max_app_queue_size)
        handle: Any = _handle
        self._nursery.start_soon(
            handle, app, config, scope, line.take, send, trio.to_thread.run_sync, trio.from_thread.run
        )
        return line.put

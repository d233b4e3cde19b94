"""Managed sandboxes inside a hub: a listener on loopback for their runners alone, and the host that starts them.

The runners dial a port of their own, so that neither the hub's certificate nor a proxy in front of it stands between
the two; behind it are the gateway's paths and nothing else. Runs in the hub.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import trio
from starlette.types import ASGIApp, Receive, Scope, Send

from guardhouse.hub.gateway.endpoint import GATEWAY_PATHS
from guardhouse.hub.managed.host import ManagedHost
from guardhouse.hub.managed.settings import ManagedSettings
from guardhouse.hub.managed.upkeep import SandboxUpkeep
from guardhouse.hub.services import Services
from guardhouse.hub.transport import bind_listener, serve_listener

__all__ = ["serve_managed"]


@asynccontextmanager
async def serve_managed(
    settings: ManagedSettings | None, services: Services, app: ASGIApp
) -> AsyncIterator[ManagedHost | None]:
    """Serve managed sandboxes inside the block, None where there are none; leaving it ends their runners.

    Raises:
        SetupError: the directory or the port cannot be had.
    """
    if settings is None:
        yield None
        return
    host = ManagedHost(
        settings,
        database=services.database,
        links=services.links,
        board=services.board,
        credentials=services.credentials,
        sealer=services.sealer,
        clock=services.clock,
    )
    listener = bind_listener("127.0.0.1", 0, context=None)
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        serve = partial(serve_listener, cast(Any, _Gateway(app)), listener, stop=stop.wait)
        url: str = await nursery.start(serve)
        await host.open(nursery, url=f"ws{url.removeprefix('http')}{GATEWAY_PATHS[0]}")
        nursery.start_soon(SandboxUpkeep(host).run)
        try:
            yield host
        finally:
            with trio.CancelScope(shield=True):
                await host.close()
            stop.set()
            nursery.cancel_scope.cancel()
    await host.runners.tidy()


class _Gateway:
    """The application with nothing but the runners' gateway."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and scope["path"] in GATEWAY_PATHS:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})

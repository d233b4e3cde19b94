"""Where agents reach the hub by MCP: the endpoint of `guardhouse.mcp_server` over this hub's own REST interface.

Runs in the hub.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache

import trio
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from guardhouse.data_files import shipped_directory
from guardhouse.hub.services import Services
from guardhouse.mcp_server.endpoint import McpEndpoint
from guardhouse.mcp_server.server import build_server
from guardhouse.policy import Policy, load_policy

__all__ = ["mcp_endpoint"]


@asynccontextmanager
async def mcp_endpoint(services: Services) -> AsyncIterator[tuple[McpEndpoint, Callable[[ASGIApp], ASGIApp]]]:
    """Yield what serves agents, and how to tell it of the application that it asks in turn."""
    apps: list[ASGIApp] = []

    async def hub(scope: AsgiScope, receive: Receive, send: Send) -> None:
        await apps[0](scope, receive, send)

    def attach(app: ASGIApp) -> ASGIApp:
        apps.append(app)
        return app

    public_url, oidc = services.public_url, services.config.oidc
    server = build_server(hub, read_only=await trio.to_thread.run_sync(_read_only_rules), public_url=public_url)
    issuer = oidc.issuer if oidc is not None and oidc.access_tokens else None
    endpoint = McpEndpoint(
        hub, server, admission=services.mcp_admission, public_url=public_url, authorization_server=issuer
    )
    async with endpoint.run():
        yield endpoint, attach


@cache
def _read_only_rules() -> Policy:
    """The shipped read-only rules: what agents may run without anyone looking."""
    text = (shipped_directory("policies") / "read_only.yaml").read_text(encoding="utf-8")
    return load_policy(text, name="read_only")

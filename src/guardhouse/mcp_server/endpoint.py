"""`/mcp`: who asks is known before a byte of MCP is read, and every call counts against their limits.

A bearer token is needed, never a cookie, so no page in a browser can call on somebody's behalf. Runs in the hub.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import trio
from mcp.server import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from guardhouse.mcp_server.caller import CALLER, TOOL_SCOPES, Caller
from guardhouse.mcp_server.hub_api import HubApi, HubRefused

__all__ = ["HUB_METADATA_PATH", "MCP_PATH", "METADATA_PATH", "McpEndpoint"]

MCP_PATH: Final = "/mcp"
METADATA_PATH: Final = "/.well-known/oauth-protected-resource/mcp"
HUB_METADATA_PATH: Final = "/.well-known/oauth-protected-resource"
_SCOPES: Final = tuple(sorted({*TOOL_SCOPES.values(), "approvals:read", "approvals:decide"}))
# Calls of one token at the same time; more are answered with 429.
_CONCURRENT_MAX: Final = 16


class McpEndpoint:
    """The ASGI application at `MCP_PATH`. Works while `run` is held."""

    def __init__(
        self, app: ASGIApp, server: MCPServer[Any], *, public_url: str, authorization_server: str | None = None
    ) -> None:
        """``app`` is the hub's own application, which is asked whose token it is.

        ``authorization_server`` is the issuer whose access tokens the hub takes, None where it takes none.
        """
        self._app = app
        self._server = server
        self._public_url = public_url.rstrip("/")
        self._authorization_server = authorization_server
        # The bearer token stands for the check of Host and Origin: a page that was rebound to this address has none.
        security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
        self._inner = server.streamable_http_app(streamable_http_path=MCP_PATH, transport_security=security)
        self._running: dict[str, int] = {}

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Hold the sessions of clients of the older era; those of the newer have none."""
        async with self._server.session_manager.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse whoever it is from."""
        request = Request(scope, receive)
        if request.url.path in {METADATA_PATH, HUB_METADATA_PATH}:
            resource = MCP_PATH if request.url.path == METADATA_PATH else ""
            await self._metadata(resource)(scope, receive, send)
            return
        try:
            caller = await self._caller(request)
        except HubRefused as error:
            await self._refuse(error)(scope, receive, send)
            return
        if self._running.get(caller.id, 0) >= _CONCURRENT_MAX and request.method == "POST":
            busy = HubRefused("busy", f"this token has {_CONCURRENT_MAX} calls under way", status=429, retryable=True)
            await self._refuse(busy)(scope, receive, send)
            return
        self._running[caller.id] = self._running.get(caller.id, 0) + 1
        try:
            await self._inner({**scope, CALLER: caller}, receive, send)
        finally:
            self._running[caller.id] -= 1
            if not self._running[caller.id]:
                del self._running[caller.id]

    async def _caller(self, request: Request) -> Caller:
        authorization = request.headers.get("authorization", "")
        if not authorization.lower().startswith("bearer "):
            raise HubRefused("unauthenticated", "a bearer token is needed: Authorization: Bearer ght_…", status=401)
        client = (request.client.host, request.client.port) if request.client else ("0.0.0.0", 0)  # noqa: S104 - unknown
        hub = HubApi(self._app, authorization=authorization, client=client, via="mcp")
        try:
            found = await hub.get("/api/v1/self")
        finally:
            with trio.CancelScope(shield=True):
                await hub.aclose()
        caller = Caller(found["id"], frozenset(found["scopes"]))
        if not any(caller.may_use(tool) for tool in TOOL_SCOPES):
            raise HubRefused(
                "insufficient_scope",
                f"no tool is within this token's scopes; they need {' '.join(_SCOPES)}",
                status=403,
            )
        return caller

    def _metadata(self, resource: str) -> Response:
        """Return what a protected resource says of itself (RFC 9728)."""
        body: dict[str, object] = {
            "resource": f"{self._public_url}{resource}",
            "resource_name": "Guardhouse",
            "bearer_methods_supported": ["header"],
            "scopes_supported": list(_SCOPES),
        }
        if self._authorization_server is not None:
            body["authorization_servers"] = [self._authorization_server]
        return Response(msgspec.json.encode(body), media_type="application/json")

    def _refuse(self, error: HubRefused) -> Response:
        headers = {}
        if error.status == 401:
            headers["www-authenticate"] = (
                f'Bearer realm="guardhouse", error="invalid_token",'
                f' resource_metadata="{self._public_url}{METADATA_PATH}"'
            )
        if error.code == "insufficient_scope":
            headers["www-authenticate"] = (
                f'Bearer realm="guardhouse", error="insufficient_scope", scope="{" ".join(_SCOPES)}",'
                f' resource_metadata="{self._public_url}{METADATA_PATH}"'
            )
        if error.status == 429:
            headers["retry-after"] = "5"
        body = {
            "error": {
                "code": error.code,
                "message": str(error),
                "hint": error.hint,
                "retryable": error.retryable,
            }
        }
        return Response(
            msgspec.json.encode(body), status_code=error.status or 401, media_type="application/json", headers=headers
        )

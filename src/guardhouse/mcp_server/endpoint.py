"""`/mcp`: who asks is known before a byte of MCP is read, and every request takes its place within their limits.

A bearer token is needed, never a cookie, so no page in a browser can call on somebody's behalf. Runs in the hub.
"""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import trio
from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER
from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guardhouse.mcp_server.admission import Admission, Kind, is_initialize, kind_of
from guardhouse.mcp_server.caller import CALLER, TOOL_SCOPES, Caller
from guardhouse.mcp_server.hub_api import HubApi, HubRefused
from guardhouse.mcp_server.intake import BODY_MAX_BYTES, read_body, replay
from guardhouse.mcp_server.sessions import SessionBook

__all__ = ["HUB_METADATA_PATH", "MCP_PATH", "METADATA_PATH", "McpEndpoint"]

MCP_PATH: Final = "/mcp"
METADATA_PATH: Final = "/.well-known/oauth-protected-resource/mcp"
HUB_METADATA_PATH: Final = "/.well-known/oauth-protected-resource"
_SCOPES: Final = tuple(sorted({*TOOL_SCOPES.values(), "approvals:read", "approvals:decide"}))
# An older client's session that nobody used for so long is ended; its next request opens another.
_SESSION_IDLE_S: Final = 1_800.0
# JSON-RPC leaves -32000 to -32099 to servers, and MCP of these -32020 and below to itself.
_REFUSED: Final = -32000


class McpEndpoint:
    """The ASGI application at `MCP_PATH`. Works while `run` is held."""

    def __init__(
        self,
        app: ASGIApp,
        server: MCPServer[Any],
        *,
        admission: Admission,
        public_url: str,
        authorization_server: str | None = None,
    ) -> None:
        """``app`` is the hub's own application, which is asked whose token it is.

        ``authorization_server`` is the issuer whose access tokens the hub takes, None where it takes none.
        """
        self._app = app
        self._server = server
        self._admission = admission
        self._public_url = public_url.rstrip("/")
        self._authorization_server = authorization_server
        # The bearer token stands for the check of Host: a page that was rebound to this address has none.
        security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
        inner = server.streamable_http_app(
            streamable_http_path=MCP_PATH,
            transport_security=security,
            max_request_body_size=BODY_MAX_BYTES,
            session_idle_timeout=_SESSION_IDLE_S,
        )
        # With it a session, and the state of a form, are of use to the very caller alone that they were made for.
        self._inner = AuthContextMiddleware(inner)
        self._sessions = SessionBook(most=admission.sessions_max, idle_s=_SESSION_IDLE_S)

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
            self._check_origin(request)
            caller = await self._caller(request)
            with self._admission.admit(caller.id, Kind.REQUEST):
                await self._serve(caller, request, send)
        except HubRefused as error:
            await self._refuse(error)(scope, receive, send)

    async def _serve(self, caller: Caller, request: Request, send: Send) -> None:
        receive = request.receive
        kind: Kind | None = Kind.STREAM if request.method == "GET" else None
        opens_session = False
        if request.method == "POST":
            body = await read_body(receive)
            if body is None:
                return
            kind, receive = kind_of(body), replay(body, receive)
            opens_session = is_initialize(body)
        user = AuthenticatedUser(AccessToken(token="", client_id=caller.id, scopes=sorted(caller.scopes)))
        scope = {**request.scope, CALLER: caller, "user": user}
        session_id = request.headers.get(MCP_SESSION_ID_HEADER)
        if kind is None:
            await self._pass_on(scope, receive, send, session_id=session_id)
        else:
            with self._admission.admit(caller.id, kind):
                await self._pass_on(scope, receive, send, session_id=session_id)
        if opens_session:
            await self._end_surplus(scope)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, *, session_id: str | None) -> None:
        """Serve a request that was let in, and write down what becomes of its session, if it has one."""
        caller: Caller = scope[CALLER]
        opened: list[str] = []

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                named = MutableHeaders(raw=list(message["headers"])).get(MCP_SESSION_ID_HEADER)
                if named is not None and message["status"] < 400:
                    opened.append(named)
                    self._note_use(caller, named)
                elif session_id is not None and message["status"] == 404:
                    self._forget(session_id)
            await send(message)

        await self._inner(scope, receive, watch)
        if session_id is not None and scope["method"] == "DELETE":
            self._forget(session_id)
        elif opened and self._sessions.knows(opened[0]):
            # It counts as used until its answer, or its stream, has ended.
            self._note_use(caller, opened[0])

    def _note_use(self, caller: Caller, session_id: str) -> None:
        self._sessions.note_use(caller.id, session_id, now_s=trio.current_time())
        self._admission.note_sessions(len(self._sessions))

    def _forget(self, session_id: str) -> None:
        self._sessions.forget(session_id)
        self._admission.note_sessions(len(self._sessions))

    async def _end_surplus(self, scope: Scope) -> None:
        """End the caller's sessions beyond what it may have, as it could itself."""
        caller: Caller = scope[CALLER]
        for session_id in self._sessions.surplus(caller.id):
            headers = [(MCP_SESSION_ID_HEADER.encode(), session_id.encode()), (b"accept", b"application/json")]
            await self._inner({**scope, "method": "DELETE", "headers": headers}, _no_body, _nobody)
            self._forget(session_id)

    def _check_origin(self, request: Request) -> None:
        """Refuse a page of another origin (MCP, "Streamable HTTP", security warning).

        Raises:
            HubRefused: 403.
        """
        for origin in request.headers.getlist("origin"):
            if origin.lower() != _origin_of(self._public_url):
                raise HubRefused(
                    "wrong_origin",
                    f"a page of {origin[:200]!r} may not call this hub",
                    hint="programs send no Origin; pages are served from the hub's own address only",
                    status=403,
                )

    async def _caller(self, request: Request) -> Caller:
        if not request.headers.get("authorization", "").lower().startswith("bearer "):
            raise HubRefused("unauthenticated", "a bearer token is needed: Authorization: Bearer ght_…", status=401)
        hub = HubApi(self._app, request, via="mcp")
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
        """Return a refusal: a status for programs, and an error of JSON-RPC, which hosts show to their model."""
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
        data: dict[str, object] = {"code": error.code, "hint": error.hint, "retryable": error.retryable}
        if error.status == 429:
            retry_after_s = max(1, math.ceil(error.retry_after_s or 1.0))
            headers["retry-after"] = str(retry_after_s)
            data["retry_after_s"] = retry_after_s
        told = f"{error.code}: {error}" + (f"; {error.hint}" if error.hint else "")
        body = {"jsonrpc": "2.0", "id": None, "error": {"code": _REFUSED, "message": told, "data": data}}
        return Response(
            msgspec.json.encode(body), status_code=error.status or 401, media_type="application/json", headers=headers
        )


def _origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


async def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _nobody(message: Message) -> None:
    del message

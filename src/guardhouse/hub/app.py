"""The ASGI application: the route table, the gateway paths, and what every answer carries. Runs in the hub."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.routing import Route as HttpRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guardhouse.errors import InvariantError
from guardhouse.hub.api.door import Door, error_response
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.api.routes import ROUTES
from guardhouse.hub.gateway.endpoint import GATEWAY_PATHS, RunnerGateway
from guardhouse.hub.routing import RouteIndex
from guardhouse.hub.services import Services
from guardhouse.hub.trace_context import child_context
from guardhouse.mcp_server.endpoint import HUB_METADATA_PATH, MCP_PATH, METADATA_PATH, McpEndpoint

__all__ = ["build_app"]

_HEADERS: Final = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_TRACE: Final = b"x-trace-id"
_STRICT_TRANSPORT: Final = (b"strict-transport-security", b"max-age=31536000")


def build_app(services: Services, *, mcp: McpEndpoint, on_broken_promise: Callable[[InvariantError], None]) -> ASGIApp:
    """Return the application that serves ``services``.

    Args:
        mcp: what serves agents; it asks this very application.
        on_broken_promise: told of an `InvariantError`, after which the process must not carry on.
    """
    doors = [HttpRoute(route.path, Door(route, services), methods=[route.method], name=route.path) for route in ROUTES]
    agents = [HttpRoute(path, mcp, name=path) for path in (MCP_PATH, METADATA_PATH, HUB_METADATA_PATH)]
    starlette = Starlette(
        routes=[*doors, *agents],
        exception_handlers={HTTPException: _http_error, Exception: _unexpected_error},
    )
    starlette.router.redirect_slashes = False
    is_https = services.public_url.startswith("https:")
    return _Outermost(
        starlette,
        services,
        RunnerGateway(services),
        RouteIndex(doors),
        is_https=is_https,
        on_broken_promise=on_broken_promise,
    )


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    path = request.url.path
    known: dict[int, tuple[str, str, str]] = {
        404: ("not_found", f"nothing is at {path}", "see /api/v1/openapi.json"),
        405: ("method_not_allowed", f"{request.method} is not for {path}", "see /api/v1/openapi.json"),
    }
    code, message, hint = known.get(status, ("refused", f"status {status}", ""))
    response = error_response(ApiError(status, code, message, hint=hint))
    if isinstance(error, HTTPException) and error.headers:
        response.headers.update(error.headers)
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        # Starlette names the methods of the first row of the table that has this path.
        rows = [row for row in request.app.routes if isinstance(row, HttpRoute)]
        allowed = {name for row in rows if row.matches(request.scope)[0] != Match.NONE for name in row.methods or ()}
        response.headers["allow"] = ", ".join(sorted(allowed))
    return response


async def _unexpected_error(request: Request, error: Exception) -> Response:
    del request, error
    return error_response(ApiError(500, "internal", "the hub could not do this", hint="the hub's log has the reason"))


class _Outermost:
    """Adds the security headers and a trace id, ends connections when the hub stops, and notices broken promises.

    Requests that a door serves go to it directly. What Starlette's middleware does for the rest, three layers of it
    around each message, is one here: an unexpected error is answered, unless an answer has begun, and raised again.
    """

    def __init__(
        self,
        app: ASGIApp,
        services: Services,
        gateway: RunnerGateway,
        doors: RouteIndex,
        *,
        is_https: bool,
        on_broken_promise: Callable[[InvariantError], None],
    ) -> None:
        self._app = app
        self._services = services
        self._gateway = gateway
        self._doors = doors
        self._headers = [*_HEADERS, _STRICT_TRANSPORT] if is_https else list(_HEADERS)
        self._on_broken_promise = on_broken_promise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_begun
            if message["type"] in {"http.response.start", "websocket.http.response.start"}:
                has_begun = True
                given = list(message.get("headers", []))
                # The one page with a script says itself what may run in it.
                own = {name for name, _ in given if name == b"content-security-policy"}
                added = [(name, value) for name, value in self._headers if name not in own]
                if not any(name == _TRACE for name, _ in given):
                    # What no route of the interface answered: the line of the request's log is found by it.
                    added.append((_TRACE, child_context(None).trace_id.encode("ascii")))
                if self._services.is_stopping and message["type"] == "http.response.start":
                    # The client's next request is for the next hub: over this connection it would be cut off.
                    added.append((b"connection", b"close"))
                message = {**message, "headers": [*given, *added]}
            await send(message)

        try:
            if scope["type"] == "websocket" and scope["path"] in GATEWAY_PATHS:
                # Each layer around it would be kept for as long as the runner is connected.
                await self._gateway(scope, receive, send_with_headers)
                return
            door = self._doors.find(scope) if scope["type"] == "http" else None
            if door is None:
                await self._app(scope, receive, send_with_headers)
                return
            try:
                await door.app(scope, receive, send_with_headers)
            except Exception as error:  # answered here, and raised again for the log
                if not has_begun:
                    response = await _unexpected_error(Request(scope), error)
                    await response(scope, receive, send_with_headers)
                raise
        except InvariantError as error:
            self._on_broken_promise(error)
            raise
        except BaseExceptionGroup as group:
            broken: Any = group.subgroup(InvariantError)
            while isinstance(broken, BaseExceptionGroup):
                broken = broken.exceptions[0]
            if broken is not None:
                self._on_broken_promise(broken)
            raise

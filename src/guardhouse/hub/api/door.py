"""The one door to the REST interface: authenticate, authorize, decode, authorize what it is about, call, encode.

Every row of the route table becomes one `Door`, and nothing else answers under /api. Knows no route. Runs in the hub.
"""

import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import msgspec
import structlog
import trio
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from guardhouse import limits
from guardhouse.errors import GuardhouseError, InvariantError
from guardhouse.hub.api.browser import check_same_site, sign_in_cookie, sign_in_secret
from guardhouse.hub.api.concern import check_concern
from guardhouse.hub.api.errors import ApiError, ErrorReply, as_api_error
from guardhouse.hub.api.schemas import NoQuery
from guardhouse.hub.authorize import Access, AuthenticationFailed, Principal, check_access
from guardhouse.hub.authorize import Scope as TokenScope
from guardhouse.hub.clock import now_ms, steady_ms
from guardhouse.hub.concerns import Concern
from guardhouse.hub.database import StoreUnavailable
from guardhouse.hub.forwarded import client_address
from guardhouse.hub.oidc.access import access_principal
from guardhouse.hub.oidc.tokens import looks_like_jwt
from guardhouse.hub.source import source_of
from guardhouse.hub.store import people
from guardhouse.hub.store.approvals import ApprovalRecord
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.fanouts import FanoutRecord
from guardhouse.hub.store.mcp_servers import McpServerRecord
from guardhouse.hub.store.schedules import ScheduleRecord
from guardhouse.hub.store.sessions import SessionRecord
from guardhouse.hub.store.skills import SkillRecord
from guardhouse.hub.store.tasks import TaskRecord
from guardhouse.hub.trace_context import TraceContext, child_context, parse_traceparent
from guardhouse.wire.json_text import parse_json

if TYPE_CHECKING:
    from guardhouse.hub.services import Services

__all__ = ["Call", "Door", "Reply", "Route", "error_response"]

_log = structlog.get_logger("guardhouse.hub.api")

B = TypeVar("B", bound=msgspec.Struct)

BODY_MAX_BYTES: Final = 64 * 1024
# A body trickling in keeps a place in memory: this long for all of it.
BODY_TIMEOUT_S: Final = 30.0
# What Retry-After says while the hub stops: a restart takes some seconds.
STOPPING_RETRY_S: Final = 5.0
JSON: Final = "application/json"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One authorized request, decoded. A struct, since one is made twice for each request.

    ``principal`` is None on public routes only. ``environment``, ``task``, ``approval`` and ``session`` are
    what the route's concern names.
    """

    services: "Services"
    principal: Principal | None
    path: dict[str, str]
    query: Any
    body: Any
    address: str | None
    user_agent: str | None = None
    # Of a browser that takes an event stream up again.
    last_event_id: int | None = None
    cookies: Mapping[str, str] = msgspec.field(default_factory=dict)
    # What the route's concern loaded and allowed.
    environment: EnvironmentRecord | None = None
    task: TaskRecord | None = None
    approval: ApprovalRecord | None = None
    fanout: FanoutRecord | None = None
    schedule: ScheduleRecord | None = None
    mcp_server: McpServerRecord | None = None
    skill: SkillRecord | None = None
    # The span of this very request.
    trace: TraceContext | None = None
    # Id and shown name of each, where the body is about many.
    environments: tuple[tuple[str, str], ...] = ()
    session: SessionRecord | None = None

    @property
    def actor(self) -> Principal:
        """Who asks, on a route that is not public."""
        if self.principal is None:
            raise InvariantError("a route that needs a principal was called without one")
        return self.principal


@dataclass(frozen=True)
class Reply:
    """What a handler answers: a typed body, or raw text, or a stream of bytes."""

    body: msgspec.Struct | bytes | AsyncIterator[bytes] | None
    status: int = 200
    media_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    # Values of Set-Cookie, where there is more than one.
    cookies: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Route:
    """One row of the route table: what OpenAPI shows is what the door enforces."""

    method: str
    path: str
    access: TokenScope | Access
    handler: Callable[[Call], Awaitable[Reply]]
    summary: str
    tag: str
    query: type[msgspec.Struct] = NoQuery
    body: type[msgspec.Struct] | None = None
    body_max_bytes: int = BODY_MAX_BYTES
    replies: dict[int, Any] = field(default_factory=dict)
    media_type: str = JSON
    errors: tuple[int, ...] = ()
    # The body is bytes of any length, handed to the handler as they come.
    streams_body: bool = False
    concern: Concern = Concern.NOTHING


class Door:
    """Serves one route."""

    def __init__(self, route: Route, services: "Services") -> None:
        self.route = route
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request (ASGI)."""
        request = Request(scope, receive, send)
        start_ns, began_s = time.time_ns(), trio.current_time()
        # A trace of its own, until who asks is known: a stranger's word on which one this belongs to does not count.
        scope["guardhouse.trace"] = child_context(None)
        with structlog.contextvars.bound_contextvars(trace_id=scope["guardhouse.trace"].trace_id):
            response = await self._respond(request, scope)
        if response is None:
            return
        trace: TraceContext = scope["guardhouse.trace"]
        response.headers["x-trace-id"] = trace.trace_id
        route, services = self.route, self._services
        seconds = trio.current_time() - began_s
        services.metrics.note_request(
            method=route.method, route=route.path, status=response.status_code, seconds=seconds
        )
        services.traces.note_request(
            trace,
            method=route.method,
            route=route.path,
            status=response.status_code,
            start_ns=start_ns,
            end_ns=start_ns + int(seconds * 1e9),
        )
        await response(scope, receive, send)

    async def _respond(self, request: Request, scope: Scope) -> Response | None:
        """Return the answer, an error's too; None where the client has left."""
        try:
            with self._services.requests.at_most():
                return await self._answer(request)
            raise ApiError(
                503,
                "stopping",
                "the hub is shutting down and did not finish this",
                hint="look whether it was done, or send it again with the same idempotency_key, in a moment",
                retryable=True,
                retry_after_s=STOPPING_RETRY_S,
            )
        except GuardhouseError as error:
            if isinstance(error, InvariantError):
                raise
            refusal = as_api_error(error)
            if refusal.status >= 500:
                _log.error("request_failed", path=scope["path"], error=str(error))
            return error_response(refusal)
        except ClientDisconnect:
            return None

    async def _answer(self, request: Request) -> Response:
        route, services = self.route, self._services
        address = client_address(
            request.client.host if request.client else None,
            request.headers.getlist("x-forwarded-for"),
            services.config.trusted_proxies,
        )
        principal = await self._authenticate(request, address)
        if principal is not None:
            services.rates.take(principal.id, now_ms=steady_ms())
        else:
            services.public_rates.take(source_of(address), now_ms=steady_ms())
        check_access(principal, route.access)
        above = parse_traceparent(request.headers.get("traceparent")) if principal is not None else None
        if above is not None:
            request.scope["guardhouse.trace"] = child_context(above)
            structlog.contextvars.bind_contextvars(trace_id=above.trace_id)
        call = Call(
            services=services,
            principal=principal,
            path=dict(request.path_params),
            query=_parse_query(request, route.query),
            body=await self._read_body(request),
            address=address,
            user_agent=request.headers.get("user-agent", "")[:256] or None,
            cookies=request.cookies,
            last_event_id=_parse_event_id(request.headers.get("last-event-id")),
            trace=request.scope["guardhouse.trace"],
        )
        reply = await route.handler(await check_concern(call, route.concern))
        if principal is not None and isinstance(reply.body, AsyncIterator):
            reply = replace(reply, body=_while_they_may(reply.body, services, principal))
        response = _response(reply)
        if principal is not None and principal.sign_in_id is not None:
            await self._rotate(principal.sign_in_id, response)
        return response

    async def _authenticate(self, request: Request, address: str | None) -> Principal | None:
        """Return who asks: by the Authorization header where there is one, else by the sign-in's cookie."""
        public_url = self._services.public_url
        if self.route.access is Access.PUBLIC:
            check_same_site(request, public_url, has_cookie=False)
            return None
        secret = sign_in_secret(request, public_url) if "authorization" not in request.headers else None
        check_same_site(request, public_url, has_cookie=secret is not None)
        credentials = self._services.credentials
        if secret is not None:
            return credentials.signed_in(secret, now_ms=now_ms(), address=address)
        token = bearer_token(request.headers)
        if looks_like_jwt(token):
            return await access_principal(self._services, token, now_ms=now_ms(), address=address)
        return credentials.principal(token, now_ms=now_ms(), address=address)

    async def _rotate(self, sign_in_id: str, response: Response) -> None:
        """Give the sign-in's cookie a new value where it is time for one."""
        rotated = self._services.credentials.rotate_sign_in(sign_in_id, now_ms=now_ms())
        if rotated is None or "set-cookie" in response.headers:
            return
        record, secret = rotated
        try:
            await self._services.database.write(
                partial(people.touch_sign_in, sign_in_id=record.id, digest=record.digest, rotated_ms=record.rotated_ms)
            )
        except StoreUnavailable as error:
            # What was asked for is done; the new value holds in memory, and the next rotation stores again.
            _log.warning("rotation_not_stored", sign_in=record.id, error=str(error))
        response.headers["set-cookie"] = sign_in_cookie(self._services.public_url, secret)

    async def _read_body(self, request: Request) -> msgspec.Struct | AsyncIterator[bytes] | None:
        if self.route.streams_body:
            return request.stream()
        kind = self.route.body
        if kind is None:
            return None
        declared = request.headers.get("content-type", JSON).split(";")[0].strip().lower()
        if declared != JSON:
            raise ApiError(415, "unsupported_media_type", f"the body is {declared!r}", hint=f"send {JSON}")
        limit = self.route.body_max_bytes
        chunks: list[bytes] = []
        size = 0
        with trio.move_on_after(BODY_TIMEOUT_S) as deadline:
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise ApiError(413, "oversized", f"the body is over {limit} bytes", hint="send less")
                chunks.append(chunk)
        if deadline.cancelled_caught:
            raise ApiError(
                408, "body_timeout", f"the body did not arrive within {BODY_TIMEOUT_S:.0f} s", retryable=True
            )
        return parse_body(b"".join(chunks), kind, max_bytes=limit)


def parse_body(data: bytes, kind: type[B], *, max_bytes: int) -> B:
    """Return the body as ``kind``; an empty one stands for an empty object.

    Raises:
        ApiError: 400, naming the member.
        PeerError: no JSON within bounds.
    """
    value = parse_json(data, max_bytes=max_bytes, max_nodes=limits.MESSAGE_MAX_NODES) if data.strip() else {}
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ApiError(400, "invalid_body", f"invalid body: {error}", hint="see /api/v1/openapi.json") from error


def _parse_query(request: Request, kind: type[msgspec.Struct]) -> msgspec.Struct:
    values: dict[str, str] = {}
    for key, value in request.query_params.multi_items():
        if key in values:
            raise ApiError(400, "invalid_query", f"query parameter {key!r} is given twice", hint="give it once")
        values[key] = value
    try:
        found = msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ApiError(400, "invalid_query", f"invalid query: {error}", hint="see /api/v1/openapi.json") from error
    for key in values:
        # msgspec takes the word "null" for no value, where text would not do.
        if getattr(found, key, "") is None:
            raise ApiError(400, "invalid_query", f"invalid query: {key!r} is null", hint="leave it out instead")
    return found


def _parse_event_id(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) <= 15 else None


def bearer_token(headers: Headers) -> str:
    """Return the token of ``Authorization: Bearer …``.

    Raises:
        AuthenticationFailed: there is none, or there are two.
    """
    sent = headers.getlist("authorization")
    scheme, _, token = (sent[0] if len(sent) == 1 else "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise AuthenticationFailed("this needs an API token: send one header 'Authorization: Bearer ght_…'")
    return token.strip()


async def _while_they_may(
    parts: AsyncIterator[bytes], services: "Services", principal: Principal
) -> AsyncIterator[bytes]:
    """Yield a stream until whoever asked for it would be let in no more: it may take hours, and rights end at once."""
    async with aclosing(cast(AsyncGenerator[bytes], parts)):
        async for part in parts:
            try:
                services.credentials.check_still(principal, now_ms=now_ms())
            except AuthenticationFailed as error:
                _log.info("stream_ended", actor=principal.id, because=str(error))
                return
            yield part


def _response(reply: Reply) -> Response:
    response = _plain_response(reply)
    for cookie in reply.cookies:
        response.headers.append("set-cookie", cookie)
    return response


def _plain_response(reply: Reply) -> Response:
    if reply.body is None:
        return Response(status_code=reply.status, headers=reply.headers)
    if isinstance(reply.body, (msgspec.Struct, bytes)):
        content = reply.body if isinstance(reply.body, bytes) else msgspec.json.encode(reply.body)
        return Response(content, status_code=reply.status, media_type=reply.media_type, headers=reply.headers)
    return StreamingResponse(reply.body, status_code=reply.status, media_type=reply.media_type, headers=reply.headers)


def error_response(error: ApiError) -> Response:
    """Return the error in its one shape."""
    headers = {"www-authenticate": 'Bearer realm="guardhouse"'} if error.status == 401 else {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    body: ErrorReply = error.body
    return Response(msgspec.json.encode(body), status_code=error.status, media_type=JSON, headers=headers)

"""HTTP for the MCP client: each name resolved by us and judged, each connection to exactly a judged address.

The SDK brings its HTTP client's headers, redirects (within one origin only) and event streams; this puts our rules
below it, where it cannot go round them. Runs in the MCP worker.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Final

import httpcore2
import httpx2
import trio

from guardhouse import __version__
from guardhouse.egress.address import Network
from guardhouse.limits import FETCH_CONNECT_TIMEOUT_S, MCP_MESSAGE_MAX_BYTES
from guardhouse.worker.fetch_connection import resolve
from guardhouse.worker.fetch_protocol import FetchRefused
from guardhouse.worker.fetch_url import FetchUrl, check_port, parse_fetch_url
from guardhouse.worker.mcp_protocol import McpFailure

__all__ = ["PinnedTransport", "judged_url"]

_EVENT_STREAM: Final = b"text/event-stream"
_PORTS: Final = {"http": 80, "https": 443}
_NETWORK_ERRORS: Final = (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError)


def judged_url(text: str, *, any_port: bool) -> FetchUrl:
    """Return the URL in parts.

    Raises:
        McpFailure: it is none that a runner asks for, or its port is not granted.
    """
    try:
        url = parse_fetch_url(text)
        check_port(url, any_port=any_port)
    except FetchRefused as error:
        raise _as_mcp(error) from None
    return url


class PinnedTransport(httpx2.AsyncBaseTransport):
    """Asks one origin, at addresses that were judged; every other origin is refused.

    Attributes:
        last_status: of HTTP, of the newest answer.
        failure: why the newest request that we refused ourselves was refused.
    """

    def __init__(self, url: FetchUrl, networks: Sequence[Network], context: Any) -> None:
        """``context`` is an `ssl.SSLContext` with the authorities already read."""
        self._url = url
        self.last_status: int | None = None
        self.failure: McpFailure | None = None
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=context, network_backend=_PinnedBackend(url, networks), max_connections=16
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request.

        Raises:
            McpFailure: another origin, an address that is not granted, a message that is too large.
            httpx2.TransportError: the network or the server.
        """
        self.last_status = None
        port = request.url.port or _PORTS.get(request.url.scheme)
        if (request.url.scheme, request.url.host, port) != (self._url.scheme, self._url.host, self._url.port):
            raise self._failed(
                McpFailure(
                    f"the server sends this client to {request.url.scheme}://{request.url.host}:{port}, another origin"
                    f" than {self._url.scheme}://{self._url.host}:{self._url.port}; put its real one into the record",
                    code="bad_answer",
                )
            )
        request.headers["user-agent"] = f"guardhouse/{__version__} (+MCP client of a Guardhouse runner)"
        asked = httpcore2.Request(
            request.method,
            httpcore2.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        try:
            answer = await self._pool.handle_async_request(asked)
        except McpFailure as error:
            raise self._failed(error) from None
        except _NETWORK_ERRORS as error:
            raise httpx2.TransportError(str(error) or type(error).__name__) from error
        self.last_status = answer.status
        return httpx2.Response(
            answer.status, headers=answer.headers, stream=_Bounded(answer, self), extensions=answer.extensions
        )

    def _failed(self, failure: McpFailure) -> McpFailure:
        """Keep the reason: on its way up the SDK turns every error into one of its own."""
        self.failure = failure
        return failure

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()


class _Bounded(httpx2.AsyncByteStream):
    """The body of one answer; one that is a single message is bounded, the SDK bounds each event of a stream."""

    def __init__(self, answer: httpcore2.Response, transport: PinnedTransport) -> None:
        self._answer = answer
        self._transport = transport
        kind = next((value for name, value in answer.headers if name.lower() == b"content-type"), b"")
        self._is_bounded = not kind.lower().startswith(_EVENT_STREAM)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        try:
            async for part in self._answer.aiter_stream():
                received += len(part)
                if self._is_bounded and received > MCP_MESSAGE_MAX_BYTES:
                    self._transport.failure = McpFailure(
                        f"the server answered with more than {MCP_MESSAGE_MAX_BYTES} bytes; ask it for less",
                        code="too_large",
                    )
                    raise self._transport.failure
                yield part
        except _NETWORK_ERRORS as error:
            raise httpx2.TransportError(str(error) or type(error).__name__) from error

    async def aclose(self) -> None:
        await self._answer.aclose()


class _PinnedBackend(httpcore2.AsyncNetworkBackend):
    """Resolves the one host of the session itself and connects to the addresses that were judged."""

    def __init__(self, url: FetchUrl, networks: Sequence[Network]) -> None:
        self._url = url
        self._networks = networks
        self._inner = httpcore2.TrioBackend()

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002 - the judged addresses are of the session's host, which the transport has checked
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            addresses = await trio.to_thread.run_sync(resolve, self._url, self._networks, abandon_on_cancel=True)
        except FetchRefused as error:
            raise _as_mcp(error) from None
        failures = []
        for address in addresses:
            try:
                return await self._inner.connect_tcp(
                    address,
                    port,
                    timeout=min(timeout or FETCH_CONNECT_TIMEOUT_S, FETCH_CONNECT_TIMEOUT_S),
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failures.append(f"{address}: {str(error) or 'no answer'}")
        raise httpcore2.ConnectError(f"cannot connect to {self._url.host}:{port}: {'; '.join(failures)}")

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


def _as_mcp(error: FetchRefused) -> McpFailure:
    return McpFailure(str(error).removeprefix("webfetch failed: "), code=error.code)

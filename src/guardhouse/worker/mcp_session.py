"""PROCESS: the MCP worker. Holds one session with one MCP server and carries requests to it, side by side.

A server may be hostile, so each gets a client of its own: one that is taken over has the secrets of its own record and
nothing else. It has a network (for servers with an address) and no files, no programs: the SDK and the certificate
authorities are read by `load` before it is confined, a local server is started by the launcher and only its two pipes
arrive here. Knows no policy: whether a tool may be called is decided where the policy is.
"""

import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx2
import msgspec
import trio
from anyio._backends import _trio as anyio_trio  # noqa: F401 - anyio looks it up by name when files are out of reach
from mcp.client.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, INVALID_REQUEST, Implementation
from pydantic import ValidationError

from guardhouse import __version__
from guardhouse.errors import PeerError, SetupError
from guardhouse.limits import MCP_MESSAGE_MAX_BYTES, MCP_TOOL_PAGES_MAX, MCP_TOOLS_MAX, WORKER_FRAME_MAX_BYTES
from guardhouse.worker import protocol
from guardhouse.worker.fetch_address import parse_networks
from guardhouse.worker.fetch_connection import load_authorities
from guardhouse.worker.mcp_network import PinnedTransport, judged_url
from guardhouse.worker.mcp_pipes import pipe_transport
from guardhouse.worker.mcp_protocol import (
    PIPES,
    CallArgs,
    ConnectArgs,
    ConnectResult,
    ListResult,
    McpFailure,
    failure_of,
)

__all__ = ["Loaded", "load", "main"]

_RECEIVE_BYTES: Final = 64 * 1024
_ENCODER: Final = msgspec.json.Encoder()
_S = TypeVar("_S", bound=msgspec.Struct)
_MESSAGE_CHARS: Final = 2_000
# Codes with which a server of either era says that it does not speak this transport here (MCP specification
# 2025-11-25, "Backwards Compatibility"): the other HTTP transport is tried then.
_NOT_THIS_TRANSPORT: Final = frozenset({400, 404, 405, 406, 415})


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was read before files went out of reach."""

    authorities: ssl.SSLContext


def load() -> Loaded:
    """Read what later needs files: certificate authorities, codecs, and what the SDK imports only at its first use.

    A session with a server in this process goes through everything that a real one does. Call it before confinement.
    """
    "".encode("idna")
    trio.run(_rehearse)
    return Loaded(load_authorities())


async def _rehearse() -> None:
    server = MCPServer("rehearsal")

    def double(number: int) -> int:
        return 2 * number

    server.add_tool(double)
    async with Client(server, cache=None) as client:
        await client.list_tools()
        await client.call_tool("double", {"number": 1})


def main(sock_fd: int, loaded: Loaded) -> int:
    """Serve one session until the client closes the socket or the server is gone.

    Args:
        sock_fd: connected SOCK_STREAM unix socket, this process's own.
        loaded: of `load`.

    Returns:
        The exit status: 0 after a regular end, 1 when the client broke the protocol.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    # The SDK would write what a server sent to our standard error, past redaction; failures are told in replies.
    logging.disable(logging.CRITICAL)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=sock_fd)
    try:
        first, descriptors, _, _ = socket.recv_fds(sock, 1, 2)
        if not first:
            return 0
        if (first == PIPES) != (len(descriptors) == 2):
            raise PeerError(f"the first byte {first!r} came with {len(descriptors)} descriptors")
        sock.settimeout(0)
        trio.run(_Session(sock, tuple(descriptors), loaded).run)
    except PeerError as error:
        sys.stderr.write(f"mcp worker: {error}\n")
        return 1
    return 0


class _Session:
    """One connection to one server."""

    def __init__(self, sock: socket.socket, pipes: tuple[int, ...], loaded: Loaded) -> None:
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._pipes = pipes
        self._loaded = loaded
        self._buffer = bytearray()
        self._sending = trio.Lock()
        self._running: dict[int, trio.CancelScope] = {}
        self._transport: PinnedTransport | None = None

    async def run(self) -> None:
        """Connect as the first request says, then serve."""
        try:
            request = await self._next()
            if request is None:
                return
            if request.operation != "connect":
                raise PeerError(f"the first request is {request.operation!r}, not connect")
            args = _decode(request, ConnectArgs)
            await self._connect_and_serve(request, args)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def _connect_and_serve(self, request: protocol.Request, args: ConnectArgs) -> None:
        kinds = {"stdio": ("stdio",), "sse": ("sse", "streamable-http")}.get(args.transport, ("streamable-http", "sse"))
        deadline = trio.current_time() + request.deadline_s
        for index, kind in enumerate(kinds):
            failure = await self._session(request, args, kind, deadline)
            if failure is None:
                return
            is_last = index == len(kinds) - 1
            if is_last or failure.code != "connect_failed" or self._status not in _NOT_THIS_TRANSPORT:
                await self._send(protocol.Reply(id=request.id, failure=failure_of(failure)))
                return

    @property
    def _status(self) -> int | None:
        return None if self._transport is None else self._transport.last_status

    async def _session(
        self, request: protocol.Request, args: ConnectArgs, kind: str, deadline: float
    ) -> McpFailure | None:
        """Hold one session to its end; return why there was none."""
        is_connected = False
        failure: McpFailure | None = None
        with trio.CancelScope(deadline=deadline) as scope:
            try:
                async with Client(
                    self._open(args, kind),
                    client_info=Implementation(name="guardhouse", version=__version__),
                    cache=None,
                ) as client:
                    is_connected = True
                    scope.deadline = float("inf")
                    info = client.server_info
                    result = ConnectResult(
                        protocol_version=client.protocol_version,
                        server_name=info.name if info else "",
                        server_version=info.version if info else "",
                        transport=kind,
                    )
                    await self._send(protocol.Reply(id=request.id, result=msgspec.Raw(_ENCODER.encode(result))))
                    await self._serve(client)
            except (McpFailure, SetupError, MCPError, OSError, httpx2.HTTPError, ExceptionGroup) as error:
                if not is_connected:
                    failure = self._explained(error)
        if scope.cancelled_caught:
            failure = McpFailure(f"no answer within {request.deadline_s:g} s", code="timed_out")
        return None if is_connected else failure

    def _open(self, args: ConnectArgs, kind: str) -> AbstractAsyncContextManager[Any]:
        if kind == "stdio":
            return pipe_transport(*self._pipes)
        url = judged_url(args.url, any_port=args.any_port)
        transport = self._transport = PinnedTransport(url, parse_networks(args.networks), self._loaded.authorities)

        def make_client(
            headers: dict[str, Any] | None = None,
            timeout: httpx2.Timeout | None = None,
            auth: httpx2.Auth | None = None,
        ) -> httpx2.AsyncClient:
            return httpx2.AsyncClient(
                transport=transport,
                headers={**args.headers, **(headers or {})},
                timeout=timeout or httpx2.Timeout(30.0, read=None),
                auth=auth,
                trust_env=False,
            )

        if kind == "sse":
            return sse_client(url.text, httpx_client_factory=make_client, sse_read_timeout=86_400.0)
        return streamable_http_client(url.text, http_client=make_client(), max_sse_event_size=MCP_MESSAGE_MAX_BYTES)

    async def _serve(self, client: Client) -> None:
        async with trio.open_nursery() as nursery:
            while (request := await self._next()) is not None:
                if request.operation == "cancel":
                    if (scope := self._running.get(request.id)) is not None:
                        scope.cancel()
                    continue
                handler = _HANDLERS.get(request.operation)
                if handler is None:
                    raise PeerError(f"unknown operation of an MCP worker: {request.operation!r}")
                nursery.start_soon(self._answer, client, request, handler, nursery)
            nursery.cancel_scope.cancel()

    async def _answer(
        self, client: Client, request: protocol.Request, handler: "_Handler", nursery: trio.Nursery
    ) -> None:
        is_lost = False
        body = b""
        with trio.CancelScope() as scope:
            if request.deadline_s > 0:
                scope.deadline = trio.current_time() + request.deadline_s
            self._running[request.id] = scope
            try:
                result, body = await handler(client, request)
                reply = protocol.Reply(id=request.id, result=msgspec.Raw(_ENCODER.encode(result)))
            except (McpFailure, MCPError, OSError, httpx2.HTTPError, ValidationError, ExceptionGroup) as error:
                failure = self._explained(error)
                is_lost = failure.code in ("session_lost", "session_expired")
                reply = protocol.Reply(id=request.id, failure=failure_of(failure))
            except PeerError as error:
                failure_peer = protocol.Failure(family="peer", code=error.code, text=str(error))
                reply = protocol.Reply(id=request.id, failure=failure_peer)
        del self._running[request.id]
        if scope.cancelled_caught:
            is_over = request.deadline_s > 0 and trio.current_time() >= scope.deadline
            text = f"no answer within {request.deadline_s:g} s" if is_over else "cancelled"
            reply = protocol.Reply(
                id=request.id, failure=failure_of(McpFailure(text, code="timed_out" if is_over else "cancelled"))
            )
        await self._send(reply, body)
        if is_lost:
            nursery.cancel_scope.cancel()

    def _explained(self, error: BaseException) -> McpFailure:
        """Return what a person is told of a failure somewhere below the SDK."""
        leaves = list(_leaves(error))
        own = next((leaf for leaf in leaves if isinstance(leaf, McpFailure)), None)
        if own is None and self._transport is not None:
            own = self._transport.failure
        if own is not None:
            return own
        for leaf in leaves:
            if isinstance(leaf, SetupError):
                return McpFailure(str(leaf), code="address_refused")
            if isinstance(leaf, MCPError):
                return self._mcp_error(leaf)
            if isinstance(leaf, ValidationError):
                return McpFailure(
                    f"the server's answer is none that the protocol knows: {str(leaf)[:_MESSAGE_CHARS]}",
                    code="bad_answer",
                )
        text = "; ".join(str(leaf) or type(leaf).__name__ for leaf in leaves)[:_MESSAGE_CHARS]
        return McpFailure(f"{text}{self._shown_status()}", code="connect_failed")

    def _mcp_error(self, error: MCPError) -> McpFailure:
        message = str(error.message)[:_MESSAGE_CHARS]
        if error.code == CONNECTION_CLOSED:
            return McpFailure(f"the server ended the connection: {message}", code="session_lost")
        if error.code == INVALID_REQUEST and self._status == 404:
            return McpFailure("the server has forgotten the session", code="session_expired")
        if self._status is not None and self._status >= 400:
            return McpFailure(f"{message}{self._shown_status()}", code="connect_failed")
        return McpFailure(f"the server answers with error {error.code}: {message}", code="server_error")

    def _shown_status(self) -> str:
        return f" (HTTP status {self._status})" if self._status is not None and self._status >= 400 else ""

    async def _next(self) -> protocol.Request | None:
        head = await self._exactly(protocol.LENGTHS.size)
        if head is None:
            return None
        header_size, body_size = protocol.parse_lengths(head)
        header = await self._exactly(header_size)
        if header is None or (body_size and await self._exactly(body_size) is None):
            return None
        return protocol.parse_request(header)

    async def _exactly(self, size: int) -> bytes | None:
        while len(self._buffer) < size:
            data = await self._stream.receive_some(_RECEIVE_BYTES)
            if not data:
                return None
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def _send(self, reply: protocol.Reply, body: bytes = b"") -> None:
        async with self._sending:
            await self._stream.send_all(protocol.render(reply, body) + body)


_Handler = Callable[[Client, protocol.Request], Awaitable[tuple[msgspec.Struct, bytes]]]


async def _list_tools(client: Client, _: protocol.Request) -> tuple[msgspec.Struct, bytes]:
    """Return every tool, all pages of them."""
    tools: list[Any] = []
    cursor: str | None = None
    for _page in range(MCP_TOOL_PAGES_MAX):
        page = await client.list_tools(cursor=cursor)
        tools += [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in page.tools]
        cursor = page.next_cursor
        if not cursor or len(tools) >= MCP_TOOLS_MAX:
            break
    left_out = bool(cursor) or len(tools) > MCP_TOOLS_MAX
    return ListResult(left_out=left_out), _bounded(_ENCODER.encode(tools[:MCP_TOOLS_MAX]))


async def _call_tool(client: Client, request: protocol.Request) -> tuple[msgspec.Struct, bytes]:
    args = _decode(request, CallArgs)
    result = await client.call_tool(args.tool_name, args.arguments)
    return ListResult(), _bounded(result.model_dump_json(by_alias=True, exclude_none=True).encode("utf-8"))


_HANDLERS: Final[dict[str, _Handler]] = {"list_tools": _list_tools, "call_tool": _call_tool}


def _bounded(body: bytes) -> bytes:
    if len(body) > WORKER_FRAME_MAX_BYTES:
        raise McpFailure(
            f"the server answered with {len(body)} bytes, more than the {WORKER_FRAME_MAX_BYTES} that are carried",
            code="too_large",
        )
    return body


def _decode(request: protocol.Request, kind: type[_S]) -> _S:
    try:
        return msgspec.json.decode(request.args, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerError(f"invalid {request.operation} request: {error}") from error


def _leaves(error: BaseException) -> "list[BaseException]":
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


if __name__ == "__main__":
    # Without a launcher (tests): unconfined, over an inherited socket.
    os.umask(0o077)
    sys.exit(main(int(sys.argv[1]), load()))

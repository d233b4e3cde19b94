"""Bind the hub's port and serve an ASGI application on it until told to stop.

Knows nothing of what the application does. Runs in the hub.
"""

import resource
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from socket import socket as Socket  # noqa: N812 - the class, where a field is named as the module
from typing import Any, Final, cast

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework, ConnectionState, ResponseSummary, WWWScope

from guardhouse import limits
from guardhouse.errors import SetupError
from guardhouse.hub.transport.accept import accept_for_ever
from guardhouse.hub.transport.accept_queue import WAITING_MAX, AcceptQueue
from guardhouse.hub.transport.connection import HubConnection, ServerContext
from guardhouse.hub.transport.tls_stream import TlsStream
from guardhouse.hub.transport.unread import FinishesRequests

__all__ = ["Listener", "bind_listener", "serve_listener"]

_log = structlog.get_logger("guardhouse.hub.transport")
_access = structlog.get_logger("guardhouse.hub.access")

# A client that has not finished its TLS handshake, or its request's headers, is dropped after this long.
HANDSHAKE_TIMEOUT_S: Final = 8.0
GRACEFUL_TIMEOUT_S: Final = 5.0
# Connections that the kernel holds until the next turn of the event loop; who waits for longer does so in the queue.
# SYNs beyond it are dropped, and repeated after 1, 3 and 7 s.
_BACKLOG: Final = 1024


@dataclass(frozen=True)
class Listener:
    """A bound socket. ``context`` is None for plain HTTP, which only a loopback address or a proxy may see."""

    socket: socket.socket
    context: ssl.SSLContext | None
    queue: AcceptQueue[Socket]

    @property
    def url(self) -> str:
        """Where it can be reached, by number."""
        host, port = self.socket.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self.context else 'http'}://{shown}:{port}"


class _AccessLog:
    """Hypercorn's logger interface over structlog: the path without its query, which may hold a token."""

    def __init__(self, config: Config) -> None:
        del config

    async def access(self, request: WWWScope, response: ResponseSummary | None, request_time: float) -> None:
        if response is None and request["type"] == "websocket":
            return  # its upgrade was logged with its status; the gateway logs how it ended
        client = request.get("client")
        values: dict[str, object] = {
            "client": client[0] if client else None,
            "method": request.get("method", "GET"),
            "path": request["path"],
            "duration_ms": round(request_time * 1000, 1),
        }
        if response is None:
            _access.info("client_left", **values)
        else:
            trace_id = dict(response.get("headers", ())).get(b"x-trace-id")
            if trace_id is not None:
                values["trace_id"] = trace_id.decode("ascii")
            _access.info("request", status=response["status"], **values)

    async def info(self, message: str, *args: object) -> None:
        _log.info("hypercorn", detail=message % args if args else message)

    async def warning(self, message: str, *args: object) -> None:
        _log.warning("hypercorn", detail=message % args if args else message)

    async def error(self, message: str, *args: object) -> None:
        _log.error("hypercorn", detail=message % args if args else message)

    async def exception(self, message: str, *args: object) -> None:
        _log.exception("hypercorn", detail=message % args if args else message)


def bind_listener(host: str, port: int, *, context: ssl.SSLContext | None) -> Listener:
    """Bind ``host:port`` (port 0: any free one) and raise the limit on open files as far as it goes.

    Raises:
        SetupError: the address cannot be bound; the text says why.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise SetupError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another address with --listen"
        ) from error
    sock.settimeout(0)
    # Descriptors that are left for everything else, whoever floods the hub.
    waiting_max = WAITING_MAX if hard == resource.RLIM_INFINITY else min(WAITING_MAX, hard // 4)
    return Listener(sock, context, AcceptQueue(waiting_max))


class _HubConfig(Config):
    """Hypercorn's settings, which write the date of an answer once a second instead of once an answer."""

    _date: tuple[int, list[tuple[bytes, bytes]]] = (0, [])

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        """Return the headers that every answer has."""
        second = int(time.time())
        if self._date[0] != second:
            self._date = (second, super().response_headers(protocol))
        return self._date[1]


def _hypercorn_config() -> Config:
    config = _HubConfig()
    config.logger_class = _AccessLog  # type: ignore[assignment]  # does what Hypercorn's Logger does here
    config.ssl_handshake_timeout = HANDSHAKE_TIMEOUT_S
    config.keep_alive_timeout = HANDSHAKE_TIMEOUT_S
    config.websocket_max_message_size = limits.MESSAGE_MAX_BYTES
    config.websocket_ping_interval = None  # `BoundedWebSocket` sends its own
    config.include_server_header = False
    return config


async def serve_listener(
    app: ASGIFramework,
    listener: Listener,
    *,
    stop: Callable[[], Awaitable[None]],
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app`` until ``stop`` returns; then accept nothing more and give requests `GRACEFUL_TIMEOUT_S`."""
    config = _hypercorn_config()
    context = ServerContext()
    # Hypercorn's and Starlette's types for one and the same ASGI differ in form only.
    finishing = cast(Any, FinishesRequests(cast(Any, app)))
    handler = partial(HubConnection, ASGIWrapper(finishing), config, context, ConnectionState({}))
    tls = listener.context

    async def handle(accepted: socket.socket) -> None:
        try:
            stream = _stream(accepted, tls)
        except OSError as error:  # it has hung up in this very moment
            _log.debug("connection_lost", error=str(error))
            accepted.close()
            return
        # Hypercorn's annotation names trio's TLS streams only; it serves others the same.
        await handler(cast(Any, stream)).run()

    accept = partial(accept_for_ever, listener.socket, listener.queue, handle, is_tls=tls is not None)
    async with trio.open_nursery() as timing:
        timing.start_soon(context.timers.run)
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(partial(accept, connections=connections))
                task_status.started(listener.url)
                await stop()
                accepting.cancel_scope.cancel()
            await context.terminated.set()
            context.end_idle()
            connections.cancel_scope.deadline = trio.current_time() + GRACEFUL_TIMEOUT_S
        timing.cancel_scope.cancel()


def _stream(accepted: socket.socket, tls: ssl.SSLContext | None) -> trio.SocketStream | TlsStream:
    """Return what reads and writes an accepted connection.

    Raises:
        OSError: the peer is gone.
    """
    if tls is None:
        return trio.SocketStream(trio.socket.from_stdlib_socket(accepted))
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return TlsStream(accepted, tls)

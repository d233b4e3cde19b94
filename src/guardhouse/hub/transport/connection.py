"""One accepted connection: TLS handshake, HTTP/1.1, upgrade to WebSocket, and a deadline on each wait.

Hypercorn 0.18 sends under a shield without a deadline (one client that stops reading would hold up shutdown for
ever), lets an error of one connection end the whole server, and accepts HTTP/2 unasked. Knows nothing of what is
served. Runs in the hub, one trio task a connection.
"""

import math
import os
import ssl
from contextlib import suppress
from typing import Final, cast

import h11
import structlog
import trio
import wsproto.utilities
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Request
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState, H11SendableEvent
from hypercorn.utils import parse_socket_addr

from guardhouse import limits
from guardhouse.errors import InvariantError
from guardhouse.hub.timers import Timers
from guardhouse.hub.transport.task_group import HubTaskGroup
from guardhouse.hub.transport.tls_stream import TlsStream
from guardhouse.hub.transport.websocket import BoundedWebSocket

__all__ = ["HubConnection"]

_log = structlog.get_logger("guardhouse.hub.transport")

# A client that does not take a byte for this long is gone; SEED_FEATURES S84 has the same figure.
WRITE_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 2.0
# So many writes that the kernel takes at once, and then other connections have their turn.
WRITES_IN_A_ROW: Final = 16

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError, OSError, ssl.SSLError)
_PEER_FAULTS = (*_GONE, h11.ProtocolError, wsproto.utilities.ProtocolError)


class ServerContext(WorkerContext):
    """What the connections of one listening socket share."""

    def __init__(self) -> None:
        super().__init__(None)
        self.timers = Timers()
        self.connections: set[HubConnection] = set()

    def end_idle(self) -> None:
        """End the connections without a request, as the server stops; one with a request ends after its answer."""
        for connection in list(self.connections):
            connection.end_if_idle()


class Http1Protocol(H11Protocol):
    """Hypercorn's HTTP/1.1 that stays HTTP/1.1 and makes our kind of WebSocket."""

    # The head of a response whose body is whole and about to follow: one write instead of three.
    _head: bytes = b""

    @property
    def is_websocket(self) -> bool:
        """Whether the connection has been handed to the WebSocket layer."""
        return isinstance(self.connection, H11WSConnection)

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        try:
            data = self._head + (self.connection.send(event) or b"")
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return
        self._head = b""
        if isinstance(event, h11.Response) and any(name == b"content-length" for name, _ in event.headers):
            self._head = data
        elif data:
            await self.send(RawData(data=data))

    async def _check_protocol(self, event: h11.Request) -> None:
        # An Upgrade to h2c may be ignored (RFC 9110 section 7.8); the HTTP/2 preface cannot.
        if event.method == b"PRI":
            raise h11.RemoteProtocolError("HTTP/2 is not spoken here", error_status_hint=505)

    async def _create_stream(self, request: h11.Request) -> None:
        headers = {name.lower(): value.lower() for name, value in request.headers}
        tokens = [token.strip() for token in headers.get(b"connection", b"").split(b",")]
        asks_for_websocket = (
            request.method == b"GET" and b"upgrade" in tokens and headers.get(b"upgrade", b"").strip() == b"websocket"
        )
        if not asks_for_websocket:
            await super()._create_stream(request)
            return
        self.stream = BoundedWebSocket(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
            timers=cast(ServerContext, self.context).timers,
        )
        self.connection = H11WSConnection(cast(h11.Connection, self.connection))
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method="GET",
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        await self.context.mark_request()


class HubConnection(TCPServer):
    """Serves one accepted stream until it ends; never raises for what the peer did."""

    protocol: Http1Protocol  # type: ignore[assignment]  # narrower than the base class: we make no other
    context: ServerContext  # likewise

    # When a connection without a request is given up, on trio's clock, and the read that this ends.
    _idle_until_s: float = math.inf
    _reading: trio.CancelScope | None = None
    # Of a plain connection, whose socket is read and written without trio's turn of the event loop for each.
    _socket: trio.socket.SocketType | None = None
    # That went without a turn of the event loop.
    _writes_in_a_row: int = 0

    async def run(self) -> None:
        """Serve the connection."""
        try:
            await self._serve()
        except BaseExceptionGroup as group:
            # Exception groups of cancellation belong to trio; what the peer caused ends here, and only here.
            _, rest = group.split(_PEER_FAULTS)
            if rest is None:
                return
            cancelled, errors = rest.split(trio.Cancelled)
            if errors is not None:
                self._check_not_invariant(errors)
                _log.error("connection_failed", exc_info=errors)
            if cancelled is not None:
                raise cancelled from None
        except _PEER_FAULTS:
            return
        finally:
            await self._close()

    @staticmethod
    def _check_not_invariant(errors: BaseExceptionGroup[BaseException]) -> None:
        broken, _ = errors.split((InvariantError, KeyboardInterrupt, SystemExit))
        if broken is not None:
            raise broken

    async def _serve(self) -> None:
        is_tls = isinstance(self.stream, TlsStream)
        sock = self.stream.socket
        if is_tls:
            with trio.move_on_after(self.config.ssl_handshake_timeout) as handshake:
                await self.stream.do_handshake()
            if handshake.cancelled_caught:
                return
        else:
            self._socket = sock
        async with HubTaskGroup() as task_group:
            self._task_group = task_group
            self.protocol = Http1Protocol(
                self.app,
                self.config,
                self.context,
                task_group,
                ConnectionState(self.state),
                is_tls,
                parse_socket_addr(sock.family, sock.getpeername()),
                parse_socket_addr(sock.family, sock.getsockname()),
                self.protocol_send,
            )
            self._set_idle(is_idle=True)
            self.context.connections.add(self)
            try:
                await self._read_data()
            finally:
                self.context.connections.discard(self)
                if isinstance(self.protocol.stream, BoundedWebSocket):
                    self.protocol.stream.end_pings()

    def _set_idle(self, *, is_idle: bool) -> None:
        """Give a connection that waits for its next request until the deadline, and one that has a request for ever."""
        self._idle_until_s = trio.current_time() + self.config.keep_alive_timeout if is_idle else math.inf
        if self._reading is not None:
            self._reading.deadline = self._read_until_s()

    def _read_until_s(self) -> float:
        if self.protocol.is_websocket:
            return trio.current_time() + limits.IDLE_TIMEOUT_S
        return self._idle_until_s

    def end_if_idle(self) -> None:
        """End the connection unless it has a request."""
        if self._idle_until_s != math.inf and self._reading is not None:
            self._reading.cancel()

    async def protocol_send(self, event: Event) -> None:
        """Write one event of the protocol to the peer, which has `WRITE_TIMEOUT_S` to take it."""
        if isinstance(event, RawData):
            await self._send_bytes(event.data)
        elif isinstance(event, Closed):
            await self._close()
            await self.protocol.handle(Closed())
        elif isinstance(event, Updated):
            self._set_idle(is_idle=event.idle)

    async def _send_bytes(self, data: bytes) -> None:
        try:
            self.send_lock.acquire_nowait()  # a turn of the event loop less than waiting for a lock that is free
        except trio.WouldBlock:
            await self.send_lock.acquire()
        try:
            delivered = await self._write(data)
        finally:
            self.send_lock.release()
        if not delivered:
            await trio.aclose_forcefully(self.stream)
            await self.protocol.handle(Closed())

    async def _write(self, data: bytes) -> bool:
        """Write ``data`` and return whether the peer's side took all of it in time."""
        try:
            self._writes_in_a_row += 1
            if self._writes_in_a_row > WRITES_IN_A_ROW:
                self._writes_in_a_row = 0
                await trio.lowlevel.cancel_shielded_checkpoint()
            if self._socket is not None:
                data = data[_write_now(self._socket, data) :]
                if not data:
                    return True
            # Shielded: half a frame would leave the stream without meaning for whoever writes next.
            with trio.move_on_after(WRITE_TIMEOUT_S, shield=True):
                await self.stream.send_all(data)
                return True
        except _GONE:
            return False
        return False

    async def _receive(self) -> bytes:
        """Return what the peer sent, nothing at its end."""
        if self._socket is None:
            return bytes(await self.stream.receive_some(MAX_RECV))
        while True:
            if self._socket.fileno() < 0:
                raise trio.ClosedResourceError("this connection was closed by the hub")
            await trio.lowlevel.wait_readable(self._socket)
            with suppress(BlockingIOError):
                return os.read(self._socket.fileno(), MAX_RECV)

    async def _read_data(self) -> None:
        while self._idle_until_s == math.inf or not self.context.terminated.is_set():
            data = b""
            with trio.CancelScope(deadline=self._read_until_s()) as self._reading:
                try:
                    data = await self._receive()
                except _GONE:
                    data = b""
            if self._reading.cancelled_caught and not self.protocol.is_websocket:
                break
            await self.protocol.handle(RawData(data))
            if not data:
                break
        await self.protocol.handle(Closed())

    async def _close(self) -> None:
        with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
            try:
                await self.stream.aclose()
            except _GONE:
                return

    async def _initiate_server_close(self) -> None:
        await self.protocol.handle(Closed())
        await self._close()


def _write_now(sock: trio.socket.SocketType, data: bytes) -> int:
    """Write what the kernel takes at once and return how many bytes those were."""
    try:
        return os.write(sock.fileno(), data)
    except BlockingIOError:
        return 0

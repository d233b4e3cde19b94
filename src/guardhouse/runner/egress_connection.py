"""One connection of a command to its egress proxy: which protocol, what is asked, whether, and the bytes both ways.

Every request on it is judged for itself, and whatever comes of it is one record. Knows no rule: `OpenTarget` judges and
connects. Runs in the runner.
"""

import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import h11
import trio

from guardhouse.egress.detect import Speaks, detect_protocol
from guardhouse.egress.host import Authority
from guardhouse.egress.http_message import ProxyRequest, judged_urls, make_error_response, read_request
from guardhouse.egress.record import EgressRecord
from guardhouse.egress.rules import EgressRefused
from guardhouse.egress.socks import SocksReply, SocksRequest, render_reply
from guardhouse.egress.tunnel import ACCESS_DENIED, TunnelGuard
from guardhouse.errors import PeerError
from guardhouse.limits import EGRESS_CHUNK_BYTES, EGRESS_HEAD_TIMEOUT_S, EGRESS_IDLE_TIMEOUT_S
from guardhouse.runner.egress_http import HttpClient, OriginFailed, forward_request, next_event
from guardhouse.runner.egress_tunnel import carry_both_ways

__all__ = ["Connection", "OpenTarget"]

OpenTarget = Callable[[EgressRecord, Authority, tuple[str, ...]], Awaitable[trio.SocketStream]]
"""Judges and connects, and notes in the record what it did; the texts are URLs, none for a tunnel.

Raises EgressRefused.
"""

_ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
# A client that still sends gets its answer because we read a little on.
_LINGER_S: Final = 1.0
_STATUS: Final = {"protocol": 400, "unresolved": 502, "unreachable": 502, "failed": 502}
_REPLIES: Final = {"unresolved": SocksReply.HOST_UNREACHABLE, "unreachable": SocksReply.REFUSED}
_RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 s


class Connection:
    """Serves one accepted stream; `run` returns when it is over and raises nothing for what the other sides do."""

    def __init__(
        self,
        stream: trio.SocketStream,
        *,
        open_target: OpenTarget,
        guard_tunnel: Callable[[Authority], TunnelGuard],
        began_s: float,
        write_down: Callable[[EgressRecord], None],
    ) -> None:
        """``began_s``: when the command was started, in trio's time."""
        self._stream = stream
        self._open_target = open_target
        self._guard_tunnel = guard_tunnel
        self._began_s = began_s
        self._write_down = write_down
        self._scope = trio.CancelScope()
        self._idle = trio.CancelScope()
        # The target does not have yet what the command has sent: worth a moment after the command's end.
        self._is_flushing = False
        self._must_end = False

    def end_soon(self) -> None:
        """The command has ended: let what it had sent go out, drop everything else."""
        self._must_end = True
        if not self._is_flushing:
            self._scope.cancel()

    async def run(self) -> None:
        """Serve it to its end."""
        async with self._stream:
            with self._scope:
                try:
                    await self._serve()
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    # The command let go of it.
                    return

    async def _serve(self) -> None:
        first = b""
        with trio.move_on_after(EGRESS_HEAD_TIMEOUT_S):
            first = bytes(await self._stream.receive_some(EGRESS_CHUNK_BYTES))
        if not first:
            return
        try:
            speaks = detect_protocol(first[0])
        except PeerError as error:
            self._write_refused("unknown", str(error))
            return
        if speaks is Speaks.SOCKS5:
            await self._serve_socks(first)
        else:
            await self._serve_http(first)

    # SOCKS5

    async def _serve_socks(self, data: bytes) -> None:
        socks = SocksRequest()
        try:
            with trio.fail_after(EGRESS_HEAD_TIMEOUT_S):
                while not socks.feed(data):
                    await self._stream.send_all(socks.to_send())
                    data = bytes(await self._stream.receive_some(EGRESS_CHUNK_BYTES))
                    if not data:
                        return
                await self._stream.send_all(socks.to_send())
        except trio.TooSlowError:
            self._write_refused("socks5", f"no whole SOCKS request within {EGRESS_HEAD_TIMEOUT_S:g} s")
            return
        except PeerError as error:
            self._write_refused("socks5", str(error))
            await self._say_last(socks.to_send())
            return
        if socks.target is None:
            return
        with self._recorded("socks5", socks.target) as record:
            try:
                target = await self._open_target(record, socks.target, ())
            except EgressRefused as refused:
                await self._say_last(render_reply(_REPLIES.get(refused.code, SocksReply.NOT_ALLOWED)))
                return
            async with target:
                await self._stream.send_all(render_reply(SocksReply.SUCCEEDED))
                await self._tunnel(record, socks.target, target, socks.trailing())

    # HTTP

    async def _serve_http(self, first: bytes) -> None:
        client = HttpClient(self._stream)
        client.http.receive_data(first)
        timeout_s = EGRESS_HEAD_TIMEOUT_S
        while True:
            asked = await self._next_request(client, timeout_s)
            if asked is None or not await self._answer(client, asked):
                return
            client.http.start_next_cycle()
            timeout_s = EGRESS_IDLE_TIMEOUT_S

    async def _next_request(self, client: HttpClient, timeout_s: float) -> h11.Request | None:
        event: object = None
        try:
            with trio.move_on_after(timeout_s):
                event = await next_event(client.http, self._stream)
        except h11.RemoteProtocolError as error:
            self._write_refused("http", f"the request is no HTTP/1: {error}")
            await self._send_error(client, error.error_status_hint, f"the request is no HTTP/1: {error}")
        return event if isinstance(event, h11.Request) else None

    async def _answer(self, client: HttpClient, asked: h11.Request) -> bool:
        """Serve one request; return whether the connection may bring another."""
        try:
            request = read_request(asked)
        except PeerError as error:
            self._write_refused("http", str(error))
            await self._send_error(client, 400, str(error))
            return False
        urls = () if request.is_tunnel else judged_urls(request)
        protocol = "connect" if request.is_tunnel else "http"
        url = "" if request.is_tunnel else f"{request.method} {request.url}"
        with self._recorded(protocol, request.authority, url=url) as record:
            try:
                target = await self._open_target(record, request.authority, urls)
            except EgressRefused as refused:
                await self._send_error(client, _STATUS.get(refused.code, 403), str(refused))
                return False
            async with target:
                if request.is_tunnel:
                    await self._stream.send_all(_ESTABLISHED)
                    await self._tunnel(record, request.authority, target, client.http.trailing_data[0])
                    return False
                return await self._forward(record, client, target, asked, request)

    async def _forward(
        self,
        record: EgressRecord,
        client: HttpClient,
        target: trio.SocketStream,
        asked: h11.Request,
        request: ProxyRequest,
    ) -> bool:
        self._is_flushing = True
        with self._new_idle_limit():
            try:
                record.status = await forward_request(
                    client,
                    target,
                    asked,
                    request,
                    count_up=lambda size: self._count(record, up=size),
                    count_down=lambda size: self._count(record, down=size),
                    up_ended=self._up_ended,
                )
            except OriginFailed as failed:
                _fail(record, str(failed))
                if failed.was_answered:
                    _reset(self._stream)
                else:
                    await self._send_error(client, 502, str(failed))
                return False
            except h11.RemoteProtocolError as error:
                _fail(record, f"the request broke off: {error}")
                _reset(self._stream)
                return False
            record.end = "closed"
            return client.http.our_state is h11.DONE and client.http.their_state is h11.DONE
        record.end = "idle"
        return False

    async def _send_error(self, client: HttpClient, status: int, text: str) -> None:
        if client.http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        response, body = make_error_response(status, text)
        parts = [
            client.http.send(response),
            client.http.send(h11.Data(data=body)),
            client.http.send(h11.EndOfMessage()),
        ]
        await self._say_last(b"".join(part or b"" for part in parts))

    # Both

    async def _tunnel(self, record: EgressRecord, asked: Authority, target: trio.SocketStream, first_up: bytes) -> None:
        self._is_flushing = True
        guard = self._guard_tunnel(asked)
        with self._new_idle_limit():
            try:
                is_whole = await carry_both_ways(
                    self._stream,
                    target,
                    guard=guard,
                    first_up=first_up,
                    count_up=lambda size: self._count(record, up=size),
                    count_down=lambda size: self._count(record, down=size),
                    up_ended=self._up_ended,
                )
            except EgressRefused as refused:
                record.verdict, record.code, record.reason, record.end = "deny", refused.code, str(refused), ""
                _reset(target)
                if guard.is_tls and not record.bytes_down:
                    # A TLS client prints it; behind what the target has said it would be none.
                    await self._say_last(ACCESS_DENIED)
                else:
                    _reset(self._stream)
                return
            record.end = "closed" if is_whole else "reset"
            if not is_whole:
                _reset(self._stream)
                _reset(target)
            return
        record.end = "idle"

    def _up_ended(self) -> None:
        self._is_flushing = False
        if self._must_end:
            self._scope.cancel()

    def _count(self, record: EgressRecord, *, up: int = 0, down: int = 0) -> None:
        record.bytes_up += up
        record.bytes_down += down
        self._idle.deadline = trio.current_time() + EGRESS_IDLE_TIMEOUT_S

    def _new_idle_limit(self) -> trio.CancelScope:
        self._idle = trio.CancelScope(deadline=trio.current_time() + EGRESS_IDLE_TIMEOUT_S)
        return self._idle

    @contextmanager
    def _recorded(self, protocol: str, authority: Authority, *, url: str = "") -> Iterator[EgressRecord]:
        started_s = trio.current_time()
        record = EgressRecord(
            protocol=protocol,
            host=authority.host,
            port=authority.port,
            url=url,
            started_s=started_s - self._began_s,
            reason="the command ended before this was decided",
            code="ended",
            end="command ended",
        )
        try:
            yield record
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            record.end = "reset" if record.verdict == "allow" else ""
            raise
        finally:
            self._is_flushing = False
            record.duration_s = trio.current_time() - started_s
            self._write_down(record)

    def _write_refused(self, protocol: str, why: str) -> None:
        self._write_down(
            EgressRecord(
                protocol=protocol,
                host="",
                port=0,
                code="protocol",
                reason=why,
                started_s=trio.current_time() - self._began_s,
            )
        )

    async def _say_last(self, data: bytes) -> None:
        """Send the last words and hang up so that they arrive: unread input at a close would cut them off."""
        with trio.move_on_after(_LINGER_S):
            await self._stream.send_all(data)
            await self._stream.send_eof()
            while await self._stream.receive_some(EGRESS_CHUNK_BYTES):
                pass


def _fail(record: EgressRecord, why: str) -> None:
    record.code, record.reason, record.end = "failed", why, "reset"


def _reset(stream: trio.SocketStream) -> None:
    """Have the close be seen as a broken connection, never as a whole answer."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)

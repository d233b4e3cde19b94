"""One attempt to reach the hub: TCP, TLS, HTTP upgrade, each with a deadline; its failures in an operator's words.

No redirect is followed and no address but the configured one is dialled. The token leaves this host only after the
TLS handshake has succeeded. Knows nothing of messages. Runs in the runner.
"""

import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final, TypeVar

import h11
import outcome
import trio
import trio_websocket
from trio_websocket import WebSocketConnection
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from guardhouse.errors import InvariantError, PeerError
from guardhouse.limits import MESSAGE_MAX_BYTES
from guardhouse.runner.credential import Token
from guardhouse.runner.event_loop import leaves
from guardhouse.runner.hub_url import HubUrl
from guardhouse.runner.key import RunnerKey, find_challenge, is_key
from guardhouse.runner.tls import describe_tls_failure
from guardhouse.wire import SUBPROTOCOL

__all__ = ["ConnectFailed", "Connection", "Fault", "Form", "dial"]

CONNECT_TIMEOUT_S: Final = 15.0
TLS_TIMEOUT_S: Final = 10.0
UPGRADE_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 2.0
# What a platform may send before the upgrade stands: an HTTP response with some headers and a short body.
_HANDSHAKE_MAX_BYTES: Final = 64 * 1024
# tcp(7): unacknowledged data for this long ends the connection; with pings it bounds how long a dead path is kept.
_TCP_USER_TIMEOUT_MS: Final = 40_000
# Data beyond this waits in our own queue, not in the kernel's, so a ping is not stuck behind megabytes of output.
_TCP_NOTSENT_LOWAT_BYTES: Final = 128 * 1024
# include/uapi/linux/tcp.h; Python names it from 3.12 on only where its headers have it.
_TCP_NOTSENT_LOWAT: Final = 25

T = TypeVar("T")


class Form(StrEnum):
    """How one attempt presents itself."""

    V1 = "guardhouse.v1"  # Authorization header, subprotocol offered
    PLAIN = "plain"  # token in the query, nothing offered: exactly what the seed's platform expects


class Fault(StrEnum):
    """What kind of failure ended an attempt; decides what is tried next."""

    NETWORK = "network"
    TLS = "tls"
    AUTHENTICATION = "authentication"
    UPGRADE = "upgrade"


class ConnectFailed(PeerError):  # noqa: N818 - it says what happened, as PeerError's other kinds do
    """An attempt failed.

    ``status`` is the HTTP status where there was one. ``knows_bearer``: the answer said (WWW-Authenticate) that the
    platform reads the Authorization header, so putting the token elsewhere cannot help. ``challenge``: what it wants
    signed with the runner's key. ``retry_after_s``: how long it asked to be left alone; 0 where it did not.
    """

    def __init__(
        self,
        message: str,
        *,
        fault: Fault,
        status: int | None = None,
        knows_bearer: bool = False,
        challenge: str | None = None,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(message, code=f"connect_{fault}")
        self.retry_after_s = retry_after_s
        self.challenge = challenge
        self.fault = fault
        self.status = status
        self.knows_bearer = knows_bearer


class _EndedEarlyError(Exception):
    """The stream ended, broke or said too much before the upgrade stood."""


class _WatchedStream(trio.abc.Stream):
    """Notes when bytes were last heard and bounds what may arrive before the upgrade stands."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self._inner = inner
        self._handshake_room: int | None = _HANDSHAKE_MAX_BYTES
        self.last_heard_s = trio.current_time()

    def upgraded(self) -> None:
        self._handshake_room = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._inner.receive_some(max_bytes)
        except trio.BrokenResourceError:
            # The library would wait for ever for an upgrade that cannot come any more.
            if self._handshake_room is not None:
                raise _EndedEarlyError from None
            raise
        self.last_heard_s = trio.current_time()
        if self._handshake_room is not None:
            self._handshake_room -= len(data)
            if not data or self._handshake_room < 0:
                raise _EndedEarlyError
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._inner.aclose()


class Connection:
    """An upgraded connection: whole messages in both directions."""

    def __init__(self, websocket: WebSocketConnection, stream: _WatchedStream) -> None:
        self._websocket = websocket
        self._stream = stream

    @property
    def subprotocol(self) -> str | None:
        """What the platform chose of what was offered."""
        return self._websocket.subprotocol or None

    @property
    def last_heard_s(self) -> float:
        """When any byte last arrived, on trio's clock."""
        return self._stream.last_heard_s

    async def receive(self) -> str | bytes:
        """Return the next message.

        Raises:
            PeerError: the connection is over; the text says how it ended.
        """
        try:
            message: str | bytes = await self._websocket.get_message()
        except trio_websocket.ConnectionClosed as closed:
            raise _closed(closed) from None
        return message

    async def send(self, text: str) -> None:
        """Send one message; returns once the kernel has it all.

        Raises:
            PeerError: the connection is over.
        """
        try:
            await self._websocket.send_message(text)
        except trio_websocket.ConnectionClosed as closed:
            raise _closed(closed) from None
        except LocalProtocolError:
            raise PeerError("the connection is being closed", code="closed") from None

    async def ping(self) -> None:
        """Send a ping and wait for its pong: everything sent before it has then arrived.

        Raises:
            PeerError: the connection is over.
        """
        try:
            await self._websocket.ping()
        except trio_websocket.ConnectionClosed as closed:
            raise _closed(closed) from None
        except LocalProtocolError:
            raise PeerError("the connection is being closed", code="closed") from None

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye and wait for the other side's, but not for long."""
        with trio.move_on_after(CLOSE_TIMEOUT_S):
            await self._websocket.aclose(code, reason)


def _closed(closed: trio_websocket.ConnectionClosed) -> PeerError:
    reason = closed.reason
    if reason is None or reason.code == 1006:
        return PeerError("the connection was cut", code="closed")
    words = f": {reason.reason[:200]!r}" if reason.reason else ""
    code = "oversized" if reason.code == 1009 else "closed"
    return PeerError(f"the connection was closed with code {reason.code}{words}", code=code)


async def dial(
    url: HubUrl,
    token: Token,
    *,
    context: ssl.SSLContext,
    form: Form,
    converse: Callable[[Connection], Awaitable[T]],
    user_agent: str = "guardhouse",
) -> T:
    """Connect to ``url`` and hand the connection to ``converse``; close it when that returns or raises.

    Raises:
        ConnectFailed: there was no connection to hand over.
        PeerError: whatever ``converse`` raises.
    """
    if not is_key(token):
        if form is Form.V1:
            return await _dial(url, url.resource, f"Bearer {token.reveal()}", context, form, converse, user_agent)
        return await _dial(url, url.resource_with_token(token.reveal()), None, context, form, converse, user_agent)
    if form is not Form.V1:
        raise InvariantError("a key was about to be sent; it proves itself under guardhouse.v1 only")
    key = RunnerKey(token)
    asking = key.prove(None, host=url.host_header)
    try:
        return await _dial(url, url.resource, asking, context, form, converse, user_agent)
    except ConnectFailed as failure:
        if failure.challenge is None:
            raise
        proof = key.prove(failure.challenge, host=url.host_header)
    try:
        return await _dial(url, url.resource, proof, context, form, converse, user_agent)
    except ConnectFailed as failure:
        if failure.challenge is None:
            raise
        # The hub restarted in between, or took half a minute: this says nothing of the key.
        raise ConnectFailed(
            f"failed to connect: {url} wants another challenge signed", fault=Fault.NETWORK
        ) from failure


async def _dial(
    url: HubUrl,
    resource: str,
    authorization: str | None,
    context: ssl.SSLContext,
    form: Form,
    converse: Callable[[Connection], Awaitable[T]],
    user_agent: str,
) -> T:
    """Make one upgrade request, as `dial`; ``resource`` and ``authorization`` may hold the token."""
    stream = _WatchedStream(await _open_stream(url, context))
    headers = [(b"User-Agent", user_agent.encode())]
    if authorization is not None:
        headers.append((b"Authorization", authorization.encode()))
    result: outcome.Outcome[T] | None = None
    rejections: list[trio_websocket.ConnectionRejected] = []
    websocket: WebSocketConnection | None = None
    is_broken = False
    try:
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(UPGRADE_TIMEOUT_S):
                websocket = await trio_websocket.wrap_client_stream(
                    nursery,
                    stream,  # type: ignore[arg-type]  # "an arbitrary stream", its documentation says
                    url.host_header,
                    resource,
                    subprotocols=[SUBPROTOCOL] if form is Form.V1 else None,
                    extra_headers=headers,
                    max_message_size=MESSAGE_MAX_BYTES,
                    receive_buffer_size=64 * 1024,
                )
            if websocket is not None:
                stream.upgraded()
                result = await outcome.acapture(converse, Connection(websocket, stream))
            nursery.cancel_scope.cancel()
    except* trio_websocket.ConnectionRejected as group:
        rejections += leaves(group)
    except* (_EndedEarlyError, h11.ProtocolError, LocalProtocolError, RemoteProtocolError):
        # The library's reader gave up over bytes that are no HTTP or no WebSocket; said below in words.
        is_broken = True
    finally:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)
    if is_broken and websocket is not None:
        raise PeerError("the platform broke the WebSocket protocol", code="protocol")
    if result is not None:
        return result.unwrap()
    if rejections:
        raise _rejected(rejections[0], url)
    raise ConnectFailed(
        f"failed to connect: {url} did not answer the WebSocket upgrade; is this a hub's address?",
        fault=Fault.UPGRADE,
    )


async def _open_stream(url: HubUrl, context: ssl.SSLContext) -> trio.abc.Stream:
    try:
        with trio.fail_after(CONNECT_TIMEOUT_S):
            tcp = await trio.open_tcp_stream(url.host, url.port)
    except trio.TooSlowError:
        raise ConnectFailed(
            f"failed to connect: no answer from {url.host}:{url.port} within {CONNECT_TIMEOUT_S:g} s;"
            " check that a firewall lets this host out",
            fault=Fault.NETWORK,
        ) from None
    except OSError as error:
        raise ConnectFailed(
            f"failed to connect: {url.host}:{url.port}: {_reason(error)}; check --url and the network",
            fault=Fault.NETWORK,
        ) from None
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _TCP_USER_TIMEOUT_MS)
    tcp.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _TCP_NOTSENT_LOWAT_BYTES)
    if not url.is_tls:
        return tcp
    stream = trio.SSLStream(tcp, context, server_hostname=url.host, https_compatible=True)
    try:
        with trio.fail_after(TLS_TIMEOUT_S):
            await stream.do_handshake()
    except trio.TooSlowError:
        await trio.aclose_forcefully(tcp)
        raise ConnectFailed(
            f"failed to connect: {url.host}:{url.port} did not finish the TLS handshake within {TLS_TIMEOUT_S:g} s",
            fault=Fault.NETWORK,
        ) from None
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(tcp)
        cause = error.__cause__
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            words, fault = describe_tls_failure(cause, host=url.host), Fault.TLS
        else:
            # A hub that is just going down or a middlebox: it says nothing of the certificate, so it is tried again.
            words, fault = f"{url.host}:{url.port} ended the connection during the TLS handshake", Fault.NETWORK
        raise ConnectFailed(f"failed to connect: {words}", fault=fault) from None
    except BaseException:  # cancelled too: the socket is closed
        await trio.aclose_forcefully(tcp)
        raise
    return stream


def _reason(error: OSError) -> str:
    """Return the system's words; trio wraps several addresses' errors into one."""
    if error.strerror:
        return error.strerror
    if isinstance(error.__cause__, ExceptionGroup):
        return ", ".join(sorted({_reason(cause) for cause in leaves(error.__cause__) if isinstance(cause, OSError)}))
    return str(error)


def _rejected(rejection: trio_websocket.ConnectionRejected, url: HubUrl) -> ConnectFailed:
    """Put an HTTP answer that is no upgrade into words. Its body is a stranger's text and is not repeated."""
    status = rejection.status_code
    headers = {name.lower(): value for name, value in rejection.headers}
    if status in (401, 403):
        # RFC 9110 section 11.6.1: one header with several challenges, or several headers.
        challenges = b",".join(value for name, value in rejection.headers if name.lower() == b"www-authenticate")
        knows_bearer = any(part.split()[:1] == [b"bearer"] for part in challenges.lower().split(b","))
        return ConnectFailed(
            f"authentication failed: {url} refused the token (status {status});"
            " copy the environment's token from the hub again",
            fault=Fault.AUTHENTICATION,
            status=status,
            knows_bearer=knows_bearer,
            challenge=find_challenge(challenges),
        )
    if 300 <= status < 400:
        target = headers.get(b"location", b"").decode("ascii", "replace")[:200]
        words = f"answers with a redirect to {target!r} (status {status}), which is never followed; mend --url"
    elif status == 404:
        words = "has no such path (status 404); check the path of --url"
    elif status == 429 or status >= 500:
        words = f"cannot take connections now (status {status}); look at the hub's log"
    else:
        words = f"does not upgrade to WebSocket (status {status}); check --url"
    retry_after_s = _retry_after_s(headers.get(b"retry-after", b""))
    return ConnectFailed(
        f"failed to connect: {url} {words}", fault=Fault.UPGRADE, status=status, retry_after_s=retry_after_s
    )


def _retry_after_s(value: bytes) -> float:
    """Return the seconds of a ``Retry-After`` (RFC 9110 section 10.2.3), 0 for a date: two clocks need not agree."""
    # At most nine digits: the schedule heeds minutes only, and a stranger's text must not become a huge number.
    return float(value) if re.fullmatch(rb"[0-9]{1,9}", value.strip()) else 0.0

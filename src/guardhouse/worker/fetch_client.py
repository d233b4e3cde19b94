"""The runner's end of the fetch workers: one URL in, its page out, each redirect asked about before it is taken.

Knows trio and the protocol. Knows no policy and does not start workers: both are given. Runs in the runner.
"""

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import msgspec
import trio

from guardhouse.errors import PeerError, SetupError
from guardhouse.limits import FETCH_BODY_MAX_BYTES, FETCH_WORKER_REQUESTS_MAX, FETCH_WORKERS_MAX
from guardhouse.wire.operations import WebfetchArgs
from guardhouse.worker import protocol
from guardhouse.worker.fetch_protocol import DISABLED, FetchRefused, HopArgs, HopResult, error_of
from guardhouse.worker.fetch_url import decide_redirect, parse_fetch_url

__all__ = ["FetchClient", "FetchRefused", "FetchedPage", "UrlGrant"]

_RECEIVE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class UrlGrant:
    """What the policy and the operator grant for one URL.

    Attributes:
        any_port: the rule that allows the URL names its port.
        networks: CIDR networks that may be reached although they are private.
        max_bytes: the largest body, decoded.
    """

    any_port: bool = False
    networks: tuple[str, ...] = ()
    max_bytes: int = FETCH_BODY_MAX_BYTES


@dataclass(frozen=True, slots=True)
class FetchedPage:
    """A page as text.

    Attributes:
        content: UTF-8.
        url: where it was found, after redirects.
        status: of HTTP, 200 to 299.
        notes: what its reader should know.
    """

    content: bytes
    url: str
    status: int
    notes: tuple[str, ...]


CheckUrl = Callable[[str], UrlGrant]


class FetchClient:
    """Fetches pages, at most four at a time, each in a worker that serves one request at a time."""

    def __init__(self, start: Callable[[], Awaitable[socket.socket]]) -> None:
        """Keep how to start a worker; one is started when a request finds none idle."""
        self._start = start
        self._limiter = trio.CapacityLimiter(FETCH_WORKERS_MAX)
        self._idle: list[_Worker] = []
        self._is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the idle workers by closing their sockets; one that is busy ends with its request."""
        self._is_closed = True
        idle, self._idle = self._idle, []
        for worker in idle:
            await worker.aclose()

    async def fetch(self, args: WebfetchArgs, check_url: CheckUrl) -> FetchedPage:
        """Fetch one page within ``args.timeout_s``, redirects and the wait for a free worker included.

        Args:
            args: of the wire.
            check_url: asked about the normal form of each URL before it is requested; returns what is granted for it
                or raises Refusal.

        Raises:
            FetchRefused: there is no page; ``code`` and ``status`` say why.
            Refusal: ``check_url`` said no.
            PeerError: a worker answered something that is no reply.
        """
        with trio.move_on_after(args.timeout_s) as scope:
            async with self._limiter:
                return await self._follow(args, check_url, scope)
        raise FetchRefused(f"webfetch timed out after {args.timeout_s:g} s: {args.url[:200]!r}", code="timed_out")

    async def _follow(self, args: WebfetchArgs, check_url: CheckUrl, scope: trio.CancelScope) -> FetchedPage:
        url = parse_fetch_url(args.url)
        hops = 0
        while True:
            grant = check_url(url.text)
            hop = HopArgs(
                url=url.text,
                format=args.output_format,  # type: ignore[arg-type]  # the wire's pattern admits these three
                networks=grant.networks,
                any_port=grant.any_port,
                max_bytes=grant.max_bytes,
            )
            result, content = await self._ask(hop, scope.deadline - trio.current_time())
            target = decide_redirect(url, result.status, result.location, hops=hops)
            if target is None and not 200 <= result.status < 300:
                raise PeerError(f"the fetch worker answered status {result.status} as a page", code="malformed")
            if target is None:
                return FetchedPage(content, url.text, result.status, result.notes)
            url, hops = target, hops + 1

    async def _ask(self, hop: HopArgs, left_s: float) -> tuple[HopResult, bytes]:
        worker = self._idle.pop() if self._idle else await self._fresh()
        is_usable = False
        try:
            answer = await worker.ask(hop, left_s)
            is_usable = True
        except FetchRefused as error:
            is_usable = error.code != DISABLED
            raise
        finally:
            if is_usable and not self._is_closed and worker.served < FETCH_WORKER_REQUESTS_MAX:
                self._idle.append(worker)
            else:
                # A late or broken answer must never be taken for the next one's.
                await worker.aclose()
        return answer

    async def _fresh(self) -> "_Worker":
        try:
            return _Worker(await self._start())
        except (SetupError, OSError) as error:
            raise FetchRefused(f"webfetch is not available: {error}", code=DISABLED) from error


class _Worker:
    """One worker process's socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._buffer = bytearray()
        self.served = 0

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)

    async def ask(self, hop: HopArgs, left_s: float) -> tuple[HopResult, bytes]:
        self.served += 1
        args = msgspec.Raw(msgspec.json.encode(hop))
        request = protocol.Request(id=self.served, operation="fetch", deadline_s=max(0.1, left_s), args=args)
        try:
            await self._stream.send_all(protocol.render(request))
            reply, body = await self._reply()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise FetchRefused(
                f"webfetch failed: the worker ended over {hop.url[:200]!r}; the page may be more than it can hold",
                code=DISABLED,
            ) from None
        if reply.id != self.served:
            raise PeerError(
                f"the fetch worker answered request {reply.id}, asked was {self.served}", code="out_of_order"
            )
        if reply.failure is not None:
            if reply.failure.family == "peer":
                raise PeerError(reply.failure.text, code=reply.failure.code)
            raise error_of(reply.failure)
        try:
            return msgspec.json.decode(_raw(reply), type=HopResult), body
        except msgspec.DecodeError as error:
            raise PeerError(f"invalid result from the fetch worker: {error}") from error

    async def _reply(self) -> tuple[protocol.Reply, bytes]:
        await self._fill(protocol.LENGTHS.size)
        start = protocol.LENGTHS.size
        header_size, body_size = protocol.parse_lengths(self._buffer[:start])
        end = start + header_size + body_size
        await self._fill(end)
        header, body = bytes(self._buffer[start : start + header_size]), bytes(self._buffer[start + header_size : end])
        del self._buffer[:end]
        return protocol.parse_reply(header), body

    async def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            data = await self._stream.receive_some(max(_RECEIVE_BYTES, size - len(self._buffer)))
            if not data:
                raise trio.BrokenResourceError("the worker closed its socket")
            self._buffer += data


def _raw(reply: protocol.Reply) -> bytes:
    return b"null" if isinstance(reply.result, msgspec.UnsetType) else bytes(reply.result)

"""A proxy on a socket of this test's own network, and origins whose every byte is seen."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from guardhouse.egress.rules import EgressRules
from guardhouse.policy import Policy
from guardhouse.runner.egress import CommandEgress, EgressService

LIMIT_S = 30
Handler = Callable[[trio.SocketStream], Awaitable[None]]


@dataclass
class Origin:
    """A server on this host's loopback: ``seen`` is what each connection brought, in order."""

    port: int
    seen: list[bytearray] = field(default_factory=list)

    @property
    def text(self) -> str:
        return b"".join(self.seen).decode("latin-1")


@asynccontextmanager
async def origin(handler: Handler) -> AsyncIterator[Origin]:
    listener = socket.create_server(("127.0.0.1", 0))
    found = Origin(listener.getsockname()[1])

    async def serve(stream: trio.SocketStream) -> None:
        seen = bytearray()
        found.seen.append(seen)
        async with stream:
            try:
                await handler(Recorded(stream, seen))
            except trio.BrokenResourceError:
                return

    async with trio.open_nursery() as nursery:
        accepting = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        nursery.start_soon(trio.serve_listeners, serve, [accepting])
        yield found
        nursery.cancel_scope.cancel()


class Recorded:
    def __init__(self, stream: trio.SocketStream, seen: bytearray) -> None:
        self._stream, self._seen = stream, seen

    async def receive_some(self) -> bytes:
        data = bytes(await self._stream.receive_some(65536))
        self._seen += data
        return data

    async def until(self, mark: bytes) -> bytes:
        while mark not in self._seen:
            if not await self.receive_some():
                break
        return bytes(self._seen)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


def answer(body: bytes = b"hello", *, head: bytes = b"HTTP/1.1 200 OK\r\n") -> Handler:
    """A handler that answers the first request head with ``body`` and closes."""

    async def handle(stream) -> None:
        await stream.until(b"\r\n\r\n")
        await stream.send_all(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    return handle


@dataclass
class Proxy:
    port: int
    command: CommandEgress

    @property
    def connections(self) -> list[dict]:
        return self.command.as_json()["connections"]

    @asynccontextmanager
    async def client(self) -> AsyncIterator[trio.SocketStream]:
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            yield stream

    async def ask(self, data: bytes) -> bytes:
        """Send bytes, half-close, return everything that comes back."""
        async with self.client() as stream:
            await stream.send_all(data)
            await stream.send_eof()
            return await read_all(stream)

    async def recorded(self, count: int) -> list[dict]:
        """Wait until so many connections are written down."""
        with trio.fail_after(LIMIT_S):
            while len(self.connections) < count:  # noqa: ASYNC110 - the ledger has no event
                await trio.sleep(0.01)
        return self.connections


async def read_all(stream: trio.SocketStream) -> bytes:
    found = bytearray()
    with trio.fail_after(LIMIT_S):
        async for chunk in stream:
            found += chunk
    return bytes(found)


@asynccontextmanager
async def proxy(
    domains: list[tuple[str, tuple[int, ...]]],
    *,
    names: dict[str, list[str]],
    addresses: list[tuple[str, tuple[int, ...]]] = (),
    policy: Policy | None = None,
    environment: frozenset[str] | None = None,
    is_tls_required: bool = False,
) -> AsyncIterator[Proxy]:
    """Serve a proxy; ``names`` is the whole name service (a list may be changed between two questions)."""

    async def resolve(host: str, _port: int, _limiter: trio.CapacityLimiter) -> list[str]:
        await trio.lowlevel.checkpoint()
        if host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return list(names[host])

    rules = EgressRules.from_plan(domains, addresses, profile="p", is_tls_required=is_tls_required)
    service = EgressService({"p": rules}, policy=policy, environment=environment, resolve=resolve, log=None)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    async with service.serve(listener, "p") as command:
        assert command is not None
        yield Proxy(port, command)


@asynccontextmanager
async def proxied(handler: Handler, *, policy: Policy | None = None) -> AsyncIterator[tuple[Proxy, Origin]]:
    """A proxy that grants ``web.test``, which leads to an origin with ``handler``, and nothing else."""
    async with (
        origin(handler) as at,
        proxy(
            [("web.test", (at.port,))],
            names={"web.test": ["127.0.0.1"], "evil.test": ["127.0.0.1"]},
            addresses=[("127.0.0.1/32", (at.port,))],
            policy=policy,
        ) as found,
    ):
        yield found, at

"""TLS on an accepted socket: whole both ways, whatever the sizes, and at an end that is said or not."""

import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trustme

from guardhouse.hub.transport.tls_stream import TlsStream

AUTHORITY = trustme.CA()


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("localhost").configure_cert(context)
    return context


def client_context(*, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    context.maximum_version = newest
    return context


def connected() -> tuple[TlsStream, trio.SocketStream]:
    """Return the server's side and the raw client's side of one connection on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
    return TlsStream(accepted, server_context()), trio.SocketStream(trio.socket.from_stdlib_socket(client))


@asynccontextmanager
async def conversation(
    *, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> AsyncIterator[tuple[TlsStream, trio.SSLStream]]:
    """Give both sides after their handshake, the client's being trio's own."""
    server, raw = connected()
    client = trio.SSLStream(raw, client_context(newest=newest), server_hostname="localhost", https_compatible=True)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.do_handshake)
            nursery.start_soon(client.do_handshake)
        try:
            yield server, client
        finally:
            await trio.aclose_forcefully(client)
            await server.aclose()


async def exactly(stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await stream.receive_some(65_536)
        assert piece, "it ended too early"
        data += piece
    return data


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2], ids=["1.3", "1.2"])
async def test_all_sizes_both_ways_at_once(newest):
    """What is sent is what arrives, around the size of a record and far beyond what the kernel holds."""
    sizes = (1, 16_383, 16_384, 16_385, 32_768, 100_001, 3_000_000)
    pieces = [bytes([index + 1]) * size for index, size in enumerate(sizes)]
    whole = b"".join(pieces)

    async def send(stream) -> None:
        for piece in pieces:
            await stream.send_all(piece)

    async def check(stream) -> None:
        assert await exactly(stream, len(whole)) == whole

    async with conversation(newest=newest) as (server, client), trio.open_nursery() as nursery:
        for stream in (server, client):
            nursery.start_soon(send, stream)
            nursery.start_soon(check, stream)


async def test_what_is_decrypted_already_is_read_without_the_socket():
    """One record that is read in small parts: the last of them come though the socket has nothing more."""
    async with conversation() as (server, client):
        await client.send_all(bytes(range(250)))
        parts = [await server.receive_some(100) for _ in range(3)]
        assert b"".join(parts) == bytes(range(250))


async def test_a_frame_in_pieces_of_one_byte():
    """Records that arrive byte by byte are waited for without a busy loop or a loss."""
    server, raw = connected()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")

    async def drip() -> None:
        data = outgoing.read()
        for index in range(len(data)):
            await raw.send_all(data[index : index + 1])

    async def shake_hands() -> None:
        while True:
            try:
                client.do_handshake()
            except ssl.SSLWantReadError:
                await drip()
                incoming.write(await raw.receive_some())
            else:
                await drip()
                return

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.do_handshake)
            nursery.start_soon(shake_hands)
        client.write(b"hello" * 20)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            assert await exactly(server, 100) == b"hello" * 20
    await server.aclose()
    await raw.aclose()


async def test_an_end_that_is_said_and_one_that_is_not():
    """Both are an end: HTTP and WebSocket know themselves whether something lacks."""
    async with conversation() as (server, client):
        await client.aclose()
        assert await server.receive_some(100) == b""
    async with conversation() as (server, client):
        await client.transport_stream.aclose()
        assert await server.receive_some(100) == b""


async def test_our_end_is_said():
    """The client reads an end, not an error: close_notify was sent."""
    async with conversation() as (server, client):
        await server.send_all(b"bye")
        await server.aclose()
        await server.aclose()
        assert await exactly(client, 3) == b"bye"
        unwrapped, rest = await client.unwrap()
        assert (rest, await unwrapped.receive_some()) == (b"", b"")


async def test_a_reset_is_an_error_of_the_peer():
    """A connection that is reset while it is read ends, or raises what every caller takes for a peer that is gone."""
    async with conversation() as (server, client):
        raw = client.transport_stream.socket
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()
        received = b""
        with suppress(ConnectionResetError):
            received = await server.receive_some(100)
        assert received == b""


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", b""])
async def test_no_handshake(said):
    """Who speaks no TLS, or hangs up, is an error of the peer."""
    server, raw = connected()
    if said:
        await raw.send_all(said)
    await raw.send_eof()
    with trio.fail_after(30), pytest.raises(OSError):
        await server.do_handshake()
    await server.aclose()
    await raw.aclose()


async def test_closing_wakes_who_reads():
    """A task that waits for the peer is told that the connection was closed, now and ever after."""
    async with conversation() as (server, _client):

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await server.receive_some(100)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            await server.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await server.receive_some(100)
        with pytest.raises(trio.ClosedResourceError):
            await server.send_all(b"x")


async def test_a_peer_that_does_not_read_can_be_given_up():
    """A write that waits for room can be cancelled, and the connection closed without waiting."""
    async with conversation() as (server, _client):
        with trio.move_on_after(0.3) as given_up:
            await server.send_all(bytes(50_000_000))
        assert given_up.cancelled_caught
        with trio.fail_after(5):
            await server.aclose()

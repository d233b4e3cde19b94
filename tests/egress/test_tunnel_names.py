"""Tunnels through a real proxy: which server the TLS inside may ask for, what a no tells the client."""

import socket
import ssl

import pytest
import trio
import trustme

from guardhouse.runner import egress_tunnel
from tests.egress.proxies import LIMIT_S, Proxy, origin, proxy

from .hellos import real_hello

AUTHORITY = trustme.CA()


@pytest.fixture(params=["TLSv1_2", "TLSv1_3"])
def server(request: pytest.FixtureRequest) -> ssl.SSLContext:
    """A server for both names; under TLS 1.3 it knows one curve that no client offers a key for, so it asks again."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("web.test", "evil.test").configure_cert(context)
    context.minimum_version = context.maximum_version = ssl.TLSVersion[request.param]
    if request.param == "TLSv1_3":
        context.set_ecdh_curve("secp521r1")
    return context


async def speak(found: Proxy, port: int, name: str | None, *, socks: bool = False) -> bytes:
    """Open a tunnel to web.test, speak TLS for ``name`` in it, return what the origin says first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    AUTHORITY.configure_trust(context)
    context.check_hostname = False

    def run() -> bytes:
        with socket.create_connection(("127.0.0.1", found.port), LIMIT_S) as sock:
            if socks:
                sock.sendall(b"\x05\x01\x00")
                assert sock.recv(2) == b"\x05\x00"
                sock.sendall(b"\x05\x01\x00\x03\x08web.test" + port.to_bytes(2, "big"))
                assert sock.recv(10)[1:2] == b"\x00"
            else:
                sock.sendall(f"CONNECT web.test:{port} HTTP/1.1\r\nHost: web.test\r\n\r\n".encode())
                assert b"200" in sock.recv(4096)
            with context.wrap_socket(sock, server_hostname=name) as tls:
                tls.sendall(b"hello")
                return tls.recv(100)

    return await trio.to_thread.run_sync(run)


async def serve(server: ssl.SSLContext, stream) -> None:
    tls = trio.SSLStream(stream, server, https_compatible=True, server_side=True)
    try:
        said = await tls.receive_some(100)
        await tls.send_all(b"echo " + said)
    except trio.BrokenResourceError:
        return


@pytest.mark.parametrize("socks", [False, True])
async def test_only_the_name_that_was_asked_for(server, socks) -> None:
    """TLS for the tunnel's name works, with a second hello too; for another nothing reaches the server."""

    async def handler(stream) -> None:
        await serve(server, stream)

    async with (
        origin(handler) as at,
        proxy(
            [("web.test", (at.port,))], names={"web.test": ["127.0.0.1"]}, addresses=[("127.0.0.1/32", (at.port,))]
        ) as found,
    ):
        assert await speak(found, at.port, "web.test", socks=socks) == b"echo hello"
        assert await speak(found, at.port, None, socks=socks) == b"echo hello"
        with pytest.raises(ssl.SSLError, match=r"(?i)access.denied"):
            await speak(found, at.port, "evil.test", socks=socks)
        connections = await found.recorded(3)
    assert [(one["verdict"], one["code"]) for one in connections] == [
        ("allow", ""),
        ("allow", ""),
        ("deny", "tls_name"),
    ]
    refused = connections[-1]
    assert "asks for 'evil.test'" in refused["reason"]
    assert (refused["host"], refused["bytes_up"], refused["bytes_down"]) == ("web.test", 0, 0)


async def test_a_profile_may_want_tls_and_nothing_else() -> None:
    """With tls: required what names nobody and what is no TLS ends; without, both pass."""

    async def handler(stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"heard")

    async def ask(found: Proxy, port: int, said: bytes) -> bytes:
        async with found.client() as stream:
            await stream.send_all(f"CONNECT web.test:{port} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            assert b"200" in await stream.receive_some()
            await stream.send_all(said)
            try:
                return bytes(await stream.receive_some())
            except trio.BrokenResourceError:
                return b"reset"

    for required, wanted in ((False, [b"heard"] * 3), (True, [b"\x15\x03\x03\x00\x02\x02\x31", b"reset", b"heard"])):
        async with (
            origin(handler) as at,
            proxy(
                [("web.test", (at.port,))],
                names={"web.test": ["127.0.0.1"]},
                addresses=[("127.0.0.1/32", (at.port,))],
                is_tls_required=required,
            ) as found,
        ):
            with trio.fail_after(LIMIT_S):
                said = [real_hello(None), b"GET / HTTP/1.1\r\n\r\n", real_hello("web.test")]
                assert [await ask(found, at.port, one) for one in said] == wanted


async def test_a_hello_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds a connection for so long and no longer, and nothing of it is passed on."""
    monkeypatch.setattr(egress_tunnel, "EGRESS_HEAD_TIMEOUT_S", 0.2)

    async def handler(stream) -> None:
        await stream.receive_some()

    async with (
        origin(handler) as at,
        proxy(
            [("web.test", (at.port,))], names={"web.test": ["127.0.0.1"]}, addresses=[("127.0.0.1/32", (at.port,))]
        ) as found,
        found.client() as stream,
    ):
        await stream.send_all(f"CONNECT web.test:{at.port} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert b"200" in await stream.receive_some()
        await stream.send_all(real_hello("web.test")[:-1])
        (refused,) = await found.recorded(1)
        assert (refused["code"], refused["bytes_up"]) == ("tls_name", 0)
        assert "no whole ClientHello" in refused["reason"]
    assert at.text == ""

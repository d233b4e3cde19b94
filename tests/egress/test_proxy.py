"""The proxy against real sockets: what passes, what is refused, what is written down, and how it ends."""

import errno
import os
import socket

import pytest
import trio

from guardhouse.limits import EGRESS_CONNECTIONS_MAX
from guardhouse.policy import load_policy

from .proxies import LIMIT_S, answer, origin, proxied, proxy, read_all


def get(host: str, port: int, path: str = "/", *headers: str, method: str = "GET") -> bytes:
    lines = [f"{method} http://{host}:{port}{path} HTTP/1.1", f"Host: {host}:{port}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def connect(host: str, port: int) -> bytes:
    return f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()


def socks(host: str, port: int) -> bytes:
    return b"\x05\x01\x00\x05\x01\x00\x03" + bytes((len(host),)) + host.encode() + port.to_bytes(2, "big")


async def echo_after_end(stream) -> None:
    """Read to the end of what comes, then answer with it: works only where a half-closed connection stays open."""
    got = bytearray()
    while data := await stream.receive_some():
        got += data
    await stream.send_all(b"got " + got)


async def test_plain_http() -> None:
    """The origin gets its own form of the request, the command its answer, the record all of it."""
    async with proxied(answer()) as (via, at):
        said = await via.ask(get("web.test", at.port, "/a?b=c", "Connection: close", "Proxy-Authorization: x"))
        assert said.startswith(b"HTTP/1.1 200 ")
        assert said.endswith(b"\r\n\r\nhello")
        assert at.text == f"GET /a?b=c HTTP/1.1\r\nHost: web.test:{at.port}\r\nConnection: close\r\n\r\n"
        (one,) = await via.recorded(1)
        assert (one["protocol"], one["host"], one["port"]) == ("http", "web.test", at.port)
        assert (one["address"], one["verdict"], one["reason"]) == ("127.0.0.1", "allow", "domain web.test")
        assert (one["status"], one["bytes_down"], one["end"]) == (200, 5, "closed")
        assert one["url"] == f"GET http://web.test:{at.port}/a?b=c"


@pytest.mark.parametrize("protocol", ["connect", "socks5"])
async def test_tunnel_with_half_close(protocol: str) -> None:
    """Bytes pass both ways, also those sent ahead of the answer, and an end in one direction is not one in both."""
    async with proxied(echo_after_end) as (via, at):
        hello = connect("WEB.test.", at.port) if protocol == "connect" else socks("web.TEST", at.port)
        async with via.client() as stream:
            await stream.send_all(hello + b"ahead, ")
            await stream.send_all(b"behind")
            await stream.send_eof()
            said = await read_all(stream)
        assert said.endswith(b"got ahead, behind")
        (one,) = await via.recorded(1)
        assert (one["protocol"], one["verdict"], one["end"]) == (protocol, "allow", "closed")
        assert (one["bytes_up"], one["bytes_down"]) == (13, 17)


@pytest.mark.parametrize("protocol", ["http", "connect", "socks5"])
@pytest.mark.parametrize("target", ["evil.test", "web.test.evil.test", "127.0.0.1", "localhost"])
async def test_what_no_entry_covers(protocol: str, target: str) -> None:
    """Other names and bare addresses are refused in each protocol, with what to add; nothing is connected to."""
    async with origin(answer()) as at, proxy([("web.test", (at.port,))], names={"evil.test": ["127.0.0.1"]}) as via:
        ask = {"http": get, "connect": connect, "socks5": socks}[protocol]
        said = await via.ask(ask(target, at.port))
        if protocol == "socks5":
            assert said[:4] == b"\x05\x00\x05\x02"
        else:
            assert said.startswith(b"HTTP/1.1 403 ")
            assert b"profile 'p'" in said
        (one,) = await via.recorded(1)
        assert (one["verdict"], one["address"], one["bytes_up"]) == ("deny", "", 0)
        assert at.seen == []


INNER = [
    ["127.0.0.1"], ["10.0.0.1"], ["169.254.169.254"], ["192.168.0.1"], ["::1"], ["::ffff:127.0.0.1"], ["fe80::1%lo"],
    ["64:ff9b::7f00:1"], ["2002:7f00:1::"], ["93.184.216.34", "10.0.0.1"], ["fd00:ec2::254"], ["0.0.0.0"],
]  # fmt: skip


@pytest.mark.parametrize("addresses", INNER, ids=" ".join)
async def test_a_granted_name_that_leads_inside(addresses: list[str]) -> None:
    """DNS rebinding: a granted name whose answer holds an inner address is refused, whatever else it holds."""
    async with origin(answer()) as at, proxy([("web.test", (at.port,))], names={"web.test": addresses}) as via:
        said = await via.ask(get("web.test", at.port))
        assert said.startswith(b"HTTP/1.1 403 ")
        (one,) = await via.recorded(1)
        assert (one["code"], one["address"]) == ("address", "")
        assert at.seen == []


async def test_an_address_of_this_host_is_refused_though_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads to this host's own public address would pass for the host itself."""
    monkeypatch.setattr("guardhouse.runner.egress_connect._is_own", lambda address: address == "93.184.216.34")
    async with proxy([("web.test", (80,))], names={"web.test": ["93.184.216.34"]}) as via:
        assert b"an address of this very host" in await via.ask(get("web.test", 80))


async def test_the_name_is_asked_for_once() -> None:
    """What is connected to is what was judged: a second answer, which leads elsewhere, is never asked for."""
    asked = []
    async with origin(answer(b"judged")) as at, origin(answer(b"rebound")) as other:
        names = {"web.test": ["127.0.0.1"]}
        async with proxy([("web.test", (at.port,))], names=names, addresses=[("127.0.0.0/8", (at.port,))]) as via:
            real = via.command._resolve

            async def resolve(*arguments):
                asked.append(arguments[0])
                found = await real(*arguments)
                names["web.test"] = ["127.0.0.2"]
                return found

            via.command._resolve = resolve
            assert (await via.ask(get("web.test", at.port))).endswith(b"judged")
        assert asked == ["web.test"]
        assert other.seen == []


async def test_kept_alive_requests_are_judged_anew() -> None:
    """The second request on a connection is judged for itself, and the first one's grant is of no use to it."""
    async with proxied(answer()) as (via, at):
        said = await via.ask(get("web.test", at.port) + get("web.test", at.port, "/2") + get("evil.test", at.port))
        assert said.count(b"HTTP/1.1 200 ") == 2
        assert said.count(b"HTTP/1.1 403 ") == 1
        assert [one["verdict"] for one in await via.recorded(3)] == ["allow", "allow", "deny"]
        assert len(at.seen) == 2


SMUGGLED = b"GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length : 5\r\n",
        b"Content-Length: 5, 6\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
        b"X: a\rTransfer-Encoding: chunked\r\n",
    ],
)
async def test_request_smuggling_by_framing(headers: bytes) -> None:
    """A body that could end in two places is no request; no byte of it reaches the origin."""
    async with proxied(answer()) as (via, at):
        head = f"POST http://web.test:{at.port}/ HTTP/1.1\r\nHost: web.test\r\n".encode()
        said = await via.ask(head + headers + b"\r\n0\r\n\r\n" + SMUGGLED)
        assert said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
        assert at.seen == []


async def test_a_folded_header_is_no_second_one() -> None:
    """A line that begins with a blank belongs to the one before it, for us and so for the origin."""
    async with proxied(answer()) as (via, at):
        raw = get("web.test", at.port, "/", "X: a", " Transfer-Encoding: chunked") + b"0\r\n\r\n" + SMUGGLED
        assert (await via.ask(raw)).count(b"HTTP/1.1 400 ") == 1
        assert "\r\nX: a Transfer-Encoding: chunked\r\n" in at.text
        assert "evil" not in at.text


@pytest.mark.parametrize(
    "headers", ["Connection: Content-Length", "Connection: close, content-length, host", "Connection: \tContent-Length"]
)
async def test_request_smuggling_by_dropped_headers(headers: str) -> None:
    """A Connection header that names Content-Length does not turn a body into a second request."""
    async with proxied(answer()) as (via, at):
        length = f"Content-Length: {len(SMUGGLED)}"
        await via.ask(get("web.test", at.port, "/", length, headers, method="POST") + SMUGGLED)
        (seen,) = at.seen
        head, _, _ = bytes(seen).partition(b"\r\n\r\n")
        assert length.encode() in head


async def test_a_chunked_body_is_chunked_anew() -> None:
    """Chunk extensions and trailers stay behind; the body is the same, and what follows it is a request of its own."""

    async def handle(stream) -> None:
        await stream.until(b"\r\n0\r\n\r\n")
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with proxied(handle) as (via, at):
        head = get("web.test", at.port, "/", "Transfer-Encoding: chunked", method="POST")
        said = await via.ask(head + b"5;a=b\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n" + get("evil.test", at.port))
        assert said.count(b"HTTP/1.1 403 ") == 1
        assert at.text.endswith("\r\n\r\n5\r\nhello\r\n0\r\n\r\n")


async def test_the_url_names_the_host_and_not_the_header() -> None:
    """A Host header for another name is replaced: a shared server cannot be talked into another site."""
    async with proxied(answer()) as (via, at):
        raw = f"GET http://web.test:{at.port}/ HTTP/1.1\r\nHost: evil.test\r\n\r\n".encode()
        assert (await via.ask(raw)).startswith(b"HTTP/1.1 200 ")
        assert "evil.test" not in at.text


async def test_bytes_behind_a_refused_connect_are_no_request() -> None:
    """After a no the connection ends; what was sent along is neither forwarded nor read as a request."""
    async with proxied(answer()) as (via, at):
        said = await via.ask(connect("evil.test", at.port) + get("web.test", at.port))
        assert said.count(b"HTTP/1.1 ") == 1
        assert said.startswith(b"HTTP/1.1 403 ")
        assert at.seen == []


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: web.test\r\n\r\n", 400),
        (b"GET https://web.test/ HTTP/1.1\r\nHost: web.test\r\n\r\n", 400),
        (b"CONNECT web.test HTTP/1.1\r\nHost: web.test\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET http://web.test/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET http://web.test/" + b"a" * 80_000 + b" HTTP/1.1\r\n", 431),
        (b"garbage\r\n\r\n", 400),
    ],
)
async def test_no_request(raw: bytes, code: int) -> None:
    """What is no request of a proxy is answered with its fault and written down."""
    async with proxied(answer()) as (via, at):
        assert (await via.ask(raw)).startswith(b"HTTP/1.1 %d " % code)
        (one,) = await via.recorded(1)
        assert (one["verdict"], one["code"]) == ("deny", "protocol")
        assert at.seen == []


@pytest.mark.parametrize("raw", [b"\x16\x03\x01\x02\x00\x01\x00", b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", b"\x00"])
async def test_other_protocols_are_hung_up_on(raw: bytes) -> None:
    """TLS to the proxy itself, SOCKS4 and anything else get no answer, and a record."""
    async with proxied(answer()) as (via, _):
        assert await via.ask(raw) == b""
        (one,) = await via.recorded(1)
        assert one["protocol"] == "unknown"


async def test_a_broken_answer_is_not_taken_for_whole() -> None:
    """An origin that breaks off in the middle is seen as broken by the command too."""

    async def half(stream) -> None:
        await stream.until(b"\r\n\r\n")
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")

    async with proxied(half) as (via, at):
        with pytest.raises(trio.BrokenResourceError):
            await via.ask(get("web.test", at.port))
        (one,) = await via.recorded(1)
        assert (one["code"], one["end"], one["bytes_down"]) == ("failed", "reset", 9)


@pytest.mark.parametrize(
    "answer_",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"",
    ],
)
async def test_an_origin_that_speaks_no_http(answer_: bytes) -> None:
    """What cannot be read in one way only is a 502 of ours, never passed on."""

    async def handle(stream) -> None:
        await stream.until(b"\r\n\r\n")
        await stream.send_all(answer_)

    async with proxied(handle) as (via, at):
        said = await via.ask(get("web.test", at.port))
        assert said.startswith(b"HTTP/1.1 502 ")
        (one,) = await via.recorded(1)
        assert one["code"] == "failed"


@pytest.mark.parametrize(
    ("method", "head", "body", "expected"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"", b""),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b"", b""),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"", b""),
        ("GET", b"HTTP/1.0 200 OK\r\n\r\n", b"until the end", b"until the end"),
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
         b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        ("GET", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
         b"ok", b"ok"),
    ],
)  # fmt: skip
async def test_framings_of_an_answer(method: str, head: bytes, body: bytes, expected: bytes) -> None:
    """Every way in which an answer may end is understood, and a client of ours reads the same body."""
    import h11

    async def handle(stream) -> None:
        await stream.until(b"\r\n\r\n")
        await stream.send_all(head + body)

    async with proxied(handle) as (via, at), via.client() as stream:
        client = h11.Connection(h11.CLIENT)
        request = h11.Request(method=method, target=f"http://web.test:{at.port}/", headers=[("Host", "web.test")])
        await stream.send_all((client.send(request) or b"") + (client.send(h11.EndOfMessage()) or b""))
        got = b""
        with trio.fail_after(LIMIT_S):
            while not isinstance(event := client.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    client.receive_data(await stream.receive_some(65536))
                elif isinstance(event, h11.Data):
                    got += event.data
        assert got == expected
        (one,) = await via.recorded(1)
        assert one["end"] == "closed"


async def test_unresolved_and_unreachable() -> None:
    """A granted name without an address, and one that nobody answers at, are 502 with the reason."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with proxy(
        [("none.test", (port,)), ("dead.test", (port,))],
        names={"dead.test": ["127.0.0.1"]},
        addresses=[("127.0.0.1/32", (port,))],
    ) as via:
        for host, code, reply in (("none.test", "unresolved", 4), ("dead.test", "unreachable", 5)):
            assert (await via.ask(get(host, port))).startswith(b"HTTP/1.1 502 ")
            assert (await via.ask(socks(host, port)))[2:4] == bytes((5, reply))
            assert {one["code"] for one in via.connections if one["host"] == host} == {code}


POLICY = """
permission:
  bash: {"*": allow}
  egress:
    "http://web.test:*/*": allow
    "http://web.test:*/admin*": deny
    "https://tunnel.test:*/*": allow
    "https://half.test:*/v1/*": allow
    "https://plain.test:*/*": allow
    "http://plain.test:*/secret": deny
"""


@pytest.mark.parametrize("path", ["/", "/adm", "/a?admin", "/x/admin"])
async def test_policy_lets_pass(path: str) -> None:
    """The twin: what the policy's egress rules allow passes."""
    async with proxied(answer(), policy=load_policy(POLICY, name="p.yaml")) as (via, at):
        assert (await via.ask(get("web.test", at.port, path))).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("path", ["/admin", "/admin/x", "/%61dmin", "/adm%69n?x", "//admin"])
async def test_policy_refuses_a_path(path: str) -> None:
    """Of a plain request the whole URL is asked about, also as an origin would decode it; the rule is named."""
    async with proxied(answer(), policy=load_policy(POLICY, name="p.yaml")) as (via, at):
        said = await via.ask(get("web.test", at.port, path))
        assert said.startswith(b"HTTP/1.1 403 ")
        assert b"p.yaml:6" in said
        assert at.seen == []


async def test_policy_and_tunnels() -> None:
    """A tunnel passes where every path of its host is allowed and none denied in clear: it hides what it asks for."""
    policy = load_policy(POLICY, name="p.yaml")
    async with (
        origin(echo_after_end) as at,
        proxy(
            [("*.test", (at.port,))],
            names={f"{name}.test": ["127.0.0.1"] for name in ("tunnel", "half", "none", "plain")},
            addresses=[("127.0.0.1/32", (at.port,))],
            policy=policy,
        ) as via,
    ):
        for host in ("half.test", "none.test", "plain.test"):
            assert (await via.ask(connect(host, at.port))).startswith(b"HTTP/1.1 403 ")
        assert (await via.ask(socks("tunnel.test", at.port)))[2:4] == b"\x05\x02"
        assert all("hides what is asked for inside" in one["reason"] for one in via.connections)
        assert at.seen == []
        async with via.client() as stream:
            await stream.send_all(connect("tunnel.test", at.port))
            await stream.send_eof()
            assert (await read_all(stream)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(("tags", "status"), [(frozenset({"ci"}), 200), (frozenset({"production"}), 403), (None, 403)])
async def test_conditions_of_egress_rules(tags: frozenset[str] | None, status: int) -> None:
    """A rule for some hosts holds on these alone; where the host's tags are not known it allows nothing."""
    rules = """
permission:
  bash: {"*": allow}
  egress:
    - {match: "http://web.test:*/*", then: allow, when: {environment: [ci]}}
"""
    async with (
        origin(answer()) as at,
        proxy(
            [("web.test", (at.port,))],
            names={"web.test": ["127.0.0.1"]},
            addresses=[("127.0.0.1/32", (at.port,))],
            policy=load_policy(rules, name="p.yaml"),
            environment=tags,
        ) as via,
    ):
        assert (await via.ask(get("web.test", at.port))).startswith(b"HTTP/1.1 %d " % status)


async def test_a_slow_reader_slows_its_writer() -> None:
    """Nothing piles up in the proxy: an origin that reads nothing stops the command after what the kernel buffers."""
    go = trio.Event()

    async def deaf(stream) -> None:
        await go.wait()

    async with proxied(deaf) as (via, at), via.client() as stream:
        await stream.send_all(connect("web.test", at.port))
        sent = 0
        with trio.move_on_after(2):
            while sent < 200_000_000:
                await stream.send_all(bytes(1_000_000))
                sent += 1_000_000
        assert sent < 100_000_000
        go.set()


async def test_what_was_sent_is_delivered_after_the_commands_end() -> None:
    """A command that writes and exits at once loses nothing; what is left open then is closed."""
    reading = trio.Event()

    async def slow(stream) -> None:
        await reading.wait()
        while await stream.receive_some():
            pass

    size = 300_000
    async with origin(slow) as at:
        async with proxy(
            [("web.test", (at.port,))], names={"web.test": ["127.0.0.1"]}, addresses=[("127.0.0.1/32", (at.port,))]
        ) as via:
            async with via.client() as stream:
                await stream.send_all(connect("web.test", at.port))
                await stream.receive_some(1000)
                await stream.send_all(bytes(size))
            reading.set()
        with trio.fail_after(LIMIT_S):
            while len(at.seen[0]) < size:  # noqa: ASYNC110 - what the kernel holds for the origin
                await trio.sleep(0.01)
        (one,) = via.connections
        assert (one["bytes_up"], one["verdict"]) == (size, "allow")


async def test_every_connection_ends_with_the_command() -> None:
    """Open tunnels, waiting clients and half requests are closed at its end, soon, and no descriptor stays."""

    async def wait(stream) -> None:
        await trio.sleep_forever()

    async with origin(wait) as at:
        before = len(os.listdir("/proc/self/fd"))
        streams = []
        began_s = trio.current_time()
        async with proxy(
            [("web.test", (at.port,))], names={"web.test": ["127.0.0.1"]}, addresses=[("127.0.0.1/32", (at.port,))]
        ) as via:
            for data in (connect("web.test", at.port), socks("web.test", at.port), b"GET http", b"", b"\x05\x01"):
                for _ in range(3):
                    stream = await trio.open_tcp_stream("127.0.0.1", via.port)
                    streams.append(stream)
                    await stream.send_all(data)
            with trio.fail_after(LIMIT_S):
                while len(at.seen) < 6:  # noqa: ASYNC110 - accepted by the origin
                    await trio.sleep(0.01)
            began_s = trio.current_time()
        assert trio.current_time() - began_s < 10
        assert [one["end"] for one in via.connections if one["verdict"] == "allow"] == ["command ended"] * 6
        for stream in streams:
            with trio.fail_after(LIMIT_S):
                try:
                    while await stream.receive_some(1000):
                        pass
                except trio.BrokenResourceError:
                    pass
            await stream.aclose()
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_a_lack_of_descriptors_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where accept(2) fails for want of a descriptor the connection waits and is then served."""
    with trio.socket.socket() as some:
        kind = type(some)
    real = kind.accept
    failures = [errno.EMFILE, errno.ECONNABORTED]

    async def accept(self):
        if failures:
            raise OSError(failures.pop(), "accept")
        return await real(self)

    async with proxied(answer()) as (via, at):
        monkeypatch.setattr(kind, "accept", accept)
        # The one that waits already is answered by the real call.
        for _ in range(3):
            assert (await via.ask(get("web.test", at.port))).startswith(b"HTTP/1.1 200 ")
    assert not failures


async def test_connections_past_the_limit_wait_their_turn() -> None:
    """More than one command's share at a time is neither refused nor lost: the rest wait and are then served."""
    count = EGRESS_CONNECTIONS_MAX + 20
    async with proxied(answer()) as (via, at):
        idle = [await trio.open_tcp_stream("127.0.0.1", via.port) for _ in range(EGRESS_CONNECTIONS_MAX)]
        said = []

        async def ask() -> None:
            said.append(await via.ask(get("web.test", at.port)))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
            await trio.sleep(0.2)
            for stream in idle:
                await stream.aclose()
        assert sum(one.startswith(b"HTTP/1.1 200 ") for one in said) == 20
        assert count == len(idle) + len(said)


async def test_an_idle_connection_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tunnel without a byte for the idle limit is closed, and the record says so."""
    monkeypatch.setattr("guardhouse.runner.egress_connection.EGRESS_IDLE_TIMEOUT_S", 0.2)

    async def wait(stream) -> None:
        await trio.sleep_forever()

    async with proxied(wait) as (via, at), via.client() as stream:
        await stream.send_all(connect("web.test", at.port))
        await read_all(stream)
        (one,) = await via.recorded(1)
        assert one["end"] == "idle"


async def test_a_silent_or_slow_client_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a request holds its place for a bounded time only, in each protocol."""
    monkeypatch.setattr("guardhouse.runner.egress_connection.EGRESS_HEAD_TIMEOUT_S", 0.2)
    async with proxied(answer()) as (via, _):
        for data in (b"", b"GET http://web.test/ HT", b"\x05\x01\x00\x05\x01"):
            async with via.client() as stream:
                await stream.send_all(data)
                await read_all(stream)

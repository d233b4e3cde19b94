"""Clients that are slow, silent or wrong cost themselves, not the hub."""

import json
import ssl

import pytest
import structlog
import trio
from tests.support.runner_stub import connect_plain


def port(hub) -> int:
    return int(hub.url.rsplit(":", 1)[1])


async def first_bytes(hub, data: bytes) -> bytes:
    stream = await trio.open_tcp_stream("127.0.0.1", port(hub))
    async with stream:
        await stream.send_all(data)
        with trio.fail_after(30):
            return await stream.receive_some(65_536)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GARBAGE\r\n\r\n", id="garbage"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50 + b"\r\n\r\n", id="TLS to plain"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", id="huge header"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no host"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2 preface"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", id="negative length"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="two lengths",
        ),
    ],
)
async def test_broken_http_is_answered_and_survived(hub, data):
    """What is no HTTP/1.1 gets an error status, or nothing; the next client is served."""
    answer = await first_bytes(hub, data)
    assert not answer or int(answer.split(b" ")[1]) >= 400
    assert (await hub.http.get("/healthz")).status_code == 200


async def test_silent_clients_are_dropped_and_a_runner_connects_meanwhile(hub, monkeypatch):
    """Connections that say nothing keep nobody out, and are gone after the handshake limit."""
    streams = [await trio.open_tcp_stream("127.0.0.1", port(hub)) for _ in range(200)]
    created = await hub.environment()
    # Far from the 8 s after which the silent ones are dropped and would keep nobody out any more.
    with trio.fail_after(7):
        async with connect_plain(hub.url, created["token"]):
            await hub.until_online()
    with trio.fail_after(40):
        for stream in streams:
            assert await stream.receive_some(1) == b""
            await stream.aclose()


EARLY = b"POST /mcp HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ght_no\r\nContent-Length: %d\r\n\r\n"


async def test_an_early_answer_waits_for_a_small_body_and_keeps_the_connection(hub):
    """A refusal that needs no body comes once the body is read: the connection then carries the next request."""
    head = EARLY % 2
    async with await trio.open_tcp_stream("127.0.0.1", port(hub)) as stream:
        with trio.fail_after(30):
            for _ in range(3):
                await stream.send_all(head)
                await trio.sleep(0.05)
                await stream.send_all(b"{}")
                answer = await stream.receive_some(65_536)
                assert answer.startswith(b"HTTP/1.1 401")
                assert b"connection: close" not in answer.lower()


async def test_an_early_answer_ends_the_connection_of_a_body_that_does_not_come(hub):
    """The answer is not held back by a client that promises more than it sends."""
    head = EARLY % 1000
    answer = await first_bytes(hub, head + b"{}")
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"connection: close" in answer.lower()


async def test_client_that_does_not_read_is_dropped(hub, monkeypatch):
    """A runner that stops reading is disconnected; it holds up neither the hub nor its shutdown."""
    monkeypatch.setattr("guardhouse.hub.transport.connection.WRITE_TIMEOUT_S", 1.5)
    created = await hub.environment()
    stream = await trio.open_tcp_stream("127.0.0.1", port(hub))
    request = (
        f"GET /safari/worknode/ws?token={created['token']} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    await stream.send_all(request.encode())
    assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 101")
    body = {
        "environment_id": "web-1",
        "operation": "write",
        "args": {"path": "x", "content": "QUJD" * 2_500_000},
        "queue_s": 60,
    }
    for _ in range(3):
        await hub.http.post("/api/v1/tasks", json=body)

    async def is_offline() -> bool:
        return "disconnected" in (await hub.status())["status_reason"] or not (await hub.status())["connection"]

    await hub.until(is_offline, within_s=30)
    await stream.aclose()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        pytest.param(b"\x81\x05hello", 1002, id="not masked"),
        pytest.param(b"\xf1\x80\x00\x00\x00\x00", 1002, id="reserved bits"),
        pytest.param(b"\x83\x80\x00\x00\x00\x00", 1002, id="unknown opcode"),
        pytest.param(b"\x81\x82\x00\x00\x00\x00\xc3\x28", 1007, id="bad UTF-8"),
        pytest.param(b"\x89\xfe\x01\x00\x00\x00\x00\x00" + b"x" * 256, 1002, id="long ping"),
    ],
)
async def test_malformed_frames_are_closed_with_their_code(hub, frame, code):
    """Each broken frame is answered with the close code of RFC 6455, not with silence."""
    created = await hub.environment()
    stream = await trio.open_tcp_stream("127.0.0.1", port(hub))
    async with stream:
        request = (
            f"GET /safari/worknode/ws?token={created['token']} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        )
        await stream.send_all(request.encode())
        received = b""
        with trio.fail_after(30):
            while b"welcome" not in received:
                received += await stream.receive_some(65_536)
            assert b"permessage-deflate" not in received
            await stream.send_all(frame)
            received = b""
            while True:
                data = await stream.receive_some(65_536)
                received += data
                if not data:
                    break
    place = received.index(b"\x88")
    assert int.from_bytes(received[place + 2 : place + 4], "big") == code
    assert (await hub.http.get("/healthz")).status_code == 200


async def test_tls_needs_1_2(start_hub):
    """TLS 1.1 is refused, 1.2 and 1.3 are spoken, HTTP/2 is not offered."""
    async with start_hub(tls=True) as hub:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.minimum_version = context.maximum_version = version
            context.set_alpn_protocols(["h2", "http/1.1"])
            stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", port(hub), ssl_context=context)
            await stream.do_handshake()
            assert stream.selected_alpn_protocol() == "http/1.1"
            await trio.aclose_forcefully(stream)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", port(hub), ssl_context=context)
        with pytest.raises(trio.BrokenResourceError):
            await stream.do_handshake()
        assert (await hub.http.get("/healthz")).status_code == 200


async def test_access_log_holds_no_token(hub, capsys):
    """Whatever is sent as a token, the log has the path alone."""
    created = await hub.environment()
    owner = (hub.state_dir / "owner.token").read_text().strip()
    async with connect_plain(hub.url, created["token"]):
        await hub.until_online()
    await hub.http.get("/safari/worknode/ws", params={"token": created["token"]})
    logged = "".join(capsys.readouterr())
    assert "/safari/worknode/ws" in logged
    assert created["token"] not in logged
    assert owner not in logged
    assert "token=" not in logged


async def test_stop_tells_runners_and_takes_no_time(start_hub):
    """A stopping hub says goodbye to its runners and ends long before any limit."""
    async with start_hub() as hub:
        created = await hub.environment()
        async with connect_plain(hub.url, created["token"]) as runner:
            await hub.until_online()
            with trio.fail_after(30):
                hub.hub.stop.set()
                closed = await runner.expect_closed()
            assert closed is not None
            assert closed.code == 1001
            assert json.loads(json.dumps(closed.reason)).startswith("the hub is shutting down")


async def test_renewed_certificate_is_shown_after_a_reload(start_hub, tmp_path, authority):
    """New connections see the renewed certificate; a broken file changes nothing."""

    async def serial() -> str:
        stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", port(hub), ssl_context=hub.ssl_context)
        await stream.do_handshake()
        found = stream.getpeercert()["serialNumber"]
        await trio.aclose_forcefully(stream)
        return found

    async with start_hub(tls=True) as hub:
        before = await serial()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        (tmp_path / "chain.pem").write_bytes(b"broken")
        hub.hub.reload_certificate()
        assert await serial() == before
        (tmp_path / "chain.pem").write_bytes(chain)
        hub.hub.reload_certificate()
        assert await serial() != before


async def test_who_leaves_early_has_no_status(hub):
    """The access log says that a client left before its answer; it makes no status up, and no null one."""
    created = await hub.environment()
    owner = (hub.state_dir / "owner.token").read_text().strip()
    with structlog.testing.capture_logs() as lines:
        async with connect_plain(hub.url, created["token"]):
            await hub.until_online()
            task = await hub.start("sleep 60")
            stream = await trio.open_tcp_stream("127.0.0.1", port(hub))
            await stream.send_all(
                f"GET /api/v1/tasks/{task['id']}/result?wait_s=30 HTTP/1.1\r\nHost: a\r\n"
                f"Authorization: Bearer {owner}\r\n\r\n".encode()
            )
            await trio.testing.wait_all_tasks_blocked()
            await stream.aclose()

            async def has_left() -> bool:
                return any(line["event"] == "client_left" for line in lines)

            await hub.until(has_left)
    assert not any("status" in line for line in lines if line["event"] == "client_left")
    assert all(line["status"] for line in lines if line["event"] == "request")

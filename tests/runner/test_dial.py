"""Real dials over the loopback: what a hub must be to get the token, and in which words one that is not is named."""

import ssl
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from tests.support.certificates import make_authority, make_server_context
from tests.support.platform_stub import open_stub

from guardhouse.runner import dial as dial_module
from guardhouse.runner.credential import Token
from guardhouse.runner.dial import ConnectFailed, Connection, Fault, Form, dial
from guardhouse.runner.hub_url import HubUrl, parse_hub_url
from guardhouse.runner.tls import make_client_context

TOKEN = "wnt_canary_77aa"


@pytest.fixture(scope="module")
def authority():
    return make_authority()


def client_context(tmp_path, authority) -> ssl.SSLContext:
    return make_client_context(ca_file=authority.write(tmp_path), tls_min_version="1.3", insecure_skip_tls_verify=False)


async def reach(url: HubUrl, context: ssl.SSLContext, form: Form = Form.PLAIN) -> str:
    async def converse(connection: Connection) -> str:
        return str(await connection.receive())

    return await dial(url, Token(TOKEN), context=context, form=form, converse=converse)


async def fails(url: HubUrl, context: ssl.SSLContext, form: Form = Form.PLAIN) -> ConnectFailed:
    with pytest.raises(ConnectFailed) as caught:
        await reach(url, context, form)
    assert TOKEN not in str(caught.value)
    return caught.value


async def test_a_good_hub_is_reached_over_tls(tmp_path, authority) -> None:
    """The twin of every refusal: with a good certificate the welcome arrives."""
    async with open_stub(TOKEN, ssl_context=make_server_context(tmp_path, authority)) as stub:
        assert "wn_stub" in await reach(parse_hub_url(stub.url), client_context(tmp_path, authority))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param({"ends_in_days": -0.5}, "has expired", id="expired"),
        pytest.param({"starts_in_days": 0.5}, "is not valid yet", id="not yet valid"),
        pytest.param({"hosts": ("other.example",)}, "is for another host", id="wrong host"),
        pytest.param({"self_signed": True}, "is self-signed", id="self-signed"),
    ],
)
async def test_a_bad_certificate_never_sees_the_token(tmp_path, authority, fault, words) -> None:
    """A certificate that cannot be verified ends the attempt before a byte of HTTP is sent."""
    async with open_stub(TOKEN, ssl_context=make_server_context(tmp_path, authority, **fault)) as stub:
        failure = await fails(parse_hub_url(stub.url), client_context(tmp_path, authority))
        assert failure.fault is Fault.TLS
        assert str(failure).startswith("failed to connect: the certificate of localhost ")
        assert words in str(failure)
        assert stub.attempts == []


async def test_a_wrong_token_is_an_authentication_failure(tmp_path, authority) -> None:
    """401 is said in other words than a network failure."""
    async with open_stub("wnt_other") as stub:
        failure = await fails(parse_hub_url(stub.url), client_context(tmp_path, authority))
    assert failure.fault is Fault.AUTHENTICATION
    assert str(failure).startswith("authentication failed: ")


@pytest.mark.parametrize(
    ("headers", "knows_bearer"),
    [
        pytest.param([b'Bearer realm="guardhouse"'], True, id="bearer"),
        pytest.param([b"bearer"], True, id="lower-case"),
        pytest.param([b'Bearer realm="x"', b'Basic realm="y"'], True, id="two-headers"),
        pytest.param([b'Basic realm="y", Bearer realm="x"'], True, id="one-header-two-challenges"),
        pytest.param([b'Basic realm="bearer"'], False, id="basic"),
        pytest.param([b"Bearers"], False, id="another-word"),
        pytest.param([], False, id="none"),
    ],
)
async def test_a_platform_that_reads_the_header_says_so(tmp_path, authority, headers, knows_bearer) -> None:
    """WWW-Authenticate: Bearer tells that the token was seen where v1 puts it."""
    async with open_stub(TOKEN) as stub:
        stub.refusal, stub.refusal_headers = 401, [(b"WWW-Authenticate", value) for value in headers]
        failure = await fails(parse_hub_url(stub.url), client_context(tmp_path, authority), Form.V1)
    assert failure.knows_bearer is knows_bearer
    assert stub.attempts[0].token is None


@pytest.mark.parametrize(
    ("status", "words"),
    [
        pytest.param(302, "redirect to 'http://evil.example/' (status 302), which is never followed", id="redirect"),
        pytest.param(404, "no such path", id="path"),
        pytest.param(503, "cannot take connections now", id="overload"),
        pytest.param(200, "does not upgrade", id="a web page"),
    ],
)
async def test_other_answers(tmp_path, authority, status, words) -> None:
    """Any other HTTP answer is named; a redirect is not followed."""
    async with open_stub(TOKEN) as stub:
        stub.refusal, stub.refusal_headers = status, [(b"Location", b"http://evil.example/")]
        failure = await fails(parse_hub_url(stub.url), client_context(tmp_path, authority))
    assert failure.fault is Fault.UPGRADE
    assert words in str(failure)
    assert len(stub.attempts) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param(b"17", 17.0, id="seconds"),
        pytest.param(b"Fri, 31 Dec 1999 23:59:59 GMT", 0.0, id="a date"),
        pytest.param(b"-5", 0.0, id="negative"),
        pytest.param(b"1" * 400, 0.0, id="absurd"),
    ],
)
async def test_how_long_an_overloaded_platform_wants_to_be_left_alone(tmp_path, authority, value, seconds) -> None:
    """Retry-After is taken where it is a number of seconds; anything else asks for nothing."""
    async with open_stub(TOKEN) as stub:
        stub.refusal, stub.refusal_headers = 503, [(b"Retry-After", value)]
        failure = await fails(parse_hub_url(stub.url), client_context(tmp_path, authority))
    assert failure.retry_after_s == seconds


async def test_nobody_there(tmp_path, authority) -> None:
    """A refused connection names address and port and where to look."""
    with trio.socket.socket() as held:
        await held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        failure = await fails(parse_hub_url(f"wss://127.0.0.1:{port}/x"), client_context(tmp_path, authority))
    assert failure.fault is Fault.NETWORK
    assert f"failed to connect: 127.0.0.1:{port}: " in str(failure)


async def test_a_name_that_does_not_resolve(tmp_path, authority) -> None:
    """A host without an address is a network failure."""
    failure = await fails(parse_hub_url("wss://no-such-host.invalid/x"), client_context(tmp_path, authority))
    assert failure.fault is Fault.NETWORK


async def test_plain_http_on_a_tls_port(tmp_path, authority) -> None:
    """A port that speaks no TLS is named as such."""
    async with open_stub(TOKEN) as stub:
        failure = await fails(parse_hub_url(f"wss://localhost:{stub.port}/x"), client_context(tmp_path, authority))
    assert failure.fault is Fault.TLS


@asynccontextmanager
async def raw_server(behave):
    """A TCP server that does to each connection what ``behave`` does."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, behave, 0, host="127.0.0.1"))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def silent(_stream) -> None:
    await trio.sleep_forever()


async def hangs_up(_stream) -> None:
    await trio.lowlevel.checkpoint()


async def floods(stream) -> None:
    await stream.send_all(b"HTTP/1.1 401 No\r\nContent-Length: 999999999\r\n\r\n")
    while True:
        await stream.send_all(b"x" * 65536)


async def talks_nonsense(stream) -> None:
    await stream.send_all(b"\x00\x01\x02 nonsense \r\n\r\n")
    await trio.sleep_forever()


@pytest.mark.parametrize("behave", [silent, hangs_up, floods, talks_nonsense])
async def test_strangers_are_left_in_time(tmp_path, authority, monkeypatch, behave) -> None:
    """A server that is silent, hangs up, floods or talks nonsense costs the deadline at most, and little memory."""
    monkeypatch.setattr(dial_module, "UPGRADE_TIMEOUT_S", 1.0)
    async with raw_server(behave) as port:
        with trio.fail_after(30):
            failure = await fails(parse_hub_url(f"ws://127.0.0.1:{port}/x"), client_context(tmp_path, authority))
    assert str(failure).startswith(("failed to connect: ", "authentication failed: "))


async def test_a_silent_tls_server_is_left_in_time(tmp_path, authority, monkeypatch) -> None:
    """The TLS handshake has a deadline of its own."""
    monkeypatch.setattr(dial_module, "TLS_TIMEOUT_S", 0.5)
    async with raw_server(silent) as port:
        with trio.fail_after(30):
            failure = await fails(parse_hub_url(f"wss://127.0.0.1:{port}/x"), client_context(tmp_path, authority))
    assert "did not finish the TLS handshake" in str(failure)
    assert failure.fault is Fault.NETWORK


async def test_a_hang_up_during_the_handshake_is_no_verdict(tmp_path, authority) -> None:
    """A hub that goes down in the middle of a handshake is waited for, not given up."""
    async with raw_server(hangs_up) as port:
        failure = await fails(parse_hub_url(f"wss://127.0.0.1:{port}/x"), client_context(tmp_path, authority))
    assert failure.fault is Fault.NETWORK

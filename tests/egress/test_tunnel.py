"""The name inside a tunnel against the name that it was asked for: every form of a ClientHello, bytes in, bytes out."""

import contextlib
import ssl
from collections import deque
from pathlib import Path

import pytest
import trustme

from guardhouse.egress.client_hello import parse_client_hello
from guardhouse.egress.host import Authority
from guardhouse.egress.rules import EgressRefused
from guardhouse.egress.tunnel import TunnelGuard
from guardhouse.errors import PeerError
from guardhouse.limits import EGRESS_HELLO_MAX_BYTES

from .hellos import message, real_hello, records, server_hello, server_name

WEB, EVIL = message(server_name(b"web.test")), message(server_name(b"evil.test"))
ECH = (0xFE0D, b"\x00" * 40)
CHANGE = records(b"\x01", kind=20)
DATA = records(b"x" * 300, kind=23)


def guard(host: str = "web.test", *, is_tls_required: bool = False) -> TunnelGuard:
    return TunnelGuard(Authority(host, 443), is_tls_required=is_tls_required, profile="web")


def refusal(found: TunnelGuard, *pieces: bytes) -> str:
    """Feed what must be refused at the last piece, and only there; return the message."""
    for piece in pieces[:-1]:
        found.feed_up(piece)
    with pytest.raises(EgressRefused) as caught:
        found.feed_up(pieces[-1])
    assert caught.value.code == "tls_name"
    return str(caught.value)


@pytest.mark.parametrize("name", ["web.test", "WEB.Test", None])
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_a_real_hello_for_the_name_passes_as_it_is(name, step) -> None:
    """Nothing goes on before the name is known, then every byte in order; TLS without a name passes by default."""
    hello, found, out = real_hello(name), guard(), b""
    for at in range(0, len(hello), step):
        assert out == b""
        out += found.feed_up(hello[at : at + step])
    assert out == hello
    found.feed_down(server_hello(is_retry=False))
    assert found.feed_up(b"anything") == b"anything"


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_another_name_is_refused_whatever_the_pieces(step) -> None:
    """A name beside the tunnel's never reaches the target, in any number of segments."""
    hello, found = real_hello("evil.test"), guard()
    pieces = [hello[at : at + step] for at in range(0, len(hello), step)]
    assert "asks for 'evil.test'" in refusal(found, *pieces)


@pytest.mark.parametrize("size", [1, 3, 50])
def test_a_hello_in_many_records(size) -> None:
    """Fragments of the record layer are put together, as every server does."""
    split = records(WEB, size=size)
    assert guard().feed_up(split) == split
    assert "evil.test" in refusal(guard(), records(EVIL, size=size))
    assert guard().feed_up(split + DATA) == split + DATA


@pytest.mark.parametrize(
    "said",
    [
        records(message(server_name(b"web.test"), server_name(b"evil.test"))),
        records(message(server_name(b"web.test", kind=1))),
        records(message((0, b"\x00\x0d\x00\x00\x08web.test\x00\x00"))),
        records(message((0, b"\x00\x16\x00\x00\x08web.test\x00\x00\x08evil.tes"))),
        records(message((0, b""))),
        records(message(server_name(b""))),
        records(message(server_name(b"web.test\x00"))),
        records(message(server_name("wéb.test".encode()))),
        records(message(server_name(b"127.0.0.1"))),
        records(message(server_name(b"0x7f000001"))),
        records(message(server_name(b"web.test.evil.test"))),
        records(message(server_name(b"b.web.test"))),
        records(WEB + EVIL),
        records(WEB[:-1]) + DATA,
        records(WEB[:20]) + CHANGE + records(WEB[20:]),
        records(WEB)[:1] + b"\x02" + records(WEB)[2:],
        b"\x16\x03\x01\x00\x00" + records(WEB),
        b"\x16\x03\x01\x40\x01" + WEB,
        records(b"\x02" + WEB[1:]),
        records(b"\x01\xff\xff\xff" + WEB[4:], size=64) * 1200,
        records(WEB) + records(EVIL),
        records(WEB) + CHANGE + records(EVIL),
        records(WEB) + records(b"\x01", kind=24),
    ],
)
def test_what_two_servers_could_read_differently_is_refused(said) -> None:
    """Doubled and odd names, messages behind the first, records in between: no server gets to choose."""
    assert refusal(guard(), said)
    for step in (1, 5):
        found = guard()
        with pytest.raises(EgressRefused):
            deque(found.feed_up(said[at : at + step]) for at in range(0, len(said), step))


def test_the_second_hello_of_a_retry_is_judged_too() -> None:
    """A server that asks again would take the second name; it cannot be said before the server has asked."""
    for second, passes in ((WEB, True), (EVIL, False), (message(), True)):
        found = guard()
        found.feed_up(records(WEB))
        asked = records(b"\x01\x70", kind=21) + server_hello(is_retry=True)
        for at in range(len(asked)):
            found.feed_down(asked[at : at + 1])
        said = CHANGE + records(second, size=40)
        if passes:
            assert found.feed_up(said) + found.feed_up(b"rest") == said + b"rest"
        else:
            assert "evil.test" in refusal(found, said)


def test_what_follows_the_first_hello_is_not_held_up() -> None:
    """Early data passes before the answer; after an answer that asks nothing, everything does."""
    found = guard()
    found.feed_up(records(WEB))
    assert b"".join(found.feed_up(bytes([byte])) for byte in CHANGE + DATA) == CHANGE + DATA
    found.feed_down(server_hello(is_retry=False))
    assert found.feed_up(records(EVIL)) == records(EVIL)
    for answer in (b"HTTP/1.1 400\r\n", b"\x16\x03\x03\x00\x02\x02\x00\x16\x03\x03\x00\x40" + bytes(64)):
        found = guard()
        found.feed_up(records(WEB))
        found.feed_down(answer)
        assert found.feed_up(b"any") == b"any"


def test_other_protocols_pass_unless_tls_is_required() -> None:
    """A tunnel for SSH or a database is no TLS; a profile may want TLS and nothing else."""
    assert guard().feed_up(b"SSH-2.0-x\r\n") == b"SSH-2.0-x\r\n"
    assert guard("10.0.0.1").feed_up(records(EVIL)) == records(EVIL)
    strict = lambda host="web.test": guard(host, is_tls_required=True)  # noqa: E731 - short
    assert "no TLS" in refusal(strict(), b"SSH-2.0-x\r\n")
    assert "no TLS" in refusal(strict("10.0.0.1"), b"GET / HTTP/1.1\r\n")
    assert "names no server" in refusal(strict(), real_hello(None))
    assert "names no server" in refusal(strict(), records(message(with_extensions=False)))
    assert "ECH" in refusal(strict(), records(message(server_name(b"web.test"), ECH)))
    for found, said in ((strict(), real_hello("web.test")), (strict("10.0.0.1"), real_hello(None))):
        assert found.feed_up(said) == said
    outer = records(message(server_name(b"web.test"), ECH))
    assert guard().feed_up(outer) == outer
    assert "public.test" in refusal(guard(), records(message(server_name(b"public.test"), ECH)))


def test_a_hello_is_bounded_and_has_an_end() -> None:
    """64 KiB are held back and no more; a command that stops within its hello has asked for nothing."""
    found = guard()
    big = records(message(server_name(b"web.test"), (21, bytes(EGRESS_HELLO_MAX_BYTES - 2_000))))
    assert found.feed_up(big) == big
    assert "longer than" in refusal(guard(), records(message((21, bytes(65_500)))) + CHANGE)
    found = guard()
    found.feed_up(real_hello("web.test")[:-1])
    assert found.is_holding
    with pytest.raises(EgressRefused, match="ends within"):
        found.end_up()
    guard().end_up()


def test_openssl_reads_the_same_name() -> None:
    """A server of OpenSSL's sees in every hello that passes the name that we saw, or none."""
    seen: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("web.test").configure_cert(context)
    context.sni_callback = lambda _tls, name, _context: seen.append(name)
    for hello in (real_hello("web.test"), real_hello(None), records(real_hello("web.test")[5:], size=11)):
        incoming = ssl.MemoryBIO()
        incoming.write(guard().feed_up(hello))
        with contextlib.suppress(ssl.SSLError):
            context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
    assert seen == ["web.test", None, "web.test"]


@pytest.mark.parametrize("cut", range(4, 44))
def test_a_cut_message_is_malformed(cut) -> None:
    """Every cut ends in a refusal, never in another exception or a name read past the end."""
    with pytest.raises(PeerError):
        parse_client_hello(WEB[4:cut])


def test_the_fuzz_target_knows_these() -> None:
    """The corpus of `fuzz/fuzz_tunnel.py` is there; `test_fuzz_target.py` runs it."""
    assert len(list((Path(__file__).resolve().parents[2] / "fuzz" / "corpus" / "tunnel").iterdir())) >= 5

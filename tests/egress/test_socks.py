"""SOCKS5: the one request that is served, byte by byte, and everything else refused with its own reply."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardhouse.egress.detect import Speaks, detect_protocol
from guardhouse.egress.host import Authority
from guardhouse.egress.socks import SocksReply, SocksRequest, render_reply
from guardhouse.errors import PeerError

MAPPED = str(ipaddress.ip_address("::ffff:10.0.0.1"))  # its text differs between releases of Python
HELLO = b"\x05\x01\x00"
NAME = b"\x05\x01\x00\x03\x0bexample.com\x01\xbb"


def read(data: bytes) -> SocksRequest:
    socks = SocksRequest()
    assert socks.feed(data)
    return socks


@pytest.mark.parametrize(
    ("request_", "target"),
    [
        (NAME, Authority("example.com", 443)),
        (b"\x05\x01\x00\x03\x0cEXAMPLE.com.\x01\xbb", Authority("example.com", 443)),
        (b"\x05\x01\x00\x01\x0a\x00\x00\x01\x00\x50", Authority("10.0.0.1", 80)),
        (b"\x05\x01\x00\x04" + bytes(15) + b"\x01\x00\x50", Authority("::1", 80)),
        (
            b"\x05\x01\x00\x04" + bytes(10) + b"\xff\xff\x0a\x00\x00\x01\x00\x50",
            Authority(MAPPED, 80),
        ),
        (b"\x05\x01\x00\x03\x09127.0.0.1\x00\x50", Authority("127.0.0.1", 80)),
        (b"\x05\x01\x00\x03\x03::1\x00\x50", Authority("::1", 80)),
    ],
)
def test_target(request_: bytes, target: Authority) -> None:
    """Names in normal form, both kinds of address, and an address written as a name is an address."""
    socks = read(HELLO + request_ + b"first bytes")
    assert socks.target == target
    assert socks.to_send() == b"\x05\x00"
    assert socks.trailing() == b"first bytes"


@given(st.lists(st.integers(1, 6), max_size=12))
def test_pieces_do_not_matter(sizes: list[int]) -> None:
    """However the bytes are cut, the request is the same."""
    data, socks, whole = b"\x05\x02\x02\x00" + NAME + b"rest", SocksRequest(), False
    for size in sizes:
        whole = whole or socks.feed(data[:size])
        data = data[size:]
    whole = whole or socks.feed(data)
    assert whole
    assert socks.target == Authority("example.com", 443)


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"\x04\x01", b""),
        (b"\x05\x01\x02", b"\x05\xff"),
        (b"\x05\x00", b"\x05\xff"),
        (HELLO + b"\x05\x02\x00\x01\x01\x01\x01\x01\x00\x50", SocksReply.COMMAND_UNKNOWN),
        (HELLO + b"\x05\x03\x00\x01\x01\x01\x01\x01\x00\x50", SocksReply.COMMAND_UNKNOWN),
        (HELLO + b"\x05\x01\x00\x02\x01\x01\x01\x01\x00\x50", SocksReply.ADDRESS_UNKNOWN),
        (HELLO + b"\x05\x01\x01\x01\x01\x01\x01\x01\x00\x50", SocksReply.FAILED),
        (HELLO + b"\x01\x01\x00\x01\x01\x01\x01\x01\x00\x50", SocksReply.FAILED),
        (HELLO + b"\x05\x01\x00\x03\x00\x00\x50", SocksReply.FAILED),
        (HELLO + b"\x05\x01\x00\x01\x01\x01\x01\x01\x00\x00", SocksReply.FAILED),
        (HELLO + b"\x05\x01\x00\x03\x05a\x00b.c\x00\x50", SocksReply.NOT_ALLOWED),
        (HELLO + b"\x05\x01\x00\x03\x040x7f\x00\x50", SocksReply.NOT_ALLOWED),
        (HELLO + b"\x05\x01\x00\x03\x04\xc3\xbcbe\x00\x50", SocksReply.NOT_ALLOWED),
    ],
)
def test_refused(data: bytes, answer: bytes | SocksReply) -> None:
    """Other versions, commands, address types and hosts that are none end with the reply that says so."""
    socks = SocksRequest()
    with pytest.raises(PeerError):
        socks.feed(data)
    expected = b"\x05\x00" + render_reply(answer) if isinstance(answer, SocksReply) else answer
    assert socks.to_send() == expected


@given(st.binary(max_size=300))
def test_any_bytes_end(data: bytes) -> None:
    """Any bytes are a request, the beginning of one, or refused; what it holds is bounded."""
    socks = SocksRequest()
    try:
        whole = socks.feed(data)
    except PeerError:
        return
    assert whole == (socks.target is not None)


def test_first_byte_tells() -> None:
    """HTTP and SOCKS5 are told apart by it; TLS and SOCKS4 are named."""
    assert detect_protocol(ord("C")) is Speaks.HTTP
    assert detect_protocol(5) is Speaks.SOCKS5
    for byte, says in ((0x16, "TLS"), (4, "version 4"), (0, "neither"), (255, "neither"), (0x20, "neither")):
        with pytest.raises(PeerError, match=says):
            detect_protocol(byte)

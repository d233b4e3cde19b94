"""Hosts: one normal form for each, and none for what two readers could take for two things."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardhouse.egress.host import Authority, HostError, parse_authority, parse_host

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True).filter(lambda text: text[2:4] != "--")
TOP = st.sampled_from(["com", "example", "internal"])
NAME = st.builds(lambda labels, top: ".".join((*labels, top)), st.lists(LABEL, max_size=3), TOP)


@pytest.mark.parametrize(
    ("given_", "normal"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("ｅｘａｍｐｌｅ.com", "example.com"),
        ("example。com", "example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("127.0.0.1", "127.0.0.1"),
        ("１２７.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
    ],
)
def test_one_normal_form(given_: str, normal: str) -> None:
    """Case, a trailing dot, Unicode and its look-alikes lead to one text."""
    assert parse_host(given_) == normal


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "..", "a..b", ".a", "a b", "a\tb", "a/b", "a\\b", "a@b", "a%2eb", "a#b", "a\x00b", "a\r\nb", "-a.com",
        "a-.com", "a*.com", "*.com", "x" * 64 + ".com", "a." * 130 + "com", "xn--a.com", "xn--", "\u202eevil.com",
        # What inet_aton(3) and curl read as 127.0.0.1, or as some other address.
        "2130706433", "0x7f000001", "0x7f.1", "127.1", "127.0.1", "017700000001", "0177.0.0.1", "127.0.0.01",
        "127.0.0.0x1", "1.2.3.4.5", "256.1.1.1", "1.1.1.1.1", "0", "0x", "example.0x1f", "example.1",
        "::1", "[::1]", "fe80::1%eth0",
    ],
)  # fmt: skip
def test_no_host(text: str) -> None:
    """Numbers in odd bases, empty labels, blanks, marks of other syntaxes and forged A-labels are no host."""
    with pytest.raises(HostError):
        parse_host(text)


@given(NAME)
def test_normal_form_is_stable(name: str) -> None:
    """A normal form is its own normal form, and so is it in capitals."""
    host = parse_host(name)
    assert parse_host(host) == host == parse_host(name.upper()) == parse_host(name + ".")


@given(st.integers(0, 2**32 - 1))
def test_every_ipv4_address_in_plain_text_is_itself(number: int) -> None:
    """Four decimal numbers are an address, and nothing else that means it is."""
    address = ipaddress.IPv4Address(number)
    assert parse_host(str(address)) == str(address)
    for other in (str(number), hex(number), f"0{number:o}"):
        with pytest.raises(HostError):
            parse_host(other)


@given(st.integers(0, 2**128 - 1))
def test_every_ipv6_address_in_brackets_is_itself(number: int) -> None:
    """However it is written, an IPv6 address in brackets has one text."""
    address = ipaddress.IPv6Address(number)
    assert parse_authority(f"[{address.exploded}]:443") == Authority(str(address), 443)


@pytest.mark.parametrize(
    "text",
    [
        "", ":443", "example.com", "example.com:", "example.com:0", "example.com:65536", "example.com:-1", "a:1:2",
        "example.com:44x", "example.com:٤٤٣", "example.com: 443", "user@example.com:443", "user:pw@example.com:443",
        "[::1]", "[::1", "[::1]443", "[127.0.0.1]:80", "[::1%25lo]:80", "[]:80", "example.com:000443",
    ],
)  # fmt: skip
def test_no_authority(text: str) -> None:
    """A user, a missing or odd port, and brackets around something else are refused."""
    with pytest.raises(HostError):
        parse_authority(text)


def test_authority() -> None:
    """Host and port, with the scheme's own where none is written."""
    assert parse_authority("Example.com:8443") == Authority("example.com", 8443)
    assert parse_authority("example.com", default_port=80) == Authority("example.com", 80)
    assert parse_authority("[2001:DB8::1]:443").text == "[2001:db8::1]:443"
    assert Authority("example.com", 80).in_header(default_port=80) == "example.com"
    assert Authority("::1", 81).in_header(default_port=80) == "[::1]:81"
    assert Authority("10.0.0.1", 80).is_address
    assert not Authority("10.example", 80).is_address

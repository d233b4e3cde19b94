"""Addresses: public ones pass, everything else is refused unless it is granted, in every form that carries it."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardhouse.egress.address import why_not_public
from guardhouse.errors import SetupError
from guardhouse.worker.fetch_address import check_addresses, parse_networks
from guardhouse.worker.fetch_protocol import FetchRefused

PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1",
          "::ffff:8.8.8.8", "64:ff9b::808:808", "192.0.1.1", "198.17.0.1", "223.255.255.255"]  # fmt: skip
REFUSED = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254", "169.254.1.1",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8",
    "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1",
    "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "168.63.129.16", "100.100.100.200", "::", "::1", "::2", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "2001:2::1", "2001:10::1",
    "2002:7f00:1::", "2002:808:808::1",
    "3fff::1", "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%1", "fec0::1", "ff02::1",
    "2606:4700::5efe:10.0.0.1", "2606:4700::200:5efe:7f00:1", "", "1.2.3", "localhost", "0x7f.1",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    """The twin of every refusal: public addresses pass."""
    assert why_not_public(address) is None


@pytest.mark.parametrize("address", REFUSED)
def test_refused(address: str) -> None:
    """Nothing but a public address passes without a grant, and the reason is said."""
    assert why_not_public(address)


@given(st.integers(0, 2**32 - 1))
def test_agrees_with_the_library_where_it_says_private(number: int) -> None:
    """What the standard library does not call global we refuse, whatever its release."""
    address = ipaddress.IPv4Address(number)
    if not address.is_global:
        assert why_not_public(str(address))


@given(st.integers(0, 2**32 - 1))
def test_carried_addresses_are_judged(number: int) -> None:
    """An IPv4 address that is refused is refused inside an IPv6 one."""
    inner = ipaddress.IPv4Address(number)
    if why_not_public(str(inner)):
        for form in (f"::ffff:{inner}", f"64:ff9b::{inner}", f"::{inner}", f"2606:4700::5efe:{inner}"):
            assert why_not_public(form), form


@pytest.mark.parametrize(
    ("address", "networks", "passes"),
    [
        ("10.1.2.3", ["10.0.0.0/8"], True),
        ("10.1.2.3", ["10.2.0.0/16"], False),
        ("::ffff:10.1.2.3", ["10.0.0.0/8"], True),
        ("127.0.0.1", ["127.0.0.1/32"], True),
        ("127.0.0.2", ["127.0.0.1"], False),
        ("169.254.169.254", ["169.254.0.0/16"], False),
        ("169.254.169.254", ["0.0.0.0/0"], False),
        ("169.254.169.254", ["169.254.169.254"], True),
        ("::ffff:169.254.169.254", ["::/0"], False),
        ("fd00:ec2::254", ["fd00::/8"], False),
        ("fd12::1", ["fd00::/8"], True),
        ("2002:808:808::1", ["2002::/16"], True),
    ],
)
def test_grants(address: str, networks: list[str], passes: bool) -> None:
    """A grant opens its network; a metadata address is opened by its own grant alone."""
    assert (why_not_public(address, parse_networks(networks)) is None) is passes


def test_every_address_of_an_answer_counts() -> None:
    """One private address among public ones refuses the name."""
    check_addresses("a.example", ["8.8.8.8", "1.1.1.1"], ())
    with pytest.raises(FetchRefused, match=r"10\.0\.0\.1, which is private") as caught:
        check_addresses("a.example", ["8.8.8.8", "10.0.0.1"], ())
    assert caught.value.code == "address_refused"


def test_a_grant_must_be_a_network() -> None:
    """A slip in a grant is refused at start."""
    with pytest.raises(SetupError, match=r"10\.0\.0\.1/8"):
        parse_networks(["10.0.0.1/8"])

"""The allow-list: what an entry covers passes, everything else is refused with the entry that would let it pass."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardhouse.egress.host import Authority
from guardhouse.egress.rules import EgressRefused, EgressRules, covers_domain

RULES = EgressRules.from_plan(
    [("api.example.com", (80, 443)), ("*.cdn.example.com", (443,)), ("db.example.com", (5432,))],
    [("10.1.0.0/16", (5432,)), ("127.0.0.1/32", (8080,)), ("fd00:1::/64", (443,)), ("1.2.3.4/32", (443,))],
    profile="web",
)
METADATA = ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "169.254.170.2"]


def refused(host: str, port: int) -> EgressRefused:
    with pytest.raises(EgressRefused) as raised:
        RULES.check_target(Authority(host, port))
    return raised.value


@pytest.mark.parametrize(
    ("host", "port"),
    [("api.example.com", 80), ("api.example.com", 443), ("a.cdn.example.com", 443), ("a.b.cdn.example.com", 443),
     ("db.example.com", 5432), ("10.1.2.3", 5432), ("::ffff:10.1.2.3", 5432), ("127.0.0.1", 8080), ("fd00:1::5", 443),
     ("1.2.3.4", 443)],
)  # fmt: skip
def test_granted(host: str, port: int) -> None:
    """Every kind of entry lets pass what it names."""
    assert RULES.check_target(Authority(host, port)).by.startswith(("domain", "address"))


@pytest.mark.parametrize(
    ("host", "port", "code"),
    [
        ("example.com", 443, "domain"), ("evil.com", 443, "domain"), ("cdn.example.com", 443, "domain"),
        ("evilcdn.example.com", 443, "domain"), ("api.example.com.evil.com", 443, "domain"),
        ("xapi.example.com", 443, "domain"), ("a.api.example.com", 443, "domain"), ("localhost", 80, "domain"),
        ("api.example.com", 22, "port"), ("a.cdn.example.com", 80, "port"), ("db.example.com", 443, "port"),
        ("10.1.2.3", 443, "address"), ("10.2.0.1", 5432, "address"), ("127.0.0.1", 80, "address"),
        ("127.0.0.2", 8080, "address"), ("8.8.8.8", 443, "address"), ("::1", 8080, "address"),
        ("0.0.0.0", 8080, "address"), ("2002:7f00:1::", 443, "address"), ("64:ff9b::7f00:1", 80, "address"),
        ("::ffff:127.0.0.1", 80, "address"), ("169.254.169.254", 80, "address"), ("1.2.3.4", 80, "address"),
    ],
)  # fmt: skip
def test_refused(host: str, port: int, code: str) -> None:
    """Neighbours of an entry, other ports and addresses are refused."""
    assert refused(host, port).code == code


def test_a_refusal_teaches() -> None:
    """The message has the entry to add, as YAML of the profile."""
    assert "{domain: evil.com, why: …}" in str(refused("evil.com", 443))
    assert "network.domains of profile 'web'" in str(refused("evil.com", 443))
    assert "{domain: evil.com, ports: [8443], why: …}" in str(refused("evil.com", 8443))
    assert "{domain: '*.cdn.example.com', ports: [22], why: …}" in str(refused("a.cdn.example.com", 22))
    assert "{address: '::1', why: …}" in str(refused("::1", 80))


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::1111"])
def test_public_addresses_of_a_name_pass(address: str) -> None:
    """The twin of all that follow."""
    RULES.check_addresses(Authority("api.example.com", 443), [address])


@pytest.mark.parametrize(
    "address",
    [*METADATA, "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "0.0.0.0", "224.0.0.1", "::1",
     "fe80::1", "fc00::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "fe80::1%eth0", "garbage"],
)  # fmt: skip
def test_a_name_that_leads_inside_is_refused(address: str) -> None:
    """DNS rebinding: one inner address among public ones is enough, wherever it stands."""
    for answer in ([address], ["93.184.216.34", address], [address, "93.184.216.34"]):
        with pytest.raises(EgressRefused, match="is ") as raised:
            RULES.check_addresses(Authority("api.example.com", 443), answer)
        assert raised.value.code == "address"


def test_a_granted_network_opens_names_too_at_its_port() -> None:
    """An address that may be connected to may be so behind a name, at the ports of its entry alone."""
    RULES.check_addresses(Authority("db.example.com", 5432), ["10.1.2.3"])
    with pytest.raises(EgressRefused):
        RULES.check_addresses(Authority("db.example.com", 443), ["10.1.2.3"])


@pytest.mark.parametrize("address", METADATA)
def test_a_wide_grant_does_not_open_metadata(address: str) -> None:
    """Credentials of the machine are granted by their address alone."""
    wide = EgressRules.from_plan([], [("0.0.0.0/0", (80,)), ("::/0", (80,))], profile="wide")
    with pytest.raises(EgressRefused):
        wide.check_target(Authority(address, 80))
    length = 128 if ":" in address else 32
    EgressRules.from_plan([], [(f"{address}/{length}", (80,))], profile="own").check_target(Authority(address, 80))


def test_a_name_without_an_address_is_refused() -> None:
    """Nothing to connect to."""
    with pytest.raises(EgressRefused) as raised:
        RULES.check_addresses(Authority("api.example.com", 443), [])
    assert raised.value.code == "unresolved"


@given(st.integers(0, 2**32 - 1))
def test_no_address_passes_by_its_disguise(number: int) -> None:
    """Whatever an IPv4 address is wrapped in, the wrapped one passes only where the plain one does."""
    plain = ipaddress.IPv4Address(number)
    rules = EgressRules.from_plan([("a.example", (80,))], [], profile="p")

    def passes(text: str) -> bool:
        try:
            rules.check_addresses(Authority("a.example", 80), [text])
        except EgressRefused:
            return False
        return True

    for base in (0xFFFF << 32, 0x0064FF9B << 96, 0x2002 << 112 | number << 80):
        wrapped = ipaddress.IPv6Address(base | (number if base >> 112 != 0x2002 else 0))
        assert not passes(str(wrapped)) or passes(str(plain))


@given(st.text(alphabet="ab.", max_size=8), st.text(alphabet="ab.", max_size=8))
def test_a_wildcard_covers_whole_labels_only(first: str, second: str) -> None:
    """``*.x`` covers what ends in ``.x``, never ``x`` itself nor what merely ends in the same letters."""
    assert covers_domain(f"*.{first}", second) == (second.endswith(f".{first}"))

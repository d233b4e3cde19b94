"""Whether an address may be connected to: public ones, and what the operator granted. Pure.

The table is that of the IANA special-purpose registries (RFC 6890 and its updates), written out, because what
`ipaddress.is_global` says has changed between releases of Python. An address that carries another one inside (mapped,
NAT64, 6to4, Teredo, ISATAP) is judged by both. The fetch worker and the egress proxy both ask here.
"""

import ipaddress
from collections.abc import Sequence
from typing import Final

__all__ = ["Address", "Network", "carried_addresses", "parse_network", "why_not_public"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_V4: Final = tuple(
    (ipaddress.IPv4Network(network), why)
    for network, why in (
        ("0.0.0.0/8", "unspecified (this network)"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by a carrier (CGNAT)"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local, where clouds keep their metadata"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved for protocols"),
        ("192.0.2.0/24", "for documentation"),
        ("192.31.196.0/24", "reserved (AS112)"),
        ("192.52.193.0/24", "reserved (AMT)"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "reserved (AS112)"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved or broadcast"),
    )
)
_V6_GLOBAL: Final = ipaddress.IPv6Network("2000::/3")
_V6: Final = tuple(
    (ipaddress.IPv6Network(network), why)
    for network, why in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("64:ff9b:1::/48", "a local translation prefix"),
        ("100::/64", "discarded"),
        ("2001::/32", "a Teredo tunnel"),
        ("2001::/23", "reserved for protocols"),
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "a 6to4 tunnel"),
        ("2620:4f:8000::/48", "reserved (AS112)"),
        ("3fff::/20", "for documentation"),
        ("fc00::/7", "private (unique local)"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})
# Credentials of the machine itself are handed out here; a wide grant does not open them.
_METADATA: Final = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",
        "169.254.169.253",
        "169.254.170.2",
        "169.254.170.23",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
    )
)


def parse_network(text: str) -> Network:
    """Return the address or network in ``text``.

    Raises:
        ValueError: it is none, or has bits set behind its prefix.
    """
    return ipaddress.ip_network(text, strict=True)


def why_not_public(text: str, networks: Sequence[Network] = ()) -> str | None:
    """Return why an address is not to be connected to, None when it is public or granted.

    Text that is no plain address, one with a scope among them, is refused too.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return "no address"
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        return "bound to an interface of this host"
    forms = [address, *carried_addresses(address)]
    for form in forms:
        # Above all else: a metadata address is granted by itself alone.
        if form in _METADATA and not any(net.num_addresses == 1 and form in net for net in networks):
            return "where a cloud keeps its metadata"
    if any(form in network for form in forms for network in networks):
        return None
    for form in forms:
        why = _why(form)
        if why is not None:
            return why
    return None


def _why(address: Address) -> str | None:
    if isinstance(address, ipaddress.IPv4Address):
        return next((why for network, why in _V4 if address in network), None)
    if address.ipv4_mapped is not None or address in _NAT64:
        return None  # what it carries decides
    for network, why in _V6:
        if address in network:
            return why
    return None if address in _V6_GLOBAL else "not among the public addresses"


def carried_addresses(address: Address) -> list[Address]:
    """Return the IPv4 addresses inside an IPv6 address."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    number = int(address)
    last = ipaddress.IPv4Address(number & 0xFFFFFFFF)
    carried: list[Address] = []
    if address.ipv4_mapped is not None or address in _NAT64:
        carried.append(last)
    if address in _COMPATIBLE and number > 1:
        carried.append(last)
    if address.sixtofour is not None:
        carried.append(address.sixtofour)
    if address.teredo is not None:
        carried += address.teredo
    if (number >> 32) & 0xFFFFFFFF in _ISATAP:
        carried.append(last)
    return carried

"""Whose address a request came from, where proxies that we trust stand in between. Pure. Runs in the hub.

Without trusted proxies the address is the connection's, and no header is believed: anybody can write one.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from guardhouse.errors import SetupError

__all__ = ["Network", "client_address", "parse_networks"]

Network = IPv4Network | IPv6Network


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return addresses or networks (``10.0.0.0/8``) as networks.

    Raises:
        SetupError: one is none, or has bits beyond its mask.
    """
    found = []
    for text in texts:
        try:
            found.append(ip_network(text.strip()))
        except ValueError as error:
            raise SetupError(f"--trusted-proxy {text!r} is no address or network: {error}") from error
    return tuple(found)


def client_address(peer: str | None, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str | None:
    """Return the address that the request came from.

    Args:
        peer: the address that the connection comes from.
        forwarded_for: the values of every X-Forwarded-For header, in their order.
        trusted: proxies that append the address they saw. What stands left of the first other address is ignored.
    """
    if peer is None or not _is_trusted(peer, trusted):
        return peer
    address = peer
    for text in reversed([part.strip() for value in forwarded_for for part in value.split(",")]):
        try:
            address = str(ip_address(text))
        except ValueError:
            break
        if not _is_trusted(address, trusted):
            break
    return address


def _is_trusted(address: str, trusted: Sequence[Network]) -> bool:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return any((mapped or parsed) in network for network in trusted)

"""What counts as one source of connections or of guesses.

Pure. Runs in the hub.
"""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

__all__ = ["source_of"]


# Asked for every request; as many as there may be buckets of wrong tokens.
@lru_cache(maxsize=10_000)
def source_of(address: str | None) -> str:
    """Return what counts as one source: an IPv4 address, or the /64 that an IPv6 host chooses its addresses from."""
    try:
        parsed = ip_address((address or "").partition("%")[0])
    except ValueError:
        return address or ""
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"

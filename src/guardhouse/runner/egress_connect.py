"""A granted name to one connected stream: resolved once, every address judged, connected to a judged one and no other.

Nothing is resolved a second time, so a name that changes its answer (DNS rebinding) changes nothing. Runs in the
runner.
"""

import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from guardhouse.egress.host import Authority
from guardhouse.egress.rules import EgressRefused, EgressRules
from guardhouse.limits import (
    EGRESS_ADDRESSES_MAX,
    EGRESS_CONNECT_TIMEOUT_S,
    EGRESS_NEXT_ADDRESS_S,
    EGRESS_RESOLVE_TIMEOUT_S,
)

__all__ = ["Connected", "Resolve", "connect_pinned", "resolve_addresses", "resolve_by_host"]

Resolve = Callable[[str, int, trio.CapacityLimiter], Awaitable[Sequence[str]]]
"""A name and a port to addresses as text, best first; raises OSError where there are none."""

_UDP_DISCARD: Final = 9


@dataclass(frozen=True, slots=True)
class Connected:
    """A stream, and the address that it leads to."""

    stream: trio.SocketStream
    address: str


async def resolve_by_host(host: str, port: int, limiter: trio.CapacityLimiter) -> Sequence[str]:
    """Ask this host's name service, in a thread that ``limiter`` counts until the service has answered."""
    answers = await trio.to_thread.run_sync(
        socket.getaddrinfo,
        host,
        port,
        socket.AF_UNSPEC,
        socket.SOCK_STREAM,
        socket.IPPROTO_TCP,
        abandon_on_cancel=True,
        limiter=limiter,
    )
    return tuple(dict.fromkeys(str(answer[4][0]) for answer in answers))


async def resolve_addresses(
    authority: Authority, rules: EgressRules, *, resolve: Resolve, limiter: trio.CapacityLimiter
) -> tuple[str, ...]:
    """Return the judged addresses of a granted target.

    Raises:
        EgressRefused: ``unresolved``, or ``address`` when one of them may not be connected to.
    """
    addresses: Sequence[str] = (authority.host,)
    if not authority.is_address:
        try:
            with trio.fail_after(EGRESS_RESOLVE_TIMEOUT_S):
                addresses = await resolve(authority.host, authority.port, limiter)
        except trio.TooSlowError:
            raise EgressRefused(
                "unresolved", f"{authority.host!r} did not resolve within {EGRESS_RESOLVE_TIMEOUT_S:g} s"
            ) from None
        except (OSError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise EgressRefused("unresolved", f"{authority.host!r} does not resolve: {why}") from None
    rules.check_addresses(authority, addresses)
    for address in addresses:
        # Services that trust their own host would take the proxy for it.
        if _is_own(address) and not rules.is_granted_address(address, authority.port):
            raise EgressRefused("address", f"{authority.host!r} leads to {address}, an address of this very host")
    return tuple(addresses[:EGRESS_ADDRESSES_MAX])


async def connect_pinned(authority: Authority, addresses: Sequence[str]) -> Connected:
    """Connect to the first of the judged addresses that answers.

    Raises:
        EgressRefused: ``unreachable``: none did.
    """
    failures = []
    for number, address in enumerate(addresses, 1):
        timeout_s = EGRESS_CONNECT_TIMEOUT_S if number == len(addresses) else EGRESS_NEXT_ADDRESS_S
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            sock = trio.socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            failures.append(f"{address}: {error.strerror}")
            continue
        try:
            with trio.fail_after(timeout_s):
                await sock.connect((address, authority.port))
            return Connected(trio.SocketStream(sock), address)
        except trio.TooSlowError:
            sock.close()
            failures.append(f"{address}: no answer within {timeout_s:g} s")
        except OSError as error:
            sock.close()
            failures.append(f"{address}: {error.strerror or error}")
        except trio.Cancelled:
            sock.close()
            raise
    raise EgressRefused("unreachable", f"cannot connect to {authority.text}: {'; '.join(failures)}")


def _is_own(address: str) -> bool:
    """Whether an address is one of this host's: only then does the kernel choose it as the source towards itself."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            # Of UDP this sends nothing: it asks the routing table.
            sock.connect((address, _UDP_DISCARD))
            return bool(sock.getsockname()[0] == address)
    except OSError:
        # No route: connecting will say so.
        return False

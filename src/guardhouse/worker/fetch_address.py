"""Whether the addresses of a page's host may be connected to, in the words of a fetch. Pure.

Which addresses are public is `egress.address`'s to know.
"""

from collections.abc import Sequence

from guardhouse.egress.address import Network, parse_network, why_not_public
from guardhouse.errors import SetupError
from guardhouse.worker.fetch_protocol import FetchRefused

__all__ = ["check_addresses", "parse_networks"]


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Return the operator's grants.

    Raises:
        SetupError: one is no address or network, or has bits set behind its prefix.
    """
    networks = []
    for text in texts:
        try:
            networks.append(parse_network(text))
        except ValueError as error:
            raise SetupError(f"fetch networks: {text!r} is no address or network: {error}") from None
    return tuple(networks)


def check_addresses(host: str, addresses: Sequence[str], networks: Sequence[Network]) -> None:
    """Let a name pass when every one of its addresses may be connected to.

    All of them, because whoever answers for a name could mix a private address in and wait for it to be taken.

    Raises:
        FetchRefused: ``address_refused``, naming the first that may not; ``unresolved`` when there is none.
    """
    if not addresses:
        raise FetchRefused(f"webfetch failed: {host!r} has no address", code="unresolved")
    for text in addresses:
        why = why_not_public(text, networks)
        if why is not None:
            leads = f"{host!r}" if host == text else f"{host!r} leads to {text}, which"
            raise FetchRefused(
                f"webfetch denied: {leads} is {why}, and no network is granted for it; ask a command for the page"
                " instead, where the policy allows one",
                code="address_refused",
            )

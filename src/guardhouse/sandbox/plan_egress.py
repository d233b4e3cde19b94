"""What network mode `domains` means for a plan: names and addresses at ports, narrowed by the operator, and variables.

Which connection they let pass is the egress proxy's to decide (`guardhouse.egress`). Runs at boot and in the CLI.
"""

from collections.abc import Sequence
from typing import Final

from guardhouse.errors import SetupError
from guardhouse.sandbox.bundle import EgressGrant
from guardhouse.sandbox.profile import Profile

__all__ = ["DEFAULT_EGRESS_PORTS", "plan_addresses", "plan_domains", "proxy_environment"]

# What an entry without `ports` opens: HTTP and HTTPS.
DEFAULT_EGRESS_PORTS: Final = (80, 443)
_OWN_LOOPBACK: Final = "localhost,127.0.0.1,::1"


def plan_domains(profile: Profile, narrowed: Sequence[EgressGrant] | None) -> tuple[EgressGrant, ...]:
    """Return the names of a profile, or those of ``narrowed`` instead.

    Args:
        narrowed: names that an operator leaves of them, such as one account's; None leaves all. A profile in another
            mode has none to narrow.

    Raises:
        SetupError: one of ``narrowed`` is not covered by the profile: settings narrow, they never widen.
    """
    granted = tuple(EgressGrant(entry.target, entry.ports) for entry in profile.network.domains)
    if narrowed is None or profile.network.mode != "domains":
        return granted
    for wanted in narrowed:
        for port in wanted.ports:
            if not any(_covers(grant, wanted.target) and port in grant.ports for grant in granted):
                raise SetupError(
                    f"domain {wanted.target!r} at port {port} is not among those of profile {profile.name!r}"
                    f" ({profile.network.reason.place}): settings can narrow a profile, not widen it; add it there"
                )
    return tuple(narrowed)


def plan_addresses(profile: Profile) -> tuple[EgressGrant, ...]:
    """Return the addresses and networks that a profile grants."""
    return tuple(EgressGrant(entry.target, entry.ports) for entry in profile.network.addresses)


def proxy_environment(profile: Profile) -> dict[str, str]:
    """Return the variables that lead programs to the proxy; none in other modes.

    ALL_PROXY names it as http:// too: the same port speaks SOCKS5, but libraries without SOCKS (Python's httpx among
    them) fail at once when they meet a socks5:// there.
    """
    if profile.network.mode != "domains":
        return {}
    proxy = f"http://127.0.0.1:{profile.network.proxy_port}"
    found = {}
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        found[name] = found[name.lower()] = proxy
    return {**found, "NO_PROXY": _OWN_LOOPBACK, "no_proxy": _OWN_LOOPBACK}


def _covers(grant: EgressGrant, name: str) -> bool:
    if grant.target.startswith("*."):
        return name.removeprefix("*.").endswith(grant.target[1:]) or name == grant.target
    return name == grant.target

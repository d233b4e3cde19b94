"""The allow-list of one profile in network mode `domains`: which names, which addresses, which ports.

What no entry covers is refused. A name is asked about before it is resolved, and every address of the answer is asked
about before one of them is connected to. A refusal says what to write into the profile. Pure.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from guardhouse.egress.address import Network, carried_addresses, parse_network, why_not_public
from guardhouse.egress.host import Authority
from guardhouse.errors import Refusal

__all__ = ["AddressRule", "DomainRule", "EgressRefused", "EgressRules", "EgressTarget", "covers_domain"]

# What an entry without `ports` opens.
DEFAULT_PORTS: Final = (80, 443)
_WILDCARD: Final = "*."


class EgressRefused(Refusal):
    """A connection that will not be made.

    Attributes:
        code: ``domain``, ``port``, ``address``, ``unresolved``, ``unreachable``, ``policy``, ``protocol``,
            ``tls_name``.
        why: the reason alone; the message holds the next step too.
    """

    def __init__(self, code: str, why: str, *, next_step: str = "") -> None:
        super().__init__(f"{why}; {next_step}" if next_step else why)
        self.code = code
        self.why = why


@dataclass(frozen=True, slots=True)
class DomainRule:
    """A name, or ``*.`` and a name for everything below it (not itself), and the ports that it may be asked at."""

    name: str
    ports: tuple[int, ...] = DEFAULT_PORTS

    def covers(self, host: str) -> bool:
        """Whether the name is this one, or below it."""
        return covers_domain(self.name, host)


@dataclass(frozen=True, slots=True)
class AddressRule:
    """An address or network that may be connected to, as itself or behind a granted name, though it is not public."""

    network: Network
    ports: tuple[int, ...] = DEFAULT_PORTS


@dataclass(frozen=True, slots=True)
class EgressTarget:
    """What `EgressRules.check_target` let pass, and by which entry."""

    authority: Authority
    by: str


def covers_domain(pattern: str, name: str) -> bool:
    """Whether a rule's name covers another rule's name, or a host, both in normal form."""
    if pattern.startswith(_WILDCARD):
        return name.removeprefix(_WILDCARD).endswith(pattern[1:]) or name == pattern
    return name == pattern


class EgressRules:
    """All entries of one profile."""

    def __init__(
        self,
        domains: Iterable[DomainRule],
        addresses: Iterable[AddressRule],
        *,
        profile: str,
        is_tls_required: bool = False,
    ) -> None:
        """``profile`` is named in refusals; ``is_tls_required``: in tunnels."""
        self._domains = tuple(domains)
        self._addresses = tuple(addresses)
        self.profile: Final = profile
        self.is_tls_required: Final = is_tls_required

    @classmethod
    def from_plan(
        cls,
        domains: Iterable[tuple[str, tuple[int, ...]]],
        addresses: Iterable[tuple[str, tuple[int, ...]]],
        *,
        profile: str,
        is_tls_required: bool = False,
    ) -> "EgressRules":
        """Return the rules of pairs (name, ports) and (address or network, ports), as a bundle holds them.

        Raises:
            ValueError: an address or network is none.
        """
        return cls(
            [DomainRule(name, ports) for name, ports in domains],
            [AddressRule(parse_network(network), ports) for network, ports in addresses],
            profile=profile,
            is_tls_required=is_tls_required,
        )

    def check_target(self, authority: Authority) -> EgressTarget:
        """Let a host and port pass that an entry covers. A name's addresses are asked about once they are known.

        Raises:
            EgressRefused: ``domain``, ``port`` or ``address``; the message says what entry would let it pass.
        """
        if authority.is_address:
            return self._check_literal(authority)
        covering = [rule for rule in self._domains if rule.covers(authority.host)]
        for rule in covering:
            if authority.port in rule.ports:
                return EgressTarget(authority, f"domain {rule.name}")
        if covering:
            ports = sorted({port for rule in covering for port in rule.ports})
            raise EgressRefused(
                "port",
                f"port {authority.port} of {authority.host!r} is not granted; granted are {', '.join(map(str, ports))}",
                next_step=self._to_add("domain", covering[0].name, authority.port),
            )
        raise EgressRefused(
            "domain",
            f"no entry of profile {self.profile!r} covers {authority.host!r}",
            next_step=self._to_add("domain", authority.host, authority.port),
        )

    def check_addresses(self, authority: Authority, addresses: Sequence[str]) -> None:
        """Let a name pass when every one of its addresses may be connected to.

        All of them, because whoever answers for a name could mix a private address in and wait for it to be taken.

        Raises:
            EgressRefused: ``address``, naming the first that may not; ``unresolved`` when there is none.
        """
        if not addresses:
            raise EgressRefused("unresolved", f"{authority.host!r} has no address")
        networks = self._networks_at(authority.port)
        for text in addresses:
            why = why_not_public(text, networks)
            if why is not None:
                leads = f"{text}" if text == authority.host else f"{authority.host!r} leads to {text}, which"
                raise EgressRefused(
                    "address",
                    f"{leads} is {why}",
                    next_step=self._to_add("address", text, authority.port),
                )

    def is_granted_address(self, text: str, port: int) -> bool:
        """Whether an entry for addresses covers this one at this port."""
        address = ip_address(text)
        forms = (address, *carried_addresses(address))
        return any(form in network for form in forms for network in self._networks_at(port))

    def _check_literal(self, authority: Authority) -> EgressTarget:
        self.check_addresses(authority, (authority.host,))
        address = ip_address(authority.host)
        for rule in self._addresses:
            if authority.port in rule.ports and any(
                form in rule.network for form in (address, *carried_addresses(address))
            ):
                return EgressTarget(authority, f"address {rule.network}")
        raise EgressRefused(
            "address",
            f"{authority.host} is an address, and no entry of profile {self.profile!r} grants it at port"
            f" {authority.port}",
            next_step=f"use a granted name, or {self._to_add('address', authority.host, authority.port)}",
        )

    def _networks_at(self, port: int) -> tuple[Network, ...]:
        return tuple(rule.network for rule in self._addresses if port in rule.ports)

    def _to_add(self, kind: str, value: str, port: int) -> str:
        ports = "" if port in DEFAULT_PORTS else f", ports: [{port}]"
        shown = f"'{value}'" if ":" in value or "*" in value else value
        section = "addresses" if kind == "address" else "domains"
        entry = f"{{{kind}: {shown}{ports}, why: …}}"
        return f"where that is meant, add to network.{section} of profile {self.profile!r}: {entry}"

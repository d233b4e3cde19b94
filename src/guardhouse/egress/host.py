"""Host names and addresses in their one normal form: what a rule is asked about and what is connected to.

ASCII in lower case (IDNA 2008 with UTS 46 mapping), no trailing dot, an address in its canonical text. A number that
only some read as an address (``127.1``, ``0x7f000001``, ``017700000001``, ``2130706433``) is neither. Pure.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

import idna

from guardhouse.errors import PeerError

__all__ = ["Authority", "HostError", "parse_authority", "parse_host"]

_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# The last label of what inet_aton(3) would read as a number in some base (WHATWG URL, "ends in a number").
_NUMERIC_END: Final = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)")
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
_NAME_MAX_CHARS: Final = 253
_GIVEN_MAX_CHARS: Final = 1_024


class HostError(PeerError):
    """Text that is no host, or no host and port. The message says what is wrong with it, without the text."""

    def __init__(self, why: str) -> None:
        super().__init__(why, code="invalid_host")


@dataclass(frozen=True, slots=True)
class Authority:
    """A host in normal form and a port from 1 to 65535."""

    host: str
    port: int

    @property
    def is_address(self) -> bool:
        """Whether the host is an address and no name."""
        return ":" in self.host or self.host.replace(".", "").isdigit()

    @property
    def text(self) -> str:
        """``host:port``, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def in_header(self, *, default_port: int) -> str:
        """As the Host header has it: without the port where that is the scheme's own."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return shown if self.port == default_port else f"{shown}:{self.port}"


def parse_host(name: str, *, is_bracketed: bool = False) -> str:
    """Return the normal form of a name or an address.

    Args:
        is_bracketed: it stood in brackets (or where only an IPv6 address with colons can stand), so it is one or
            nothing.

    Raises:
        HostError: it is neither a name nor an address that every reader takes for the same.
    """
    if len(name) > _GIVEN_MAX_CHARS or "%" in name:
        # A scope ('fe80::1%eth0') names an interface of this host.
        raise HostError("no valid host name or address")
    if is_bracketed:
        try:
            return str(ipaddress.IPv6Address(name))
        except ValueError:
            raise HostError("no valid host name or address") from None
    try:
        host = idna.encode(name, uts46=True, transitional=False).decode("ascii") if not name.isascii() else name
    except idna.IDNAError:
        raise HostError("no valid host name or address") from None
    host = host.lower().removesuffix(".")
    labels = host.split(".")
    if _NUMERIC_END.fullmatch(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise HostError(f"{host[:80]!r} is no address in four decimal numbers, and no name") from None
    if len(host) > _NAME_MAX_CHARS or not all(_LABEL.fullmatch(label) for label in labels):
        raise HostError("no valid host name or address")
    if name.isascii():
        _check_a_labels(labels)
    return host


def parse_authority(text: str, *, default_port: int | None = None) -> Authority:
    """Return the ``host:port`` in ``text``; an IPv6 address stands in brackets.

    Args:
        default_port: where no port is written; None refuses that.

    Raises:
        HostError: a user, no port, a port that is none, no host.
    """
    if "@" in text:
        raise HostError("it carries a user or a password; leave it out")
    if text.startswith("["):
        name, bracket, tail = text[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise HostError("no valid host name or address")
        has_port, digits = bool(tail), tail[1:]
        host = parse_host(name, is_bracketed=True)
    else:
        name, separator, digits = text.partition(":")
        has_port = bool(separator)
        host = parse_host(name)
    if not has_port:
        if default_port is None:
            raise HostError("no port; write host:port")
        return Authority(host, default_port)
    if not _PORT.fullmatch(digits) or not 0 < int(digits) < 65536:
        raise HostError(f"{digits[:20]!r} is no port")
    return Authority(host, int(digits))


def _check_a_labels(labels: list[str]) -> None:
    for label in labels:
        if label.startswith("xn--"):
            try:
                idna.ulabel(label)
            except idna.IDNAError:
                raise HostError("no valid host name or address") from None

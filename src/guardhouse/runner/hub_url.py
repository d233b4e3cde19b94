"""The address of the hub: checked once, so that no later code can dial anything else.

Runs in the boot process. Opens nothing and resolves nothing.
"""

import ipaddress
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

__all__ = ["DEFAULT_PATH", "HubUrl", "parse_hub_url"]

DEFAULT_PATH: Final = "/api/v1/runner/ws"


@dataclass(frozen=True, slots=True)
class HubUrl:
    """Where the hub listens. ``resource`` is path and query as sent in the upgrade, without any token."""

    host: str
    port: int
    resource: str
    is_tls: bool

    def __str__(self) -> str:
        """Return the address for people: never holds a token, because `parse_hub_url` refuses one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self.is_tls else 'ws'}://{host}:{self.port}{self.resource}"

    @property
    def host_header(self) -> str:
        """The value of the ``Host`` header: the port is left out where it is the scheme's own (RFC 9110)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"

    def resource_with_token(self, token: str) -> str:
        """Return path and query with ``token=`` for the plain protocol. Never to be logged or kept."""
        separator = "&" if "?" in self.resource else "?"
        return f"{self.resource}{separator}token={quote(token, safe='')}"


def parse_hub_url(text: str) -> HubUrl:
    """Read ``wss://HOST[:PORT][/PATH][?QUERY]``; ``ws://`` only towards this very host.

    Raises:
        ValueError: the text is no such address. The message says why and what to write; it does not repeat a
            query or user name, since those are where a token gets pasted by mistake.
    """
    if any(ord(character) <= 0x20 or ord(character) > 0x7E for character in text):
        raise ValueError("holds a space, a control or a non-ASCII character; write a plain wss:// address")
    parts = urlsplit(text)
    if parts.scheme not in ("ws", "wss"):
        raise ValueError(f"has the scheme {parts.scheme!r}; write wss://HOST[:PORT][/PATH]")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a user name; leave it out, the token is given by --token-file")
    if parts.fragment:
        raise ValueError("holds a fragment ('#…'); leave it out")
    if not parts.hostname:
        raise ValueError("names no host; write wss://HOST[:PORT][/PATH]")
    if any(key.lower() == "token" for key, _ in parse_qsl(parts.query, keep_blank_values=True)):
        raise ValueError("holds a token, which would end up in logs; give the token by --token-file")
    is_tls = parts.scheme == "wss"
    port = parts.port  # urllib's own ValueError names a bad port
    if port == 0:
        raise ValueError("has port 0; write the port that the hub listens on")
    if not is_tls and not _is_loopback(parts.hostname):
        raise ValueError(
            "is plain ws:// to another host, where anybody on the path reads the token and commands this host;"
            " write wss:// (ws:// is accepted towards localhost, 127.0.0.0/8 and ::1)"
        )
    path = parts.path if parts.path not in ("", "/") else DEFAULT_PATH
    resource = f"{path}?{parts.query}" if parts.query else path
    return HubUrl(parts.hostname, port or (443 if is_tls else 80), resource, is_tls)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

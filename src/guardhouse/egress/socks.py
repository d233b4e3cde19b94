"""SOCKS version 5 (RFC 1928) as a server hears it: bytes in, one CONNECT target out, strict at every byte.

No authentication, CONNECT only, names and both kinds of address. What is not exactly right ends the conversation. Sans
IO: `feed` takes bytes as they come, `to_send` are the bytes that the client is owed. Pure.
"""

import ipaddress
from enum import IntEnum
from typing import Final

from guardhouse.egress.host import Authority, HostError, parse_host
from guardhouse.errors import PeerError

__all__ = ["SocksReply", "SocksRequest", "render_reply"]

VERSION: Final = 5
_NO_AUTHENTICATION: Final = 0
_NONE_ACCEPTABLE: Final = 0xFF
_CONNECT: Final = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4


class SocksReply(IntEnum):
    """RFC 1928, section 6."""

    SUCCEEDED = 0
    FAILED = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    REFUSED = 5
    TTL_EXPIRED = 6
    COMMAND_UNKNOWN = 7
    ADDRESS_UNKNOWN = 8


def render_reply(reply: SocksReply) -> bytes:
    """Return the answer to a request. The bound address is nobody's business, so it is 0.0.0.0:0."""
    return bytes((VERSION, reply, 0, _IPV4)) + bytes(6)


class SocksRequest:
    """One client's greeting and request.

    Attributes:
        target: what it wants to connect to, once `feed` has returned True.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._out = bytearray()
        self._is_greeted = False
        self.target: Authority | None = None

    def feed(self, data: bytes) -> bool:
        """Take the next bytes; return whether the request is whole.

        Raises:
            PeerError: it is none of ours; `to_send` may hold the answer that says so.
        """
        self._buffer += data
        if not self._is_greeted and not self._take_greeting():
            return False
        return self._take_request()

    def to_send(self) -> bytes:
        """Return what the client is owed by now, once."""
        out, self._out = bytes(self._out), bytearray()
        return out

    def trailing(self) -> bytes:
        """Return what came behind the request: the first bytes for the target."""
        return bytes(self._buffer)

    def _take_greeting(self) -> bool:
        buffer = self._buffer
        if buffer and buffer[0] != VERSION:
            raise PeerError(f"SOCKS version {buffer[0]} is not spoken here, only 5")
        if len(buffer) < 2 or len(buffer) < 2 + buffer[1]:
            return False
        methods = bytes(buffer[2 : 2 + buffer[1]])
        del buffer[: 2 + buffer[1]]
        if _NO_AUTHENTICATION not in methods:
            self._out += bytes((VERSION, _NONE_ACCEPTABLE))
            raise PeerError("the SOCKS client insists on authentication, which this proxy neither needs nor knows")
        self._out += bytes((VERSION, _NO_AUTHENTICATION))
        self._is_greeted = True
        return True

    def _take_request(self) -> bool:
        buffer = self._buffer
        if len(buffer) < 4:
            return False
        version, command, reserved, kind = buffer[:4]
        if version != VERSION or reserved != 0:
            raise self._broken(SocksReply.FAILED, "a SOCKS request begins with 5, a command and 0")
        if command != _CONNECT:
            raise self._broken(SocksReply.COMMAND_UNKNOWN, f"SOCKS command {command} is refused: only CONNECT (1) is")
        sizes = {_IPV4: 4, _IPV6: 16}
        if kind == _NAME:
            if len(buffer) < 5:
                return False
            start, size = 5, buffer[4]
            if size == 0:
                raise self._broken(SocksReply.FAILED, "the SOCKS request names an empty host")
        elif kind in sizes:
            start, size = 4, sizes[kind]
        else:
            raise self._broken(SocksReply.ADDRESS_UNKNOWN, f"SOCKS address type {kind} is unknown")
        end = start + size + 2
        if len(buffer) < end:
            return False
        host, port = bytes(buffer[start : start + size]), int.from_bytes(buffer[end - 2 : end], "big")
        del buffer[:end]
        if port == 0:
            raise self._broken(SocksReply.FAILED, "the SOCKS request names port 0")
        self.target = Authority(self._host(kind, host), port)
        return True

    def _host(self, kind: int, raw: bytes) -> str:
        if kind != _NAME:
            return str(ipaddress.ip_address(raw))
        try:
            text = raw.decode("ascii")
            return parse_host(text, is_bracketed=":" in text)
        except (UnicodeDecodeError, HostError) as error:
            why = error if isinstance(error, HostError) else "no ASCII"
            raise self._broken(SocksReply.NOT_ALLOWED, f"the SOCKS request names {raw[:80]!r}: {why}") from None

    def _broken(self, reply: SocksReply, why: str) -> PeerError:
        self._out += render_reply(reply)
        return PeerError(why)

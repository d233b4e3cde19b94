"""Which of the proxy's three protocols a connection speaks, by its first byte. Pure."""

from enum import StrEnum
from typing import Final

from guardhouse.errors import PeerError

__all__ = ["Speaks", "detect_protocol"]

_TLS_HANDSHAKE: Final = 0x16


class Speaks(StrEnum):
    """HTTP covers both a request in absolute form and CONNECT."""

    HTTP = "http"
    SOCKS5 = "socks5"


def detect_protocol(first: int) -> Speaks:
    """Return the protocol that begins with this byte.

    Raises:
        PeerError: none of ours does.
    """
    if first == 5:
        return Speaks.SOCKS5
    # A method of RFC 9110; all that are registered begin with a capital letter.
    if 0x41 <= first <= 0x5A or 0x61 <= first <= 0x7A:
        return Speaks.HTTP
    if first == _TLS_HANDSHAKE:
        raise PeerError("TLS spoken to the proxy itself: name it as http://, not https://, in the proxy's variable")
    if first == 4:
        raise PeerError("SOCKS version 4 is not spoken here, only 5")
    raise PeerError(f"a connection that begins with byte {first:#04x} is neither HTTP nor SOCKS5")

"""What a TLS ClientHello says in clear: the name of the server that it asks for, and whether it hides a second one.

Reads one whole handshake message (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2); `tunnel.py` puts it together from
records. Strict: where two servers could read a message differently, it is none. Pure.
"""

from dataclasses import dataclass
from typing import Final

from guardhouse.errors import PeerError

__all__ = ["CLIENT_HELLO", "ClientHello", "parse_client_hello"]

CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0x0000  # RFC 6066 section 3
_HOST_NAME: Final = 0
# Encrypted ClientHello (RFC 9849), and the drafts' encrypted server name before it.
_HIDDEN_NAMES: Final = frozenset({0xFE0D, 0xFFCE})
_RANDOM_BYTES: Final = 32
_SESSION_ID_MAX_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class ClientHello:
    """``server_name``: as it was sent, "" where there is none. ``may_hide_a_name``: an inner hello or name is in it."""

    server_name: str
    may_hide_a_name: bool


def parse_client_hello(body: bytes) -> ClientHello:
    """Return what a ClientHello names; ``body`` is the message without its type and its length.

    Raises:
        PeerError: bytes are missing or left over, an extension comes twice, or the list of names is not one host name.
    """
    reader = _Reader(body)
    reader.take(2 + _RANDOM_BYTES)
    if len(reader.take_vector(1)) > _SESSION_ID_MAX_BYTES:
        raise PeerError("its session id is longer than 32 bytes")
    ciphers = reader.take_vector(2)
    if not ciphers or len(ciphers) % 2:
        raise PeerError("its list of ciphers is empty or cut")
    if not reader.take_vector(1):
        raise PeerError("its list of compressions is empty")
    extensions: dict[int, bytes] = {}
    if reader.is_at_end:
        # TLS 1.2 and before may leave the whole list out.
        return ClientHello("", may_hide_a_name=False)
    listed = _Reader(reader.take_vector(2))
    reader.check_end()
    while not listed.is_at_end:
        kind = listed.take_number(2)
        if kind in extensions:
            raise PeerError(f"its extension {kind} comes twice")
        extensions[kind] = listed.take_vector(2)
    name = _parse_server_name(extensions[_SERVER_NAME]) if _SERVER_NAME in extensions else ""
    return ClientHello(name, may_hide_a_name=not _HIDDEN_NAMES.isdisjoint(extensions))


def _parse_server_name(extension: bytes) -> str:
    """Return the one host name; RFC 6066 permits one of each type, and no other type was ever defined."""
    reader = _Reader(extension)
    names = _Reader(reader.take_vector(2))
    reader.check_end()
    if names.take_number(1) != _HOST_NAME:
        raise PeerError("its server name is of an unknown type")
    name = names.take_vector(2)
    names.check_end()
    try:
        text = name.decode("ascii")
    except UnicodeDecodeError:
        raise PeerError("its server name is no ASCII") from None
    if not text:
        raise PeerError("its server name is empty")
    return text


class _Reader:
    """Takes fields from the front of some bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_at_end(self) -> bool:
        return self._at == len(self._data)

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise PeerError("a field is longer than what holds it")
        taken, self._at = self._data[self._at : end], end
        return taken

    def take_number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def take_vector(self, length_bytes: int) -> bytes:
        return self.take(self.take_number(length_bytes))

    def check_end(self) -> None:
        if not self.is_at_end:
            raise PeerError("bytes are left over behind a field")

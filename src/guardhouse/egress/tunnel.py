"""The name that the TLS inside a tunnel asks for against the name that the tunnel was asked for.

Holds back what the command says until that is known: a ClientHello in as many segments and records as it likes, and
the second one where the server wants one (HelloRetryRequest, RFC 8446 section 4.1.4). From then on nothing is looked
at; what TLS hides stays hidden. Pure: bytes in, bytes out; the caller has the clock.
"""

from enum import Enum, auto
from typing import Final

from guardhouse.egress.client_hello import CLIENT_HELLO, parse_client_hello
from guardhouse.egress.host import Authority, HostError, parse_host
from guardhouse.egress.rules import EgressRefused
from guardhouse.errors import PeerError
from guardhouse.limits import EGRESS_HELLO_MAX_BYTES

__all__ = ["ACCESS_DENIED", "TunnelGuard"]

# What a refused client is told: a fatal alert access_denied(49), RFC 8446 section 6.2.
ACCESS_DENIED: Final = bytes((21, 3, 3, 0, 2, 2, 49))
_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE, _APPLICATION_DATA = 20, 21, 22, 23
_HEADER_BYTES: Final = 5
_FRAGMENT_MAX_BYTES: Final = 1 << 14
_SERVER_HELLO: Final = 2
# type, length, version, random: where a ServerHello says that it is a HelloRetryRequest.
_SERVER_RANDOM_AT: Final = 6
_RETRY: Final = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


class _At(Enum):
    """START: nothing said. HELLO: in the first. ANSWER: the server's is not known. SECOND: it wants another hello."""

    START = auto()
    HELLO = auto()
    ANSWER = auto()
    SECOND = auto()
    OPEN = auto()


class TunnelGuard:
    """One tunnel: what the command says goes through `feed_up`, what the target says is shown to `feed_down`."""

    def __init__(self, authority: Authority, *, is_tls_required: bool, profile: str) -> None:
        """``authority``: what the tunnel was asked for; an address has no name to compare. ``profile``: for messages.

        ``is_tls_required``: nothing passes but TLS that names the host, where it has a name, and may hide no second
        one; else what names no server passes, and what is no TLS.
        """
        self._asked = authority
        self._is_required = is_tls_required
        self._profile = profile
        self._at = _At.START if self._is_required or not authority.is_address else _At.OPEN
        self._held = bytearray()  # not passed on
        self._read = 0  # of what is held: records before this are in the message
        self._message = bytearray()
        self._passing = 0  # of a record that is passed on
        self._answer = _ServerHelloReader()

    @property
    def is_tls(self) -> bool:
        """Whether the command has begun to speak TLS."""
        return self._at in (_At.HELLO, _At.ANSWER, _At.SECOND)

    @property
    def is_holding(self) -> bool:
        """Whether bytes of the command wait for more of them: a caller's time limit runs."""
        return bool(self._held)

    def feed_up(self, data: bytes) -> bytes:
        """Return what may go on to the target: at most what was given so far, in order.

        Raises:
            EgressRefused: ``tls_name``; nothing that was held back may go on.
        """
        self._held += data
        out = bytearray()
        while self._held and self._at is not _At.OPEN:
            if not self._step(out):
                break
        if self._at is _At.OPEN:
            out += self._held
            self._held.clear()
        return bytes(out)

    def feed_down(self, data: bytes) -> None:
        """Look at what the target says to the first hello."""
        if self._at is not _At.ANSWER:
            return
        self._answer.feed(data)
        if self._answer.is_retry is not None:
            self._at = _At.SECOND if self._answer.is_retry else _At.OPEN

    def end_up(self) -> None:
        """The command says nothing more.

        Raises:
            EgressRefused: it stopped within a record that had to be whole.
        """
        if self._held:
            raise self.refuse("the command's TLS ends within its ClientHello")

    def refuse(self, why: str, *, next_step: str = "") -> EgressRefused:
        """Return the refusal of this tunnel."""
        return EgressRefused("tls_name", f"tunnel to {self._asked.text}: {why}", next_step=next_step)

    def _step(self, out: bytearray) -> bool:
        """Get on by one record or one piece; False where more bytes are needed."""
        if self._at is _At.START:
            self._begin()
        elif self._at is _At.HELLO:
            return self._collect(out)
        elif self._passing:
            self._pass(out)
        else:
            return self._next_record(out)
        return True

    def _begin(self) -> None:
        if self._held[0] == _HANDSHAKE:
            self._at = _At.HELLO
        elif self._is_required:
            raise self.refuse(
                f"it begins with byte {self._held[0]:#04x}, which is no TLS",
                next_step=f"profile {self._profile!r} has network.tunnels with tls: required; named lets it pass",
            )
        else:
            self._at = _At.OPEN

    def _next_record(self, out: bytearray) -> bool:
        """Behind the first hello: early data passes; another handshake record only where the server has asked."""
        header = self._header(0)
        if header is None:
            return False
        kind, size = header
        if kind == _HANDSHAKE:
            if self._at is _At.ANSWER:
                raise self.refuse("a second handshake record before the server has answered the first")
            return self._collect(out)
        if kind not in (_CHANGE_CIPHER_SPEC, _ALERT, _APPLICATION_DATA):
            raise self.refuse(f"a record of type {kind} within the TLS handshake")
        self._passing = _HEADER_BYTES + size
        self._pass(out)
        return True

    def _pass(self, out: bytearray) -> None:
        piece = self._held[: self._passing]
        out += piece
        self._passing -= len(piece)
        del self._held[: len(piece)]

    def _collect(self, out: bytearray) -> bool:
        """Take whole handshake records into the message until that is whole and judged."""
        while len(self._message) < 4 or len(self._message) < self._message_bytes:
            header = self._header(self._read)
            if header is None:
                return False
            kind, size = header
            if kind != _HANDSHAKE or not 0 < size <= _FRAGMENT_MAX_BYTES:
                raise self.refuse(f"a record of type {kind} with {size} bytes where a ClientHello is wanted")
            end = self._read + _HEADER_BYTES + size
            if end > EGRESS_HELLO_MAX_BYTES:
                raise self.refuse(f"its ClientHello is longer than {EGRESS_HELLO_MAX_BYTES} bytes")
            if len(self._held) < end:
                return False
            self._message += self._held[self._read + _HEADER_BYTES : end]
            self._read = end
            if self._message[0] != CLIENT_HELLO:
                raise self.refuse(f"a handshake message of type {self._message[0]} where a ClientHello is wanted")
        self._judge()
        out += self._held[: self._read]
        del self._held[: self._read]
        self._message.clear()
        self._read = 0
        self._at = _At.ANSWER if self._at is _At.HELLO else _At.OPEN
        return True

    @property
    def _message_bytes(self) -> int:
        return 4 + int.from_bytes(self._message[1:4], "big")

    def _header(self, at: int) -> tuple[int, int] | None:
        """Return a record's type and length; None before it is whole."""
        header = self._held[at : at + _HEADER_BYTES]
        if len(header) > 1 and header[1] != 3:
            raise self.refuse(f"a record of TLS with version byte {header[1]:#04x}, which is no version")
        return None if len(header) < _HEADER_BYTES else (header[0], int.from_bytes(header[3:5], "big"))

    def _judge(self) -> None:
        if len(self._message) != self._message_bytes:
            raise self.refuse("bytes are left over behind its ClientHello")
        try:
            hello = parse_client_hello(bytes(self._message[4:]))
        except PeerError as error:
            raise self.refuse(f"its ClientHello is malformed: {error}") from None
        if self._is_required and hello.may_hide_a_name:
            raise self.refuse(
                "its ClientHello may hide another name (ECH)",
                next_step=f"profile {self._profile!r} has network.tunnels with tls: required; turn ECH off",
            )
        if self._asked.is_address:
            return
        if not hello.server_name:
            if self._is_required:
                raise self.refuse(
                    "its ClientHello names no server",
                    next_step=f"profile {self._profile!r} has network.tunnels with tls: required; named lets it pass",
                )
            return
        try:
            name = parse_host(hello.server_name)
        except HostError as error:
            raise self.refuse(f"its ClientHello names {hello.server_name[:80]!r}: {error}") from None
        if name != self._asked.host:
            raise self.refuse(
                f"its TLS asks for {name!r}", next_step="a tunnel is for the host that the proxy was asked for alone"
            )


class _ServerHelloReader:
    """The start of what a server says, as far as it takes to know whether it wants a second hello."""

    def __init__(self) -> None:
        self.is_retry: bool | None = None
        self._data = bytearray()
        self._message = bytearray()
        self._wanted = _SERVER_RANDOM_AT + len(_RETRY)

    def feed(self, data: bytes) -> None:
        """Take more; whatever is no ServerHello is no question for a second hello."""
        self._data += data
        while self.is_retry is None and self._data:
            kind = self._data[0]
            if kind not in (_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE):
                self.is_retry = False
                return
            size = int.from_bytes(self._data[3:5], "big")
            if len(self._data) < _HEADER_BYTES:
                return
            fragment = self._data[_HEADER_BYTES : _HEADER_BYTES + size]
            if kind != _HANDSHAKE:
                # A warning may come first ("unrecognized name"), and the hello behind it.
                if len(fragment) < size:
                    return
            elif len(self._message) + len(fragment) >= self._wanted:
                self._decide(bytes(self._message + fragment))
                return
            elif len(fragment) < size:
                return
            else:
                self._message += fragment
            del self._data[: _HEADER_BYTES + size]

    def _decide(self, message: bytes) -> None:
        random = message[_SERVER_RANDOM_AT : self._wanted]
        self.is_retry = message[0] == _SERVER_HELLO and random == _RETRY

"""Any bytes in a tunnel of the egress proxy pass as they are or are refused; OpenSSL reads no other name in them.

The first byte of an input says how the profile wants it and how the rest is cut; the second is the length of what the
server answers, which comes first. However the bytes are cut, the same of them pass.
"""

import contextlib
import ssl

from driver import main
from guardhouse.egress.client_hello import parse_client_hello
from guardhouse.egress.host import Authority, HostError, parse_host
from guardhouse.egress.rules import EgressRefused
from guardhouse.egress.tunnel import TunnelGuard
from guardhouse.errors import PeerError

ASKED = Authority("web.test", 443)
_SEEN: list[str | None] = []
_SERVER = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
_SERVER.sni_callback = lambda _tls, name, _context: _SEEN.append(name)


def fuzz_one(data: bytes) -> None:
    if len(data) < 2:
        return
    is_tls_required, step = bool(data[0] & 1), (data[0] >> 1) + 1
    answer, said = data[2 : 2 + data[1]], data[2 + data[1] :]
    with contextlib.suppress(PeerError):
        parse_client_hello(said)
    whole, is_whole_refused = _feed(said, b"", len(said) or 1, is_tls_required=is_tls_required)
    pieces, is_refused = _feed(said, b"", step, is_tls_required=is_tls_required)
    assert is_refused == is_whole_refused, "cutting the bytes changes the decision"
    assert said.startswith(whole), "bytes were changed"
    assert said.startswith(pieces), "bytes were changed"
    if not is_refused:
        assert whole == pieces
    if whole.startswith(b"\x16"):
        _check_as_server(whole)
    if is_tls_required and whole:
        assert whole.startswith(b"\x16\x03")
    _feed(said, answer, step, is_tls_required=is_tls_required)


def _feed(said: bytes, answer: bytes, step: int, *, is_tls_required: bool) -> tuple[bytes, bool]:
    guard = TunnelGuard(ASKED, is_tls_required=is_tls_required, profile="fuzz")
    passed = b""
    try:
        for at in range(0, len(said), step):
            passed += guard.feed_up(said[at : at + step])
            if passed and answer:
                guard.feed_down(answer)
    except EgressRefused as refused:
        return passed, refused.code == "tls_name"
    return passed, False


def _check_as_server(said: bytes) -> None:
    incoming = ssl.MemoryBIO()
    incoming.write(said)
    _SEEN.clear()
    with contextlib.suppress(ssl.SSLError, UnicodeError):
        _SERVER.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
    for name in _SEEN:
        if name is not None:
            try:
                assert parse_host(name) == ASKED.host, f"OpenSSL reads {name!r}"
            except HostError:
                raise AssertionError(f"OpenSSL reads {name!r}") from None


TARGET = fuzz_one

if __name__ == "__main__":
    main(fuzz_one, __file__)

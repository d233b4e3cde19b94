"""ClientHellos: real ones, as OpenSSL writes them, and ones put together by hand to be just so."""

import contextlib
import ssl
import struct

RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


def real_hello(name: str | None) -> bytes:
    """What Python's ssl says first to a server of this name; None names none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def server_name(name: bytes, *, kind: int = 0) -> tuple[int, bytes]:
    entry = bytes([kind]) + struct.pack(">H", len(name)) + name
    return 0, struct.pack(">H", len(entry)) + entry


def message(*extensions: tuple[int, bytes], with_extensions: bool = True) -> bytes:
    """A handshake message of type ClientHello with these extensions."""
    listed = b"".join(struct.pack(">HH", kind, len(body)) + body for kind, body in extensions)
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00"
    if with_extensions:
        body += struct.pack(">H", len(listed)) + listed
    return b"\x01" + len(body).to_bytes(3, "big") + body


def records(data: bytes, *, size: int = 1 << 14, kind: int = 22) -> bytes:
    """These bytes in TLS records of at most ``size``."""
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(bytes([kind, 3, 1]) + struct.pack(">H", len(piece)) + piece for piece in pieces)


def server_hello(*, is_retry: bool) -> bytes:
    body = b"\x03\x03" + (RETRY if is_retry else bytes(32)) + b"\x00\x13\x01\x00" + b"\x00\x00"
    return records(b"\x02" + len(body).to_bytes(3, "big") + body)

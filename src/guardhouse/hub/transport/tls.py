"""The hub's server side of TLS: which versions, suites and certificate.

Knows nothing of HTTP. Runs in the hub, at start, and again when SIGHUP says that the certificate was renewed.
"""

import ssl
from pathlib import Path

from guardhouse.errors import SetupError

__all__ = ["load_certificate", "server_context"]

# Mozilla's "intermediate" profile for TLS 1.2: forward secrecy and AEAD only. TLS 1.3 has its own three suites.
_TLS12_SUITES = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the context that the listener speaks TLS with: 1.2 at least, HTTP/1.1 only.

    Args:
        certificate: PEM chain, the server's own certificate first.
        key: PEM private key of that certificate, not encrypted.

    Raises:
        SetupError: a file is missing, unreadable, not PEM, or key and certificate do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(_TLS12_SUITES)
    # HTTP/2 would let one connection open thousands of streams; nothing here needs it.
    context.set_alpn_protocols(["http/1.1"])
    # Runners and agents resume no session; tickets of TLS 1.3 are a sixth of what a handshake costs.
    context.num_tickets = 0
    load_certificate(context, certificate, key)
    return context


def load_certificate(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Let ``context`` show this certificate from now on; connections that stand keep theirs.

    Raises:
        SetupError: as `server_context`; the one before stays in use.
    """
    for path, option in ((certificate, "--tls-cert"), (key, "--tls-key")):
        if not path.is_file():
            raise SetupError(f"{option} {str(path)!r} is not a file; give the path of a PEM file")
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise SetupError(
            f"cannot use certificate {str(certificate)!r} with key {str(key)!r}: {error};"
            " both must be PEM, readable, and belong together"
        ) from error

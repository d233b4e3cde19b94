"""The runner's TLS: what it demands of the hub, and in which words it says what is wrong with one.

Certificates are always verified unless the operator switched that off by name. Ciphers for TLS 1.2 are those of
Mozilla's "intermediate" configuration; TLS 1.3 brings its own. Knows no socket. Runs in the runner.
"""

import ssl
from pathlib import Path
from typing import Final

from guardhouse.runner.config import ConfigError

__all__ = ["describe_tls_failure", "make_client_context"]

# Mozilla "Server Side TLS" 5.7, intermediate, its elliptic-curve part; SECLEVEL 2 refuses RSA and DH below
# 2048 bits and SHA-1 signatures (SSL_CTX_set_security_level(3)) whatever the distribution's default is.
_CIPHERS_TLS_1_2: Final = ":".join(
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "@SECLEVEL=2",
    )
)

# X509_V_ERR_*, openssl-verification-options(1) and x509_vfy.h; stable across OpenSSL 1.1 to 3.x.
_CERTIFICATE_FAULTS: Final = {
    9: ("is not valid yet", "check this host's clock and the certificate's start"),
    10: ("has expired", "renew the hub's certificate"),
    18: ("is self-signed", "give its authority's PEM file by --ca-file"),
    19: ("is signed by an authority that this host does not trust", "give the authority's PEM file by --ca-file"),
    20: ("is signed by an unknown authority", "give the authority's PEM file by --ca-file"),
    21: ("is signed by an unknown authority", "let the hub send the whole chain, or use --ca-file"),
    23: ("has been revoked", "renew the hub's certificate"),
    26: ("is not meant for servers", "issue one with the extended key usage serverAuth"),
    62: ("is for another host", "dial the host by the name in its certificate, or issue one for this name"),
    64: ("is for another address", "dial the hub by its name, or issue a certificate for this address"),
    66: ("has a key that is too weak", "issue one with an EC P-256 or RSA 2048 key or better"),
    67: ("has an authority whose key is too weak", "use an authority with RSA 2048 or better"),
    68: ("is signed with a digest that is too weak", "issue one signed with SHA-256 or better"),
}


def make_client_context(
    *, ca_file: Path | None, tls_min_version: str, insecure_skip_tls_verify: bool
) -> ssl.SSLContext:
    """Return the context for dialling the hub.

    Args:
        ca_file: the only authorities to trust; None trusts the system's.
        tls_min_version: ``"1.3"`` or ``"1.2"``.
        insecure_skip_tls_verify: accept any certificate.

    Raises:
        ConfigError: ``ca_file`` cannot be read or holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if tls_min_version == "1.3" else ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS_TLS_1_2)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.hostname_checks_common_name = False
    if insecure_skip_tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    if ca_file is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return context
    try:
        context.load_verify_locations(cafile=ca_file)
    except ssl.SSLError:
        raise ConfigError(f"--ca-file: {str(ca_file)!r} holds no certificate; it must be a PEM file") from None
    except OSError as error:
        raise ConfigError(f"--ca-file: cannot read {str(ca_file)!r}: {error.strerror}; check the path") from None
    return context


def describe_tls_failure(error: ssl.SSLError, *, host: str) -> str:
    """Say what is wrong with the hub's TLS and what to do, for one line of a log."""
    if isinstance(error, ssl.SSLCertVerificationError):
        fault, step = _CERTIFICATE_FAULTS.get(
            error.verify_code, (f"cannot be verified ({error.verify_message})", "check it with openssl s_client")
        )
        return f"the certificate of {host} {fault}; {step}"
    reason = error.reason or str(error)
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return f"{host} does not speak TLS on this port; check scheme and port of --url"
    if reason in ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "SSLV3_ALERT_HANDSHAKE_FAILURE"):
        return (
            f"{host} offers no TLS version and cipher that we accept ({reason});"
            " let it speak TLS 1.3, or accept 1.2 by --tls-min-version 1.2"
        )
    return f"TLS with {host} failed: {reason}"

"""Names to judged addresses, and connections to exactly those: the network side of one hop.

A name is resolved once; the connection goes to an address of that answer and nowhere else, so that a second answer
cannot lead elsewhere (DNS rebinding), while TLS and the Host header keep the name. Every wait ends at the deadline and
every byte received is counted. Runs in the fetch worker.
"""

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import httpcore2

from guardhouse.egress.address import Network
from guardhouse.limits import FETCH_BODY_MAX_BYTES, FETCH_CONNECT_TIMEOUT_S, FETCH_FRAMING_MAX_BYTES
from guardhouse.worker.fetch_address import check_addresses
from guardhouse.worker.fetch_protocol import FetchRefused, too_large
from guardhouse.worker.fetch_url import FetchUrl

__all__ = ["Deadline", "PinnedBackend", "load_authorities", "resolve"]

_ADDRESSES_MAX: Final = 16


class Deadline:
    """When one request must be over."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._end_s = time.monotonic() + limit_s

    def remaining_s(self) -> float:
        """Return the seconds that are left.

        Raises:
            FetchRefused: ``timed_out``: none are.
        """
        left = self._end_s - time.monotonic()
        if left <= 0:
            raise FetchRefused(f"webfetch timed out after {self._limit_s:g} s", code="timed_out")
        return left


def load_authorities() -> ssl.SSLContext:
    """Return a context with the host's certificate authorities read into memory; call it while files can be read."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not context.cert_store_stats()["x509_ca"]:
        # OpenSSL reads a directory of hashed names only when it meets a certificate, which is too late for us.
        directory = ssl.get_default_verify_paths().capath
        for path in sorted(Path(directory).iterdir()) if directory and Path(directory).is_dir() else ():
            try:
                context.load_verify_locations(cafile=path)
            except (OSError, ssl.SSLError):
                continue
    return context


def resolve(url: FetchUrl, networks: Sequence[Network]) -> tuple[str, ...]:
    """Return the addresses of the URL's host, all of them judged.

    Raises:
        FetchRefused: ``unresolved``, or ``address_refused``.
    """
    if url.is_address:
        check_addresses(url.host, (url.host,), networks)
        return (url.host,)
    try:
        answers = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise FetchRefused(f"webfetch failed: {url.host!r} does not resolve: {why}", code="unresolved") from None
    addresses = tuple(dict.fromkeys(str(answer[4][0]) for answer in answers))
    check_addresses(url.host, addresses, networks)
    return addresses[:_ADDRESSES_MAX]


class PinnedBackend(httpcore2.NetworkBackend):
    """Connects to the given addresses, whatever host it is asked for; takes bodies of up to ``max_bytes``."""

    def __init__(self, addresses: Sequence[str], deadline: Deadline, *, max_bytes: int = FETCH_BODY_MAX_BYTES) -> None:
        self._addresses = addresses
        self._deadline = deadline
        self._max_bytes = max_bytes

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the deadline is ours
        local_address: str | None = None,  # noqa: ARG002 - as the base class has it
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002 - as the base class has it
    ) -> httpcore2.NetworkStream:
        """Connect to the first address that answers."""
        failures = []
        for address in self._addresses:
            left_s = self._deadline.remaining_s()
            family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            try:
                sock.settimeout(min(left_s, FETCH_CONNECT_TIMEOUT_S))
                sock.connect((address, port))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                sock.close()
                failures.append(f"{address}: {error.strerror or error}")
                continue
            return _BoundedStream(sock, self._deadline, self._max_bytes)
        self._deadline.remaining_s()
        raise FetchRefused(f"webfetch failed: cannot connect to {host}: {'; '.join(failures)}", code="connect_failed")


class _BoundedStream(httpcore2.NetworkStream):
    """One connection whose waits end at the deadline and whose bytes are counted."""

    def __init__(self, sock: socket.socket, deadline: Deadline, max_bytes: int) -> None:
        self._sock = sock
        self._deadline = deadline
        self._max_bytes = max_bytes
        self._received = 0

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - the deadline is ours
        """Receive; raises FetchRefused at the deadline and beyond the bound."""
        if self._received >= self._max_bytes + FETCH_FRAMING_MAX_BYTES:
            raise too_large(f"the server sent {self._received} bytes", max_bytes=self._max_bytes)
        self._sock.settimeout(self._deadline.remaining_s())
        try:
            data = self._sock.recv(min(max_bytes, self._max_bytes))
        except TimeoutError:
            self._deadline.remaining_s()
            raise
        self._received += len(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - the deadline is ours
        """Send; raises FetchRefused at the deadline."""
        self._sock.settimeout(self._deadline.remaining_s())
        try:
            self._sock.sendall(buffer)
        except TimeoutError:
            self._deadline.remaining_s()
            raise
        except OSError as error:
            # httpcore reads on: a server may have answered before it closed.
            raise httpcore2.WriteError(str(error)) from error

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002 - the deadline is ours
    ) -> httpcore2.NetworkStream:
        """Shake hands under the name that was asked for."""
        self._sock.settimeout(self._deadline.remaining_s())
        try:
            self._sock = ssl_context.wrap_socket(self._sock, server_hostname=server_hostname)
        except ssl.SSLCertVerificationError as error:
            self.close()
            raise FetchRefused(
                f"webfetch failed: the certificate of {server_hostname} is not trusted: {error.verify_message}",
                code="tls_failed",
            ) from None
        except ssl.SSLError as error:
            self.close()
            raise FetchRefused(
                f"webfetch failed: TLS with {server_hostname}: {error.reason or error}", code="tls_failed"
            ) from None
        except TimeoutError:
            self.close()
            self._deadline.remaining_s()
            raise
        except OSError:
            self.close()
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        """Return nothing but the TLS object, which httpcore asks for the protocol."""
        return self._sock if info == "ssl_object" and isinstance(self._sock, ssl.SSLSocket) else None

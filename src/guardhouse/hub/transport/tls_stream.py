"""TLS on an accepted socket that does not block: the standard library's own, waited for by trio.

`trio.SSLStream` hands every record through two buffers in memory and takes several turns of the event loop for each
read and write; with 10,000 runners that was more than everything else the idle hub did, and 10 KiB for each of them
(bench/README.md, "connected"). Knows nothing of what is carried. Runs in the hub.
"""

import socket
import ssl
from contextlib import suppress
from typing import Final

import trio

__all__ = ["TlsStream"]

# One record (RFC 8446 section 5.1); a call of OpenSSL that could not write all of it is repeated with the same bytes.
_RECORD_BYTES: Final = 16_384


class TlsStream:
    """The server's side of one connection. One task reads, one task at a time writes.

    Where both would wait for the same, as with a peer that asks for new keys and takes no byte, the later one gets
    `trio.BusyResourceError`: the connection is to be given up.
    """

    def __init__(self, accepted: socket.socket, context: ssl.SSLContext) -> None:
        """Take ``accepted`` over; no handshake is made yet.

        Raises:
            OSError: the peer is gone.
        """
        accepted.settimeout(0)
        # A peer that ends without close_notify is one that hung up: HTTP and WebSocket tell themselves what is whole.
        self.socket = context.wrap_socket(
            accepted, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
        )

    async def do_handshake(self) -> None:
        """Shake hands.

        Raises:
            OSError: the peer is gone, or says what is no TLS that the context takes (`ssl.SSLError`).
        """
        while True:
            try:
                self.socket.do_handshake()
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self.socket)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self.socket)
            else:
                return

    async def receive_some(self, max_bytes: int) -> bytes:
        """Return what came, nothing at the peer's end.

        Raises:
            OSError: the connection broke.
            trio.ClosedResourceError: it was closed here.
        """
        # What OpenSSL has decrypted already makes no socket readable.
        has_more = self._open().pending() > 0
        while True:
            if has_more:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(self._open())
            try:
                return self._open().recv(max_bytes)
            except ssl.SSLWantReadError:
                has_more = False
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self._open())
                has_more = True

    async def send_all(self, data: bytes) -> None:
        """Send all of ``data``; after a cancellation in the middle only closing makes sense.

        Raises:
            OSError: the connection broke.
            trio.ClosedResourceError: it was closed here.
        """
        view = memoryview(data)
        for start in range(0, len(view), _RECORD_BYTES):
            await self._send_record(view[start : start + _RECORD_BYTES])

    async def _send_record(self, data: memoryview) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        while data:
            try:
                data = data[self._open().send(data) :]
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self._open())
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self._open())

    async def aclose(self) -> None:
        """Say close_notify where that can be said at once, and close the socket."""
        if self.socket.fileno() >= 0:
            # Raises unless the peer has said it before; neither that nor a peer that is gone matters here.
            with suppress(OSError, ValueError):
                self.socket.unwrap()
            trio.lowlevel.notify_closing(self.socket)
            self.socket.close()
        await trio.lowlevel.checkpoint()

    def _open(self) -> ssl.SSLSocket:
        if self.socket.fileno() < 0:
            raise trio.ClosedResourceError("this connection was closed by the hub")
        return self.socket

"""Take in what a client still sends when its request is answered early; close the connection where that is too much.

A refusal often needs no body: a wrong token, a path that is not there. Closing a socket with unread bytes in it makes
the kernel reset the connection (RFC 9112, section 9.6), and the client may lose the very answer that says why. Knows no
route. Runs in the hub, around the whole application.
"""

from typing import Final

import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["UNREAD_MAX_BYTES", "UNREAD_MAX_S", "FinishesRequests"]

# A small body is on its way already; waiting longer would let a client hold the answer back.
UNREAD_MAX_BYTES: Final = 64 * 1024
UNREAD_MAX_S: Final = 1.0
_CLOSE: Final = (b"connection", b"close")


class FinishesRequests:
    """An ASGI application that reads what ``app`` left of a request's body before it lets the answer begin."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; everything that is not HTTP goes through as it is."""
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        body = _Body(receive)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and not (body.ended or await body.finish()):
                message = {**message, "headers": [*message.get("headers", []), _CLOSE]}
            await send(message)

        await self._app(scope, body.receive, answer)


class _Body:
    """How far the body of one request has been read."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ended = False
        self._reading = False

    @property
    def ended(self) -> bool:
        """Whether all of it has been read."""
        return self._ended

    async def receive(self) -> Message:
        """Give the application its next message."""
        self._reading = True
        message = await self._receive()
        self._reading = False
        self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def finish(self) -> bool:
        """Read the rest within bounds; return whether all of it is read. One who reads at this moment goes on alone."""
        unread_bytes = 0
        with trio.move_on_after(UNREAD_MAX_S):
            while not self._ended and not self._reading and unread_bytes <= UNREAD_MAX_BYTES:
                message = await self.receive()
                unread_bytes += len(message.get("body", b""))
        return self._ended


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"

"""The body of a posted message, read whole within a size and a time before anything looks at it. Knows no MCP."""

from typing import Final

import trio
from starlette.types import Message, Receive

from guardhouse.mcp_server.hub_api import HubRefused

__all__ = ["BODY_MAX_BYTES", "read_body", "replay"]

# What the SDK takes too. A file of more goes through `guardhouse cp`, which streams.
BODY_MAX_BYTES: Final = 4 * 1024 * 1024
BODY_TIMEOUT_S: Final = 30.0


async def read_body(receive: Receive) -> bytes | None:
    """Return the body; None where the client left before it was whole.

    Raises:
        HubRefused: it is too large, or did not arrive in time.
    """
    body = bytearray()
    with trio.move_on_after(BODY_TIMEOUT_S):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            body += message.get("body", b"")
            if len(body) > BODY_MAX_BYTES:
                raise HubRefused(
                    "oversized",
                    f"the message is over {BODY_MAX_BYTES} bytes",
                    hint="write a large file in parts, or copy it with 'guardhouse cp'",
                    status=413,
                )
            if not message.get("more_body"):
                return bytes(body)
    raise HubRefused(
        "body_timeout", f"the message did not arrive within {BODY_TIMEOUT_S:.0f} s", status=408, retryable=True
    )


def replay(body: bytes, receive: Receive) -> Receive:
    """Return what gives ``body`` first, and then whatever ``receive`` gives."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return again

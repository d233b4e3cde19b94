"""The hub's MCP server for hosts that only start programs: messages on stdin and stdout, carried to `/mcp` and back.

Carries both eras unread but for what HTTP wants in headers. Decides nothing: the hub does. Runs in `guardhouse mcp`.
"""

from collections.abc import Mapping
from typing import Any, Final

import anyio
import httpx2
from mcp.client.streamable_http import streamable_http_client
from mcp.server.stdio import stdio_server
from mcp.shared.inbound import (
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    NAME_BEARING_METHODS,
    encode_header_value,
)
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from mcp_types import JSONRPCNotification, JSONRPCRequest, JSONRPCResponse
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

__all__ = ["HeaderBook", "carry"]

# How long the hub has to hear that the session is over; nobody waits for more than that.
_GOODBYE_S: Final = 5.0
_VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"


class HeaderBook:
    """Which headers a message needs: remembers the version that an older client and the hub agreed on. Pure."""

    def __init__(self) -> None:
        self._initialize: set[str | int] = set()
        self._version: str | None = None

    def headers_for(self, message: Any) -> dict[str, str]:
        """Return the headers for a message on its way to the hub (MCP 2026-07-28, "Streamable HTTP")."""
        if not isinstance(message, JSONRPCRequest | JSONRPCNotification):
            return self._agreed()
        params: Mapping[str, Any] = message.params or {}
        meta = params.get("_meta")
        version = meta.get(_VERSION_KEY) if isinstance(meta, Mapping) else None
        if not isinstance(version, str) or version not in MODERN_PROTOCOL_VERSIONS:
            if message.method == "initialize" and isinstance(message, JSONRPCRequest):
                self._initialize.add(message.id)
            return self._agreed()
        headers = {MCP_PROTOCOL_VERSION_HEADER: version, MCP_METHOD_HEADER: message.method}
        name = params.get(NAME_BEARING_METHODS.get(message.method, ""))
        if isinstance(name, str):
            headers[MCP_NAME_HEADER] = encode_header_value(name)
        return headers

    def saw_answer(self, message: Any) -> None:
        """Look at a message on its way back: the answer to initialize names the version."""
        if isinstance(message, JSONRPCResponse) and message.id in self._initialize:
            self._initialize.discard(message.id)
            version = message.result.get("protocolVersion")
            self._version = version if isinstance(version, str) else None

    def _agreed(self) -> dict[str, str]:
        return {MCP_PROTOCOL_VERSION_HEADER: self._version} if self._version else {}


async def carry(url: str, client: httpx2.AsyncClient) -> None:
    """Carry messages between this process's stdin and stdout and the MCP server at ``url`` until stdin ends.

    The session at the hub is ended then, for which the hub has 5 s; what still runs there goes on.

    Args:
        client: with the bearer token among its headers.
    """
    book = HeaderBook()
    with anyio.CancelScope() as everything:
        async with (
            stdio_server() as (from_host, to_host),
            to_host,  # `stdio_server` waits for its writer, which goes on until this is closed
            streamable_http_client(url, http_client=client) as (from_hub, to_hub),
            anyio.create_task_group() as tasks,
        ):

            async def back() -> None:
                async for found in from_hub:
                    if isinstance(found, SessionMessage):
                        book.saw_answer(found.message)
                        await to_host.send(found)

            tasks.start_soon(back)
            async for found in from_host:
                if isinstance(found, SessionMessage):
                    headers = book.headers_for(found.message)
                    await to_hub.send(SessionMessage(found.message, ClientMessageMetadata(headers=headers or None)))
            tasks.cancel_scope.cancel()
            everything.deadline = anyio.current_time() + _GOODBYE_S

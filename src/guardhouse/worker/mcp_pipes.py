"""The stdio transport over pipes that we were given: one JSON-RPC message a line, as the specification has it.

The SDK's own starts the server itself, which nobody here may; a server is started by the launcher, behind its wall.
Runs in the MCP worker.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp_types
import trio
from mcp.shared.message import SessionMessage

from guardhouse.limits import MCP_MESSAGE_MAX_BYTES

__all__ = ["pipe_transport"]

_RECEIVE_BYTES = 64 * 1024


@asynccontextmanager
async def pipe_transport(stdout_fd: int, stdin_fd: int) -> AsyncGenerator[tuple[Any, Any], None]:
    """Yield the streams of messages that the SDK's client drives.

    Args:
        stdout_fd: what the server writes; closed at the end, as is ``stdin_fd``, what it reads.
    """
    arrived_send, arrived = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    leaving, leaving_receive = anyio.create_memory_object_stream[SessionMessage](0)
    async with trio.lowlevel.FdStream(stdout_fd) as source, trio.lowlevel.FdStream(stdin_fd) as target:

        async def read() -> None:
            async with arrived_send:
                try:
                    async for line in _lines(source):
                        await arrived_send.send(_parse(line))
                except (trio.BrokenResourceError, trio.ClosedResourceError, anyio.BrokenResourceError):
                    return

        async def write() -> None:
            async with leaving_receive:
                try:
                    async for message in leaving_receive:
                        text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                        await target.send_all(text.encode("utf-8") + b"\n")
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    # The server reads no more: the session must see its end, or a request would wait for ever.
                    await arrived_send.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(write)
            yield arrived, leaving
            nursery.cancel_scope.cancel()


async def _lines(source: trio.lowlevel.FdStream) -> AsyncGenerator[bytes, None]:
    """Yield each line without its end; a line beyond the bound ends the stream, as nothing after it can be trusted."""
    pending = bytearray()
    while True:
        data = await source.receive_some(_RECEIVE_BYTES)
        if not data:
            return
        start = len(pending)
        pending += data
        if pending.find(b"\n", start) < 0:
            if len(pending) > MCP_MESSAGE_MAX_BYTES:
                return
            continue
        *lines, rest = pending.split(b"\n")
        pending = bytearray(rest)
        for line in lines:
            if line.strip():
                yield bytes(line)


def _parse(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(mcp_types.jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as error:
        return error

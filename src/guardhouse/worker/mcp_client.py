"""The runner's end of one MCP worker: connect once, then list and call, any number side by side.

Knows trio and the protocol. Knows no policy and starts nothing: the socket is given. Runs in the runner.
"""

import itertools
import socket
from typing import Any, Final

import msgspec
import trio

from guardhouse.errors import PeerError
from guardhouse.worker import protocol
from guardhouse.worker.mcp_protocol import ADDRESS, PIPES, CallArgs, ConnectArgs, ConnectResult, McpFailure, error_of

__all__ = ["McpSession", "hand_over"]

_RECEIVE_BYTES: Final = 256 * 1024
# The worker gives up first and says so.
_MARGIN_S: Final = 5.0
_JSON: Final = msgspec.json.Decoder()


class McpSession:
    """One session with one server. `is_alive` turns false for good when the worker or the server is gone."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, trio.MemorySendChannel[tuple[protocol.Reply, bytes]]] = {}
        self._sending = trio.Lock()
        self.is_alive = True
        self.ended = trio.Event()
        self.info = ConnectResult(protocol_version="")

    async def list_tools(self, *, timeout_s: float) -> tuple[list[dict[str, Any]], bool]:
        """Return the tools as the server wrote them, and whether there are more than were listed.

        Raises:
            McpFailure: there is no answer; ``code`` says why.
            PeerError: the worker answered something that is no reply.
        """
        reply, body = await self._ask("list_tools", {}, timeout_s)
        tools = _decode(body)
        if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
            raise PeerError("the MCP worker answered no list of tools")
        result = msgspec.json.decode(_raw(reply))
        return tools, isinstance(result, dict) and bool(result.get("left_out"))

    async def call_tool(self, tool_name: str, arguments: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """Return the tool's result as the server wrote it. Cancelling tells the server.

        Raises:
            McpFailure: there is no result; ``code`` says why.
            PeerError: the worker answered something that is no reply.
        """
        args = CallArgs(tool_name=tool_name, arguments=arguments)
        _, body = await self._ask("call_tool", args, timeout_s)
        result = _decode(body)
        if not isinstance(result, dict):
            raise PeerError("the MCP worker answered no object as a tool's result")
        return result

    async def connect(self, args: ConnectArgs, *, timeout_s: float) -> None:
        """Open the session; once, first of all.

        Raises:
            McpFailure: the server cannot be reached or speaks no MCP.
        """
        reply, _ = await self._ask("connect", args, timeout_s)
        self.info = msgspec.json.decode(_raw(reply), type=ConnectResult)

    async def _ask(self, operation: str, args: Any, timeout_s: float) -> tuple[protocol.Reply, bytes]:
        number = next(self._numbers)
        send, receive = trio.open_memory_channel[tuple[protocol.Reply, bytes]](1)
        self._waiting[number] = send
        request = protocol.Request(
            id=number, operation=operation, deadline_s=timeout_s, args=msgspec.Raw(msgspec.json.encode(args))
        )
        try:
            with trio.move_on_after(timeout_s + _MARGIN_S):
                await self._send(request)
                reply, body = await receive.receive()
                if reply.failure is None:
                    return reply, body
                if reply.failure.family == "peer":
                    raise PeerError(reply.failure.text, code=reply.failure.code)
                raise error_of(reply.failure)
            # The worker itself hangs: whatever it was at, nobody hears of it any more.
            self.is_alive = False
            raise McpFailure(f"no answer within {timeout_s:g} s", code="timed_out")
        except trio.Cancelled:
            with trio.CancelScope(shield=True), trio.move_on_after(1.0):
                await self._send(protocol.Request(id=number, operation="cancel"))
            raise
        except trio.EndOfChannel:
            raise _lost() from None
        finally:
            self._waiting.pop(number, None)

    async def _send(self, request: protocol.Request) -> None:
        if not self.is_alive:
            raise _lost()
        try:
            async with self._sending:
                await self._stream.send_all(protocol.render(request))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.is_alive = False
            raise _lost() from None

    async def serve(self) -> None:
        """Carry replies to who waits for them until the worker is gone."""
        try:
            while True:
                header_size, body_size = protocol.parse_lengths(await self._exactly(protocol.LENGTHS.size))
                reply = protocol.parse_reply(await self._exactly(header_size))
                body = await self._exactly(body_size)
                if (waiting := self._waiting.get(reply.id)) is not None:
                    waiting.send_nowait((reply, body))
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel, PeerError):
            # A worker that breaks its own protocol is not trusted with another frame.
            pass
        finally:
            self.is_alive = False
            for waiting in self._waiting.values():
                waiting.close()
            self.ended.set()

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = await self._stream.receive_some(max(_RECEIVE_BYTES, size - len(self._buffer)))
            if not data:
                raise trio.EndOfChannel
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


def hand_over(sock: socket.socket, pipes: tuple[int, int] | None) -> trio.SocketStream:
    """Send the first byte, with a local server's stdout and stdin, and return the stream for `McpSession`.

    Args:
        sock: connected to a fresh worker; the stream owns it from now on.
        pipes: stay the caller's to close.

    Raises:
        McpFailure: the worker is gone already.
    """
    try:
        socket.send_fds(sock, [PIPES if pipes else ADDRESS], list(pipes or ()))
    except OSError as error:
        sock.close()
        raise McpFailure(f"the MCP worker is gone: {error}", code="session_lost") from None
    sock.settimeout(0)
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


def _lost() -> McpFailure:
    return McpFailure("the session ended; the call may or may not have taken effect", code="session_lost")


def _raw(reply: protocol.Reply) -> bytes:
    return b"null" if isinstance(reply.result, msgspec.UnsetType) else bytes(reply.result)


def _decode(body: bytes) -> Any:
    try:
        return _JSON.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise PeerError(f"invalid answer from the MCP worker: {error}") from error

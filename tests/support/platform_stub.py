"""A platform that speaks only the plain protocol, as the seed's does, over real sockets: it drives our runner.

The token is the query parameter ``token`` and nothing else; a bad one is refused at the upgrade; no subprotocol is
chosen; JSON text frames of WIRE_PROTOCOL "Envelope" and no more. Keeps everything it heard, in order.
"""

import json
import ssl
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import trio
import trio_websocket

WELCOME = {"worknode_id": "wn_stub", "name": "stub-node", "labels": ["linux"]}


@dataclass
class Attempt:
    """One upgrade that a runner tried."""

    path: str
    token: str | None
    has_authorization: bool
    subprotocols: tuple[str, ...]


class Peer:
    """One runner's connection, from the platform's side."""

    def __init__(self, connection: trio_websocket.WebSocketConnection) -> None:
        self._connection = connection
        self.heard: list[dict] = []
        self._news = trio.Event()
        self._position = 0
        self.close_reason: trio_websocket.CloseReason | None = None
        self.is_over = trio.Event()

    async def listen(self) -> None:
        try:
            while True:
                self.heard.append(json.loads(await self._connection.get_message()))
                self._ring()
        except trio_websocket.ConnectionClosed as closed:
            self.close_reason = closed.reason
        finally:
            self.is_over.set()
            self._ring()

    def _ring(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def next(self, kind: str, *, timeout_s: float = 30.0) -> dict:
        """The payload of the next message of ``kind`` that nobody has taken yet; others are skipped."""
        with trio.fail_after(timeout_s):
            while True:
                while self._position < len(self.heard):
                    message = self.heard[self._position]
                    self._position += 1
                    if message["type"] == kind:
                        return message["payload"]
                if self.is_over.is_set():
                    raise AssertionError(f"the connection ended ({self.close_reason}) before a {kind}: {self.heard}")
                await self._news.wait()

    async def result_of(self, task_id: str, *, timeout_s: float = 30.0) -> dict:
        """The result of one task, whenever it comes or came."""
        with trio.fail_after(timeout_s):
            while True:
                for message in self.heard:
                    if message["type"] == "task.result" and message["payload"]["task_id"] == task_id:
                        return message["payload"]
                if self.is_over.is_set():
                    raise AssertionError(f"the connection ended ({self.close_reason}) before the result of {task_id}")
                await self._news.wait()

    async def output_with(self, task_id: str, words: str, *, timeout_s: float = 30.0) -> None:
        """Wait until a task has streamed ``words`` on its standard output."""
        with trio.fail_after(timeout_s):
            while words not in self.output_of(task_id, "stdout"):
                await self._news.wait()

    def output_of(self, task_id: str, stream: str) -> str:
        """What a task has streamed so far."""
        return "".join(
            message["payload"]["data"]
            for message in self.heard
            if message["type"] == "task.output"
            and message["payload"]["task_id"] == task_id
            and message["payload"]["stream"] == stream
        )

    async def say(self, kind: str, payload: dict) -> None:
        await self.say_raw(
            json.dumps({"id": f"msg_{uuid.uuid4().hex}", "type": kind, "payload": payload, "timestamp": 1})
        )

    async def say_raw(self, frame: str | bytes) -> None:
        await self._connection.send_message(frame)

    async def ask(self, operation: str, args: object, *, task_id: str | None = None, **more) -> str:
        """Send a task.request; return its task id."""
        task_id = task_id or f"tsk_{uuid.uuid4().hex}"
        await self.say("task.request", {"task_id": task_id, "operation": operation, "args": args, **more})
        return task_id

    async def run(self, command: str, **args) -> dict:
        """One bash task from request to result payload."""
        return await self.result_of(await self.ask("bash", {"command": command, **args}))

    async def close(self) -> None:
        await self._connection.aclose()

    async def cut(self) -> None:
        """End the TCP connection without a word, as a broken network does."""
        await trio.aclose_forcefully(self._connection._stream)


@dataclass
class PlatformStub:
    """The stub. Change ``token`` to refuse, ``sends_welcome`` to keep silent, ``refusal`` to answer otherwise."""

    token: str
    port: int = 0
    is_tls: bool = False
    sends_welcome: bool = True
    refusal: int | None = None
    refusal_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Peer](100)

    @property
    def url(self) -> str:
        return f"{'wss' if self.is_tls else 'ws'}://localhost:{self.port}/safari/worknode/ws"

    async def peer(self, *, timeout_s: float = 60.0) -> Peer:
        """The next runner that was let in."""
        with trio.fail_after(timeout_s):
            return await self._receive.receive()

    async def _serve(self, request: trio_websocket.WebSocketRequest) -> None:
        parts = urlsplit(request.path)
        token = parse_qs(parts.query).get("token", [None])[0]
        headers = {name.lower() for name, _ in request.headers}
        self.attempts.append(
            Attempt(parts.path, token, b"authorization" in headers, tuple(request.proposed_subprotocols))
        )
        if self.refusal is not None:
            await request.reject(self.refusal, extra_headers=self.refusal_headers, body=b"no")
            return
        if token != self.token:
            await request.reject(401, body=b"invalid token")
            return
        connection = await request.accept()
        peer = Peer(connection)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.listen)
            if self.sends_welcome:
                await peer.say("welcome", WELCOME)
            self._send.send_nowait(peer)


@asynccontextmanager
async def open_stub(
    token: str, *, ssl_context: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[PlatformStub]:
    """Serve a stub on a free port of the loopback until the block ends."""
    stub = PlatformStub(token, is_tls=ssl_context is not None)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            lambda task_status: trio_websocket.serve_websocket(
                stub._serve, "127.0.0.1", port, ssl_context, max_message_size=64 * 1024 * 1024, task_status=task_status
            )
        )
        stub.port = server.port
        yield stub
        nursery.cancel_scope.cancel()

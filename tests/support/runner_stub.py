"""Scripted runners for tests of the hub: one that speaks only the plain protocol, one that speaks guardhouse.v1.

They write frames by hand, so that a mistake in our own wire package cannot hide on both sides.
"""

import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio_websocket


class RunnerStub:
    """One connection. ``handlers`` maps a command text to what happens for it; unknown ones echo."""

    def __init__(self, websocket: trio_websocket.WebSocketConnection, *, memory_id: str | None) -> None:
        self.websocket = websocket
        self.memory_id = memory_id
        self.welcome: dict[str, Any] = {}
        self.heard: list[dict[str, Any]] = []
        self._send_inbox, self._inbox = trio.open_memory_channel[dict[str, Any]](1_000)
        self.acked: set[str] = set()
        self.output_acks: list[dict[str, Any]] = []

    @property
    def is_v1(self) -> bool:
        return self.memory_id is not None

    async def send(self, kind: str, payload: dict[str, Any]) -> None:
        frame = {"id": "msg_stub", "type": kind, "payload": payload, "timestamp": int(time.time() * 1000)}
        await self.websocket.send_message(json.dumps(frame))

    async def heartbeat(self, *, hostname: str = "stub-host", environment: bool = True) -> None:
        payload: dict[str, Any] = {"worknode_id": "", "name": "", "labels": [], "version": "9.9.9"}
        if environment:
            payload["environment"] = {"os": "linux", "arch": "amd64", "hostname": hostname}
        payload["metrics"] = {"cpu_percent": 1.5, "memory_percent": 2.5, "disk_percent": 3.5}
        await self.send("heartbeat", payload)

    async def hello(self, tasks: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        """Say hello and return the hub's resume."""
        await self.send("runner.hello", {"memory_id": self.memory_id, "version": "9.9.9", "tasks": tasks or []})
        return await self.expect("runner.resume")

    async def receive(self) -> None:
        try:
            while True:
                frame = json.loads(await self.websocket.get_message())
                self.heard.append(frame)
                if frame["type"] == "task.result.ack":
                    self.acked.add(frame["payload"]["task_id"])
                if frame["type"] == "task.output.ack":
                    self.output_acks.append(frame["payload"])
                await self._send_inbox.send(frame)
        except trio_websocket.ConnectionClosed:
            await self._send_inbox.aclose()

    async def expect(self, kind: str, *, within_s: float = 30) -> dict[str, Any]:
        """Return the payload of the next message of this type, passing over others."""
        with trio.fail_after(within_s):
            while True:
                frame = await self._inbox.receive()
                if frame["type"] == kind:
                    return frame["payload"]

    async def expect_closed(self, *, within_s: float = 30) -> trio_websocket.CloseReason | None:
        """Wait for the hub to end the connection and return its close reason."""
        with trio.fail_after(within_s):
            while True:
                try:
                    await self._inbox.receive()
                except trio.EndOfChannel:
                    return self.websocket.closed

    async def output(self, task_id: str, data: bytes, *, stream: str = "stdout", offset: int = 0, seq: int = 0) -> None:
        if not self.is_v1:
            await self.send("task.output", {"task_id": task_id, "stream": stream, "data": data.decode()})
            return
        payload: dict[str, Any] = {"task_id": task_id, "stream": stream, "seq": seq, "offset": offset}
        try:
            payload["data"] = data.decode()
        except UnicodeDecodeError:
            payload |= {"data": "", "data_b64": base64.b64encode(data).decode()}
        await self.send("task.output", payload)

    async def result(self, task_id: str, *, stdout: str = "", exit_code: int = 0, **more: Any) -> None:
        payload: dict[str, Any] = {
            "task_id": task_id,
            "success": True,
            "exit_code": exit_code,
            "result": {"stdout": stdout, "stderr": "", "exit_code": exit_code},
        }
        await self.send("task.result", payload | more)

    async def serve(self, stdout: bytes = b"", *, exit_code: int = 0, count: int | None = None) -> None:
        """Answer every task (or ``count`` of them) with the same output and status."""
        served = 0
        while count is None or served < count:
            try:
                task = await self.expect("task.request", within_s=60)
            except trio.EndOfChannel:
                return
            if self.is_v1:
                await self.send("task.accepted", {"task_id": task["task_id"]})
            if stdout:
                await self.output(task["task_id"], stdout)
            await self.result(task["task_id"], stdout=stdout.decode("utf-8", "replace"), exit_code=exit_code)
            served += 1


@asynccontextmanager
async def connect_plain(
    url: str, token: str, *, path: str = "/safari/worknode/ws", ssl_context: Any = None, heartbeat: bool = True
) -> AsyncIterator[RunnerStub]:
    """Connect as the seed's runner does: token in the query, no subprotocol."""
    address = f"{_base(url)}{path}?token={token}"
    async with (
        trio_websocket.open_websocket_url(address, ssl_context=ssl_context) as websocket,
        _stub(websocket, memory_id=None) as stub,
    ):
        if heartbeat:
            await stub.heartbeat()
        yield stub


@asynccontextmanager
async def connect_v1(
    url: str,
    token: str,
    *,
    memory_id: str = "mem_stub",
    tasks: list[dict[str, Any]] | None = None,
    ssl_context: Any = None,
    hello: bool = True,
) -> AsyncIterator[RunnerStub]:
    """Connect as our runner does: bearer header, subprotocol, hello."""
    async with trio_websocket.open_websocket_url(
        f"{_base(url)}/api/v1/runner/ws",
        ssl_context=ssl_context,
        subprotocols=["guardhouse.v1"],
        max_message_size=32 * 1024 * 1024,
        extra_headers=[(b"authorization", f"Bearer {token}".encode())],
    ) as websocket:
        assert websocket.subprotocol == "guardhouse.v1"
        async with _stub(websocket, memory_id=memory_id) as stub:
            if hello:
                stub.resume = await stub.hello(tasks)
                await stub.heartbeat()
            yield stub


@asynccontextmanager
async def _stub(websocket: trio_websocket.WebSocketConnection, *, memory_id: str | None) -> AsyncIterator[RunnerStub]:
    stub = RunnerStub(websocket, memory_id=memory_id)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stub.receive)
        stub.welcome = await stub.expect("welcome")
        yield stub
        nursery.cancel_scope.cancel()


def _base(url: str) -> str:
    return "ws" + url.removeprefix("http").rstrip("/")

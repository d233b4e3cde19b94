"""A platform in memory for one connection: what the runner says comes out, what it hears is put in."""

import json

import msgspec
import trio

from guardhouse.errors import PeerError
from guardhouse.wire.messages import EnvironmentInfo, Metrics


class MemoryConnection:
    """Keeps the side of `dial.Connection` that the link sees."""

    def __init__(self, subprotocol: str | None = None) -> None:
        self.subprotocol = subprotocol
        self.last_heard_s = trio.current_time()
        self.closed_with: tuple[int, str] | None = None
        self.answers_pings = True
        self.pings = 0
        self.said: list[dict] = []
        self._in_send, self._in_receive = trio.open_memory_channel[str](1000)
        self._out_send, self._out_receive = trio.open_memory_channel[dict](1000)

    async def receive(self) -> str:
        try:
            frame = await self._in_receive.receive()
        except trio.EndOfChannel:
            raise PeerError("the connection was cut", code="closed") from None
        self.last_heard_s = trio.current_time()
        return frame

    async def send(self, text: str) -> None:
        message = json.loads(text)
        self.said.append(message)
        await self._out_send.send(message)

    async def ping(self) -> None:
        self.pings += 1
        if not self.answers_pings:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        self.last_heard_s = trio.current_time()

    async def close(self, code: int, reason: str) -> None:
        self.closed_with = (code, reason)

    # The platform's side.

    def hear(self, kind: str, **payload) -> None:
        self._in_send.send_nowait(json.dumps({"id": "m", "type": kind, "payload": payload, "timestamp": 1}))

    def hear_raw(self, frame: str) -> None:
        self._in_send.send_nowait(frame)

    def cut(self) -> None:
        self._in_send.close()

    async def next(self, kind: str) -> dict:
        """The payload of the next message of ``kind``; others before it are skipped (see ``said``)."""
        with trio.fail_after(60):
            while True:
                message = await self._out_receive.receive()
                if message["type"] == kind:
                    return message["payload"]


class StillHost:
    """A host whose facts do not change."""

    async def environment(self) -> EnvironmentInfo:
        return msgspec.convert({"os": "linux", "hostname": "h"}, EnvironmentInfo)

    async def metrics(self) -> Metrics:
        return Metrics(cpu_percent=1.0, memory_percent=2.0, disk_percent=3.0)

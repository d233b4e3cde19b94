"""Simulated runners of the plain protocol, some thousands in a process: real sockets, real frames, no sandbox.

Started by `connected.py`, which writes one line of JSON (`url`, `tokens`, `authority`, `source`, `spread_s`) and then
asks: `?` is answered with counts, `record` with how often each task was started here. asyncio's protocols, since one
more trio task for every connection would cost the measured machine more than the hub does.

Each dials as our runner does: `ReconnectSchedule` (full jitter) and a `Retry-After` that it obeys. It sends a heartbeat
every 54 s as the seed's runner does, answers pings, "runs" what a task's `sleep N` says, and keeps each result for
`RESEND_S`, to send it again on its next connection: the plain protocol has no acknowledgement, so a careful runner
cannot know what a hub that was killed had stored.
"""

import asyncio
import base64
import json
import random
import resource
import secrets
import ssl
import struct
import sys
import time
from collections import deque
from typing import Any
from urllib.parse import urlsplit

from guardhouse.runner.reconnect import ReconnectSchedule

HEARTBEAT_S = 54.0
# Our runner's own: TCP and TLS together, and the upgrade.
CONNECT_WITHIN_S = 25.0
UPGRADE_WITHIN_S = 10.0
RESEND_S = 600.0


def masked(text: bytes, opcode: int = 1) -> bytes:
    """Return one frame of a client. A mask of zeros is a mask; that it cannot be foreseen matters to proxies only."""
    size = len(text)
    head = bytes([0x80 | opcode])
    head += bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + struct.pack("!H", size)
    return head + bytes(4) + text


def message(kind: str, payload: dict[str, Any]) -> bytes:
    frame = {"id": "msg_bench", "type": kind, "payload": payload, "timestamp": int(time.time() * 1000)}
    return masked(json.dumps(frame).encode())


class Runner:
    """One simulated runner: what it keeps from connection to connection."""

    __slots__ = ("__weakref__", "fleet", "results", "schedule", "token", "wire")

    def __init__(self, fleet: "Clients", token: str) -> None:
        self.fleet = fleet
        self.token = token
        self.schedule = ReconnectSchedule(random.random, now_s=time.monotonic())
        self.results: deque[tuple[float, bytes]] = deque()
        self.wire: Wire | None = None

    async def run(self) -> None:
        await asyncio.sleep(random.uniform(0, self.fleet.spread_s))
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            wire = Wire(self)
            try:
                async with asyncio.timeout(CONNECT_WITHIN_S):
                    self.fleet.dials += 1
                    await loop.create_connection(
                        lambda wire=wire: wire,
                        self.fleet.host,
                        self.fleet.port,
                        ssl=self.fleet.context,
                        server_hostname="localhost" if self.fleet.context else None,
                        local_addr=(self.fleet.source, 0),
                    )
                async with asyncio.timeout(UPGRADE_WITHIN_S):
                    await wire.upgraded.wait()
                await wire.over.wait()
            except OSError:  # TimeoutError is one
                self.fleet.failures += 1
            finally:
                wire.drop()
            now_s = loop.time()
            self.schedule.connection_ended(now_s, welcomed=wire.welcomed, lasted_s=now_s - began_s)
            await asyncio.sleep(self.schedule.next_delay_s(now_s, retry_after_s=wire.retry_after_s))

    def begin(self, task: dict[str, Any]) -> None:
        task_id, started = task["task_id"], self.fleet.started
        started[task_id] = started.get(task_id, 0) + 1
        words = task["args"].get("command", "").split()
        seconds = float(words[1]) if words[:1] == ["sleep"] else 0.0
        if seconds:
            asyncio.get_running_loop().call_later(seconds, self.end, task_id)
        else:
            self.end(task_id)

    def end(self, task_id: str) -> None:
        result = {"stdout": "", "stderr": "", "exit_code": 0}
        frame = message("task.result", {"task_id": task_id, "success": True, "exit_code": 0, "result": result})
        now_s = time.monotonic()
        while self.results and self.results[0][0] < now_s - RESEND_S:
            self.results.popleft()
        self.results.append((now_s, frame))
        if self.wire is not None:
            self.wire.transport.write(frame)


class Wire(asyncio.Protocol):
    """One connection of one simulated runner."""

    __slots__ = ("beat", "buffer", "is_open", "over", "retry_after_s", "runner", "transport", "upgraded", "welcomed")

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.transport: Any = None
        self.buffer = b""
        self.is_open = False
        self.welcomed = False
        self.retry_after_s = 0.0
        self.beat: asyncio.TimerHandle | None = None
        self.upgraded, self.over = asyncio.Event(), asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        self.transport.write(
            f"GET /safari/worknode/ws?token={self.runner.token} HTTP/1.1\r\nHost: {self.runner.fleet.host}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.is_open and not self.take_head():
            return
        while (frame := self.take_frame()) is not None:
            opcode, payload = frame
            if opcode == 9:
                self.transport.write(masked(payload, opcode=10))
            elif opcode == 8:
                self.transport.write(masked(payload, opcode=8))
                self.transport.close()
            elif opcode == 1:
                self.heard(json.loads(payload))

    def take_head(self) -> bool:
        head, ended, rest = self.buffer.partition(b"\r\n\r\n")
        if not ended:
            return False
        if not head.startswith(b"HTTP/1.1 101"):
            fleet, status = self.runner.fleet, head[9:12].decode()
            fleet.refusals[status] = fleet.refusals.get(status, 0) + 1
            for line in head.split(b"\r\n"):
                name, _, value = line.partition(b":")
                if name.lower() == b"retry-after":
                    self.retry_after_s = float(value)
            self.transport.close()
            return False
        self.buffer = rest
        self.is_open = True
        self.upgraded.set()
        self.runner.wire = self
        self.runner.fleet.connected += 1
        self.send_heartbeat()
        newest_s = time.monotonic() - RESEND_S
        for at_s, frame in self.runner.results:
            if at_s >= newest_s:
                self.runner.fleet.resent += 1
                self.transport.write(frame)
        return True

    def take_frame(self) -> tuple[int, bytes] | None:
        buffer = self.buffer
        if len(buffer) < 2:
            return None
        size, start = buffer[1] & 127, 2
        if size == 126:
            if len(buffer) < 4:
                return None
            size, start = struct.unpack_from("!H", buffer, 2)[0], 4
        elif size == 127:
            raise SystemExit("the hub sent a frame of more than 64 KiB, which no task of this measurement asks for")
        if len(buffer) < start + size:
            return None
        self.buffer = buffer[start + size :]
        return buffer[0] & 15, buffer[start : start + size]

    def send_heartbeat(self) -> None:
        environment = {"os": "linux", "arch": "amd64", "hostname": f"host-{self.runner.token[-8:]}"}
        beat = {"worknode_id": "", "name": "", "labels": [], "version": "9.9.9", "environment": environment}
        beat["metrics"] = {"cpu_percent": 1.5, "memory_percent": 2.5, "disk_percent": 3.5}
        self.transport.write(message("heartbeat", beat))
        again_s = HEARTBEAT_S * random.uniform(0.9, 1.1)
        self.beat = asyncio.get_running_loop().call_later(again_s, self.send_heartbeat)

    def heard(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "task.request":
            self.runner.begin(frame["payload"])
        else:
            self.welcomed = True

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self.beat is not None:
            self.beat.cancel()
        if self.is_open:
            self.is_open = False
            self.runner.wire = None
            self.runner.fleet.connected -= 1
        self.upgraded.set()
        self.over.set()

    def drop(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class Clients:
    """The runners of this process and what they have seen."""

    def __init__(self, given: dict[str, Any]) -> None:
        parts = urlsplit(given["url"])
        self.host, self.port = parts.hostname or "", parts.port or 0
        self.source, self.spread_s = given["source"], given["spread_s"]
        authority = given["authority"]
        self.context = ssl.create_default_context(cafile=authority) if authority is not None else None
        self.runners = [Runner(self, token) for token in given["tokens"]]
        self.connected = self.dials = self.failures = self.resent = 0
        self.refusals: dict[str, int] = {}
        self.started: dict[str, int] = {}

    def answer(self, question: str) -> dict[str, Any]:
        if question == "record":
            return self.started
        counts = {name: getattr(self, name) for name in ("connected", "dials", "failures", "resent")}
        return {**counts, "refusals": self.refusals, "started": len(self.started)}


async def serve() -> None:
    lines = asyncio.StreamReader(limit=1 << 26)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    clients = Clients(json.loads(await lines.readline()))
    running = [asyncio.create_task(runner.run()) for runner in clients.runners]
    while question := (await lines.readline()).decode().strip():
        print(json.dumps(clients.answer(question)), flush=True)
        broken = next((one for one in running if one.done()), None)
        if broken is not None:
            await broken


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(serve())

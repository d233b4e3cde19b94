"""A scripted guardhouse.v1 runner that keeps files in memory, and whose connection breaks where a test says so.

Frames are written by hand, so that a mistake in our own wire package cannot hide on both sides.
"""

import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio_websocket
from tests.support.runner_stub import RunnerStub, connect_v1


class FileStub:
    """``files`` by path; ``cut_before`` holds numbers of calls before whose answer the connection breaks."""

    def __init__(self, *, part: int = 1000, cut_before: tuple[int, ...] = ()) -> None:
        self.files: dict[str, bytes] = {}
        self.uploads: dict[str, bytearray] = {}
        self.calls: list[dict[str, Any]] = []
        self.connections = 0
        self.refusal: tuple[str, str] | None = None
        self._part = part
        self._cut_before = cut_before

    async def run(self, url: str, token: str, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Connect, and connect again whenever the connection broke."""
        while True:
            try:
                async with connect_v1(url, token) as runner:
                    self.connections += 1
                    task_status.started()
                    task_status = trio.TASK_STATUS_IGNORED
                    await self._serve(runner)
            except* (trio_websocket.ConnectionClosed, trio.EndOfChannel, trio_websocket.HandshakeError, OSError):
                pass  # the next one goes on
            await trio.sleep(0.05)

    async def _serve(self, runner: RunnerStub) -> None:
        while True:
            frame = await runner._inbox.receive()
            if not frame["type"].startswith("file."):
                continue
            payload = frame["payload"]
            self.calls.append({"type": frame["type"], **payload})
            if len(self.calls) in self._cut_before:
                await runner.websocket.aclose(1011, "cut by the test")
                return
            answer = self._read(payload) if frame["type"] == "file.read" else self._write(payload)
            if self.refusal is not None:
                code, text = self.refusal
                answer = {"success": False, "error": text, "error_code": code}
            await runner.send("file.result", {"call_id": payload["call_id"], "success": True, **answer})

    def _read(self, asked: dict[str, Any]) -> dict[str, Any]:
        whole = self.files[asked["path"]]
        offset = asked.get("offset", 0)
        if offset > len(whole):
            return {"success": False, "error": "past the end", "error_code": "conflict"}
        part = whole[offset : offset + min(self._part, asked.get("limit", 1 << 20))]
        end = offset + len(part) == len(whole)
        return {
            "content": base64.b64encode(part).decode(),
            "next_offset": offset + len(part),
            "total_size": len(whole),
            "end": end,
            **({"checksum": f"sha256:{hashlib.sha256(whole).hexdigest()}", "secrets": 2} if end else {}),
        }

    def _write(self, asked: dict[str, Any]) -> dict[str, Any]:
        gathered = self.uploads.setdefault(asked["transfer_id"], bytearray())
        content = base64.b64decode(asked.get("content", ""))
        offset = asked.get("offset", 0)
        if offset > len(gathered):
            return {"success": False, "error": "a gap", "error_code": "conflict"}
        gathered[offset : offset + len(content)] = content
        if not asked.get("last"):
            return {"next_offset": len(gathered)}
        checksum = hashlib.sha256(gathered).hexdigest()
        if asked.get("checksum", "").removeprefix("sha256:") != checksum:
            return {"success": False, "error": "arrived damaged", "error_code": "checksum"}
        self.files[asked["path"]] = bytes(gathered)
        del self.uploads[asked["transfer_id"]]
        return {"next_offset": len(gathered), "end": True, "checksum": f"sha256:{checksum}"}


@asynccontextmanager
async def serving_files(hub: Any, **more: Any) -> AsyncIterator[FileStub]:
    """Have a stub connected as the environment ``web-1``."""
    created = await hub.environment()
    stub = FileStub(**more)
    async with trio.open_nursery() as nursery:
        await nursery.start(stub.run, hub.url, created["token"])
        await hub.until_online()
        yield stub
        nursery.cancel_scope.cancel()

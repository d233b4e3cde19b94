"""Waiting for a task a bounded time, with progress for whoever watches. Decides nothing about what it is."""

from typing import Any, Final
from urllib.parse import quote

import msgspec
import trio
from mcp.server.mcpserver import Context

from guardhouse.mcp_server.approvals import find_pending
from guardhouse.mcp_server.hub_api import HubApi

__all__ = ["FIRST_WAIT_S", "WAIT_DEFAULT_S", "WAIT_MAX_S", "read_stream", "wait_for"]

# Under the 60 s after which several hosts give up on a call (docs/mcp.md).
WAIT_DEFAULT_S: Final = 45.0
WAIT_MAX_S: Final = 600.0
# A host that hears nothing for long ends the call; a progress message at least this often keeps it (every 15 s asked).
_PROGRESS_EVERY_S: Final = 10.0
# A person may be asked at any moment, which the answer of a call is not to wait for: looked for after 0.5, 1, 2 s, …
FIRST_WAIT_S: Final = 0.5
_LINE_CHARS: Final = 200
_TAIL_BYTES: Final = 4_096


async def wait_for(
    hub: HubApi, task: dict[str, Any], *, wait_s: float, context: Context[Any, Any]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return ``task`` as it stands when it is finished, when a person is asked about it, or after ``wait_s``.

    With it comes what is asked, if anything. Cancelling ends the wait, not the task.
    """
    began_s = trio.current_time()
    pause_s = FIRST_WAIT_S
    while not task["finished"]:
        approval = await find_pending(hub, task["id"])
        if approval is not None:
            return task, approval
        waited_s = trio.current_time() - began_s
        if waited_s >= wait_s:
            break
        asked_s, asked_at_s = min(pause_s, wait_s - waited_s), trio.current_time()
        pause_s = min(2 * pause_s, _PROGRESS_EVERY_S)
        task = await hub.task(task["id"], wait_s=asked_s)
        if not task["finished"] and trio.current_time() - asked_at_s < asked_s / 2:
            # A hub that stops answers at once, and goes on doing so.
            break
        if not task["finished"]:
            await context.report_progress(trio.current_time() - began_s, wait_s, await _last_line(hub, task))
    return task, None


async def _last_line(hub: HubApi, task: dict[str, Any]) -> str:
    for stream in ("stderr", "stdout"):
        size = task[f"{stream}_bytes"]
        if size:
            data = await read_stream(hub, task["id"], stream, offset=max(0, size - _TAIL_BYTES), limit=_TAIL_BYTES)
            lines = data.decode("utf-8", "replace").strip().splitlines()
            if lines:
                return f"{task['state']}: {lines[-1][:_LINE_CHARS]}"
    return f"{task['state']}, no output yet"


async def read_stream(hub: HubApi, task_id: str, stream: str, *, offset: int, limit: int) -> bytes:
    """Return up to ``limit`` bytes of what a task has written to a stream so far, from ``offset``."""
    text = await hub.lines(f"/api/v1/tasks/{quote(task_id, safe='')}/output", stream=stream, offset=offset)
    found = bytearray()
    for line in text.splitlines():
        piece = msgspec.json.decode(line)
        if piece.get("stream") != stream:
            continue
        data = (
            msgspec.json.decode(f'"{piece["data_b64"]}"', type=bytes) if "data_b64" in piece else piece["data"].encode()
        )
        found += data[max(0, offset + len(found) - piece["offset"]) :] if not found else data
        if len(found) >= limit:
            break
    return bytes(found[:limit])

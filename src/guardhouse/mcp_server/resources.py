"""Environments, tasks and files as resources, for hosts that attach them by address instead of calling a tool."""

import base64
import json
from typing import Any
from urllib.parse import unquote

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ResourceError

from guardhouse.mcp_server.calls import Desk
from guardhouse.mcp_server.excerpt import fence
from guardhouse.mcp_server.hub_api import HubApi, HubRefused
from guardhouse.mcp_server.waiting import read_stream, wait_for

__all__ = ["register"]

_PAGE: int = 200
# A resource is attached whole, so it is bounded more tightly than a tool's parts.
_CONTENT_MAX_BYTES: int = 256 * 1024
_FILE_WAIT_S = 30.0


def register(server: MCPServer[Any], desk: Desk) -> None:
    """Add the resources to ``server``."""

    @server.resource("hub://environments{?status}", title="Environments", mime_type="application/json")
    async def environments(context: Context[Any, Any], status: str | None = None) -> str:
        """The machines that commands can run on, 200 of them at most; ``status`` is pending, online or offline."""
        return await _environments(desk, context, status=status or None)

    @server.resource("hub://environments/{environment}", title="One environment", mime_type="application/json")
    async def environment(environment: str, context: Context[Any, Any]) -> str:
        """One machine: facts, account, layers."""
        async with desk.open(context) as hub:
            return json.dumps(await _asked(hub.environment(unquote(environment))), indent=1)

    @server.resource("hub://tasks/{task}/output", title="A task's output", mime_type="text/plain")
    async def output(task: str, context: Context[Any, Any]) -> str:
        """What a task has written so far, standard output first; of each stream the first 256 KiB."""
        async with desk.open(context) as hub:
            found = await _asked(hub.task(task))
            parts = []
            for stream in ("stdout", "stderr"):
                data = await _asked(read_stream(hub, found["id"], stream, offset=0, limit=_CONTENT_MAX_BYTES))
                left = found[f"{stream}_bytes"] - len(data)
                cut = f"\n[{left} bytes more: read_output]" if left > 0 else ""
                parts.append(
                    f"{stream}:\n{fence(data.decode('utf-8', 'replace'), source=found['environment_id'])}{cut}"
                )
        return "\n".join(parts)

    @server.resource("hub://files/{environment}/{+path}", title="A file of a workspace")
    async def file(environment: str, path: str, context: Context[Any, Any]) -> str | bytes:
        """A file of a machine's workspace, at most 256 KiB of it."""
        async with desk.open(context) as hub:
            result = await _asked(_read(hub, context, unquote(environment), unquote(path)))
        data = base64.b64decode(result["content"])
        total = result.get("total_size", len(data))
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            if total > len(data):
                raise ResourceError(
                    f"{path} has {total} bytes that are no text; read it in parts with read_file"
                ) from None
            return data
        cut = f"\n[{total - len(data)} bytes more: read_file]" if total > len(data) else ""
        return fence(text, source=f"{environment}:{path}") + cut


async def _environments(desk: Desk, context: Context[Any, Any], *, status: str | None) -> str:
    async with desk.open(context) as hub:
        page = await _asked(hub.get("/api/v1/environments", status=status, limit=_PAGE))
    names = ("id", "name", "status", "status_reason", "tags")
    found: dict[str, Any] = {
        "environments": [{name: each[name] for name in names} for each in page["environments"]],
    }
    if page["next_cursor"]:
        found["more"] = f"these are the first {_PAGE}; list_environments gives all of them in pages"
    return json.dumps(found, indent=1)


async def _read(hub: HubApi, context: Context[Any, Any], environment: str, path: str) -> dict[str, Any]:
    found = await hub.environment(environment)
    args = {"path": path, "offset": 0, "limit": _CONTENT_MAX_BYTES}
    task = await hub.start_task({"environment_id": found["id"]}, "read", args, wait_s=5.0)
    task, _ = await wait_for(hub, task, wait_s=_FILE_WAIT_S, context=context)
    if not task["finished"] or not task["success"]:
        raise ResourceError(task["error"] or f"reading {path} has not ended within {_FILE_WAIT_S:g} s")
    result: dict[str, Any] = task["result"]
    return result


async def _asked(answer: Any) -> Any:
    """Return the hub's answer; its refusal becomes the error that a host shows."""
    try:
        return await answer
    except HubRefused as error:
        raise ResourceError(f"{error.code}: {error}" + (f"; {error.hint}" if error.hint else "")) from error

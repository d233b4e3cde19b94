"""Tools that show environments."""

from typing import Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from guardhouse.mcp_server.calls import Desk, answer, fails_readably
from guardhouse.mcp_server.excerpt import fence
from guardhouse.mcp_server.models import EnvironmentAnswer, EnvironmentList, OneEnvironmentAnswer

__all__ = ["EnvironmentName", "register"]

EnvironmentName = Annotated[str, Field(description="id or name of the environment", min_length=1, max_length=128)]

_READS = {"read_only_hint": True, "destructive_hint": False, "idempotent_hint": True, "open_world_hint": False}


def register(server: MCPServer[Any], desk: Desk) -> None:
    """Add the tools to ``server``."""

    @server.tool(annotations=ToolAnnotations(title="List environments", **_READS))
    @fails_readably
    async def list_environments(
        context: Context[Any, Any],
        *,
        status: Annotated[str | None, Field(description="pending, online or offline")] = None,
        tag: Annotated[str | None, Field(description="only those with this tag")] = None,
        text: Annotated[str | None, Field(description="a part of the name")] = None,
        cursor: Annotated[str | None, Field(description="next_cursor of the page before")] = None,
        limit: Annotated[int, Field(ge=1, le=200)] = 50,
    ) -> Annotated[CallToolResult, EnvironmentList]:
        """List the machines that commands can run on. Choose one before anything else."""
        async with desk.open(context) as hub:
            page = await hub.get("/api/v1/environments", status=status, tag=tag, text=text, cursor=cursor, limit=limit)
        found = EnvironmentList(
            environments=[EnvironmentAnswer(**_facts(each)) for each in page["environments"]],
            next_cursor=page["next_cursor"],
        )
        lines = [
            f"{each.name} ({each.id}): {each.status}, {each.last_heartbeat}"
            + (f", tags {' '.join(each.tags)}" if each.tags else "")
            for each in found.environments
        ]
        more = f"\nmore with cursor {found.next_cursor!r}" if found.next_cursor else ""
        return answer(found, ("\n".join(lines) or "no environment matches") + more)

    @server.tool(annotations=ToolAnnotations(title="Show an environment", **_READS))
    @fails_readably
    async def get_environment(
        context: Context[Any, Any], environment: EnvironmentName
    ) -> Annotated[CallToolResult, OneEnvironmentAnswer]:
        """Show one machine: whether it is there, what it is, who commands run as, which layers protect it."""
        async with desk.open(context) as hub:
            found = OneEnvironmentAnswer(**_facts(await hub.environment(environment)))
        machine = found.machine or {}
        lines = [f"{found.name} ({found.id}): {found.status}; {found.status_reason}"]
        told = [
            f"{name}: {machine[name]}"
            for name in ("hostname", "os_version", "arch", "username", "workspace_root")
            if machine.get(name)
        ]
        if told:
            lines.append(fence("\n".join(told), source=found.name))
        return answer(found, "\n".join(lines))


def _facts(environment: dict[str, Any]) -> dict[str, Any]:
    scope = environment["scope"]
    return {
        "id": environment["id"],
        "name": environment["name"],
        "status": environment["status"],
        "status_reason": environment["status_reason"],
        "usable": environment["selectable"],
        "tags": environment["tags"],
        "scope": scope.get("team") or scope["kind"],
        "last_heartbeat": environment["last_heartbeat_ago"],
        "runner_version": environment["version"],
        "machine": environment["machine"],
    }

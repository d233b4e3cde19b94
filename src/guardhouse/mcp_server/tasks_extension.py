"""The Tasks extension (`io.modelcontextprotocol/tasks`, 2026-07-28): a command that takes long is a task of MCP too.

A client that declares the extension gets a handle where others get ``status: "running"``; the handle is the hub's own
task, so it outlives connections, restarts and the client, and `wait_task` and the CLI know it by the same id.

Source: https://github.com/modelcontextprotocol/ext-tasks, specification/2026-07-28/tasks.md.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver import require_client_extension
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    RequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import Field
from starlette.requests import Request

from guardhouse.mcp_server.approvals import find_pending
from guardhouse.mcp_server.caller import CALLER, Caller
from guardhouse.mcp_server.calls import Desk, where_of_task
from guardhouse.mcp_server.commands import show_command
from guardhouse.mcp_server.hub_api import HubApi, HubRefused
from guardhouse.mcp_server.tools_commands import BUDGET_DEFAULT_TOKENS

__all__ = ["TASKS", "TasksExtension"]

TASKS: Final = "io.modelcontextprotocol/tasks"
_POLL_MS: Final = 2_000
_COMMANDS: Final = frozenset({"run_command", "run_readonly_command"})
_MODERN: Final = frozenset(MODERN_PROTOCOL_VERSIONS)


class _TaskParams(RequestParams):
    task_id: str = Field(alias="taskId", min_length=1, max_length=64)


class _UpdateParams(_TaskParams):
    input_responses: dict[str, Any] = Field(alias="inputResponses", default={})


class TasksExtension(Extension):
    """Commands as tasks of MCP."""

    identifier = TASKS

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def methods(self) -> tuple[MethodBinding, ...]:
        """Return what the extension adds to the protocol."""
        return (
            MethodBinding("tasks/get", _TaskParams, self._get, _MODERN),
            MethodBinding("tasks/update", _UpdateParams, self._update, _MODERN),
            MethodBinding("tasks/cancel", _TaskParams, self._cancel, _MODERN),
        )

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        """Answer with a handle where a command has not ended, if the client and its token can follow it."""
        result = await call_next(ctx)
        if params.name not in _COMMANDS or not _declares(ctx) or not _may_follow(ctx):
            return result
        found = result.structured_content if isinstance(result, CallToolResult) and not result.is_error else None
        if found is None or found.get("status") not in ("running", "approval_required"):
            return result
        async with self._hub(ctx) as hub:
            task = await hub.task(str(found["task_id"]))
            return {**await _shown(hub, task), "resultType": "task"}

    async def _get(self, ctx: ServerRequestContext[Any, Any], params: _TaskParams) -> HandlerResult:
        async with self._hub(ctx) as hub:
            task = await _find(hub, params.task_id)
            shown = await _shown(hub, task)
            if shown["status"] == "completed":
                where = await where_of_task(hub, task)
                result = await show_command(hub, task, where, BUDGET_DEFAULT_TOKENS)
                shown["result"] = result.model_dump(mode="json", by_alias=True, exclude_none=True)
            return shown

    async def _update(self, ctx: ServerRequestContext[Any, Any], params: _UpdateParams) -> HandlerResult:
        """Acknowledge: no task here waits for input, so what comes answers nothing that was asked and is ignored."""
        async with self._hub(ctx) as hub:
            await _find(hub, params.task_id)
        return {}

    async def _cancel(self, ctx: ServerRequestContext[Any, Any], params: _TaskParams) -> HandlerResult:
        async with self._hub(ctx) as hub:
            await _find(hub, params.task_id)
            await hub.cancel_task(params.task_id, reason="cancelled by the MCP client")
        return {}

    @asynccontextmanager
    async def _hub(self, ctx: ServerRequestContext[Any, Any]) -> AsyncIterator[HubApi]:
        """Yield the hub as the caller sees it; its refusals become errors of the protocol.

        Raises:
            MCPError: -32021 for a client that has not declared the extension; what the hub refused.
        """
        require_client_extension(ctx, TASKS)
        try:
            async with self._desk.open(ctx) as hub:
                yield hub
        except HubRefused as error:
            code = INVALID_PARAMS if 400 <= error.status < 500 else INTERNAL_ERROR
            raise MCPError(code=code, message=f"{error.code}: {error}") from error


def _declares(ctx: ServerRequestContext[Any, Any]) -> bool:
    capabilities = ctx.session.client_capabilities
    declared = capabilities.extensions if capabilities is not None else None
    return ctx.protocol_version in _MODERN and declared is not None and TASKS in declared


def _may_follow(ctx: ServerRequestContext[Any, Any]) -> bool:
    caller = ctx.request.scope.get(CALLER) if isinstance(ctx.request, Request) else None
    return isinstance(caller, Caller) and caller.may_use("wait_task")


async def _find(hub: HubApi, task_id: str) -> dict[str, Any]:
    """Return a command's task.

    Raises:
        HubRefused: there is none, or none that the caller may see.
    """
    task = await hub.task(task_id)
    if task["operation"] != "bash":
        raise HubRefused("not_found", f"no command {task_id!r}", status=404)
    return task


async def _shown(hub: HubApi, task: dict[str, Any]) -> dict[str, Any]:
    """Return the extension's view of a task, without its result."""
    shown: dict[str, Any] = {
        "taskId": task["id"],
        "status": "working",
        "createdAt": task["created_at"],
        "lastUpdatedAt": task["finished_at"] or task["started_at"] or task["created_at"],
        # Finished ones are kept for the hub's --retention-days, which no client needs to count.
        "ttlMs": None,
        "pollIntervalMs": _POLL_MS,
    }
    if task["finished"]:
        shown["status"] = "cancelled" if task["state"] == "cancelled" else "completed"
    else:
        approval = await find_pending(hub, task["id"])
        shown["statusMessage"] = (
            task["state"]
            if approval is None
            else f"a person has to agree by {approval['expires_at']}: 'guardhouse approval approve {approval['id']}'"
        )
    return shown

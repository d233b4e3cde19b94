"""Tools that run commands and look after them: run, wait, read output, cancel."""

import secrets
from functools import partial
from typing import Annotated, Any, Final

import trio
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from guardhouse.mcp_server.calls import Desk, answer, error_answer, fails_readably, where_of
from guardhouse.mcp_server.excerpt import BYTES_PER_TOKEN, Excerpt, fence, take_excerpt
from guardhouse.mcp_server.hub_api import HubApi
from guardhouse.mcp_server.models import CommandAnswer, OutputAnswer, TaskAnswer, Where
from guardhouse.mcp_server.tools_environments import EnvironmentName
from guardhouse.mcp_server.waiting import WAIT_DEFAULT_S, WAIT_MAX_S, read_stream, wait_for
from guardhouse.policy import Policy, decide
from guardhouse.policy.shell import read_command
from guardhouse.values import Verdict

__all__ = ["BUDGET_DEFAULT_TOKENS", "BudgetTokens", "IdempotencyKey", "WaitS", "register"]

BUDGET_DEFAULT_TOKENS: Final = 8_000
# A task is read this far for an answer; what is beyond is there for read_output.
_READ_MAX_BYTES: Final = 4 * 1024 * 1024

TaskId = Annotated[str, Field(description="task_id of an earlier answer", min_length=1, max_length=64)]
WaitS = Annotated[float, Field(ge=0, le=WAIT_MAX_S, description="seconds to wait before answering that it still runs")]
BudgetTokens = Annotated[
    int, Field(ge=100, le=100_000, description="about how much output to answer; head and tail of more")
]
IdempotencyKey = Annotated[
    str | None, Field(max_length=200, description="the same key with the same call starts nothing twice within a day")
]


def register(server: MCPServer[Any], desk: Desk, *, read_only: Policy) -> None:
    """Add the tools to ``server``. ``read_only`` is what run_readonly_command holds to."""

    @server.tool(
        annotations=ToolAnnotations(
            title="Run a command",
            read_only_hint=False,
            destructive_hint=True,
            idempotent_hint=False,
            open_world_hint=True,
        )
    )
    @fails_readably
    async def run_command(
        context: Context[Any, Any],
        *,
        environment: EnvironmentName,
        command: Annotated[str, Field(description="text for bash", min_length=1, max_length=131_072)],
        workdir: Annotated[str, Field(description="directory below the workspace")] = "",
        timeout_s: Annotated[float, Field(gt=0, le=86_400, description="after which the command is ended")] = 120.0,
        wait_s: WaitS = WAIT_DEFAULT_S,
        max_output_tokens: BudgetTokens = BUDGET_DEFAULT_TOKENS,
        idempotency_key: IdempotencyKey = None,
    ) -> Annotated[CallToolResult, CommandAnswer]:
        """Run a bash command on the machine, within its policy. Answers with a running task when it takes long."""
        async with desk.open(context) as hub:
            args = {"command": command, "workdir": workdir, "timeout": timeout_s}
            return await _run(hub, context, environment, args, wait_s, max_output_tokens, idempotency_key)

    @server.tool(
        annotations=ToolAnnotations(
            title="Run a read-only command",
            read_only_hint=True,
            destructive_hint=False,
            idempotent_hint=True,
            open_world_hint=True,
        )
    )
    @fails_readably
    async def run_readonly_command(
        context: Context[Any, Any],
        *,
        environment: EnvironmentName,
        command: Annotated[str, Field(description="text for bash", min_length=1, max_length=131_072)],
        workdir: Annotated[str, Field(description="directory below the workspace")] = "",
        timeout_s: Annotated[float, Field(gt=0, le=86_400, description="after which the command is ended")] = 120.0,
        wait_s: WaitS = WAIT_DEFAULT_S,
        max_output_tokens: BudgetTokens = BUDGET_DEFAULT_TOKENS,
    ) -> Annotated[CallToolResult, CommandAnswer]:
        """Run a command that only looks: the hub refuses what the read-only rules do not certainly allow."""
        decision = await trio.to_thread.run_sync(
            partial(decide, read_only, command, reader=partial(read_command, second=None)), abandon_on_cancel=True
        )
        if decision.verdict is not Verdict.ALLOW:
            return error_answer(
                "not_read_only",
                f"the read-only rules do not allow it: {decision.because}",
                hint="write it with programs that only read and without what text cannot judge, or use run_command",
            )
        async with desk.open(context) as hub:
            args = {"command": command, "workdir": workdir, "timeout": timeout_s}
            return await _run(hub, context, environment, args, wait_s, max_output_tokens, None)

    @server.tool(
        annotations=ToolAnnotations(
            title="Wait for a task",
            read_only_hint=True,
            destructive_hint=False,
            idempotent_hint=True,
            open_world_hint=True,
        )
    )
    @fails_readably
    async def wait_task(
        context: Context[Any, Any],
        *,
        task_id: TaskId,
        wait_s: WaitS = WAIT_DEFAULT_S,
        max_output_tokens: BudgetTokens = BUDGET_DEFAULT_TOKENS,
    ) -> Annotated[CallToolResult, CommandAnswer]:
        """Wait for a task that still runs and answer as run_command does."""
        async with desk.open(context) as hub:
            task = await wait_for(hub, await hub.task(task_id), wait_s=wait_s, context=context)
            where = where_of(await hub.environment(task["environment_id"]))
            return await show_command(hub, task, where, max_output_tokens)

    @server.tool(
        annotations=ToolAnnotations(
            title="Read output", read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=True
        )
    )
    @fails_readably
    async def read_output(
        context: Context[Any, Any],
        *,
        task_id: TaskId,
        stream: Annotated[str, Field(pattern="^(stdout|stderr)$")] = "stdout",
        offset: Annotated[int, Field(ge=0, description="in bytes; next_offset of the part before")] = 0,
        max_output_tokens: BudgetTokens = BUDGET_DEFAULT_TOKENS,
    ) -> Annotated[CallToolResult, OutputAnswer]:
        """Read a part of what a task has written, from any offset; also while it runs."""
        async with desk.open(context) as hub:
            task = await hub.task(task_id)
            where = where_of(await hub.environment(task["environment_id"]))
            data = await read_stream(hub, task_id, stream, offset=offset, limit=max_output_tokens * BYTES_PER_TOKEN)
        if not data.decode("utf-8", "ignore") and data:
            text, used = data.decode("utf-8", "replace"), len(data)
        else:
            text = data.decode("utf-8", "ignore") if _ends_inside_a_character(data) else data.decode("utf-8", "replace")
            used = len(text.encode()) if _ends_inside_a_character(data) else len(data)
        total = task[f"{stream}_bytes"]
        found = OutputAnswer(
            task_id=task_id,
            where=where,
            stream="stderr" if stream == "stderr" else "stdout",
            offset=offset,
            next_offset=offset + used,
            total_bytes=total,
            is_end=bool(task["finished"]) and offset + used >= total,
            text=text,
        )
        more = "" if found.is_end else f"; go on at offset {found.next_offset}"
        head = f"{stream} of {task_id}, bytes {offset} to {found.next_offset} of {total}{more}"
        return answer(found, f"{head}\n{fence(text, source=where.environment_name)}")

    @server.tool(
        annotations=ToolAnnotations(
            title="Cancel a task",
            read_only_hint=False,
            destructive_hint=True,
            idempotent_hint=True,
            open_world_hint=False,
        )
    )
    @fails_readably
    async def cancel_task(
        context: Context[Any, Any],
        *,
        task_id: TaskId,
        reason: Annotated[str, Field(max_length=500)] = "",
    ) -> Annotated[CallToolResult, TaskAnswer]:
        """Stop a task: its whole process tree is ended."""
        async with desk.open(context) as hub:
            task = await hub.post(f"/api/v1/tasks/{task_id}/cancel", {"reason": reason})
            where = where_of(await hub.environment(task["environment_id"]))
        found = TaskAnswer(
            status="finished" if task["finished"] else "cancelling",
            task_id=task["id"],
            where=where,
            operation=task["operation"],
            state=task["state"],
            next_step=None if task["finished"] else "wait_task shows its end",
        )
        return answer(found, f"task {found.task_id} on {where.environment_name}: {found.state}, {found.status}")


def _ends_inside_a_character(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.end == len(data) and error.reason == "unexpected end of data"
    return False


async def _run(
    hub: HubApi,
    context: Context[Any, Any],
    environment: str,
    args: dict[str, Any],
    wait_s: float,
    budget_tokens: int,
    idempotency_key: str | None,
) -> CallToolResult:
    found = await hub.environment(environment)
    # Without a key of the caller's a repeated request of this very call still starts nothing twice.
    key = idempotency_key or f"mcp-{secrets.token_hex(16)}"
    task = await hub.start_task(found["id"], "bash", args, wait_s=min(wait_s, 5.0), idempotency_key=key)
    task = await wait_for(hub, task, wait_s=max(0.0, wait_s - 5.0), context=context)
    return await show_command(hub, task, where_of(found), budget_tokens)


async def show_command(hub: HubApi, task: dict[str, Any], where: Where, budget_tokens: int) -> CallToolResult:
    """Return a command's task as an answer: its end, what it wrote within the budget, or that it still runs."""
    result = task.get("result") or {}
    if task["finished"] and task["error"] is not None:
        return _failed(task)
    streams = {}
    for stream in ("stdout", "stderr"):
        data = await read_stream(hub, task["id"], stream, offset=0, limit=_READ_MAX_BYTES)
        streams[stream] = data.decode("utf-8", "replace")
    excerpts = _share(streams, budget_tokens)
    notes = [*result.get("notes", []), *([result["reason"]] if result.get("reason") else [])]
    if task["output_note"]:
        notes.append(task["output_note"])
    found = CommandAnswer(
        status="finished" if task["finished"] else "running",
        task_id=task["id"],
        where=where,
        workdir=(task.get("args") or {}).get("workdir", ""),
        exit_code=task["exit_code"],
        stdout=excerpts["stdout"].text,
        stderr=excerpts["stderr"].text,
        stdout_bytes=max(task["stdout_bytes"], excerpts["stdout"].bytes_total),
        stderr_bytes=max(task["stderr_bytes"], excerpts["stderr"].bytes_total),
        stdout_left_out_bytes=excerpts["stdout"].bytes_left_out + max(0, task["stdout_bytes"] - _READ_MAX_BYTES),
        stderr_left_out_bytes=excerpts["stderr"].bytes_left_out + max(0, task["stderr_bytes"] - _READ_MAX_BYTES),
        duration_s=task["duration_s"],
        notes=notes,
        next_step=None
        if task["finished"]
        else "call wait_task with this task_id, read_output to look, cancel_task to stop",
    )
    return answer(found, _as_text(found))


def _failed(task: dict[str, Any]) -> CallToolResult:
    code = task["error_code"] or "failed"
    hints = {
        "denied": "the machine's policy says no: use what it allows, or ask its operators for a rule",
        "environment_unavailable": "the machine is not connected: choose another, or try again later",
        "interrupted": "the runner restarted: look what the command has done before running it again",
    }
    retryable = code in {"environment_unavailable", "queue_timeout", "runner_draining", "runner_busy"}
    return error_answer(code, f"{task['error']} (task {task['id']})", hint=hints.get(code, ""), retryable=retryable)


def _share(streams: dict[str, str], budget_tokens: int) -> dict[str, Excerpt]:
    """Give each stream what it needs of the budget; the one that needs more gets what the other leaves."""
    needs = {name: len(text.encode()) // BYTES_PER_TOKEN + 1 for name, text in streams.items()}
    half = budget_tokens // 2
    shares = {
        name: max(half, budget_tokens - sum(needs[other] for other in streams if other != name)) for name in streams
    }
    return {
        name: take_excerpt(
            text, budget_tokens=min(shares[name], budget_tokens), how_to_read_on=f"read_output(stream={name!r}) has all"
        )
        for name, text in streams.items()
    }


def _as_text(found: CommandAnswer) -> str:
    place = f"{found.where.environment_name}" + (f" ({found.where.host})" if found.where.host else "")
    head = (
        f"exit {found.exit_code} on {place} as {found.where.user or 'unknown'}, task {found.task_id}"
        if found.status == "finished"
        else f"still running on {place}, task {found.task_id}; {found.next_step}"
    )
    parts = [head, *(f"note: {note}" for note in found.notes)]
    for stream, text in (("stdout", found.stdout), ("stderr", found.stderr)):
        if text:
            parts.append(f"{stream}:\n{fence(text, source=found.where.environment_name)}")
    if not found.stdout and not found.stderr:
        parts.append("no output" if found.status == "finished" else "no output yet")
    return "\n".join(parts)

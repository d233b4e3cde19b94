"""Tools that run commands and look after them: run, wait, read output, cancel."""

from functools import partial
from typing import Annotated, Any, Final

import trio
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import CallToolResult, InputRequiredResult, ToolAnnotations
from pydantic import Field

from guardhouse.mcp_server.approvals import take_answer
from guardhouse.mcp_server.calls import Desk, answer, error_answer, fails_readably, where_of_task
from guardhouse.mcp_server.commands import Commands
from guardhouse.mcp_server.excerpt import BYTES_PER_TOKEN, fence
from guardhouse.mcp_server.models import CommandAnswer, OutputAnswer, TaskAnswer
from guardhouse.mcp_server.target import EnvironmentName, SessionId, find_target
from guardhouse.mcp_server.waiting import WAIT_DEFAULT_S, WAIT_MAX_S, read_stream
from guardhouse.policy import Policy, decide
from guardhouse.policy.shell import read_command
from guardhouse.values import Verdict

__all__ = ["BUDGET_DEFAULT_TOKENS", "BudgetTokens", "IdempotencyKey", "WaitS", "register"]

BUDGET_DEFAULT_TOKENS: Final = 8_000
TaskId = Annotated[str, Field(description="task_id of an earlier answer", min_length=1, max_length=64)]
CommandText = Annotated[str, Field(description="text for bash", min_length=1, max_length=131_072)]
Workdir = Annotated[str, Field(description="directory below the workspace")]
TimeoutS = Annotated[float, Field(gt=0, le=86_400, description="after which the command is ended")]
WaitS = Annotated[float, Field(ge=0, le=WAIT_MAX_S, description="seconds to wait before answering that it still runs")]
BudgetTokens = Annotated[
    int, Field(ge=100, le=100_000, description="about how much output to answer; head and tail of more")
]
IdempotencyKey = Annotated[
    str | None, Field(max_length=200, description="the same key with the same call starts nothing twice within a day")
]


def register(server: MCPServer[Any], desk: Desk, *, read_only: Policy, public_url: str) -> None:
    """Add the tools to ``server``. ``read_only`` is what run_readonly_command holds to."""
    commands = Commands(public_url)

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
        environment: EnvironmentName = None,
        session_id: SessionId = None,
        command: CommandText,
        workdir: Workdir = "",
        timeout_s: TimeoutS = 120.0,
        wait_s: WaitS = WAIT_DEFAULT_S,
        max_output_tokens: BudgetTokens = BUDGET_DEFAULT_TOKENS,
        idempotency_key: IdempotencyKey = None,
    ) -> Annotated[CallToolResult, CommandAnswer] | InputRequiredResult:
        """Run a bash command on the machine, within its policy. Answers with a running task when it takes long."""
        async with desk.open(context) as hub:
            return await commands.run(
                hub,
                context,
                await find_target(hub, environment, session_id),
                _bash_args(command, workdir, timeout_s),
                wait_s=wait_s,
                budget_tokens=max_output_tokens,
                idempotency_key=idempotency_key,
            )

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
        environment: EnvironmentName = None,
        session_id: SessionId = None,
        command: CommandText,
        workdir: Workdir = "",
        timeout_s: TimeoutS = 120.0,
        wait_s: WaitS = WAIT_DEFAULT_S,
        max_output_tokens: BudgetTokens = BUDGET_DEFAULT_TOKENS,
    ) -> Annotated[CallToolResult, CommandAnswer] | InputRequiredResult:
        """Run a command that only looks: the hub refuses what the read-only rules do not certainly allow."""
        refused = await _refuse_unless_read_only(read_only, command)
        if refused is not None:
            return refused
        async with desk.open(context) as hub:
            return await commands.run(
                hub,
                context,
                await find_target(hub, environment, session_id),
                _bash_args(command, workdir, timeout_s),
                wait_s=wait_s,
                budget_tokens=max_output_tokens,
                idempotency_key=None,
            )

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
    ) -> Annotated[CallToolResult, CommandAnswer] | InputRequiredResult:
        """Wait for a task that still runs and answer as run_command does."""
        async with desk.open(context) as hub:
            answered = await take_answer(hub, context)
            task = await hub.task(task_id)
            where = await where_of_task(hub, task)
            return await commands.follow(
                hub, context, task, where, wait_s=wait_s, budget_tokens=max_output_tokens, answered=answered
            )

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
            where = await where_of_task(hub, task)
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
            task = await hub.cancel_task(task_id, reason=reason)
            where = await where_of_task(hub, task)
        found = TaskAnswer(
            status="finished" if task["finished"] else "cancelling",
            task_id=task["id"],
            where=where,
            operation=task["operation"],
            state=task["state"],
            next_step=None if task["finished"] else "wait_task shows its end",
        )
        return answer(found, f"task {found.task_id} on {where.environment_name}: {found.state}, {found.status}")


def _bash_args(command: str, workdir: str, timeout_s: float) -> dict[str, Any]:
    return {"command": command, "workdir": workdir, "timeout": timeout_s}


async def _refuse_unless_read_only(rules: Policy, command: str) -> CallToolResult | None:
    """Return the refusal of a command that the rules do not certainly allow; None for one that may run."""
    decision = await trio.to_thread.run_sync(
        partial(decide, rules, command, reader=partial(read_command, second=None)), abandon_on_cancel=True
    )
    if decision.verdict is Verdict.ALLOW:
        return None
    return error_answer(
        "not_read_only",
        f"the read-only rules do not allow it: {decision.because}",
        hint="write it with programs that only read and without what text cannot judge, or use run_command",
    )


def _ends_inside_a_character(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.end == len(data) and error.reason == "unexpected end of data"
    return False

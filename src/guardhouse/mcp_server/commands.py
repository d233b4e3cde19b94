"""Commands for the tools: started, waited for, approved, and answered within a budget. Knows no MCP server.

Remembers nothing between calls but which task a call started that waits for a person.
"""

import secrets
from typing import Any, Final, Literal

import trio
from mcp.server.mcpserver import Context
from mcp_types import CallToolResult, InputRequiredResult

from guardhouse.mcp_server.approvals import (
    Answered,
    HeldCalls,
    ask_through_client,
    can_ask,
    take_answer,
    try_to_decide,
)
from guardhouse.mcp_server.calls import answer, caller_of, error_answer, where_of_task
from guardhouse.mcp_server.excerpt import BYTES_PER_TOKEN, Excerpt, fence, take_excerpt
from guardhouse.mcp_server.hub_api import HubApi
from guardhouse.mcp_server.models import CommandAnswer, Where
from guardhouse.mcp_server.target import Target
from guardhouse.mcp_server.waiting import FIRST_WAIT_S, read_stream, wait_for

__all__ = ["Commands"]

# A task is read this far for an answer; what is beyond is there for read_output.
_READ_MAX_BYTES: Final = 4 * 1024 * 1024


class Commands:
    """Runs commands for the tools; remembers only which task a held call started."""

    def __init__(self, public_url: str) -> None:
        self._public_url = public_url
        self._held = HeldCalls()

    async def run(
        self,
        hub: HubApi,
        context: Context[Any, Any],
        target: Target,
        args: dict[str, Any],
        *,
        wait_s: float,
        budget_tokens: int,
        idempotency_key: str | None,
    ) -> CallToolResult | InputRequiredResult:
        """Start a command, or go on with the one that the same call started before, and answer for it."""
        caller = caller_of(context)
        answered = await take_answer(hub, context)
        before = None if answered is None else answered.task_id
        if before is None and idempotency_key is None:
            before = self._held.take(caller.id, target.key, args)
        if before is not None:
            task = await hub.task(before)
        else:
            # Without a key of the caller's a repeated request of this very call still starts nothing twice.
            key = idempotency_key or f"mcp-{secrets.token_hex(16)}"
            task = await hub.start_task(
                target.body, "bash", args, wait_s=min(wait_s, FIRST_WAIT_S), idempotency_key=key
            )
        notice = task.get("session_notice")
        where = await where_of_task(hub, task)
        answer_ = await self.follow(
            hub, context, task, where, wait_s=wait_s, budget_tokens=budget_tokens, notice=notice, answered=answered
        )
        if (
            isinstance(answer_, CallToolResult)
            and (answer_.structured_content or {}).get("status") == "approval_required"
        ):
            self._held.hold(caller.id, target.key, args, task["id"])
        return answer_

    async def follow(
        self,
        hub: HubApi,
        context: Context[Any, Any],
        task: dict[str, Any],
        where: Where,
        *,
        wait_s: float,
        budget_tokens: int,
        notice: str | None = None,
        answered: Answered | None = None,
    ) -> CallToolResult | InputRequiredResult:
        """Wait for a command and whoever has to agree to it; return what there is to say after ``wait_s``.

        ``notice`` is what the hub said of the session when the command was started, ``answered`` what became of the
        answer that this very request brought: nobody is asked the same again.
        """
        end_s = trio.current_time() + wait_s
        dismissed: set[str] = set()
        if answered is not None:
            dismissed.add(answered.approval_id)
            notice = answered.refused or notice
        while True:
            left_s = max(0.0, end_s - trio.current_time())
            task, approval = await wait_for(hub, task, wait_s=left_s, context=context)
            if approval is None:
                return await show_command(hub, task, where, budget_tokens, notice=notice)
            verdict = None
            if approval["id"] not in dismissed and can_ask(context, caller_of(context), approval):
                asked = await ask_through_client(context, approval)
                if isinstance(asked, InputRequiredResult):
                    return asked
                verdict = asked
            refused = None if verdict is None else await try_to_decide(hub, approval["id"], verdict)
            if verdict is None or refused is not None:
                return await show_command(
                    hub,
                    task,
                    where,
                    budget_tokens,
                    notice=refused or notice,
                    approval=approval,
                    public_url=self._public_url,
                )
            dismissed.add(approval["id"])


async def show_command(
    hub: HubApi,
    task: dict[str, Any],
    where: Where,
    budget_tokens: int,
    *,
    notice: str | None = None,
    approval: dict[str, Any] | None = None,
    public_url: str = "",
) -> CallToolResult:
    """Return a command's task as an answer: its end, what it wrote within the budget, or what it waits for."""
    result = task.get("result") or {}
    if task["finished"] and task["error"] is not None:
        return _failed(task)
    streams = {}
    for stream in ("stdout", "stderr"):
        data = await read_stream(hub, task["id"], stream, offset=0, limit=_READ_MAX_BYTES)
        streams[stream] = data.decode("utf-8", "replace")
    excerpts = _share(streams, budget_tokens)
    notes = [
        *([notice] if notice else []),
        *result.get("notes", []),
        *([result["reason"]] if result.get("reason") else []),
    ]
    if task["output_note"]:
        notes.append(task["output_note"])
    found = CommandAnswer(
        status=_status(task, approval),
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
        next_step=_next_step(task, approval),
        approval_id=None if approval is None else approval["id"],
        approval_url=None if approval is None else f"{public_url}/api/v1/approvals/{approval['id']}",
    )
    return answer(found, _as_text(found))


def _status(
    task: dict[str, Any], approval: dict[str, Any] | None
) -> Literal["finished", "running", "approval_required"]:
    if task["finished"]:
        return "finished"
    return "running" if approval is None else "approval_required"


def _next_step(task: dict[str, Any], approval: dict[str, Any] | None) -> str | None:
    if task["finished"]:
        if task["operation"] == "bash":
            return None
        return (
            f"this was no command: make the very same call again that started it, for the {task['operation']}'s result"
        )
    if approval is None:
        return "call wait_task with this task_id, read_output to look, cancel_task to stop"
    return (
        f"a person has to agree by {approval['expires_at']}: 'guardhouse approval approve {approval['id']}';"
        " then make the very same call again, or wait_task"
    )


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
    ended = "ended" if found.exit_code is None else f"exit {found.exit_code}"
    head = (
        f"{ended} on {place} as {found.where.user or 'unknown'}, task {found.task_id}"
        + (f"; {found.next_step}" if found.next_step else "")
        if found.status == "finished"
        else f"{found.status.replace('_', ' ')} on {place}, task {found.task_id}; {found.next_step}"
    )
    parts = [head, *(f"note: {note}" for note in found.notes)]
    for stream, text in (("stdout", found.stdout), ("stderr", found.stderr)):
        if text:
            parts.append(f"{stream}:\n{fence(text, source=found.where.environment_name)}")
    if not found.stdout and not found.stderr:
        parts.append("no output" if found.status == "finished" else "no output yet")
    return "\n".join(parts)

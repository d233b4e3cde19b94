"""Tools for files in an environment's workspace, and for the machine's own MCP servers."""

import base64
from typing import Annotated, Any, Final, NamedTuple

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from guardhouse.mcp_server.calls import Desk, answer, error_answer, fails_readably, where_of_task
from guardhouse.mcp_server.excerpt import BYTES_PER_TOKEN, fence, take_excerpt
from guardhouse.mcp_server.hub_api import HubRefused
from guardhouse.mcp_server.models import (
    EditAnswer,
    FileContent,
    FileEntry,
    FileList,
    GrepAnswer,
    MatchList,
    McpToolAnswer,
    Where,
    WriteAnswer,
)
from guardhouse.mcp_server.target import EnvironmentName, SessionId, find_target
from guardhouse.mcp_server.tools_commands import BUDGET_DEFAULT_TOKENS, BudgetTokens, IdempotencyKey
from guardhouse.mcp_server.waiting import WAIT_DEFAULT_S, wait_for

__all__ = ["register"]

_READS: Final = {"read_only_hint": True, "destructive_hint": False, "idempotent_hint": True, "open_world_hint": True}
_WRITES: Final = {"read_only_hint": False, "destructive_hint": True, "idempotent_hint": True, "open_world_hint": False}
# Entries of one listing; more would fill the budget with names.
_ENTRIES_MAX: Final = 1_000
_FILE_WAIT_S: Final = 60.0

FilePath = Annotated[str, Field(description="relative to the workspace", min_length=1, max_length=4096)]


class Place(NamedTuple):
    """What a call names: an environment, or a session whose environment it is for."""

    environment: str | None
    session_id: str | None


class _Failed(HubRefused):
    """An operation that ended without a result."""


def register(server: MCPServer[Any], desk: Desk) -> None:
    """Add the tools to ``server``."""

    async def ask(
        context: Context[Any, Any],
        place: Place,
        operation: str,
        args: dict[str, Any],
        *,
        wait_s: float = _FILE_WAIT_S,
        idempotency_key: str | None = None,
    ) -> tuple[Where, dict[str, Any]]:
        """Return where it ran and the operation's result; ``place`` is the environment or the session of the call."""
        async with desk.open(context) as hub:
            target = await find_target(hub, place.environment, place.session_id)
            task = await hub.start_task(target.body, operation, args, wait_s=5.0, idempotency_key=idempotency_key)
            where = await where_of_task(hub, task)
            task, approval = await wait_for(hub, task, wait_s=wait_s, context=context)
        if approval is not None:
            raise _Failed(
                "approval_required",
                f"a person has to agree to task {task['id']}: 'guardhouse approval approve {approval['id']}'",
                hint="call wait_task with that task_id when they have",
                retryable=False,
            )
        if not task["finished"]:
            raise _Failed(
                "still_running",
                f"{operation} on {where.environment_name} has not ended within {wait_s:g} s; it is task {task['id']}",
                hint="call wait_task with that task_id, or cancel_task",
                retryable=False,
            )
        if not task["success"]:
            raise _Failed(task["error_code"] or "failed", task["error"] or "it failed without saying why")
        return where, task["result"] or {}

    @server.tool(annotations=ToolAnnotations(title="Read a file", **_READS))
    @fails_readably
    async def read_file(
        context: Context[Any, Any],
        *,
        environment: EnvironmentName = None,
        session_id: SessionId = None,
        path: FilePath,
        offset: Annotated[int, Field(ge=0, description="in bytes")] = 0,
        max_output_tokens: BudgetTokens = BUDGET_DEFAULT_TOKENS,
    ) -> Annotated[CallToolResult, FileContent]:
        """Read a file of the workspace, or a part of it."""
        limit = max_output_tokens * BYTES_PER_TOKEN
        where, result = await ask(
            context, Place(environment, session_id), "read", {"path": path, "offset": offset, "limit": limit}
        )
        data = base64.b64decode(result["content"])
        total = result.get("total_size", offset + len(data))
        text = _text_of(data, is_cut=offset + len(data) < total)
        used = len(data) if text is None else len(text.encode())
        is_end = offset + used >= total
        found = FileContent(
            path=path,
            where=where,
            text=text,
            base64=None if text is not None else base64.b64encode(data).decode(),
            offset=offset,
            next_offset=None if is_end else offset + used,
            total_bytes=total,
            checksum=result.get("checksum"),
        )
        more = "" if is_end else f"; read on at offset {offset + used}"
        head = f"{path} on {where.environment_name}, bytes {offset} to {offset + used} of {total}{more}"
        body = (
            fence(text, source=f"{where.environment_name}:{path}")
            if text is not None
            else "[not UTF-8 text: see base64]"
        )
        return answer(found, f"{head}\n{body}")

    @server.tool(annotations=ToolAnnotations(title="List files", **_READS))
    @fails_readably
    async def list_files(
        context: Context[Any, Any],
        *,
        environment: EnvironmentName = None,
        session_id: SessionId = None,
        path: Annotated[str, Field(description="directory relative to the workspace; empty for the workspace")] = "",
        recursive: bool = False,
        ignore: Annotated[list[str] | None, Field(description="globs of names to leave out")] = None,
    ) -> Annotated[CallToolResult, FileList]:
        """List a directory of the workspace."""
        args = {"path": path, "recursive": recursive, "ignore": ignore or []}
        where, result = await ask(context, Place(environment, session_id), "list", args)
        entries = result.get("entries", [])
        found = FileList(
            path=path,
            where=where,
            entries=[
                FileEntry(
                    path=each["path"],
                    kind=each.get("kind") or ("directory" if each["is_dir"] else "file"),
                    size=each["size"],
                    target=each.get("target"),
                )
                for each in entries[:_ENTRIES_MAX]
            ],
            left_out=max(0, len(entries) - _ENTRIES_MAX) + result.get("left_out", 0),
            problems=_problems(result),
        )
        lines = [f"{each.kind:<9} {each.size:>10} {each.path}" for each in found.entries]
        if found.left_out:
            lines.append(f"[{found.left_out} more: list a directory below, or use glob_files]")
        return answer(found, fence("\n".join(lines) or "[empty]", source=f"{where.environment_name}:{path or '.'}"))

    @server.tool(annotations=ToolAnnotations(title="Find files by pattern", **_READS))
    @fails_readably
    async def glob_files(
        context: Context[Any, Any],
        *,
        environment: EnvironmentName = None,
        session_id: SessionId = None,
        pattern: Annotated[str, Field(description="as in **/*.log", min_length=1, max_length=4096)],
    ) -> Annotated[CallToolResult, MatchList]:
        """Find files of the workspace whose path matches a pattern; ** crosses directories."""
        where, result = await ask(context, Place(environment, session_id), "glob", {"pattern": pattern})
        matches = result.get("matches", [])
        found = MatchList(
            where=where,
            matches=matches[:_ENTRIES_MAX],
            left_out=max(0, len(matches) - _ENTRIES_MAX) + result.get("left_out", 0),
            problems=_problems(result),
        )
        text = "\n".join(found.matches) or "[nothing matches]"
        return answer(
            found, fence(text + (f"\n[{found.left_out} more]" if found.left_out else ""), source=where.environment_name)
        )

    @server.tool(annotations=ToolAnnotations(title="Search in files", **_READS))
    @fails_readably
    async def grep_files(
        context: Context[Any, Any],
        *,
        environment: EnvironmentName = None,
        session_id: SessionId = None,
        pattern: Annotated[str, Field(description="RE2 regular expression", min_length=1, max_length=8192)],
        path: Annotated[str, Field(description="where to search; empty for the workspace")] = "",
        include: Annotated[list[str] | None, Field(description="globs of names, as in *.py")] = None,
        context_lines: Annotated[int, Field(ge=0, le=100)] = 0,
        max_output_tokens: BudgetTokens = BUDGET_DEFAULT_TOKENS,
    ) -> Annotated[CallToolResult, GrepAnswer]:
        """Search the contents of the workspace's files."""
        args = {"pattern": pattern, "path": path, "include": include or [], "context": context_lines}
        where, result = await ask(context, Place(environment, session_id), "grep", args)
        excerpt = take_excerpt(
            result.get("content", ""), budget_tokens=max_output_tokens, how_to_read_on="search more narrowly"
        )
        found = GrepAnswer(
            where=where,
            text=excerpt.text,
            matches=sum(1 for each in result.get("matches", []) if not each.get("is_context")),
            left_out=result.get("left_out", 0),
            binary_files_skipped=result.get("binary_skipped", 0),
            problems=_problems(result),
        )
        return answer(found, fence(found.text or "[no match]", source=where.environment_name))

    @server.tool(annotations=ToolAnnotations(title="Write a file", **_WRITES))
    @fails_readably
    async def write_file(
        context: Context[Any, Any],
        *,
        environment: EnvironmentName = None,
        session_id: SessionId = None,
        path: FilePath,
        text: Annotated[str, Field(max_length=4_000_000)],
        if_checksum: Annotated[
            str | None, Field(description="write only over a file with this checksum; empty: only a new file")
        ] = None,
        idempotency_key: IdempotencyKey = None,
    ) -> Annotated[CallToolResult, WriteAnswer]:
        """Write a whole file of the workspace; it is replaced at once or not at all."""
        data = text.encode()
        args = {"path": path, "content": base64.b64encode(data).decode(), "if_checksum": if_checksum}
        where, result = await ask(
            context, Place(environment, session_id), "write", args, idempotency_key=idempotency_key
        )
        found = WriteAnswer(path=path, where=where, bytes=len(data), checksum=result.get("checksum"))
        return answer(found, f"wrote {len(data)} bytes to {path} on {where.environment_name}")

    @server.tool(annotations=ToolAnnotations(title="Edit a file", **{**_WRITES, "idempotent_hint": False}))
    @fails_readably
    async def edit_file(
        context: Context[Any, Any],
        *,
        environment: EnvironmentName = None,
        session_id: SessionId = None,
        path: FilePath,
        old: Annotated[str, Field(description="exact text that is there once", min_length=1, max_length=1_000_000)],
        new: Annotated[str, Field(max_length=1_000_000)],
        replace_all: bool = False,
        if_checksum: str | None = None,
        idempotency_key: IdempotencyKey = None,
    ) -> Annotated[CallToolResult, EditAnswer]:
        """Replace exact text in a file of the workspace."""
        args = {"path": path, "old": old, "new": new, "replace_all": replace_all, "if_checksum": if_checksum}
        where, result = await ask(
            context, Place(environment, session_id), "edit", args, idempotency_key=idempotency_key
        )
        found = EditAnswer(path=path, where=where, replacements=result["replacements"], checksum=result.get("checksum"))
        return answer(found, f"replaced {found.replacements} times in {path} on {where.environment_name}")

    @server.tool(
        annotations=ToolAnnotations(
            title="Call a tool of the machine's MCP server",
            read_only_hint=False,
            destructive_hint=True,
            idempotent_hint=False,
            open_world_hint=True,
        )
    )
    @fails_readably
    async def call_mcp_tool(
        context: Context[Any, Any],
        *,
        environment: EnvironmentName = None,
        session_id: SessionId = None,
        server: Annotated[str, Field(description="name of a server that the hub has a record of", max_length=255)] = "",
        server_record: Annotated[
            dict[str, Any] | None,
            Field(
                description="instead of a name: name, transport (stdio, sse, streamable-http), and command, args, env"
                " or url, headers"
            ),
        ] = None,
        tool: Annotated[str, Field(description="empty: list the server's tools", max_length=255)] = "",
        arguments: dict[str, Any] | None = None,
        timeout_s: Annotated[float, Field(gt=0, le=3600)] = 60.0,
        max_output_tokens: BudgetTokens = BUDGET_DEFAULT_TOKENS,
        idempotency_key: IdempotencyKey = None,
    ) -> Annotated[CallToolResult, McpToolAnswer]:
        """Call a tool of an MCP server that the machine starts or reaches; without a tool, list what it has."""
        if bool(server) == (server_record is not None):
            return error_answer("invalid_args", "give either server or server_record", hint="a name is the usual way")
        operation = "mcp_call" if tool else "mcp_list_tools"
        args: dict[str, Any] = {"server": server or server_record}
        if tool:
            args |= {"tool_name": tool, "args": arguments or {}, "timeout": timeout_s}
        wait_s = max(WAIT_DEFAULT_S, timeout_s + 15.0)
        where, result = await ask(
            context, Place(environment, session_id), operation, args, wait_s=wait_s, idempotency_key=idempotency_key
        )
        name = server or str((server_record or {}).get("name", ""))
        if not tool:
            text = "\n".join(f"{each['name']}: {each.get('description', '')}" for each in result.get("tools", []))
            structured: Any = {"tools": result.get("tools", [])}
        else:
            text, structured = result.get("content", ""), result.get("structured")
        excerpt = take_excerpt(text, budget_tokens=max_output_tokens, how_to_read_on="ask the tool for less")
        found = McpToolAnswer(
            where=where,
            server=name,
            tool=tool,
            is_error=bool(result.get("is_error")),
            text=excerpt.text,
            structured=structured,
            left_out_bytes=excerpt.bytes_left_out,
        )
        if found.is_error:
            return error_answer("tool_failed", f"{name}/{tool} on {where.environment_name}: {excerpt.text}")
        return answer(found, fence(excerpt.text, source=f"{where.environment_name}:{name}"))


def _problems(result: dict[str, Any]) -> list[str]:
    return [f"{each['path']}: {each['error']}" for each in result.get("problems", [])]


def _text_of(data: bytes, *, is_cut: bool) -> str | None:
    """Return the bytes as text, without a character that the limit has cut; None when they are no text."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if is_cut and error.end == len(data) and error.reason == "unexpected end of data" and error.start > 0:
            return data[: error.start].decode("utf-8")
    return None

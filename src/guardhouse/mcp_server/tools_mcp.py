"""The tool that calls tools of MCP servers which an environment's machine starts or reaches. Runs in the hub."""

import json
from typing import Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from guardhouse.mcp_server.calls import answer, error_answer, fails_readably
from guardhouse.mcp_server.excerpt import BYTES_PER_TOKEN, fence, take_excerpt
from guardhouse.mcp_server.foreign_blocks import blocks_of, describe_block
from guardhouse.mcp_server.models import McpToolAnswer
from guardhouse.mcp_server.operations import Operations, Place
from guardhouse.mcp_server.target import EnvironmentName, SessionId
from guardhouse.mcp_server.tools_commands import BUDGET_DEFAULT_TOKENS, BudgetTokens, IdempotencyKey
from guardhouse.mcp_server.waiting import WAIT_DEFAULT_S

__all__ = ["register", "tool_list", "within"]


def register(server: MCPServer[Any], operations: Operations) -> None:
    """Add the tool to ``server``."""

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
        arguments: Annotated[dict[str, Any] | None, Field(description="the tool's own")] = None,
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
        where, result = await operations.ask(
            context, Place(environment, session_id), operation, args, wait_s=wait_s, idempotency_key=idempotency_key
        )
        name = server or str((server_record or {}).get("name", ""))
        notes = list(result.get("notes", []))
        if tool:
            text, structured = result.get("content", ""), result.get("structured")
        else:
            text, structured = tool_list(result.get("tools", []), max_output_tokens)
        structured, rest_tokens = within(structured, max_output_tokens, notes)
        path = result.get("file_path")
        how = f"read_file has the whole at {path}" if path else "max_output_tokens shows more; ask the tool for less"
        parts = result.get("parts", [])
        blocks = blocks_of(parts)
        if len(blocks) < sum(describe_block(part).bytes is not None for part in parts):
            notes.append("content that is too large, or not what it says it is, was left out: parts names all of it")
        shown = take_excerpt(text, budget_tokens=max_output_tokens, how_to_read_on=how)
        source = f"{where.environment_name}:{name}"
        if result.get("is_error"):
            return error_answer("tool_failed", f"{name}/{tool} answered:\n{fence(shown.text, source=source)}")
        short = take_excerpt(text, budget_tokens=rest_tokens, how_to_read_on=how)
        found = McpToolAnswer(
            where=where,
            server=name,
            tool=tool,
            is_error=False,
            text=short.text,
            structured=structured,
            left_out_bytes=short.bytes_left_out,
            file_path=path,
            parts=[describe_block(part) for part in parts],
            notes=notes,
        )
        lines = [fence(shown.text, source=source), *(f"note: {note}" for note in notes)]
        return answer(found, "\n".join(lines), blocks=blocks)


def within(structured: Any, budget_tokens: int, notes: list[str]) -> tuple[Any, int]:
    """Return the structured content if it is within the budget, and what it leaves of it for the text."""
    if structured is None:
        return None, budget_tokens
    size = _size(json.dumps(structured, ensure_ascii=False))
    if size > budget_tokens * BYTES_PER_TOKEN:
        notes.append(f"structured content of {size} bytes was left out: it is over max_output_tokens")
        return None, budget_tokens
    return structured, max(budget_tokens - size // BYTES_PER_TOKEN, budget_tokens // 4)


def tool_list(tools: list[dict[str, Any]], budget_tokens: int) -> tuple[str, Any]:
    """Return a server's tools, as text and as they are: with what they take, as far as the budget goes."""
    whole = [{**each, "description": each.get("description", "")} for each in tools]
    short = [{"name": each["name"], "description": each["description"]} for each in whole]
    text = "\n".join(f"{each['name']}: {each['description']}" for each in short)
    with_schemas = "\n".join(
        f"{each['name']}: {each['description']}\n  takes {json.dumps(each.get('input_schema'), ensure_ascii=False)}"
        for each in whole
    )
    size = max(_size(with_schemas), _size(json.dumps({"tools": whole}, ensure_ascii=False)))
    fits = size <= budget_tokens * BYTES_PER_TOKEN
    return (with_schemas, {"tools": whole}) if fits else (text, {"tools": short})


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))

"""Tools for files in an environment's workspace."""

import base64
from collections.abc import Iterable
from typing import Annotated, Any, Final

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from guardhouse.mcp_server.calls import answer, fails_readably
from guardhouse.mcp_server.excerpt import BYTES_PER_TOKEN, fence, take_excerpt
from guardhouse.mcp_server.models import (
    EditAnswer,
    FileContent,
    FileEntry,
    FileList,
    GrepAnswer,
    MatchList,
    WriteAnswer,
)
from guardhouse.mcp_server.operations import Operations, Place
from guardhouse.mcp_server.target import EnvironmentName, SessionId
from guardhouse.mcp_server.tools_commands import BUDGET_DEFAULT_TOKENS, BudgetTokens, IdempotencyKey

__all__ = ["register"]

_READS: Final = {"read_only_hint": True, "destructive_hint": False, "idempotent_hint": True, "open_world_hint": True}
_WRITES: Final = {"read_only_hint": False, "destructive_hint": True, "idempotent_hint": True, "open_world_hint": False}
# What JSON puts around one entry of a listing, in bytes.
_ENTRY_BYTES: Final = 60
_MATCH_BYTES: Final = 4

EntryOffset = Annotated[int, Field(ge=0, description="next_offset of the page before")]
FilePath = Annotated[str, Field(description="relative to the workspace", min_length=1, max_length=4096)]


def register(server: MCPServer[Any], operations: Operations) -> None:
    """Add the tools to ``server``."""
    ask = operations.ask

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
        if found.checksum:
            head += f"; {found.checksum}"
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
        offset: EntryOffset = 0,
        max_output_tokens: BudgetTokens = BUDGET_DEFAULT_TOKENS,
    ) -> Annotated[CallToolResult, FileList]:
        """List a directory of the workspace."""
        args = {"path": path, "recursive": recursive, "ignore": ignore or []}
        where, result = await ask(context, Place(environment, session_id), "list", args)
        entries = result.get("entries", [])
        end = (
            _page_end(
                (len(each["path"].encode("utf-8", "replace")) + _ENTRY_BYTES for each in entries[offset:]),
                max_output_tokens,
            )
            + offset
        )
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
                for each in entries[offset:end]
            ],
            next_offset=end if end < len(entries) else None,
            left_out=result.get("left_out", 0),
            problems=_problems(result),
        )
        lines = [f"{each.kind:<9} {each.size:>10} {each.path}" for each in found.entries]
        text = fence("\n".join(lines) or "[empty]", source=f"{where.environment_name}:{path or '.'}")
        return answer(found, text + _more(found, len(entries), "list a directory below, or use glob_files"))

    @server.tool(annotations=ToolAnnotations(title="Find files by pattern", **_READS))
    @fails_readably
    async def glob_files(
        context: Context[Any, Any],
        *,
        environment: EnvironmentName = None,
        session_id: SessionId = None,
        pattern: Annotated[str, Field(description="as in **/*.log", min_length=1, max_length=4096)],
        offset: EntryOffset = 0,
        max_output_tokens: BudgetTokens = BUDGET_DEFAULT_TOKENS,
    ) -> Annotated[CallToolResult, MatchList]:
        """Find files of the workspace whose path matches a pattern; ** crosses directories."""
        where, result = await ask(context, Place(environment, session_id), "glob", {"pattern": pattern})
        matches = result.get("matches", [])
        end = (
            _page_end(
                (len(each.encode("utf-8", "replace")) + _MATCH_BYTES for each in matches[offset:]), max_output_tokens
            )
            + offset
        )
        found = MatchList(
            where=where,
            matches=matches[offset:end],
            next_offset=end if end < len(matches) else None,
            left_out=result.get("left_out", 0),
            problems=_problems(result),
        )
        text = fence("\n".join(found.matches) or "[nothing matches]", source=where.environment_name)
        return answer(found, text + _more(found, len(matches), "search more narrowly"))

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
        saved = result.get("file_path")
        excerpt = take_excerpt(
            result.get("content", ""),
            budget_tokens=max_output_tokens,
            how_to_read_on=f"read_file has the whole at {saved}" if saved else "search more narrowly",
        )
        found = GrepAnswer(
            where=where,
            text=excerpt.text,
            matches=sum(1 for each in result.get("matches", []) if not each.get("is_context")),
            left_out=result.get("left_out", 0),
            file_path=saved,
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
        return answer(found, f"wrote {len(data)} bytes to {path} on {where.environment_name}; {found.checksum}")

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
        done = f"replaced {found.replacements} times in {path} on {where.environment_name}"
        return answer(found, f"{done}; {found.checksum}")


def _page_end(sizes_bytes: Iterable[int], budget_tokens: int) -> int:
    """Return how many entries of these sizes fit the budget; one does at least."""
    left, count = budget_tokens * BYTES_PER_TOKEN, 0
    for size in sizes_bytes:
        left -= size
        if left < 0 and count:
            break
        count += 1
    return count


def _more(found: FileList | MatchList, total: int, what_to_do: str) -> str:
    """Return what is to be said of entries that are not shown, after the marks: a machine cannot write it."""
    lines = ""
    if found.next_offset is not None:
        lines += f"\n{total} in all; go on at offset {found.next_offset}"
    if found.left_out:
        lines += f"\n{found.left_out} more were left out: {what_to_do}"
    return lines


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

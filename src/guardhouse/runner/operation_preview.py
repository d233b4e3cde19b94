"""What people see of an operation that they are asked about: one line, and a bounded preview with what would change.

Nothing here decides. Texts are redacted by whoever sends them. Runs in the runner.
"""

import difflib
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import trio

from guardhouse.errors import Refusal
from guardhouse.wire import operations as wire

__all__ = ["READ_BEFORE_BYTES", "preview_operation", "summarise_operation"]

# What a person reads before they decide; what is left out is counted. A file larger than this is not compared.
_LINES_MAX: Final = 200
_CHARS_MAX: Final = 16 * 1024
READ_BEFORE_BYTES: Final = 64 * 1024

ReadBefore = Callable[[], Awaitable[bytes | None]]
"""Returns what the file holds now; None where it is too large or may not be shown. Refusal: there is none."""


def summarise_operation(operation: str, args: msgspec.Struct) -> str:
    """Return what is to be done in one line, paths and addresses as they were asked for.

    What could break the line or turn it round stands as an escape: nobody agrees to another line than is carried out.
    """
    line = _summary(operation, args)
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in line)


def _summary(operation: str, args: msgspec.Struct) -> str:
    match args:
        case wire.WriteArgs():
            return f"write {args.path} ({len(args.content)} bytes)"
        case wire.MoveArgs():
            return f"move {args.path} to {args.target}"
        case wire.RemoveArgs():
            return f"remove {args.path}{' and everything below it' if args.recursive else ''}"
        case wire.GrepArgs():
            return f"grep {args.pattern!r} in {args.path or '.'}"
        case wire.GlobArgs():
            return f"glob {args.pattern}"
        case wire.ListArgs():
            return f"list {args.path or '.'}{' and everything below it' if args.recursive else ''}"
        case wire.SyncSkillArgs():
            return f"sync_skill {args.skill_name} into {args.skill_dir} ({len(args.zip_data)} bytes)"
        case wire.WebfetchArgs():
            return f"webfetch {args.url}"
        case wire.McpCallArgs():
            return f"call the tool {args.tool_name} of the MCP server {args.server.name}"
        case wire.McpListToolsArgs():
            return f"list the tools of the MCP server {args.server.name}"
        case _:
            return f"{operation} {getattr(args, 'path', '')}".rstrip()


async def preview_operation(args: msgspec.Struct, read_before: ReadBefore) -> dict[str, Any]:
    """Return ``kind``, ``text`` and what was left out, as plain JSON data.

    Args:
        read_before: asked for a write only.
    """
    match args:
        case wire.EditArgs():
            return _bounded("diff", _diff(args.old, args.new, args.path)) | {"replace_all": args.replace_all}
        case wire.WriteArgs():
            return await _preview_write(args, read_before)
        case wire.McpCallArgs():
            return _bounded("arguments", json.dumps(args.args or {}, ensure_ascii=False, indent=1, default=str))
        case _:
            return {"kind": "none"}


async def _preview_write(args: wire.WriteArgs, read_before: ReadBefore) -> dict[str, Any]:
    if args.upload_id is not None or len(args.content) > READ_BEFORE_BYTES:
        return {"kind": "none", "note": f"{len(args.content)} bytes, too much to show"}
    after = _text(args.content)
    if after is None:
        return {"kind": "none", "note": f"{len(args.content)} bytes that are no text"}
    try:
        before = await read_before()
    except Refusal:
        return _bounded("new file", after)
    shown = None if before is None else _text(before)
    if shown is None:
        return _bounded("replaces a file whose content is not shown", after)
    # The comparison takes time that grows with the square of the lines.
    return _bounded("diff", await trio.to_thread.run_sync(_diff, shown, after, args.path))


def _text(data: bytes) -> str | None:
    try:
        return None if b"\0" in data else data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _diff(before: str, after: str, path: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"{path} now", f"{path} then", lineterm="", n=3
    )
    return "\n".join(lines)


def _bounded(kind: str, text: str) -> dict[str, Any]:
    lines = text.split("\n")
    kept = "\n".join(lines[:_LINES_MAX])[:_CHARS_MAX]
    found: dict[str, Any] = {"kind": kind, "text": kept}
    if kind == "diff":
        found["added"] = sum(line.startswith("+") for line in lines[2:])
        found["removed"] = sum(line.startswith("-") for line in lines[2:])
    if len(kept) < len(text):
        found["left_out"] = f"{len(text) - len(kept)} of {len(text)} characters"
    return found

"""A tool's result as its server wrote it, made into text, with the blocks that text cannot hold kept beside it. Pure.

The blocks are those of the MCP specification 2026-07-28 ("Tool Result") and before: text, image, audio, resource link,
embedded resource. What a newer server sends is kept as a part and named in the text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["ToolText", "describe_tool", "render_result"]

_NAME_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class ToolText:
    """What a tool answered.

    Attributes:
        text: every block in order, one after the other on lines of its own.
        parts: the blocks that are not text, as they were written.
        structured: the structured content; None where there is none.
        is_error: the tool says that it failed.
        notes: what was not understood.
    """

    text: str
    parts: tuple[dict[str, Any], ...]
    structured: Any
    is_error: bool
    notes: tuple[str, ...]


def render_result(result: Mapping[str, Any]) -> ToolText:
    """Return what ``result`` (a CallToolResult in plain JSON) says."""
    lines: list[str] = []
    parts: list[dict[str, Any]] = []
    notes: list[str] = []
    blocks = result.get("content")
    if not isinstance(blocks, list):
        blocks = []
        notes.append("the server's result has no list of content")
    for block in blocks:
        if not isinstance(block, dict):
            notes.append("a block of the server's content is no object and was left out")
            continue
        if block.get("type") == "text" and isinstance(block.get("text"), str):
            lines.append(block["text"])
            continue
        parts.append(block)
        lines.append(_named(block))
    structured = result.get("structuredContent")
    if not lines and structured is not None:
        notes.append("the tool answered structured content only")
    return ToolText("\n".join(lines), tuple(parts), structured, result.get("isError") is True, tuple(notes))


def _named(block: Mapping[str, Any]) -> str:
    """Return a block in one line; an embedded text resource is text."""
    kind = _short(block.get("type"))
    media = _short(block.get("mimeType"))
    match kind:
        case "image" | "audio":
            return f"[{kind.capitalize()}: {media or 'unknown type'}]"
        case "resource_link":
            return f"[Resource link: {_short(block.get('name'))} {_short(block.get('uri'))}]"
        case "resource":
            resource = block.get("resource")
            if isinstance(resource, dict):
                if isinstance(resource.get("text"), str):
                    return f"[Resource: {_short(resource.get('uri'))}]\n{resource['text']}"
                return (
                    f"[Resource: {_short(resource.get('uri'))}, {_short(resource.get('mimeType')) or 'unknown type'}]"
                )
    return f"[{kind or 'Block of an unknown type'}]"


def _short(value: Any) -> str:
    return value[:_NAME_CHARS] if isinstance(value, str) else ""


def describe_tool(tool: Mapping[str, Any]) -> tuple[str, str, Any] | None:
    """Return a tool's name, description and input schema; None for one without a name."""
    name = tool.get("name")
    if not isinstance(name, str) or not name:
        return None
    description = tool.get("description")
    return name, description if isinstance(description, str) else "", tool.get("inputSchema")

"""The arguments and results of what is asked of MCP servers on the runner's machine. Runs wherever `wire` does."""

from typing import Annotated, Any, Final

from msgspec import Meta, Struct, field

from guardhouse import limits
from guardhouse.wire.messages import McpServer
from guardhouse.wire.operations.base import Args, Notes, Result, Timeout
from guardhouse.wire.scalars import Count, Text, empty

__all__ = ["McpCallArgs", "McpListToolsArgs", "McpListToolsResult", "McpOutcome", "McpTool"]

MCP_CALL_TIMEOUT_DEFAULT_S: Final = 60.0


class McpCallArgs(Args, frozen=True, kw_only=True):
    """Call a tool of an MCP server; ``args`` is the tool's own object."""

    server: McpServer
    tool_name: Annotated[str, Meta(min_length=1, max_length=limits.WIRE_NAME_MAX_CHARS)]
    args: dict[str, Any] | None = None
    timeout: Timeout | None = None

    @property
    def timeout_s(self) -> float:
        """The time limit in seconds: the call's, else the server's, else the default."""
        return self.timeout or self.server.call_timeout or MCP_CALL_TIMEOUT_DEFAULT_S


class McpOutcome(Result, frozen=True, kw_only=True):
    """What the tool answered, as text. ``structured`` and ``parts`` (of ours) keep what text cannot.

    ``structured`` is the tool's structured content, any JSON value; ``parts`` are the content blocks that are no text,
    as the server wrote them.
    """

    content: str = field(default_factory=str)
    is_error: bool = False
    truncated: bool = False
    file_path: Text | None = None
    total_size: Count | None = None
    structured: Any = None
    parts: tuple[dict[str, Any], ...] = ()
    notes: Notes = ()


class McpListToolsArgs(Args, frozen=True, kw_only=True):
    """List the tools of an MCP server."""

    server: McpServer


class McpTool(Struct, frozen=True, kw_only=True):
    """One tool as its server describes it."""

    name: str
    description: str = ""
    input_schema: Any = None


class McpListToolsResult(Result, frozen=True, kw_only=True):
    """Every tool, over all pages of the server's answer."""

    tools: tuple[McpTool, ...] = field(default_factory=empty)
    notes: Notes = ()

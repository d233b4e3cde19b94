"""Who calls, and which tools their token's scopes admit. Pure."""

from dataclasses import dataclass
from typing import Final

__all__ = ["CALLER", "TOOL_SCOPES", "Caller"]

CALLER: Final = "guardhouse.caller"
"""The key in a request's ASGI scope under which the endpoint leaves who calls."""

# The scope that each tool needs at the REST interface; the hub checks it there again.
TOOL_SCOPES: Final = {
    "list_environments": "env:read",
    "get_environment": "env:read",
    "open_session": "tasks:run",
    "run_command": "tasks:run",
    "run_readonly_command": "tasks:run",
    "wait_task": "tasks:read",
    "read_output": "tasks:read",
    "cancel_task": "tasks:run",
    "read_file": "tasks:run",
    "list_files": "tasks:run",
    "glob_files": "tasks:run",
    "grep_files": "tasks:run",
    "write_file": "tasks:run",
    "edit_file": "tasks:run",
    "call_mcp_tool": "tasks:run",
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as the hub knows them: ``id`` and ``scopes`` of the token."""

    id: str
    scopes: frozenset[str]

    def may_use(self, tool: str) -> bool:
        """Whether the token's scopes admit the tool."""
        needed = TOOL_SCOPES.get(tool)
        return needed is not None and (needed in self.scopes or "admin" in self.scopes)

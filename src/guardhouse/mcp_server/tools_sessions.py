"""The tool that opens a session."""

from typing import Annotated, Any, Literal

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from guardhouse.mcp_server.calls import Desk, answer, error_answer, fails_readably
from guardhouse.mcp_server.models import SessionAnswer

__all__ = ["register"]


def register(server: MCPServer[Any], desk: Desk) -> None:
    """Add the tool to ``server``."""

    @server.tool(
        annotations=ToolAnnotations(
            title="Open a session",
            read_only_hint=False,
            destructive_hint=False,
            idempotent_hint=False,
            open_world_hint=False,
        )
    )
    @fails_readably
    async def open_session(
        context: Context[Any, Any],
        *,
        title: Annotated[str, Field(description="what the work is about", max_length=128)] = "",
        where: Annotated[
            Literal["auto", "managed", "named"] | None,
            Field(
                description="auto: the least busy machine that has the tags, else a managed sandbox; managed: a fresh"
                " sandbox of the session's own; named: the environment. Without it named where one is, else auto"
            ),
        ] = None,
        tags: Annotated[list[str] | None, Field(description="that auto is to match", max_length=64)] = None,
        environment: Annotated[str | None, Field(description="the one it is to be: id or name", max_length=128)] = None,
        session_id: Annotated[
            str | None, Field(description="show this session instead of opening one", max_length=64)
        ] = None,
    ) -> Annotated[CallToolResult, SessionAnswer]:
        """Open a session: its first call decides the environment, and all later calls with its id run there."""
        async with desk.open(context) as hub:
            if session_id is not None:
                found = await hub.session(session_id)
            else:
                kind = where or ("auto" if environment is None else "named")
                if (kind == "named") != (environment is not None):
                    return error_answer(
                        "invalid_arguments",
                        "where=named names an environment, the others none",
                        hint="leave where out, and name the environment or do not",
                    )
                choice: dict[str, Any] = {"kind": kind}
                if kind == "named":
                    choice["environment"] = environment
                if kind == "auto":
                    choice["tags"] = tags or []
                found = await hub.post("/api/v1/sessions", {"title": title or None, "environment": choice})
        bound = found["bound_environment"]
        shown = SessionAnswer(
            session_id=found["id"],
            title=found["title"],
            state=found["state"],
            state_reason=found["state_reason"],
            environment_id=None if bound is None else bound["id"],
            environment_name=None if bound is None else bound["name"],
            warning=found["warning"],
            notice=found["notice"],
        )
        place = "not bound yet" if bound is None else f"in {bound['name']}, {bound['status']}"
        lines = [f"session {shown.session_id}: {place}; {shown.state_reason}"]
        lines += [f"note: {note}" for note in (shown.warning, shown.notice) if note]
        return answer(shown, "\n".join(lines))

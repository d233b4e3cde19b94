"""Tools of MCP servers for tasks: the policy is asked about server, tool and arguments, then a session is used.

A local server (``stdio``) is a command like any other: gate one reads it, the exec gate judges what really starts, and
it runs behind the wall of its own profile. One with an address obeys the URL rules. Knows rules and bounds; knows no
JSON-RPC. Runs in the runner.
"""

from datetime import datetime
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import msgspec

from guardhouse.errors import PeerError
from guardhouse.limits import BASH_TIMEOUT_MAX_S, MCP_CONNECT_TIMEOUT_DEFAULT_S
from guardhouse.policy import Context, OperationDecision, Policy, decide_operation
from guardhouse.policy.mcp_arguments import flatten_arguments
from guardhouse.runner.commands import CommandService
from guardhouse.runner.files import FilesService
from guardhouse.runner.mcp_pool import Admission, McpPool
from guardhouse.runner.mcp_text import describe_tool, render_result
from guardhouse.runner.passage import Passage
from guardhouse.runner.web import WebService
from guardhouse.wire.messages import McpServer
from guardhouse.wire.operations import McpCallArgs, McpListToolsArgs, McpListToolsResult, McpOutcome, McpTool
from guardhouse.worker.fetch_client import FetchRefused
from guardhouse.worker.fetch_url import parse_fetch_url
from guardhouse.worker.mcp_protocol import ConnectArgs, McpFailure

__all__ = ["McpService", "mcp_subject"]

# What the platform writes for its transports, old and new.
_TRANSPORTS: Final = {
    "stdio": "stdio",
    "sse": "sse",
    "streamable-http": "streamable-http",
    "streamable_http": "streamable-http",
    "http": "streamable-http",
}
_LIST_TIMEOUT_DEFAULT_S: Final = 60.0
# Blocks that are no text travel in the message up to this size; beyond it the whole result is saved as a file.
_PARTS_MAX_BYTES: Final = 1024 * 1024


class McpService:
    """Calls tools under one policy."""

    def __init__(
        self,
        policy: Policy,
        *,
        pool: McpPool,
        commands: CommandService,
        files: FilesService,
        web: WebService,
        profile: str,
        environment: frozenset[str] | None = None,
    ) -> None:
        """``profile`` is the one under which local servers run; ``environment``: this host's tags, for conditions."""
        self._policy = policy
        self._pool = pool
        self._commands = commands
        self._files = files
        self._web = web
        self._profile = profile
        self._environment = environment

    async def call(self, args: McpCallArgs, passage: Passage | None = None) -> McpOutcome:
        """Call a tool and return what it answered, bounded for one message.

        Args:
            passage: whom a rule may ask, and what is written down; without one nobody can be asked.

        Raises:
            OperationDenied: a rule says no.
            NeedsApproval, ProgramNeedsApproval: a rule asks, and ``passage`` holds no answer; try again when it does.
            CommandDenied: the policy does not let the local server start.
            McpFailure: there is no result; ``code`` says why.
            Refusal: the server's record cannot be used.
        """
        arguments = args.args or {}
        passage = Passage() if passage is None else passage
        passage.check([self._decide_tool(args.server, args.tool_name, arguments, passage.requester)])
        timeout_s = args.timeout_s
        try:
            result = await self._call_once(args, arguments, timeout_s, passage)
        except McpFailure as error:
            if error.code != "session_expired":
                raise
            # The server has said that it did nothing: a fresh session is asked once.
            result = await self._call_once(args, arguments, timeout_s, passage)
        return await self._bounded(result)

    async def _call_once(
        self, args: McpCallArgs, arguments: dict[str, Any], timeout_s: float, passage: Passage
    ) -> dict[str, Any]:
        async with self._pool.use(
            args.server, lambda: self._admit(args.server, passage), connect_timeout_s=_connect_timeout_s(args.server)
        ) as session:
            return await session.call_tool(args.tool_name, arguments, timeout_s=timeout_s)

    async def list_tools(self, args: McpListToolsArgs, passage: Passage | None = None) -> McpListToolsResult:
        """Return every tool of a server, over all pages.

        Raises:
            CommandDenied: the policy does not let the local server start.
            McpFailure: there is no list; ``code`` says why.
            Refusal: the server's record cannot be used.
        """
        server = args.server
        passage = Passage() if passage is None else passage
        async with self._pool.use(
            server, lambda: self._admit(server, passage), connect_timeout_s=_connect_timeout_s(server)
        ) as session:
            raw, has_more = await session.list_tools(timeout_s=server.call_timeout or _LIST_TIMEOUT_DEFAULT_S)
        described = [describe_tool(tool) for tool in raw]
        tools = tuple(
            McpTool(name=name, description=description, input_schema=schema)
            for name, description, schema in (each for each in described if each is not None)
        )
        notes = [f"more than {len(raw)} tools: the rest was left out"] if has_more else []
        if len(tools) < len(raw):
            notes.append(f"{len(raw) - len(tools)} tools without a name were left out")
        return McpListToolsResult(tools=tools, notes=tuple(notes))

    def _decide_tool(
        self, server: McpServer, tool_name: str, arguments: dict[str, Any], requester: str | None
    ) -> OperationDecision:
        context = Context(
            now=datetime.now().astimezone(),
            requester=requester,
            environment=self._environment,
            arguments=flatten_arguments(arguments),
        )
        return decide_operation(self._policy, "mcp", mcp_subject(server.name, tool_name), context=context)

    async def _admit(self, server: McpServer, passage: Passage) -> Admission:
        """Return how to reach ``server``, when the policy lets it be started or asked."""
        transport = _TRANSPORTS.get(server.transport)
        if transport is None:
            raise PeerError(
                f"unsupported transport type {server.transport!r} of MCP server {server.name!r};"
                f" known: {', '.join(sorted(set(_TRANSPORTS.values())))}",
                code="invalid_args",
            )
        if transport == "stdio":
            return await self._admit_local(server, passage)
        if not server.url:
            raise PeerError(f"MCP server {server.name!r} has no url", code="invalid_args")
        try:
            grant = self._web.grant(server.url, passage=passage)
            url = parse_fetch_url(server.url).text
        except FetchRefused as error:
            raise McpFailure(str(error).removeprefix("webfetch failed: "), code=error.code) from None
        connect = ConnectArgs(
            transport="sse" if transport == "sse" else "streamable-http",
            url=url,
            headers={**server.headers, **server.dynamic_headers},
            networks=grant.networks,
            any_port=grant.any_port,
        )
        return Admission(connect, None)

    async def _admit_local(self, server: McpServer, passage: Passage) -> Admission:
        if not server.command:
            raise PeerError(f"MCP server {server.name!r} has no command", code="invalid_args")
        argv = (server.command, *server.args)
        launch = await self._commands.admit_program(
            argv,
            profile=self._profile,
            environment=dict(server.env),
            timeout_s=BASH_TIMEOUT_MAX_S,
            requester=passage.requester,
            answer_of=partial(passage.program_answer, profile=self._profile),
        )
        return Admission(ConnectArgs(transport="stdio"), launch)

    async def _bounded(self, result: dict[str, Any]) -> McpOutcome:
        answer = render_result(result)
        parts, structured, notes = answer.parts, answer.structured, list(answer.notes)
        size_bytes = len(msgspec.json.encode([parts, structured]))
        if size_bytes > _PARTS_MAX_BYTES:
            whole = await self._files.bound(msgspec.json.encode(result).decode(), operation="mcp")
            notes.append(
                f"images, resources and structured content of {size_bytes} bytes are not in this message;"
                f" the whole result is in {whole.file_path}"
            )
            parts, structured = (), None
        bounded = await self._files.bound(answer.text, operation="mcp")
        return McpOutcome(
            content=bounded.text,
            is_error=answer.is_error,
            truncated=bounded.truncated,
            file_path=bounded.file_path,
            total_size=bounded.total_size,
            structured=structured,
            parts=parts,
            notes=tuple(notes),
        )


def mcp_subject(server: str, tool: str) -> str:
    """Return ``server/tool`` as rules see it: a slash inside either name is ``%2F``, so it cannot shift the border."""
    return f"{quote(server, safe=_PLAIN)}/{quote(tool, safe=_PLAIN)}"


# Everything that is printable but the slash and the percent sign itself stays as it is written.
_PLAIN: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in "/%")


def _connect_timeout_s(server: McpServer) -> float:
    return server.connect_timeout or MCP_CONNECT_TIMEOUT_DEFAULT_S

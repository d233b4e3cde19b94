"""What every tool begins and ends with: the caller's view of the hub, and an error that a model can act on."""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, ParamSpec, TypeVar

from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context
from mcp_types import CallToolResult, ContentBlock, InputRequiredResult, TextContent
from pydantic import BaseModel
from starlette.requests import Request
from starlette.types import ASGIApp

from guardhouse.mcp_server.caller import CALLER, Caller
from guardhouse.mcp_server.hub_api import HubApi, HubRefused
from guardhouse.mcp_server.models import Where

__all__ = ["Desk", "FormNeeded", "answer", "caller_of", "error_answer", "fails_readably", "where_of", "where_of_task"]

P = ParamSpec("P")
R = TypeVar("R")
# What a person would do about it, for the codes whose hint does not say.
_NEXT: Final = {
    "environment_unavailable": "choose another environment with list_environments, or try again when it is online",
    "not_found": "look at list_environments for what there is",
    "forbidden": "ask the person who gave you this token for one with the scope that is named",
    "busy": "wait until one of the running tasks has ended",
}


class FormNeeded(Exception):  # noqa: N818 - nothing has gone wrong
    """The call goes on once the client has shown a form, which ``result`` asks it to."""

    def __init__(self, result: InputRequiredResult) -> None:
        super().__init__("a form is needed")
        self.result = result


class Desk:
    """Where tools get the hub from: with the rights of the very request that called them, never their own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    @asynccontextmanager
    async def open(self, context: Context[Any, Any] | ServerRequestContext[Any, Any]) -> AsyncIterator[HubApi]:
        """Yield the hub as this caller sees it."""
        asked = context.request_context if isinstance(context, Context) else context
        request = asked.request
        if not isinstance(request, Request):
            raise HubRefused(
                "unauthenticated", "this call did not come over HTTP, so nobody can be asked who it is from"
            )
        agent = request.headers.get("user-agent", "unknown")[:100]
        api = HubApi(self._app, request, via=f"mcp ({agent})", traceparent=_traceparent(asked, request))
        try:
            yield api
        finally:
            await api.aclose()


def _traceparent(asked: ServerRequestContext[Any, Any], request: Request) -> str | None:
    """Return the caller's span: of this very message where it names one, else of the HTTP request that brought it.

    A value that no HTTP header could carry is none.
    """
    named = (asked.meta or {}).get("traceparent")
    if isinstance(named, str) and named.isascii() and named.isprintable():
        return named
    return request.headers.get("traceparent")


def caller_of(context: Context[Any, Any]) -> Caller:
    """Return who calls, as the endpoint found out.

    Raises:
        HubRefused: nobody is known.
    """
    request = context.request_context.request
    caller = request.scope.get(CALLER) if isinstance(request, Request) else None
    if not isinstance(caller, Caller):
        raise HubRefused("unauthenticated", "this call came without a token")
    return caller


def answer(value: BaseModel, text: str, *, blocks: Sequence[ContentBlock] = ()) -> CallToolResult:
    """Return a tool's result: ``value`` for programs and for the many hosts whose model sees nothing else, ``text``.

    ``blocks`` follow on the text.
    """
    return CallToolResult(
        content=[TextContent(type="text", text=text), *blocks], structured_content=value.model_dump(mode="json")
    )


def error_answer(code: str, message: str, *, hint: str = "", retryable: bool = False) -> CallToolResult:
    """Return a failed call: what, why, the next step, and whether to try the same again."""
    lines = [f"error {code}: {message}"]
    if hint or code in _NEXT:
        lines.append(f"next step: {hint or _NEXT[code]}")
    lines.append(f"retryable: {'yes' if retryable else 'no'}")
    return CallToolResult(content=[TextContent(type="text", text="\n".join(lines))], is_error=True)


def fails_readably(
    tool: Callable[P, Awaitable[R]],
) -> Callable[P, Awaitable[R | CallToolResult | InputRequiredResult]]:
    """Have a tool answer the hub's refusals, and what it needs of its caller, instead of raising them."""

    @functools.wraps(tool)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> R | CallToolResult | InputRequiredResult:
        try:
            return await tool(*args, **kwargs)
        except FormNeeded as needed:
            return needed.result
        except HubRefused as error:
            return error_answer(error.code, str(error), hint=error.hint, retryable=error.retryable)

    return wrapped


def where_of(environment: dict[str, Any]) -> Where:
    """Return where something ran."""
    machine = environment.get("machine") or {}
    return Where(
        environment_id=environment["id"],
        environment_name=environment["name"],
        host=machine.get("hostname") or None,
        user=machine.get("username") or None,
        workspace=machine.get("workspace_root") or None,
    )


async def where_of_task(hub: HubApi, task: dict[str, Any]) -> Where:
    """Return where a task runs, also for a caller that may run there and not look at the environment itself.

    Raises:
        HubRefused: the hub could not say.
    """
    try:
        return where_of(await hub.environment(task["environment_id"]))
    except HubRefused as error:
        if error.status not in (403, 404):
            raise
        return Where(
            environment_id=task["environment_id"],
            environment_name=task["environment_name"] or task["environment_id"],
        )

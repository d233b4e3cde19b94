"""The hub's REST interface as the tools use it, with the rights of whoever called the tool. Knows no MCP.

Asked inside the hub's own process, over ASGI: every call passes the same authorizer, limits and audit as any other.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import httpx2
from starlette.requests import Request
from starlette.types import ASGIApp

from guardhouse.errors import Refusal

__all__ = ["HubApi", "HubRefused"]

_BASE: Final = "http://hub.internal"


class HubRefused(Refusal):
    """The hub said no. What a model needs to go on is in the fields.

    Attributes:
        code: a stable word.
        hint: the next step.
        retryable: whether the same call may work later.
        status: of HTTP.
        retry_after_s: seconds after which it may; None where nobody can say.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str = "",
        retryable: bool = False,
        status: int = 0,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint
        self.retryable = retryable
        self.status = status
        self.retry_after_s = retry_after_s


class HubApi:
    """One caller's view of the hub."""

    def __init__(self, app: ASGIApp, request: Request, *, via: str, traceparent: str | None = None) -> None:
        """Ask ``app`` with the token and from the address of ``request``.

        Args:
            via: names the MCP client, for the audit log.
            traceparent: the caller's span as it gave it; the hub's door judges whether it is one.
        """
        headers = [("authorization", value) for value in request.headers.getlist("authorization")]
        # Which of these are believed is the door's to say, as for any request.
        headers += [("x-forwarded-for", value) for value in request.headers.getlist("x-forwarded-for")]
        headers.append(("user-agent", via))
        if traceparent is not None:
            headers.append(("traceparent", traceparent))
        client = (request.client.host, request.client.port) if request.client else ("0.0.0.0", 0)  # noqa: S104 - unknown
        self._client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app, client=client, raise_app_exceptions=False),
            base_url=_BASE,
            headers=headers,
            timeout=None,
        )

    async def get(self, path: str, **query: Any) -> Any:
        """Return the answer's JSON.

        Raises:
            HubRefused: the hub said no.
        """
        return await self._ask("GET", path, query=query)

    async def post(self, path: str, body: Mapping[str, Any], **query: Any) -> Any:
        """Return the answer's JSON.

        Raises:
            HubRefused: the hub said no.
        """
        return await self._ask("POST", path, query=query, body=body)

    async def lines(self, path: str, **query: Any) -> str:
        """Return an answer of lines as it is."""
        response = await self._client.get(path, params=_given(query))
        _check(response)
        return response.text

    async def _ask(
        self, method: str, path: str, *, query: Mapping[str, Any], body: Mapping[str, Any] | None = None
    ) -> Any:
        response = await self._client.request(
            method, path, params=_given(query), json=None if body is None else _given(body)
        )
        _check(response)
        return response.json()

    async def environment(self, name: str) -> dict[str, Any]:
        """Return one environment by id or name."""
        found: dict[str, Any] = await self.get(f"/api/v1/environments/{quote(name, safe='')}")
        return found

    async def session(self, session_id: str) -> dict[str, Any]:
        """Return one session."""
        found: dict[str, Any] = await self.get(f"/api/v1/sessions/{quote(session_id, safe='')}")
        return found

    async def start_task(
        self,
        target: Mapping[str, Any],
        operation: str,
        args: Mapping[str, Any],
        *,
        wait_s: float,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Return the task as it stands after at most ``wait_s``; ``target`` names an environment or a session."""
        body = {
            **target,
            "operation": operation,
            "args": _given(args),
            "idempotency_key": idempotency_key,
        }
        task: dict[str, Any] = await self.post("/api/v1/tasks", body, wait_s=wait_s)
        return task

    async def task(self, task_id: str, *, wait_s: float = 0.0) -> dict[str, Any]:
        """Return a task as it stands after at most ``wait_s``."""
        task: dict[str, Any] = await self.get(f"/api/v1/tasks/{quote(task_id, safe='')}/result", wait_s=wait_s)
        return task

    async def cancel_task(self, task_id: str, *, reason: str) -> dict[str, Any]:
        """Ask for a task's end and return it as it stands."""
        task: dict[str, Any] = await self.post(f"/api/v1/tasks/{quote(task_id, safe='')}/cancel", {"reason": reason})
        return task

    async def aclose(self) -> None:
        """Let go of it."""
        await self._client.aclose()


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _check(response: httpx2.Response) -> None:
    if response.status_code < 400:
        return
    try:
        error = response.json()["error"]
        raise HubRefused(
            error["code"],
            error["message"],
            hint=error.get("hint") or "",
            retryable=bool(error.get("retryable")),
            status=response.status_code,
        )
    except (ValueError, KeyError, TypeError):
        raise HubRefused(
            "internal", f"the hub answered with status {response.status_code}", status=response.status_code
        ) from None

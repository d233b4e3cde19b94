"""One operation of a runner for a tool: started where the call says, agreed to, waited for, failed in words.

For operations whose whole result is the answer: files, and MCP servers. Commands, which are answered as they stand, are
of `commands`. Remembers nothing between calls but which task a call started that has not ended. Runs in the hub.
"""

from typing import Any, Final, NamedTuple

import trio
from mcp.server.mcpserver import Context
from mcp_types import InputRequiredResult

from guardhouse.mcp_server.approvals import HeldCalls, ask_through_client, can_ask, take_answer, try_to_decide
from guardhouse.mcp_server.calls import Desk, FormNeeded, caller_of, where_of_task
from guardhouse.mcp_server.hub_api import HubApi, HubRefused
from guardhouse.mcp_server.models import Where
from guardhouse.mcp_server.target import find_target
from guardhouse.mcp_server.waiting import FIRST_WAIT_S, wait_for

__all__ = ["Operations", "Place"]

_OPERATION_WAIT_S: Final = 60.0


class Place(NamedTuple):
    """What a call names: an environment, or a session whose environment it is for."""

    environment: str | None
    session_id: str | None


class _Failed(HubRefused):
    """An operation that has not ended with a result."""


class Operations:
    """Asks runners for operations on behalf of tools."""

    def __init__(self, desk: Desk, *, public_url: str) -> None:
        """``public_url``: where people reach the hub, without a slash at its end."""
        self._desk = desk
        self._public_url = public_url
        self._held = HeldCalls()

    async def ask(
        self,
        context: Context[Any, Any],
        place: Place,
        operation: str,
        args: dict[str, Any],
        *,
        wait_s: float = _OPERATION_WAIT_S,
        idempotency_key: str | None = None,
    ) -> tuple[Where, dict[str, Any]]:
        """Return where it ran and the operation's result.

        The very same call again goes on with a task that had not ended, whether a person had to agree or it took long.

        Raises:
            FormNeeded: the person behind the client is to be asked first.
            HubRefused: it was refused or failed, nobody has agreed yet, or it has not ended within ``wait_s``.
        """
        async with self._desk.open(context) as hub:
            target = await find_target(hub, place.environment, place.session_id)
            caller, held_as = caller_of(context).id, {"operation": operation, **args}
            answered = await take_answer(hub, context)
            before = None if answered is None else answered.task_id
            if before is None and idempotency_key is None:
                before = self._held.take(caller, target.key, held_as)
            if before is not None:
                task = await hub.task(before)
            else:
                task = await hub.start_task(
                    target.body, operation, args, wait_s=FIRST_WAIT_S, idempotency_key=idempotency_key
                )
            where = await where_of_task(hub, task)
            dismissed = set() if answered is None else {answered.approval_id}
            notice = None if answered is None else answered.refused
            try:
                task = await self._to_the_end(hub, context, task, where, wait_s, dismissed=dismissed, notice=notice)
            except _Failed:
                self._held.hold(caller, target.key, held_as, task["id"])
                raise
        if not task["success"]:
            raise HubRefused(task["error_code"] or "failed", task["error"] or "it failed without saying why")
        return where, task["result"] or {}

    async def _to_the_end(
        self,
        hub: HubApi,
        context: Context[Any, Any],
        task: dict[str, Any],
        where: Where,
        wait_s: float,
        *,
        dismissed: set[str],
        notice: str | None,
    ) -> dict[str, Any]:
        """Return the ended task; ask the person behind the client where one has to agree and that can be."""
        end_s = trio.current_time() + wait_s
        while True:
            left_s = max(0.0, end_s - trio.current_time())
            task, approval = await wait_for(hub, task, wait_s=left_s, context=context)
            if task["finished"]:
                return task
            if approval is None:
                raise _Failed(
                    "still_running",
                    f"{task['operation']} on {where.environment_name} has not ended within {wait_s:g} s;"
                    f" it is task {task['id']}",
                    hint="make the very same call again to go on waiting, or cancel_task",
                    retryable=True,
                )
            verdict = None
            if approval["id"] not in dismissed and can_ask(context, caller_of(context), approval):
                asked = await ask_through_client(context, approval)
                if isinstance(asked, InputRequiredResult):
                    raise FormNeeded(asked)
                verdict = asked
                notice = None if verdict is None else await try_to_decide(hub, approval["id"], verdict)
            if verdict is None or notice is not None:
                raise _Failed(
                    "approval_required",
                    (f"{notice}; " if notice else "")
                    + f"a person has to agree to task {task['id']} by {approval['expires_at']}:"
                    f" 'guardhouse approval approve {approval['id']}',"
                    f" or {self._public_url}/api/v1/approvals/{approval['id']}",
                    hint="say so, and make the very same call again when they have",
                    retryable=True,
                )
            dismissed.add(approval["id"])

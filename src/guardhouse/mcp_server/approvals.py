"""What a call does when a person has to agree: ask through the client where that can be, else say so and be resumable.

Asked through the client is only who may decide anyway: the answer goes to the hub with the caller's own token, and the
hub's rules (nobody's own request, two persons) stand. Knows no tool.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from mcp.server.elicitation import render_elicitation_schema
from mcp.server.mcpserver import Context
from mcp_types import ElicitRequest, ElicitRequestFormParams, ElicitResult, InputRequiredResult
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, Field, ValidationError

from guardhouse.mcp_server.caller import Caller
from guardhouse.mcp_server.hub_api import HubApi, HubRefused

__all__ = [
    "Answered",
    "HeldCalls",
    "Verdict",
    "ask_through_client",
    "can_ask",
    "decide",
    "find_pending",
    "read_answer",
    "take_answer",
    "try_to_decide",
]

_FOR_HOURS: Final = 4
_ASK: Final = "approval"
_HELD_MAX: Final = 10_000


class Verdict(BaseModel):
    """The form that a person fills in."""

    decision: Literal["approve once", "approve this rule for 4 hours", "deny"] = Field(description="what you decide")
    note: str = Field(default="", max_length=500, description="why; it is written into the audit log")


async def find_pending(hub: HubApi, task_id: str) -> dict[str, Any] | None:
    """Return what a task waits for; None where it waits for nobody, or the caller may not see approvals."""
    try:
        page = await hub.get("/api/v1/approvals", task=task_id, state="pending", limit=1)
    except HubRefused as error:
        if error.status == 403:
            return None
        raise
    return page["approvals"][0] if page["approvals"] else None


def can_ask(context: Context[Any, Any], caller: Caller, approval: Mapping[str, Any]) -> bool:
    """Whether the person behind the client may decide this, and the client can show a form.

    A token that is no admin's decides nothing that it asked for itself, so nobody is asked in vain.
    """
    capabilities = context.client_capabilities
    if capabilities is None or not capabilities.elicitation:
        return False
    is_own = approval["requester"] == caller.id
    return "admin" in caller.scopes or ("approvals:decide" in caller.scopes and not is_own)


async def ask_through_client(
    context: Context[Any, Any], approval: dict[str, Any]
) -> Verdict | InputRequiredResult | None:
    """Show the question; return the answer, or what has to be sent for it to come with the next request.

    None where the person dismissed it: nothing is decided then.
    """
    message = _question(approval)
    if context.session.protocol_version in MODERN_PROTOCOL_VERSIONS:
        form = ElicitRequestFormParams(message=message, requested_schema=render_elicitation_schema(Verdict))
        state = json.dumps({"task_id": approval["task_id"], "approval_id": approval["id"]})
        return InputRequiredResult(input_requests={_ASK: ElicitRequest(params=form)}, request_state=state)
    found = await context.elicit(message, Verdict)
    if found.action == "accept":
        return found.data
    return Verdict(decision="deny", note="declined") if found.action == "decline" else None


def read_answer(context: Context[Any, Any]) -> tuple[str, str, Verdict | None] | None:
    """Return task, approval and answer that a newer client's repeated request carries; None on a first request."""
    if context.request_state is None:
        return None
    state = json.loads(context.request_state)
    found = (context.input_responses or {}).get(_ASK)
    verdict = None
    if isinstance(found, ElicitResult):
        if found.action == "accept":
            try:
                verdict = Verdict.model_validate(found.content or {})
            except ValidationError as error:
                raise HubRefused("invalid_answer", f"the form's answer is not as asked: {error}") from error
        elif found.action == "decline":
            verdict = Verdict(decision="deny", note="declined")
    return state["task_id"], state["approval_id"], verdict


class Answered(NamedTuple):
    """What became of a form's answer: whose it was, and why it does not count, if it does not."""

    task_id: str
    approval_id: str
    refused: str | None


async def take_answer(hub: HubApi, context: Context[Any, Any]) -> Answered | None:
    """Pass on the answer that a repeated request carries, if it carries one, and return what became of it."""
    answered = read_answer(context)
    if answered is None:
        return None
    task_id, approval_id, verdict = answered
    refused = None if verdict is None else await try_to_decide(hub, approval_id, verdict)
    return Answered(task_id, approval_id, refused)


async def decide(hub: HubApi, approval_id: str, verdict: Verdict) -> None:
    """Tell the hub.

    Raises:
        HubRefused: the caller may not decide this, or it is decided already.
    """
    body: dict[str, Any] = {"note": verdict.note}
    if verdict.decision == "deny":
        await hub.post(f"/api/v1/approvals/{approval_id}/deny", body)
        return
    if verdict.decision != "approve once":
        body |= {"scope": "rule", "for_s": _FOR_HOURS * 3_600}
    await hub.post(f"/api/v1/approvals/{approval_id}/approve", body)


async def try_to_decide(hub: HubApi, approval_id: str, verdict: Verdict) -> str | None:
    """Tell the hub; return why its rules do not let the caller decide this, None where it is decided."""
    try:
        await decide(hub, approval_id, verdict)
    except HubRefused as error:
        if error.status != 403:
            raise
        return f"the answer of the form does not count: {error}; {error.hint}"
    return None


def _question(approval: dict[str, Any]) -> str:
    what = " ".join(approval["argv"]) if approval["argv"] else approval["command"]
    lines = [f"Run this on {approval['environment_name'] or approval['environment_id']}?", "", what, ""]
    if approval["gate"] == "exec":
        lines.append(f"It is a program of: {approval['command']}")
    lines.append(
        f"Rule: {approval['rule']} ({approval['place']})" + (f": {approval['because']}" if approval["because"] else "")
    )
    lines.append(f"Asked for by {approval['requested_by']}; expires {approval['expires_at']}")
    return "\n".join(lines)


class HeldCalls:
    """Which task a call that was answered ``approval_required`` started: the same call again goes on with it."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[tuple[str, str, str], str] = OrderedDict()

    def hold(self, caller: str, environment_id: str, args: dict[str, Any], task_id: str) -> None:
        """Remember; the oldest is forgotten beyond ten thousand, and then starts anew."""
        self._tasks[caller, environment_id, json.dumps(args, sort_keys=True)] = task_id
        while len(self._tasks) > _HELD_MAX:
            self._tasks.popitem(last=False)

    def take(self, caller: str, environment_id: str, args: dict[str, Any]) -> str | None:
        """Return the task of the same call, once."""
        return self._tasks.pop((caller, environment_id, json.dumps(args, sort_keys=True)), None)

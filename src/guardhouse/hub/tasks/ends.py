"""What a runner's result makes of a task. Pure. Runs in the hub."""

from typing import Any, Final

import msgspec

from guardhouse.hub.store.tasks import TaskEnd, TaskState
from guardhouse.wire.messages import TaskResult

__all__ = ["decide_end", "hub_end"]

# What a list shows of an error; the runner's whole result is kept beside it.
ERROR_MAX_CHARS: Final = 16_384


def decide_end(result: TaskResult, *, at_ms: int, cancel_asked: bool, notes: list[str]) -> TaskEnd:
    """Return the stored end of a task whose runner answered ``result``.

    A command that ran and returned a status other than 0 has succeeded as a task: its ``exit_code`` says the rest.
    Cancelled and timed out are taken from the operation's own result where it has them; a plain runner's failure
    after a cancel counts as cancelled.
    """
    body: dict[str, Any] = result.result if isinstance(result.result, dict) else {}
    if body.get("timed_out") is True or result.error_code == "timed_out":
        state = TaskState.TIMED_OUT
    elif body.get("cancelled") is True or result.error_code == "cancelled" or (cancel_asked and not result.success):
        state = TaskState.CANCELLED
    else:
        state = TaskState.SUCCEEDED if result.success else TaskState.FAILED
    exit_code = result.exit_code
    if exit_code is None and isinstance(body.get("exit_code"), int):
        exit_code = body["exit_code"]
    reason = body.get("reason")
    error = result.error
    if error is not None and len(error) > ERROR_MAX_CHARS:
        notes = [*notes, f"the error was cut from {len(error)} to {ERROR_MAX_CHARS} characters"]
        error = error[:ERROR_MAX_CHARS]
    return TaskEnd(
        state=state,
        at_ms=at_ms,
        reason=reason[:ERROR_MAX_CHARS] if isinstance(reason, str) and reason else None,
        success=result.success,
        result=None if result.result is None else msgspec.json.encode(result.result),
        error=error,
        error_code=result.error_code[:64] if result.error_code else None,
        exit_code=exit_code,
        output_note="; ".join(notes) or None,
    )


def hub_end(state: TaskState, *, at_ms: int, code: str, reason: str, notes: list[str]) -> TaskEnd:
    """Return an end that the hub gives because no runner does: lost, never started, cancelled before it was sent."""
    return TaskEnd(
        state=state, at_ms=at_ms, reason=reason, error=reason, error_code=code, output_note="; ".join(notes) or None
    )

"""The result of a task as a message: what was done, or why not. Values in, values out. Runs in the runner."""

from typing import Any, Final

import msgspec

from guardhouse.errors import PeerError, Refusal
from guardhouse.limits import MESSAGE_MAX_BYTES
from guardhouse.policy.decision import CommandDenied
from guardhouse.policy.operation import OperationDenied
from guardhouse.runner.admission import NotAdmitted
from guardhouse.runner.passage import Passage
from guardhouse.wire.messages import TaskRequest, TaskResult
from guardhouse.workspace.errors import WorkspaceRefusal

__all__ = ["encode_result", "failed_result", "succeeded_result"]

# Room for the envelope around a result that just fits a frame.
_ENVELOPE_BYTES: Final = 64 * 1024


def succeeded_result(request: TaskRequest, value: Any, passage: Passage | None = None) -> TaskResult:
    """Return the result of a task that was done; ``passage`` tells how the policy was passed."""
    return TaskResult(
        task_id=request.task_id,
        success=True,
        source_instance_id=request.source_instance_id,
        result=value,
        decision=passage.as_json() if passage is not None else None,
    )


def failed_result(
    request: TaskRequest, error: Refusal | PeerError, *, code: str | None = None, passage: Passage | None = None
) -> TaskResult:
    """Return the result of a task that was refused or failed; ``code`` in place of what the error itself says."""
    decision = error.decision if isinstance(error, CommandDenied | NotAdmitted) else None
    return TaskResult(
        task_id=request.task_id,
        success=False,
        source_instance_id=request.source_instance_id,
        error=str(error),
        error_code=code or _error_code(error),
        result=decision.as_json() if decision is not None else None,
        decision=passage.as_json() if passage is not None else None,
    )


def _error_code(error: Refusal | PeerError) -> str:
    if isinstance(error, PeerError):
        return error.code
    if isinstance(error, CommandDenied | NotAdmitted | OperationDenied):
        return "denied"
    if isinstance(error, WorkspaceRefusal):
        return error.code.value
    return "refused"


def encode_result(result: TaskResult) -> bytes | TaskResult:
    """Return the result's JSON; a result that no frame can carry becomes one that says so."""
    try:
        encoded = msgspec.json.encode(result)
    except ValueError as error:
        text = f"the result is not valid text: {error}"
    else:
        if len(encoded) <= MESSAGE_MAX_BYTES - _ENVELOPE_BYTES:
            return encoded
        text = (
            f"the result has {len(encoded)} bytes, more than one message carries ({MESSAGE_MAX_BYTES});"
            " ask for less of it or for a part"
        )
    return TaskResult(
        task_id=result.task_id,
        success=False,
        source_instance_id=result.source_instance_id,
        error=text,
        error_code="oversized",
    )

"""What the routes of tasks and their output take and give. Runs in the hub."""

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from guardhouse import limits
from guardhouse.hub.api.schemas import Input, Key, Offset, Output, Page, Reference, Text

__all__ = [
    "TASK_BODY_MAX_BYTES",
    "CancelRequest",
    "OutputQuery",
    "State",
    "Task",
    "TaskCreate",
    "TaskList",
    "TaskQuery",
    "WaitQuery",
]

_Wait = Annotated[float, Meta(ge=0, le=120, description="seconds to wait for the result; 0 answers at once")]
State = Literal["queued", "sent", "accepted", "running", "succeeded", "failed", "cancelled", "timed_out", "lost"]
TASK_BODY_MAX_BYTES = limits.MESSAGE_MAX_BYTES + 64 * 1024


class TaskCreate(Input, frozen=True):
    """One operation in one environment.

    ``args`` are the operation's own (docs/wire_protocol.md). With an ``idempotency_key`` the same request sent again
    answers with the first one's task. ``queue_s`` lets the task wait so long for a runner that is not connected;
    without it an environment that is not online is refused at once. A ``session_id`` puts the task into a session
    (POST /api/v1/sessions): its environment is the session's, which ``environment_id`` may repeat; an approval "for
    this session" covers the tasks of one asker in it.
    """

    operation: Annotated[str, Meta(min_length=1, max_length=64)]
    environment_id: Reference | None = None
    args: dict[str, Any] = field(default_factory=dict)
    idempotency_key: Key | None = None
    queue_s: Annotated[float, Meta(ge=0, le=86_400)] = 0
    profile: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    session_id: Key | None = None


class WaitQuery(Input, frozen=True):
    """How long to wait for the result."""

    wait_s: _Wait = 0


class TaskQuery(Input, frozen=True):
    """Which tasks, and which page of them.

    ``text`` is looked for in the command, ``executed`` in what really ran or was refused at its exec. ``origin`` is a
    fan-out or schedule, ``asked_by`` the id of a token or person; ``since`` and ``until`` are ISO 8601 and bound
    when it was asked for.
    """

    environment: Text | None = None
    state: State | None = None
    text: Text | None = None
    executed: Text | None = None
    operation: Text | None = None
    session_id: Text | None = None
    origin: Text | None = None
    asked_by: Text | None = None
    since: Text | None = None
    until: Text | None = None
    cursor: Text | None = None
    limit: Page = 100


class Task(Output, frozen=True):
    """One task. ``args`` and ``result`` are absent in lists; ``result`` is what the operation answered.

    ``session_notice`` comes with the answer that started it: what to know of where its session runs.
    """

    id: str
    environment_id: str
    environment_name: str | None
    operation: str
    command: str
    state: State
    state_reason: str | None
    finished: bool
    success: bool | None
    exit_code: int | None
    error: str | None
    error_code: str | None
    stdout_bytes: int
    stderr_bytes: int
    output_note: str | None
    cancel_requested_at: str | None
    cancel_reason: str | None
    requested_by: str
    session_id: str | None
    origin: str | None
    trace_id: str
    protocol: str | None
    timeout_s: float
    created_at: str
    sent_at: str | None
    accepted_at: str | None
    started_at: str | None
    finished_at: str | None
    duration_s: float | None
    args: Any = None
    result: Any = None
    session_notice: str | None = None


class TaskList(Output, frozen=True):
    """One page, newest first; ``next_cursor`` is null on the last."""

    tasks: list[Task]
    next_cursor: str | None


class CancelRequest(Input, frozen=True):
    """Why a task is cancelled."""

    reason: Annotated[str, Meta(max_length=1_024)] = ""


class OutputQuery(Input, frozen=True):
    """Which bytes of a task's output.

    ``offset`` is that of the one named ``stream``; for both, ``stdout_offset`` and ``stderr_offset``.
    """

    stream: Literal["stdout", "stderr", "both"] = "both"
    offset: Offset = 0
    stdout_offset: Offset = 0
    stderr_offset: Offset = 0
    follow: bool = False

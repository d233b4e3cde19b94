"""When to stop waiting for a runner: deadlines of tasks that nothing else would ever end. Pure.

docs/hub.md has the table. Runs in the hub, every few seconds.
"""

from dataclasses import dataclass
from typing import Final

from guardhouse import limits
from guardhouse.hub.store.tasks import TaskRecord, TaskState

__all__ = ["IN_DOUBT", "Overdue", "decide_overdue", "is_in_doubt"]

# A plain runner drops what it finished while disconnected (SEED_FEATURES S100): after this nothing comes.
PLAIN_LOST_AFTER_S: Final = limits.OFFLINE_AFTER_S
# A v1 runner keeps its results in a journal: wait for it to come back, but not for ever.
V1_LOST_AFTER_S: Final = 3_600.0
# Beyond the task's own limit, which the runner keeps: its grace for stopping, and the way.
RESULT_GRACE_S: Final = limits.STOP_GRACE_S + 50.0
CANCEL_GRACE_S: Final = limits.STOP_GRACE_S + 50.0
# Said of a task while nobody can know whether its runner has it, until that answers or the task's time is over.
IN_DOUBT: Final = (
    "the connection over which it was sent ended before anything was heard of it, and a plain runner cannot say"
    " whether the request arrived; it is not sent a second time"
)


@dataclass(frozen=True)
class Overdue:
    """How the hub ends a task, or, with ``state`` None, that it should ask the runner to stop it."""

    state: TaskState | None
    code: str
    reason: str


def is_in_doubt(record: TaskRecord) -> bool:
    """Whether the end of the connection that a task was sent over leaves open if its runner was given it.

    Under v1 the runner's next hello tells.
    """
    return record.state == TaskState.SENT and record.protocol != "guardhouse.v1"


def decide_overdue(
    record: TaskRecord,
    *,
    now_ms: int,
    away_s: float | None,
    cancel_sent_s_ago: float | None,
    waited_s: float = 0.0,
    in_doubt: bool = False,
) -> Overdue | None:
    """Return what to do with a live task, or None to go on waiting.

    Args:
        away_s: for how long its runner has not been connected; None while it is.
        waited_s: for how long it waited for people's answers, which is no time of its own.
        cancel_sent_s_ago: when the runner was told to stop it, on this connection; None when it was not.
        in_doubt: the connection that it was sent over has ended, and nothing was heard of it since (`is_in_doubt`).
    """
    if record.state == TaskState.QUEUED:
        if record.queue_until_ms is not None and now_ms >= record.queue_until_ms:
            return Overdue(TaskState.FAILED, "queue_timeout", "not started: no runner took it in the time it was given")
        return None
    timeout_s = record.timeout_ms / 1000
    since_s = (now_ms - (record.started_ms or record.sent_ms or record.created_ms)) / 1000 - waited_s
    if away_s is not None:
        if record.protocol != "guardhouse.v1":
            if away_s >= PLAIN_LOST_AFTER_S:
                return Overdue(
                    TaskState.LOST, "lost", f"its runner has been gone for {away_s:.0f} s and keeps no results"
                )
        elif away_s >= V1_LOST_AFTER_S and since_s >= timeout_s + RESULT_GRACE_S:
            return Overdue(TaskState.LOST, "lost", f"its runner has been gone for {away_s:.0f} s")
        return None
    if cancel_sent_s_ago is not None and cancel_sent_s_ago >= CANCEL_GRACE_S:
        asked = record.cancel_ms is not None
        if in_doubt and not asked:
            return Overdue(
                TaskState.LOST, "lost", f"{IN_DOUBT}. No result came in its limit of {timeout_s:g} s and two minutes"
            )
        return Overdue(
            TaskState.CANCELLED if asked else TaskState.TIMED_OUT,
            "unconfirmed",
            f"told to stop {cancel_sent_s_ago:.0f} s ago; the runner has not confirmed that it ended",
        )
    # Under v1 a task that waits in the runner is not late; one that runs, or that a plain runner has, is.
    counts = record.state == TaskState.RUNNING or record.protocol != "guardhouse.v1"
    if counts and cancel_sent_s_ago is None and since_s >= timeout_s + RESULT_GRACE_S:
        return Overdue(None, "overdue", f"no result {RESULT_GRACE_S:.0f} s after its limit of {timeout_s:g} s")
    return None

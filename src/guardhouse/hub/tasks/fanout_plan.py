"""What a fan-out does next: which children start, which are left out, and whether it has ended. Pure.

Knows states and two bounds; knows no task, clock or store. Runs in the hub.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["ChildState", "FanoutState", "NextStep", "decide_next"]


class ChildState(StrEnum):
    """Where one environment of a fan-out is. ``succeeded``: its task did, with status 0 or none."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"


class FanoutState(StrEnum):
    """Where a fan-out is. ``finished``: every child was started; ``stopped``: some were not, after too many errors."""

    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class NextStep:
    """Positions to start now and to leave out for good; ``ends_as`` is None while something is still to come."""

    start: tuple[int, ...] = ()
    skip: tuple[int, ...] = ()
    ends_as: FanoutState | None = None


def decide_next(
    children: Sequence[ChildState], *, parallel: int, stop_after: int | None, is_cancelled: bool
) -> NextStep:
    """Return what to do, given every child's state in its order.

    Args:
        parallel: children that may run at a time, at least 1.
        stop_after: failed children after which no other one starts; those that run go on to their end.
        is_cancelled: nothing starts any more.
    """
    failed = sum(state is ChildState.FAILED for state in children)
    running = sum(state is ChildState.RUNNING for state in children)
    waiting = [position for position, state in enumerate(children) if state is ChildState.WAITING]
    is_stopped = stop_after is not None and failed >= stop_after
    skip = tuple(waiting) if is_cancelled or is_stopped else ()
    start = () if skip else tuple(waiting[: max(0, parallel - running)])
    if running or start:
        return NextStep(start=start, skip=skip)
    if is_cancelled:
        return NextStep(skip=skip, ends_as=FanoutState.CANCELLED)
    left_out = skip or any(state is ChildState.SKIPPED for state in children)
    return NextStep(skip=skip, ends_as=FanoutState.STOPPED if left_out else FanoutState.FINISHED)

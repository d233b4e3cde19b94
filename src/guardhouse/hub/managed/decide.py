"""What becomes of a managed sandbox now: it is left alone, stopped, frozen, or its files are deleted.

Pure: the sandbox and the clock in, the next step out. Runs in the hub.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from guardhouse.hub.clock import relative_time
from guardhouse.hub.managed.settings import ManagedSettings

__all__ = [
    "Idle",
    "Occupancy",
    "Step",
    "Use",
    "choose_to_freeze",
    "decide_step",
    "explain_loss",
    "refuse_new",
    "refuse_wake",
]

# An agent thinks between two commands; who has asked for nothing for so long makes room for who asks now.
YIELDS_AFTER_S: Final = 30.0


class Step(StrEnum):
    """What is done with a sandbox."""

    KEEP = "leave it alone"
    FREEZE = "stop its runner, keep its files"
    STOP_TASKS = "cancel its tasks: it holds more than it may"
    WIPE = "delete its files: it holds twice what it may"
    RECLAIM = "delete its files: nobody used it for long"


@dataclass(frozen=True, kw_only=True)
class Use:
    """A sandbox as it is used now.

    Attributes:
        is_running: its runner runs.
        tasks: that run or wait there.
        idle_s: since its last task was asked for or ended.
        is_clock_sure: False soon after the wall clock jumped ahead, when ``idle_s`` may be wrong by months.
        has_files: False once they were deleted.
        size_bytes, files: of its workspace, as last measured.
    """

    is_running: bool
    tasks: int
    idle_s: float
    is_clock_sure: bool = True
    has_files: bool
    size_bytes: int
    files: int


def decide_step(use: Use, settings: ManagedSettings) -> Step:
    """Return what is to be done with a sandbox now. What it holds goes before how long it was idle."""
    fill = max(use.size_bytes / settings.size_bytes, use.files / settings.files)
    if fill > 2:
        return Step.WIPE
    if fill > 1 and use.tasks:
        return Step.STOP_TASKS
    if use.is_running:
        return Step.FREEZE if not use.tasks and use.idle_s >= settings.idle_s else Step.KEEP
    if use.has_files and not use.tasks and use.is_clock_sure and use.idle_s >= settings.reclaim_s:
        return Step.RECLAIM
    return Step.KEEP


def explain_loss(step: Step, use: Use, settings: ManagedSettings, *, at_ms: int) -> str:
    """Return what the session is told of its files that were deleted."""
    if step is Step.WIPE:
        return (
            f"the sandbox held {use.size_bytes} bytes in {use.files} files, more than twice the"
            f" {settings.size_bytes} bytes or {settings.files} files that it may; everything in it was deleted"
        )
    minutes = round(use.idle_s / 60)
    ago = relative_time(at_ms - round(use.idle_s * 1000), now=at_ms)
    return f"the sandbox was last used {ago} ({minutes} minutes idle) and was reclaimed; everything in it was deleted"


@dataclass(frozen=True, kw_only=True)
class Occupancy:
    """All managed sandboxes of a hub: how many there are, how many of them run, and what they hold."""

    sandboxes: int
    running: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Idle:
    """A sandbox that runs and could make room for another; ``active_ms`` is when it was used last."""

    environment_id: str
    tasks: int
    active_ms: int


def choose_to_freeze(running: list[Idle], *, at_ms: int) -> str | None:
    """Return which sandbox makes room when as many run as may; None: each was used within `YIELDS_AFTER_S`."""
    idle = [one for one in running if not one.tasks and at_ms - one.active_ms >= YIELDS_AFTER_S * 1000]
    return min(idle, key=lambda one: one.active_ms).environment_id if idle else None


def refuse_new(occupancy: Occupancy, settings: ManagedSettings) -> str | None:
    """Return why there can be no new sandbox now; None when there can."""
    if occupancy.sandboxes >= settings.sandboxes:
        return f"there are {occupancy.sandboxes} managed sandboxes already; delete sessions that nobody needs"
    if occupancy.size_bytes >= settings.total_bytes:
        return (
            f"the managed sandboxes hold {occupancy.size_bytes} of the {settings.total_bytes} bytes that they may"
            " hold in all; delete sessions that nobody needs"
        )
    return refuse_wake(occupancy, settings)


def refuse_wake(occupancy: Occupancy, settings: ManagedSettings) -> str | None:
    """Return why no further sandbox can run now; None when one can."""
    if occupancy.running >= settings.running:
        return (
            f"{occupancy.running} managed sandboxes run already, all in use; try again when one has been idle for"
            f" {YIELDS_AFTER_S:g} s"
        )
    return None

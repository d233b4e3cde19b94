"""What is wrong with a runner that is connected and beats, and which version it should be: computed when asked.

A condition has a code for programs and a sentence for people. Some make the environment *degraded*: usable, answers
may be slow or late. Missing layers do not: a task whose profile needs one is refused by the runner itself. Pure: what
heartbeats said and the clock in, conditions out. Runs in the hub.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from guardhouse import limits

__all__ = ["Condition", "TimeoutStreaks", "Vitals", "decide_conditions", "newer_version"]

# MAJOR.MINOR.PATCH with what may follow it (SemVer's pre-release or PEP 440's); anything else is no version of ours.
_VERSION: Final = re.compile(r"v?(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:([-.]?(?:a|b|rc|dev|alpha|beta)[0-9.]*)|\+.*)?")
# Environments whose timed-out tasks are counted; beyond them those not heard of for longest are forgotten.
_STREAKS_MAX: Final = 20_000


@dataclass(frozen=True)
class Condition:
    """One thing that is wrong. ``degrades``: it makes an online environment *degraded*."""

    code: str
    text: str
    degrades: bool = True


@dataclass(frozen=True, kw_only=True)
class Vitals:
    """What a connected runner's last heartbeat and report said of itself; None where it said nothing.

    Attributes:
        tasks_waiting: accepted and not started, for want of a slot.
        executor_delay_ms: how long starting the last command took.
        clock_skew_ms: the runner's clock minus the hub's when the heartbeat came.
        missing_layers: of the wall, that its host does not give.
        timeouts: tasks in a row that ended by their time limit, and when the last did (Unix ms).
    """

    tasks_waiting: int | None = None
    executor_delay_ms: int | None = None
    clock_skew_ms: int | None = None
    missing_layers: tuple[str, ...] = ()
    timeouts: int = 0
    timed_out_ms: int = 0


def decide_conditions(vitals: Vitals, *, now_ms: int) -> tuple[Condition, ...]:
    """Return what is wrong at ``now_ms``, the worst first.

    Source: SEED_FEATURES S30 to S33; the bounds are those of `guardhouse.limits`, "Degraded".
    """
    found = []
    delay_ms, waiting = vitals.executor_delay_ms, vitals.tasks_waiting
    if delay_ms is not None and delay_ms >= limits.DEGRADED_DELAY_MS:
        found.append(Condition("delay", f"starting a command took {delay_ms / 1000:.1f} s on the runner"))
    if waiting is not None and waiting >= limits.DEGRADED_TASKS_WAITING:
        found.append(Condition("backlog", f"{waiting} tasks wait in the runner for others to end"))
    says_nothing = delay_ms is None and waiting is None
    is_recent = now_ms - vitals.timed_out_ms < limits.DEGRADED_TIMEOUTS_QUIET_S * 1000
    if says_nothing and is_recent and vitals.timeouts >= limits.DEGRADED_TIMEOUTS:
        found.append(Condition("timeouts", f"the last {vitals.timeouts} tasks ended by their time limit"))
    skew_ms = vitals.clock_skew_ms
    if skew_ms is not None and abs(skew_ms) >= limits.DEGRADED_CLOCK_SKEW_MS:
        way = "ahead of" if skew_ms > 0 else "behind"
        found.append(Condition("clock_skew", f"the runner's clock is {abs(skew_ms) / 1000:.0f} s {way} the hub's"))
    if vitals.missing_layers:
        names = ", ".join(vitals.missing_layers)
        found.append(Condition("missing_layers", f"the runner's host does not give: {names}", degrades=False))
    return tuple(found)


class TimeoutStreaks:
    """Tasks in a row that ended by their time limit, by environment: the only sign that older runners give (S32)."""

    def __init__(self) -> None:
        self._streaks: dict[str, tuple[int, int]] = {}

    def note(self, environment_id: str, *, timed_out: bool, limit_ms: int, at_ms: int) -> None:
        """Note a task's end. Only a time limit of more than 20 s says something of the runner; any success ends it."""
        if not timed_out:
            self._streaks.pop(environment_id, None)
        elif limit_ms > limits.DEGRADED_TIMEOUT_LONGER_THAN_S * 1000:
            count, _ = self._streaks.pop(environment_id, (0, 0))
            self._streaks[environment_id] = (count + 1, at_ms)
            if len(self._streaks) > _STREAKS_MAX:
                del self._streaks[next(iter(self._streaks))]

    def of(self, environment_id: str) -> tuple[int, int]:
        """Return how many there were in a row, and when the last one was (Unix ms)."""
        return self._streaks.get(environment_id, (0, 0))

    def forget(self, environment_ids: Iterable[str]) -> None:
        """Forget environments that are gone."""
        for environment_id in environment_ids:
            self._streaks.pop(environment_id, None)


def newer_version(running: str | None, offered: str) -> bool:
    """Return whether ``offered`` is newer than the version that a runner says it is.

    A version that is not written as ours are is of another program, and nothing is offered for it.
    """
    ours, theirs = _parsed(offered), _parsed(running or "")
    return ours is not None and theirs is not None and theirs < ours


def _parsed(version: str) -> tuple[int, int, int, bool] | None:
    """Return the parts of a version; a pre-release sorts before its release."""
    found = _VERSION.fullmatch(version.strip())
    if found is None:
        return None
    return int(found[1]), int(found[2]), int(found[3]), found[4] is None

"""How long a command may live: time limit, TERM, grace, KILL, and at last its pid 1.

A pure state machine: it is handed the time and says what to do. It lives in the launcher, not in the runner, so
a runner that hangs cannot make a command live longer. Knows no process and no clock.
"""

from enum import Enum, auto
from typing import Final

from guardhouse import limits

__all__ = ["Action", "Lifetime"]


class Action(Enum):
    """What the caller must do now."""

    TERMINATE = auto()  # SIGTERM to every process of the command
    KILL = auto()  # SIGKILL to every process of the command
    DESTROY = auto()  # SIGKILL to its pid 1, with which the kernel ends the whole pid namespace


# What an expired stage does next.
_NEXT: Final = {None: Action.TERMINATE, Action.TERMINATE: Action.KILL, Action.KILL: Action.DESTROY}


class Lifetime:
    """One command, from its start to the moment when nothing of it is left.

    Attributes:
        deadline_s: monotonic time at which `tick` has something to do; None when nothing is left to do.
        timed_out: the time limit, not the runner, began the stop.
        stopped: the runner began the stop.
    """

    def __init__(self, *, now_s: float, timeout_s: float, grace_s: float) -> None:
        self._grace_s = grace_s
        self._left_s: float | None = None
        self._stage: Action | None = None
        self.deadline_s: float | None = now_s + timeout_s
        self.timed_out = False
        self.stopped = False

    def stop(self, now_s: float) -> Action | None:
        """The runner wants the command to end. A second stop changes nothing: the first one's grace holds."""
        if self._stage is not None:
            return None
        self.stopped = True
        return self._enter(Action.TERMINATE, now_s)

    def hold(self, now_s: float, *, at_most_s: float) -> None:
        """Let the time limit stand still while a person is asked, until `go_on`, but no longer than that from now."""
        if self._stage is not None or self.deadline_s is None:
            return
        if self._left_s is None:
            self._left_s = max(0.0, self.deadline_s - now_s)
        self.deadline_s = now_s + at_most_s

    def go_on(self, now_s: float) -> None:
        """Let the time limit run again with what was left of it."""
        if self._left_s is not None and self._stage is None:
            self.deadline_s = now_s + self._left_s
        self._left_s = None

    def tick(self, now_s: float) -> Action | None:
        """Return what is due at ``now_s``, at most one action; call again until it is None."""
        if self.deadline_s is None or now_s < self.deadline_s:
            return None
        if self._left_s is not None and self._stage is None:
            # Nobody has let it go on in time: it goes on by itself.
            self.go_on(now_s)
            return None
        if self._stage is None:
            self.timed_out = True
        return self._enter(_NEXT[self._stage], now_s)

    def _enter(self, action: Action, now_s: float) -> Action:
        self._stage = action
        match action:
            case Action.TERMINATE:
                self.deadline_s = now_s + self._grace_s
            case Action.KILL:
                self.deadline_s = now_s + limits.STOP_KILL_TIMEOUT_S
            case Action.DESTROY:
                self.deadline_s = None
        return action

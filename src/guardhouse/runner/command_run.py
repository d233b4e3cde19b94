"""A command on its way: what was asked for, what gate one admitted, and how it ran. Values only. Runs in the runner."""

from dataclasses import dataclass
from typing import Any

from guardhouse.launcher.messages import CommandOutcome, LaunchRequest
from guardhouse.policy.decision import Decision
from guardhouse.runner.approvals import (
    Approver,
)
from guardhouse.runner.capture import Capture
from guardhouse.sandbox.explain_denial import Denial

__all__ = ["AdmittedCommand", "CommandRequest", "CommandRun", "RunTimes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRequest:
    """A command text, where it is to run below the workspace, its time limit (a rule may shorten it), who asks."""

    text: str
    workdir: str = ""
    timeout_s: float
    requester: str | None = None


@dataclass(frozen=True, slots=True)
class AdmittedCommand:
    """A command that gate one has admitted, ready to be started. Only `CommandService.admit` makes one.

    ``notes`` say who approved it; ``approver`` is who can be asked by the exec gate.
    """

    decision: Decision
    launch: LaunchRequest
    notes: tuple[str, ...] = ()
    approver: Approver | None = None


@dataclass(frozen=True, slots=True)
class RunTimes:
    """When the launcher was asked for it, when it had started, and when it had ended (`trio.current_time`)."""

    asked_s: float
    started_s: float
    ended_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRun:
    """A command that ran: what was decided, how it ended, what it wrote, whom it reached (`egress.record`).

    ``denials`` are what the wall refused it (`sandbox.explain_denial`).
    """

    decision: Decision
    outcome: CommandOutcome
    timeout_s: float
    stdout: Capture
    stderr: Capture
    egress: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    denials: tuple[Denial, ...] = ()
    times: RunTimes

"""Put together how a command ended, from what its pid 1, its cgroup and its time limit say.

Pure. Knows exit statuses and reasons for people. Used by the launcher.
"""

import os
import signal
from dataclasses import dataclass
from typing import Any, Final

from guardhouse import limits
from guardhouse.errors import PeerError
from guardhouse.launcher.lifetime import Lifetime
from guardhouse.launcher.messages import CommandOutcome

__all__ = ["GroupUsage", "lost_outcome", "make_outcome"]

_SIGNAL_EXIT_BASE: Final = 128  # the shell's convention for a status that names a signal
_DENIED_NAMES_SHOWN: Final = 5
_MEBIBYTE: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupUsage:
    """What the control group of a command says of its memory. Without one, what is here by default.

    Attributes:
        peak_bytes: the most that all its processes had together; None where nothing counted it.
        oom_kills: processes in it that the kernel killed because memory ran out.
        limit_bytes: what it may have; None where no controller bounds it.
    """

    peak_bytes: int | None = None
    oom_kills: int = 0
    limit_bytes: int | None = None


def make_outcome(
    report: dict[str, Any],
    lifetime: Lifetime,
    *,
    usage: GroupUsage,
    notes: tuple[str, ...],
) -> CommandOutcome:
    """Return the outcome for the init's ``ended`` report.

    Raises:
        PeerError: the report lacks something or has it in another type.
    """
    try:
        status = int(report["status"])
        denied = {str(name): int(count) for name, count in report["denied"].items()}
        killed = int(report["killed"])
        largest_bytes = int(report["largest_bytes"])
        execs = report.get("execs")
        duration_s, user_s, system_s = (float(report[key]) for key in ("duration_s", "user_s", "system_s"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PeerError(f"init's report is incomplete: {error!r}") from error
    signal_number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    exit_code = os.WEXITSTATUS(status) if signal_number is None else _SIGNAL_EXIT_BASE + signal_number
    all_notes = list(notes)
    if killed and not (lifetime.timed_out or lifetime.stopped):
        all_notes.append(f"{killed} still running when the command ended, killed")
    if denied:
        all_notes.append(_denied_note(denied))
    if usage.peak_bytes is None:
        all_notes.append("peak memory is that of the largest single process")
    return CommandOutcome(
        exit_code=limits.BASH_TIMEOUT_EXIT_CODE if lifetime.timed_out else exit_code,
        signal=signal_number,
        timed_out=lifetime.timed_out,
        cancelled=lifetime.stopped,
        duration_s=duration_s,
        cpu_user_s=user_s,
        cpu_system_s=system_s,
        peak_memory_bytes=largest_bytes or None if usage.peak_bytes is None else usage.peak_bytes,
        oom_killed=usage.oom_kills > 0,
        denied_syscalls=denied,
        killed_descendants=killed,
        notes=tuple(all_notes),
        reason=_reason(signal_number, lifetime, usage),
        execs=execs,
    )


def lost_outcome(lifetime: Lifetime, *, duration_s: float, usage: GroupUsage, notes: tuple[str, ...]) -> CommandOutcome:
    """Return the outcome of a command whose pid 1 died under it, and which the kernel ended with it."""
    exit_code = limits.BASH_TIMEOUT_EXIT_CODE if lifetime.timed_out else _SIGNAL_EXIT_BASE + signal.SIGKILL
    reason = _reason(None, lifetime, usage)
    return CommandOutcome(
        exit_code=exit_code,
        signal=signal.SIGKILL,
        timed_out=lifetime.timed_out,
        cancelled=lifetime.stopped,
        duration_s=duration_s,
        cpu_user_s=0.0,
        cpu_system_s=0.0,
        peak_memory_bytes=usage.peak_bytes,
        oom_killed=usage.oom_kills > 0,
        denied_syscalls={},
        killed_descendants=0,
        notes=(*notes, "CPU time was lost with the command's pid 1"),
        reason=reason or "its pid 1 was killed; the kernel ended every process with it",
    )


def _denied_note(denied: dict[str, int]) -> str:
    shown = sorted(denied.items(), key=lambda item: (-item[1], item[0]))[:_DENIED_NAMES_SHOWN]
    text = ", ".join(f"{name} ({count})" for name, count in shown)
    more = len(denied) - len(shown)
    return f"seccomp denied {text}" + (f" and {more} other calls" if more else "")


def _out_of_memory(usage: GroupUsage) -> str:
    """Say how many were killed and at which limit; a peak far below it means that the host itself had no more."""
    words = ["a process" if usage.oom_kills == 1 else f"{usage.oom_kills} processes"]
    if usage.limit_bytes is not None:
        words.append(f"all of the command together may have {usage.limit_bytes / _MEBIBYTE:.0f} MiB")
    if usage.peak_bytes is not None:
        words.append(f"it had {usage.peak_bytes / _MEBIBYTE:.0f} MiB at most")
    return "out of memory: the kernel killed " + ", ".join(words)


def _reason(signal_number: int | None, lifetime: Lifetime, usage: GroupUsage) -> str | None:
    if lifetime.timed_out:
        return "time limit reached; the whole process tree was stopped"
    if lifetime.stopped:
        return "stopped on request with its whole process tree"
    if usage.oom_kills:
        return _out_of_memory(usage)
    match signal_number:
        case signal.SIGSYS:
            return "seccomp: killed for a system call that the profile's filter answers with death"
        case signal.SIGXCPU:
            return "rlimits: CPU time limit of one process reached"
        case signal.SIGXFSZ:
            return "rlimits: file size limit reached"
        case _:
            return None

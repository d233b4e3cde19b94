"""Put together how a command ended, from what its pid 1, its cgroup and its time limit say.

Pure. Knows exit statuses and reasons for people. Used by the launcher.
"""

import os
import signal
from typing import Any, Final

from guardhouse import limits
from guardhouse.errors import PeerError
from guardhouse.launcher.lifetime import Lifetime
from guardhouse.launcher.messages import CommandOutcome

__all__ = ["lost_outcome", "make_outcome"]

_SIGNAL_EXIT_BASE: Final = 128  # the shell's convention for a status that names a signal
_DENIED_NAMES_SHOWN: Final = 5


def make_outcome(
    report: dict[str, Any],
    lifetime: Lifetime,
    *,
    peak_bytes: int | None,
    oom_killed: bool,
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
    if peak_bytes is None:
        all_notes.append("peak memory is that of the largest single process")
    return CommandOutcome(
        exit_code=limits.BASH_TIMEOUT_EXIT_CODE if lifetime.timed_out else exit_code,
        signal=signal_number,
        timed_out=lifetime.timed_out,
        cancelled=lifetime.stopped,
        duration_s=duration_s,
        cpu_user_s=user_s,
        cpu_system_s=system_s,
        peak_memory_bytes=largest_bytes or None if peak_bytes is None else peak_bytes,
        oom_killed=oom_killed,
        denied_syscalls=denied,
        killed_descendants=killed,
        notes=tuple(all_notes),
        reason=_reason(signal_number, lifetime, oom_killed=oom_killed),
        execs=execs,
    )


def lost_outcome(lifetime: Lifetime, *, duration_s: float, oom_killed: bool, notes: tuple[str, ...]) -> CommandOutcome:
    """Return the outcome of a command whose pid 1 died under it, and which the kernel ended with it."""
    exit_code = limits.BASH_TIMEOUT_EXIT_CODE if lifetime.timed_out else _SIGNAL_EXIT_BASE + signal.SIGKILL
    why = "out of memory" if oom_killed else "its pid 1 was killed"
    return CommandOutcome(
        exit_code=exit_code,
        signal=signal.SIGKILL,
        timed_out=lifetime.timed_out,
        cancelled=lifetime.stopped,
        duration_s=duration_s,
        cpu_user_s=0.0,
        cpu_system_s=0.0,
        peak_memory_bytes=None,
        oom_killed=oom_killed,
        denied_syscalls={},
        killed_descendants=0,
        notes=(*notes, "CPU time and memory were lost with the command's pid 1"),
        reason=_reason(None, lifetime, oom_killed=oom_killed) or f"{why}; the kernel ended every process with it",
    )


def _denied_note(denied: dict[str, int]) -> str:
    shown = sorted(denied.items(), key=lambda item: (-item[1], item[0]))[:_DENIED_NAMES_SHOWN]
    text = ", ".join(f"{name} ({count})" for name, count in shown)
    more = len(denied) - len(shown)
    return f"seccomp denied {text}" + (f" and {more} other calls" if more else "")


def _reason(signal_number: int | None, lifetime: Lifetime, *, oom_killed: bool) -> str | None:
    if lifetime.timed_out:
        return "time limit reached; the whole process tree was stopped"
    if lifetime.stopped:
        return "stopped on request with its whole process tree"
    if oom_killed:
        return "out of memory: the kernel killed a process at the profile's memory limit"
    match signal_number:
        case signal.SIGSYS:
            return "seccomp: killed for a system call that the profile's filter answers with death"
        case signal.SIGXCPU:
            return "rlimits: CPU time limit of one process reached"
        case signal.SIGXFSZ:
            return "rlimits: file size limit reached"
        case _:
            return None

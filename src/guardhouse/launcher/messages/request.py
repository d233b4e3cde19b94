"""A command as the runner asks the launcher for it, and how it ended: the values and what a request may hold.

Standard library only: part of the launcher.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from guardhouse import limits
from guardhouse.errors import PeerError, Refusal

__all__ = ["CommandOutcome", "LaunchError", "LaunchRequest", "StopReason", "check_launch_request"]

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_PROFILE: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}\Z")

# Names that change which code a program loads or how a shell starts: an allowed program would not be the program
# that the policy judged any more. The profile's own environment may set what it likes.
_CODE_LOADING: Final = re.compile(
    r"(?:LD_|DYLD_|GLIBC_|MALLOC_|PYTHON|PERL5?|RUBY|NODE_|JAVA_TOOL|_JAVA|LUA_|BASH|GIT_|GCONV|LOCPATH"
    r"|NLSPATH|HOSTALIASES|RES_OPTIONS|TMPDIR\Z|ENV\Z|IFS\Z|PATH\Z|HOME\Z|SHELL\Z|SHELLOPTS\Z|PS4\Z"
    r"|PROMPT_COMMAND\Z|CDPATH\Z|PWD\Z|OLDPWD\Z|USER\Z|LOGNAME\Z)"
)


class StopReason(StrEnum):
    """Why the runner ends a command."""

    CANCEL = "cancel"
    SHUTDOWN = "shutdown"
    OUTPUT_LIMIT = "output_limit"
    POLICY = "policy"


class LaunchError(Refusal):
    """The launcher did not start a command. ``layer`` names the layer of the wall, or the part of the request."""

    def __init__(self, layer: str, why: str) -> None:
        super().__init__(f"command not started: {layer}: {why}")
        self.layer = layer
        self.why = why


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """One command.

    Attributes:
        profile: name of a profile in the launcher's bundle.
        argv: the program, looked up in the bundle's trusted path when it has no ``/``, and its arguments.
        workdir: below the workspace, ``""`` for the workspace itself.
        environment: a few entries on top of the profile's own, which cannot be replaced.
        timeout_s: wall-clock seconds after which the whole tree is stopped and the exit code is 124.
        grace_s: seconds between SIGTERM and SIGKILL of a stopped tree.
        requester: who asked for it, for rules with conditions; None when nobody said.
        ask_timeout_s: how long a question of the exec gate may wait for its answer; 0: nobody can be asked.
        approved: commands that a person approved at gate one, each as the place of the rule and the argument vector:
            the exec gate asks about them no more. What a rule denies it denies all the same.
    """

    profile: str
    argv: tuple[str, ...]
    workdir: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    timeout_s: float = limits.BASH_TIMEOUT_DEFAULT_S
    grace_s: float = limits.STOP_GRACE_S
    requester: str | None = None
    ask_timeout_s: float = 0.0
    approved: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """How one command ended.

    Attributes:
        exit_code: exit status; 128 + n for a signal n; 124 when timed out; 127 and 126 as a shell means them.
        signal: the signal that ended the main process, or None.
        duration_s: wall-clock, from the program's start to its end.
        cpu_user_s: of every process of the command that has ended, likewise ``cpu_system_s``.
        peak_memory_bytes: of the whole command where a cgroup counts it, else of its largest process; None
            where neither is known.
        denied_syscalls: how often each call was denied, where the profile counts.
        killed_descendants: processes that were still there when the main one had ended.
        execs: every program that ran (``ran``) or was refused (``refused``) as the exec gate saw it, and how many are
            left out (``left_out``); with less of each where execs were only notified; None without either.
        notes: layers that this host lacks, what was killed, hints.
        reason: one line for a person when something other than the command itself ended it.
    """

    exit_code: int
    signal: int | None
    timed_out: bool
    cancelled: bool
    duration_s: float
    cpu_user_s: float
    cpu_system_s: float
    peak_memory_bytes: int | None
    oom_killed: bool
    denied_syscalls: dict[str, int]
    killed_descendants: int
    notes: tuple[str, ...]
    reason: str | None
    execs: dict[str, Any] | None = None


def check_launch_request(request: LaunchRequest) -> None:
    """Raise PeerError where ``request`` is beyond a limit or could mean more than a profile and parameters."""
    if not _PROFILE.match(request.profile):
        raise PeerError(f"profile name {request.profile[:80]!r} is not lower-case letters, digits, '.', '_', '-'")
    _check_argv(request.argv)
    _check_workdir(request.workdir)
    _check_environment(request.environment)
    if not 0 < request.timeout_s <= limits.BASH_TIMEOUT_MAX_S:
        raise PeerError(f"timeout_s {request.timeout_s} is not above 0 and at most {limits.BASH_TIMEOUT_MAX_S}")
    if not 0 <= request.grace_s <= limits.LAUNCH_GRACE_MAX_S:
        raise PeerError(f"grace_s {request.grace_s} is not from 0 to {limits.LAUNCH_GRACE_MAX_S}")
    if not 0 <= request.ask_timeout_s <= limits.APPROVAL_TIMEOUT_MAX_S:
        raise PeerError(f"ask_timeout_s {request.ask_timeout_s} is not from 0 to {limits.APPROVAL_TIMEOUT_MAX_S}")
    if len(request.approved) > limits.LAUNCH_APPROVED_MAX or not all(len(words) > 1 for words in request.approved):
        raise PeerError(f"approved has more than {limits.LAUNCH_APPROVED_MAX} commands, or one without a word")


def _check_argv(argv: tuple[str, ...]) -> None:
    if not 1 <= len(argv) <= limits.LAUNCH_ARGV_MAX_WORDS:
        raise PeerError(f"argv has {len(argv)} words, from 1 to {limits.LAUNCH_ARGV_MAX_WORDS} are possible")
    if not argv[0]:
        raise PeerError("argv[0] is empty: it must name a program")
    for index, word in enumerate(argv):
        if "\0" in word:
            raise PeerError(f"argv[{index}] holds a NUL byte, which no argument can")
        if len(_encode(word, f"argv[{index}]")) > limits.COMMAND_TEXT_MAX_BYTES:
            raise PeerError(
                f"argv[{index}] is longer than {limits.COMMAND_TEXT_MAX_BYTES} bytes, the kernel's limit for one"
                " argument; put the text into a file in the workspace",
                code="oversized",
            )


def _check_workdir(workdir: str) -> None:
    if "\0" in workdir or len(_encode(workdir, "workdir")) > limits.LAUNCH_WORKDIR_MAX_BYTES:
        raise PeerError("workdir holds a NUL byte or is longer than a path can be")
    if workdir.startswith("/") or ".." in workdir.split("/"):
        raise PeerError(f"path escapes workspace: workdir {workdir!r} must be relative and without '..'")


def _check_environment(environment: dict[str, str]) -> None:
    if len(environment) > limits.LAUNCH_ENVIRONMENT_MAX_ENTRIES:
        raise PeerError(
            f"environment has {len(environment)} entries, the limit is {limits.LAUNCH_ENVIRONMENT_MAX_ENTRIES}"
        )
    for name, value in environment.items():
        if not _NAME.match(name):
            raise PeerError(f"environment name {name[:80]!r} is not letters, digits and '_'")
        if _CODE_LOADING.match(name):
            raise PeerError(
                f"environment entry {name!r} refused: it can change which code a program runs;"
                " set it in the profile's environment if it is meant"
            )
        if "\0" in value or len(_encode(value, name)) > limits.COMMAND_TEXT_MAX_BYTES - len(name) - 1:
            raise PeerError(f"environment entry {name!r} holds a NUL byte or is too long")


def _encode(text: str, what: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise PeerError(f"{what} holds a lone surrogate that stands for no byte") from error

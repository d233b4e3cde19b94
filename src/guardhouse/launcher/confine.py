"""The steps by which one thread of an init process becomes a command, in order.

Namespaces, ids, capabilities, Landlock domains and seccomp filters belong to threads. So a thread that does
nothing else confines itself and starts the program as vfork would: no page of the interpreter is copied, which
is most of what starting a command from Python costs otherwise (FIGURES.md, "What the prototypes taught"). The
thread ends then and is never used again.

All steps are the same for every command of a profile, so they are done ahead of the request; what a request adds
(a program, a directory below the workspace) is done under the full confinement.

Knows one command's plan; what pid 1 has done before is in `prepare.py`. Runs in init processes.
"""

# ruff: noqa: PTH109 - the launcher does without pathlib: it would double what each fork copies
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from guardhouse.errors import SetupError
from guardhouse.kernel import credentials, namespaces, seccomp
from guardhouse.kernel.spawn import spawn
from guardhouse.kernel.syscalls import ARCHITECTURE
from guardhouse.launcher.enter_landlock import enter_landlock
from guardhouse.launcher.view import PrivatePart, renew_private_parts
from guardhouse.sandbox.bundle import Bundle, Identity, ProfilePlan

__all__ = ["STEPS", "Confinement", "Program", "Step", "StepFailedError", "confine_thread", "start_program"]


class StepFailedError(Exception):
    """A step did not succeed, so no program was started. ``layer`` and ``why`` are for the refusal."""

    def __init__(self, layer: str, why: str) -> None:
        super().__init__(f"{layer}: {why}")
        self.layer = layer
        self.why = why


@dataclass(slots=True)
class Confinement:
    """What one thread needs to know to confine itself: everything but the program.

    Attributes:
        drops_ids: the launcher was started by root, so ids change; otherwise they are the right ones already.
        private_parts: what of the view is made anew.
        counts_denials: somebody answers the notifications of denied calls.
        is_gated: the exec gate's monitor follows this thread, so execve and execveat stop for it.
        listener_fd: out: where denied calls, and execs as the plan says, wait for an answer; -1 when the filter answers
            by itself.
    """

    bundle: Bundle
    plan: ProfilePlan
    drops_ids: bool
    private_parts: tuple[PrivatePart, ...]
    counts_denials: bool
    is_gated: bool = field(default=False)
    listener_fd: int = field(default=-1)

    @property
    def identity(self) -> Identity:
        """Who the program will be."""
        return self.bundle.identity


@dataclass(slots=True)
class Program:
    """What a confined thread starts.

    Attributes:
        workdir: relative to the workspace.
        stdio: descriptors, each 3 or more.
        failure: out: errno of an exec that failed although every layer is up, 0 otherwise.
    """

    argv: tuple[str, ...]
    workdir: str
    environment: dict[str, str]
    stdio: tuple[int, int, int]
    failure: int = field(default=0)


@dataclass(frozen=True, slots=True)
class Step:
    """One step; ``layer`` is the name that a profile's ``requires``, a refusal and ``doctor`` use."""

    name: str
    layer: str
    run: Callable[[Confinement], None]
    why: str


def _copy_view(confinement: Confinement) -> None:
    kinds = {"mount"} | ({"ipc"} & confinement.plan.namespaces)
    namespaces.unshare(kinds)
    renew_private_parts(confinement.private_parts, confinement.identity)


def _drop_ids(confinement: Confinement) -> None:
    if not confinement.drops_ids:
        return
    identity = confinement.identity
    credentials.set_supplementary_groups(identity.groups)
    credentials.set_ids(identity.uid, identity.gid)


def _drop_capabilities(_confinement: Confinement) -> None:
    credentials.keep_capabilities_only(0)
    if credentials.permitted_capabilities() != 0:
        raise SetupError("a capability is left after all were dropped")


def _restrict_paths(confinement: Confinement) -> None:
    if confinement.plan.landlock is not None:
        enter_landlock(confinement.plan.landlock)


def _install_filter(confinement: Confinement) -> None:
    if not confinement.plan.seccomp:
        return
    compiled = confinement.plan.seccomp.get(ARCHITECTURE)
    if compiled is None:
        raise SetupError(f"the profile has no filter for {ARCHITECTURE}; it has {sorted(confinement.plan.seccomp)}")
    answers = "notify" if confinement.counts_denials else "errno"
    if confinement.plan.exec_notice != "none":
        program = compiled.programs[f"{answers}_execs"]
        confinement.listener_fd = seccomp.install(program, listener=True, waits_killable=True)
        return
    program = compiled.programs[f"{answers}_gate" if confinement.is_gated else answers]
    listener_fd = seccomp.install(program, listener=confinement.counts_denials)
    if confinement.counts_denials:
        confinement.listener_fd = listener_fd


# Order is the design: each step takes away the means to undo the ones before it.
STEPS: Final = (
    Step(
        "mount_view",
        "mount_view",
        _copy_view,
        why="its own copy of the view, with empty private parts: nothing stays behind",
    ),
    Step(
        "identity",
        "capabilities",
        _drop_ids,
        why="after the mounts, which need the privilege; before paths are opened as the user",
    ),
    Step("capabilities", "capabilities", _drop_capabilities, why="mounting is over and nothing later needs one"),
    Step("landlock", "landlock", _restrict_paths, why="still holds if the view or the filter has a mistake"),
    Step("seccomp", "seccomp", _install_filter, why="last, since it forbids the calls used above"),
)


def confine_thread(confinement: Confinement) -> None:
    """Do every step: the calling thread is confined for good.

    Raises:
        StepFailedError: a layer could not be put up; the caller ends the thread or process.
    """
    for step in STEPS:
        try:
            step.run(confinement)
        except (OSError, SetupError) as error:
            raise StepFailedError(step.layer, f"step {step.name!r}: {error}") from error


def start_program(confinement: Confinement, program: Program) -> int:
    """Start the program from the calling thread, which is confined; return its pid.

    Raises:
        StepFailedError: the working directory is missing, closed to the user, or not in the workspace.
        OSError: the program itself could not be started (``program.failure`` is set as well).
    """
    directory = _enter_workdir(confinement.bundle.workspace, program.workdir)
    path = _find_program(confinement.bundle.trusted_path, program)
    environment = {**program.environment, **confinement.plan.environment, "PWD": directory}
    words = [os.fsencode(word) for word in program.argv]
    entries = [os.fsencode(f"{name}={value}") for name, value in environment.items()]
    try:
        return spawn(os.fsencode(path), words, entries, stdio=program.stdio)
    except OSError as error:
        program.failure = error.errno or errno.ENOEXEC
        raise


def _enter_workdir(workspace: str, workdir: str) -> str:
    """Go to the working directory as the command's own user, so that its permissions decide; return its path."""
    try:
        os.chdir(workspace)
        top = os.getcwd()
        if workdir:
            os.chdir(workdir)
        directory = os.getcwd()
    except OSError as error:
        raise StepFailedError("workdir", f"{workdir or workspace!r}: {error.strerror}") from error
    if directory != top and not directory.startswith(f"{top}/"):
        raise StepFailedError("workdir", f"path escapes workspace: {workdir!r} leads to {directory!r}")
    return directory


def _find_program(trusted_path: str, program: Program) -> str:
    """Return the path of argv[0]: itself when it has a slash, else the first hit in the trusted path."""
    name = program.argv[0]
    if "/" in name:
        return name
    for directory in trusted_path.split(":"):
        candidate = f"{directory}/{name}"
        if directory.startswith("/") and os.access(candidate, os.X_OK):
            return candidate
    program.failure = errno.ENOENT
    raise FileNotFoundError(errno.ENOENT, "command not found", name)

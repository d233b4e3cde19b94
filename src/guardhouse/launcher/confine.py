"""The steps by which one thread of an init process becomes a command, in order.

Namespaces, ids, capabilities, Landlock domains and seccomp filters belong to threads. So a thread that does
nothing else confines itself and starts the program as vfork would: no page of the interpreter is copied, which
is most of what starting a command from Python costs otherwise (FIGURES.md, "What the prototypes taught"). The
thread ends then and is never used again.

Knows one command's plan; what pid 1 has done before is in `prepare.py`. Runs in init processes.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from guardhouse.errors import SetupError
from guardhouse.kernel import credentials, landlock, mounts, namespaces, seccomp
from guardhouse.kernel.spawn import spawn
from guardhouse.kernel.syscalls import ARCHITECTURE
from guardhouse.launcher.view import PrivatePart, renew_private_parts
from guardhouse.sandbox.bundle import Bundle, Identity, ProfilePlan

__all__ = ["STEPS", "Command", "Step", "StepFailedError", "become_command", "confine_thread"]


class StepFailedError(Exception):
    """A step did not succeed, so no program was started. ``layer`` and ``why`` are for the refusal."""

    def __init__(self, layer: str, why: str) -> None:
        super().__init__(f"{layer}: {why}")
        self.layer = layer
        self.why = why


@dataclass(slots=True)
class Command:
    """What one thread needs to know to become one command.

    Attributes:
        drops_ids: the launcher was started by root, so ids change; otherwise they are the right ones already.
        private_parts: what of the view is made anew.
        stdio: descriptors, each 3 or more.
        workdir: relative to the workspace.
        counts_denials: somebody answers the notifications of denied calls.
        listener_fd: out: where denied calls wait for an answer, -1 when the filter answers by itself.
        program_error: out: errno of an exec that failed although every layer is up, 0 otherwise.
    """

    bundle: Bundle
    plan: ProfilePlan
    drops_ids: bool
    private_parts: tuple[PrivatePart, ...]
    argv: tuple[str, ...]
    workdir: str
    environment: dict[str, str]
    stdio: tuple[int, int, int]
    counts_denials: bool
    listener_fd: int = field(default=-1)
    program_error: int = field(default=0)

    @property
    def identity(self) -> Identity:
        """Who the program will be."""
        return self.bundle.identity


@dataclass(frozen=True, slots=True)
class Step:
    """One step; ``layer`` is the name that a profile's ``requires``, a refusal and ``doctor`` use."""

    name: str
    layer: str
    run: Callable[[Command], None]
    why: str


def _copy_view(command: Command) -> None:
    kinds = {"mount"} | ({"ipc"} & command.plan.namespaces)
    namespaces.unshare(kinds)
    renew_private_parts(command.private_parts, command.identity)


def _drop_ids(command: Command) -> None:
    if not command.drops_ids:
        return
    identity = command.identity
    credentials.set_supplementary_groups(identity.groups)
    credentials.set_ids(identity.uid, identity.gid)


def _drop_capabilities(_command: Command) -> None:
    credentials.keep_capabilities_only(0)
    if credentials.permitted_capabilities() != 0:
        raise SetupError("a capability is left after all were dropped")


def _enter_workdir(command: Command) -> None:
    """Go to the working directory as the command's own user, so that its permissions decide."""
    workspace_fd = os.open(command.bundle.workspace, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Resolved with the workspace for a root: a link to /etc leads to <workspace>/etc or nowhere.
        directory_fd = mounts.open_in_root(workspace_fd, command.workdir or ".")
        try:
            os.fchdir(directory_fd)
        finally:
            os.close(directory_fd)
    finally:
        os.close(workspace_fd)


def _restrict_paths(command: Command) -> None:
    plan = command.plan.landlock
    if plan is None:
        return
    ruleset_fd = landlock.create_ruleset(handled_fs=plan.handled_fs, handled_net=plan.handled_net, scoped=plan.scoped)
    try:
        for rule in plan.paths:
            try:
                path_fd = os.open(rule.path, os.O_PATH | os.O_CLOEXEC)
            except OSError as error:
                # EACCES: the command's own user cannot get there either, so there is nothing to allow.
                if rule.optional and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                    continue
                raise
            try:
                is_directory = (os.fstat(path_fd).st_mode & 0o170000) == 0o040000
                landlock.allow_path(ruleset_fd, path_fd, rule.access, is_directory=is_directory)
            finally:
                os.close(path_fd)
        for port in plan.ports:
            landlock.allow_port(ruleset_fd, port.port, port.access)
        landlock.restrict_self(ruleset_fd)
    finally:
        os.close(ruleset_fd)


def _install_filter(command: Command) -> None:
    if not command.plan.seccomp:
        return
    compiled = command.plan.seccomp.get(ARCHITECTURE)
    if compiled is None:
        raise SetupError(f"the profile has no filter for {ARCHITECTURE}; it has {sorted(command.plan.seccomp)}")
    if command.counts_denials:
        command.listener_fd = seccomp.install(compiled.programs["notify"], listener=True)
    else:
        seccomp.install(compiled.programs["errno"], listener=False)


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
    Step("workdir", "workdir", _enter_workdir, why="as the user, so that a directory closed to them stays closed"),
    Step("landlock", "landlock", _restrict_paths, why="still holds if the view or the filter has a mistake"),
    Step("seccomp", "seccomp", _install_filter, why="last, since it forbids the calls used above"),
)


def confine_thread(command: Command) -> None:
    """Do every step: the calling thread is confined for good.

    Raises:
        StepFailedError: a layer could not be put up; the caller ends the thread or process.
    """
    for step in STEPS:
        try:
            step.run(command)
        except (OSError, SetupError) as error:
            raise StepFailedError(step.layer, f"step {step.name!r}: {error}") from error


def become_command(command: Command) -> int:
    """Confine the calling thread for good and start the program; return its pid.

    Raises:
        StepFailedError: a layer could not be put up; nothing was started.
        OSError: the program itself could not be started (``command.program_error`` is set as well).
    """
    confine_thread(command)
    path = _find_program(command)
    environment = {**command.environment, **command.plan.environment, "PWD": _working_directory(command)}
    words = [os.fsencode(word) for word in command.argv]
    entries = [os.fsencode(f"{name}={value}") for name, value in environment.items()]
    try:
        return spawn(os.fsencode(path), words, entries, stdio=command.stdio)
    except OSError as error:
        command.program_error = error.errno or errno.ENOEXEC
        raise


def _working_directory(command: Command) -> str:
    return os.path.normpath(f"{command.bundle.workspace}/{command.workdir}")


def _find_program(command: Command) -> str:
    """Return the path of argv[0]: itself when it has a slash, else the first hit in the trusted path."""
    name = command.argv[0]
    if "/" in name:
        return name
    for directory in command.bundle.trusted_path.split(":"):
        candidate = f"{directory}/{name}"
        if directory.startswith("/") and os.access(candidate, os.X_OK):
            return candidate
    command.program_error = errno.ENOENT
    raise FileNotFoundError(errno.ENOENT, "command not found", name)

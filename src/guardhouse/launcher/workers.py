"""Workers: our own code that meets hostile input, cloned from the launcher and confined like a command.

A worker has namespaces of its own, sees what its profile shows, and never execs. Its code is imported
before it is confined; from then on it holds one socket and one directory. Runs in the launcher (`make_worker`) and
as the worker process itself.
"""

import contextlib
import importlib
import os
import signal
import socket
import sys
import traceback
from dataclasses import dataclass
from typing import Final, NoReturn

from guardhouse.errors import SetupError
from guardhouse.kernel import credentials, namespaces
from guardhouse.launcher.cgroup import CgroupHome, Group
from guardhouse.launcher.confine import Confinement, confine_thread
from guardhouse.launcher.prepare import Place, prepare
from guardhouse.sandbox.bundle import Bundle, ProfilePlan

__all__ = ["WORKER_PROFILES", "Worker", "WorkerCode", "make_worker"]

# The kind that a request names: its profile in the bundle, which no command can be started with.
WORKER_PROFILES: Final = {
    "files": "files_worker",
    "fetch": "fetch_worker",
    "parser": "parser_worker",
    "mcp": "mcp_worker",
}
_MODULES: Final = {
    "files": "guardhouse.worker.files",
    "fetch": "guardhouse.worker.fetch",
    "parser": "guardhouse.worker.parser",
    "mcp": "guardhouse.worker.mcp_session",
}
_SETTINGS_MODULE: Final = "guardhouse.worker.settings"
_CLONED: Final = frozenset({"user", "mount", "pid", "ipc", "uts", "net"})
_EXIT_BROKEN: Final = 70


@dataclass(frozen=True, slots=True)
class WorkerCode:
    """What a worker needs beyond its profile.

    Attributes:
        packages: directory of third-party packages.
        settings: the operator's, a JSON object that the worker's own module parses.
    """

    packages: str
    settings: bytes


@dataclass(slots=True)
class Worker:
    """One running worker."""

    pid: int
    pidfd: int
    group: Group | None

    def destroy(self) -> None:
        """Kill it; its end shows on ``pidfd``."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def bury(self) -> None:
        """Wait for its end and let go of what was its own."""
        os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        if self.group is not None:
            self.group.remove()


def make_worker(
    bundle: Bundle, plan: ProfilePlan, kind: str, home: CgroupHome | None, *, code: WorkerCode
) -> tuple[Worker, int]:
    """Start a worker; return it and the descriptor of the socket (SOCK_STREAM) that leads to it.

    Raises:
        SetupError: no cgroup or no namespaces; the message names the layer first.
    """
    try:
        group = None if home is None else home.make_group(plan.cgroup)
    except OSError as error:
        raise SetupError(f"cgroup_pids: {error}") from error
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    place = Place(
        bundle=bundle,
        plan=plan,
        launcher_ids=(os.getuid(), os.getgid()),
        cgroup_files=() if group is None else group.procs_files,
        kept=(theirs.fileno(),),
        pids_in_cgroup=group is not None and group.bounds_pids,
    )
    try:
        pid, pidfd = namespaces.clone_process(
            plan.namespaces & _CLONED, cgroup_fd=None if group is None else group.directory_fd
        )
    except OSError as error:
        ours.close()
        theirs.close()
        if group is not None:
            group.remove()
        raise SetupError(f"namespaces: {error}") from error
    if pid == 0:
        _be_worker(place, theirs, kind, code)
    theirs.close()
    return Worker(pid, pidfd, group), ours.detach()


def _be_worker(place: Place, sock: socket.socket, kind: str, code: WorkerCode) -> NoReturn:
    """The child's side of the clone: prepare as pid 1, then fork the worker and only wait for it.

    The worker is not pid 1 itself: the kernel would ignore its own alarm, with which it bounds an expression that
    never comes back.
    """
    error_fd = os.dup(2)
    try:
        credentials.set_parent_death_signal(signal.SIGKILL)
        if code.packages not in sys.path:
            # Its parsers (msgspec, re2) are third-party code, which the launcher itself never imports.
            sys.path.append(code.packages)
        module = importlib.import_module(_MODULES[kind])
        # What needs files is read before the view closes: the settings, or the certificate authorities and codecs.
        if kind == "files":
            prepared = importlib.import_module(_SETTINGS_MODULE).parse_settings(code.settings)
        else:
            prepared = module.load()
        place.kept = (sock.fileno(), error_fd)
        prepare(place)
        worker = os.fork()
        if worker == 0:
            workspace_fd = -1
            if kind == "files":
                workspace_fd = os.open(place.bundle.workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            confine_thread(
                Confinement(
                    bundle=place.bundle,
                    plan=place.plan,
                    drops_ids=place.drops_ids,
                    private_parts=place.private_parts,
                    counts_denials=False,
                )
            )
            os.close(error_fd)
            if kind == "files":
                os._exit(module.main(workspace_fd, sock.detach(), prepared))
            os._exit(module.main(sock.detach(), prepared))
        sock.close()
        os.close(error_fd)
        _, status = os.waitpid(worker, 0)
        os._exit(0 if status == 0 else 1)
    except BaseException:  # raised again: only told before this process ends
        # Whatever it was, this process must not go on into the launcher's loop; say it, then leave.
        with contextlib.suppress(OSError):
            os.write(error_fd, f"guardhouse {kind} worker: {traceback.format_exc()}".encode())
        raise
    finally:
        os._exit(_EXIT_BROKEN)

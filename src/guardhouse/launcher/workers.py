"""Workers: our own code that meets hostile input, cloned from the launcher and confined like a command.

A worker is pid 1 of its own namespaces, sees what its profile shows, and never execs. Its code is imported
before it is confined; from then on it holds one socket and one directory. Runs in the launcher (`make_worker`) and
as the worker process itself.
"""

import contextlib
import importlib
import os
import signal
import socket
import sys
from dataclasses import dataclass
from typing import Final, NoReturn

from guardhouse.errors import SetupError
from guardhouse.kernel import credentials, namespaces
from guardhouse.launcher.cgroup import CgroupHome, Group
from guardhouse.launcher.confine import Confinement, confine_thread
from guardhouse.launcher.prepare import Place, prepare
from guardhouse.sandbox.bundle import Bundle, ProfilePlan

__all__ = ["WORKER_PROFILES", "Worker", "make_worker"]

# The kind that a request names: its profile in the bundle, which no command can be started with.
WORKER_PROFILES: Final = {"files": "files_worker"}
_MODULES: Final = {"files": "guardhouse.worker.files"}
_CLONED: Final = frozenset({"user", "mount", "pid", "ipc", "uts", "net"})
_EXIT_BROKEN: Final = 70


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
    bundle: Bundle, plan: ProfilePlan, kind: str, home: CgroupHome | None, *, library: str
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
        _be_worker(place, theirs, kind, library)
    theirs.close()
    return Worker(pid, pidfd, group), ours.detach()


def _be_worker(place: Place, sock: socket.socket, kind: str, library: str) -> NoReturn:
    """The child's side of the clone. What goes wrong before it serves shows as a closed socket and on stderr."""
    try:
        credentials.set_parent_death_signal(signal.SIGKILL)
        if library not in sys.path:
            # Its parsers (msgspec, re2) are third-party code, which the launcher itself never imports.
            sys.path.append(library)
        module = importlib.import_module(_MODULES[kind])
        prepare(place)
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
        module.main(workspace_fd, sock.detach(), module.FilesSettings(root_path=place.bundle.workspace))
    except BaseException:
        # Whatever it was, this process must not go on into the launcher's loop; say it, then leave.
        sys.excepthook(*sys.exc_info())
        raise
    finally:
        os._exit(_EXIT_BROKEN if sys.exc_info()[0] is not None else 0)

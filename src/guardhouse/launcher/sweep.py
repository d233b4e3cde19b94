"""A child of the launcher that does one thing: when the launcher is gone, however it went, remove its cgroups.

Processes need no sweeping: each init dies with the launcher and takes its namespaces along. Groups are
directories that nobody removes by himself. Holds one end of a pipe and nothing else.
"""

import os
import time
from dataclasses import dataclass
from typing import Final

from guardhouse.kernel import descriptors
from guardhouse.kernel.title import set_title
from guardhouse.launcher.cgroup import CgroupHome

__all__ = ["Sweeper", "start_sweeper"]

_SWEEP_TIMEOUT_S: Final = 10.0
_SWEEP_INTERVAL_S: Final = 0.02


@dataclass(slots=True)
class Sweeper:
    """The sweeping child as the launcher holds it."""

    pid: int
    pipe_fd: int

    def finish(self) -> None:
        """Let it make sure that nothing is left, and wait for it."""
        os.close(self.pipe_fd)
        os.waitpid(self.pid, 0)


def start_sweeper(home: CgroupHome) -> Sweeper:
    """Fork the child; it must be called before anything else is forked or opened."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _sweep_afterwards(home, read_fd)
    os.close(read_fd)
    return Sweeper(pid, write_fd)


def _sweep_afterwards(home: CgroupHome, pipe_fd: int) -> None:
    try:
        # A session of its own: what is sent to the launcher's process group must not stop the sweeping.
        os.setsid()
        set_title("guardhouse-sweeper")
        descriptors.close_all_but((0, 1, 2, pipe_fd))
        # Nobody writes: this returns when the last holder of the other end, the launcher, is gone.
        os.read(pipe_fd, 1)
        deadline_s = time.monotonic() + _SWEEP_TIMEOUT_S
        while not home.clear() and time.monotonic() < deadline_s:
            time.sleep(_SWEEP_INTERVAL_S)
    finally:
        os._exit(0)

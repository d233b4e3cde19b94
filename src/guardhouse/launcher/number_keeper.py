"""A child of the launcher that keeps a row of process numbers taken, for commands that see the host's /proc.

Such a command has a pid namespace of its own, and procps (ps) looks itself up in /proc by its inner number: it fails
where the host has no process of that number. Threads have numbers, and directories in /proc that a listing does not
show (proc(5)), so idle threads with consecutive numbers make a row that every command can begin at. Holds one end of a
pipe and nothing else; dies with the launcher.
"""

import _thread
import os
import signal
from dataclasses import dataclass
from typing import Final, NoReturn

from guardhouse.kernel import credentials, descriptors
from guardhouse.kernel.title import set_title

__all__ = ["NumberKeeper", "longest_row", "start_number_keeper"]

# Processes that a command may start before numbers beyond the row come up; each costs the kernel about 20 KiB.
_ROW_LENGTH: Final = 128
_STACK_BYTES: Final = 64 * 1024
# Without the row a command begins at the lowest numbers, which a host has as kernel threads, with gaps.
_NO_ROW: Final = 2


@dataclass(slots=True)
class NumberKeeper:
    """The child as the launcher holds it."""

    pid: int
    pipe_fd: int
    _first: int = 0

    def first_number(self) -> int:
        """Return the number that a command's first child should get; waits for the child the first time."""
        if not self._first:
            said = os.read(self.pipe_fd, 32)
            self._first = int(said) if said.isdigit() else _NO_ROW
        return self._first

    def finish(self) -> None:
        """End it."""
        os.close(self.pipe_fd)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def start_number_keeper() -> NumberKeeper:
    """Fork the child; the launcher must be confined already, and have one thread."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _keep_numbers(write_fd)
    os.close(write_fd)
    return NumberKeeper(pid, read_fd)


def longest_row(numbers: list[int]) -> int:
    """Return the first number of the longest run of consecutive ones; the earliest where two are as long."""
    best = (0, _NO_ROW)
    length = 0
    ordered = sorted(numbers)
    for index, number in enumerate(ordered):
        length = length + 1 if index and number == ordered[index - 1] + 1 else 1
        if length > best[0]:
            best = (length, number - length + 1)
    return best[1]


def _keep_numbers(pipe_fd: int) -> NoReturn:
    try:
        credentials.set_parent_death_signal(signal.SIGKILL)
        os.setsid()
        set_title("guardhouse-numbers")
        descriptors.close_all_but((0, 1, 2, pipe_fd))
        _thread.stack_size(_STACK_BYTES)
        never = _thread.allocate_lock()
        never.acquire()
        for _ in range(_ROW_LENGTH):
            try:
                _thread.start_new_thread(never.acquire, ())
            except RuntimeError:
                break  # a limit on processes: a shorter row
        os.write(pipe_fd, str(longest_row([int(name) for name in os.listdir("/proc/self/task")])).encode("ascii"))
        os.close(pipe_fd)
        while True:
            signal.pause()
    finally:
        os._exit(0)

"""How long the monitor looks for the next stop by itself before it sleeps until the kernel wakes it.

A processor that has gone idle takes tens of microseconds to be woken, in a virtual machine more, and every program of a
command makes the monitor wait six times for something that comes at once. So it looks again and again for a moment, but
only while a processor stands free for that: where more wants to run than there are processors, it would take time from
the very command it waits for.

Knows the host's count of runnable threads and nothing of commands. Runs in the exec gate's monitor.
"""

import os
import time
from typing import Final

from guardhouse.kernel.ptrace import StopKind

__all__ = ["Patience", "runnable_of"]

# Measured between two stops of a shell that starts small programs: fork to exec 60 µs, an exec itself 110 µs, end to
# the shell's SIGCHLD 20 µs, and that to its next fork 90 µs; a small program from its exec to its end takes 500 µs.
_MOMENT_NS: Final = 250_000
_AFTER_EXEC_NS: Final = 700_000
# Reading the count costs 2 µs.
_COUNT_EVERY_NS: Final = 1_000_000
_LOADAVG_BYTES: Final = 128
# With many threads under way each look walks them all (wait(2), kernel/exit.c).
_FOLLOWED_MAX: Final = 16


class Patience:
    """Answers how long to look; asks the kernel now and then how many threads want to run."""

    def __init__(self) -> None:
        self._descriptor = os.open("/proc/loadavg", os.O_RDONLY | os.O_CLOEXEC)
        self._processors = len(os.sched_getaffinity(0))
        self._counted_ns = 0
        self._is_free = False

    def poll_ns(self, last: StopKind | None, *, followed: int) -> int:
        """Return for how many nanoseconds to look for the next stop after one of the kind ``last``; 0: sleep at once.

        Args:
            followed: threads of the command.
        """
        if followed > _FOLLOWED_MAX:
            return 0
        now_ns = time.monotonic_ns()
        if now_ns - self._counted_ns > _COUNT_EVERY_NS:
            self._counted_ns = now_ns
            # The command's thread that has just stopped is about to run again, beside this process.
            runnable = runnable_of(os.pread(self._descriptor, _LOADAVG_BYTES, 0))
            self._is_free = runnable is not None and runnable < self._processors
        if not self._is_free:
            return 0
        return _AFTER_EXEC_NS if last is StopKind.EXEC else _MOMENT_NS


def runnable_of(loadavg: bytes) -> int | None:
    """Return how many threads of the host run or want to, by the text of /proc/loadavg (proc(5)); None: not said."""
    fields = loadavg.split()
    count = fields[3].partition(b"/")[0] if len(fields) > 3 else b""
    return int(count) if count.isdigit() else None

"""A thread of init that puts itself behind the wall ahead of need, and becomes the parent of one program.

Namespaces, credentials, Landlock domains and seccomp filters are a thread's: who starts the program from a thread that
is confined already pays for none of it when the command comes. It ends afterwards
and is never used twice. Knows nothing of orders or reports. Runs in init.
"""

import _thread
import os
import time

from guardhouse.kernel import credentials
from guardhouse.launcher.confine import Confinement, Program, StepFailedError, confine_thread, start_program
from guardhouse.launcher.gate import ATTACH, FOLLOWED

__all__ = ["Vessel"]


class Vessel:
    """A thread that confines itself ahead of need, waits for a program, starts it and ends.

    Attributes:
        failure: the layer that could not be put up, or the directory that could not be entered.
        pid: of the program, 0 while or when there is none.
        is_done: the thread has nothing more to do.
    """

    def __init__(self, confinement: Confinement, progress_fd: int, gate_fd: int) -> None:
        self.confinement = confinement
        self.program: Program | None = None
        self.failure: StepFailedError | None = None
        self.pid = 0
        self.started_s = 0.0
        self.is_done = False
        self._progress_fd = progress_fd
        self._gate_fd = gate_fd
        self._go = _thread.allocate_lock()
        self._go.acquire()
        _thread.start_new_thread(self._run, ())

    def start(self, program: Program) -> None:
        """Let the thread go on to its program."""
        self.program = program
        self._go.release()

    def discard(self) -> None:
        """Let the thread end without a program."""
        self._go.release()

    def _run(self) -> None:
        try:
            self._confine_and_start()
        finally:
            self.is_done = True
            os.eventfd_write(self._progress_fd, 1)

    def _confine_and_start(self) -> None:
        try:
            if self._gate_fd >= 0:
                _be_followed(self._gate_fd)
            confine_thread(self.confinement)
            # Now the main thread can answer calls that the filter denies.
            os.eventfd_write(self._progress_fd, 1)
        except StepFailedError as error:
            self.failure = error
        self._go.acquire()
        if self.failure is not None or self.program is None:
            return
        self.started_s = time.monotonic()
        try:
            self.pid = start_program(self.confinement, self.program)
        except StepFailedError as error:
            self.failure = error
        except OSError:
            # The program, not a layer: its `failure` says what to tell the user.
            return


def _be_followed(gate_fd: int) -> None:
    """Ask the exec gate's monitor to follow the calling thread, and return once it does.

    Raises:
        StepFailedError: the monitor is gone or cannot follow us; nothing may start without it.
    """
    # Only who may look into a process may follow it. Nothing of any command runs now; before one does we close again.
    credentials.set_dumpable(dumpable=True)
    try:
        os.write(gate_fd, ATTACH)
        answer = os.read(gate_fd, len(FOLLOWED))
    except OSError as error:
        raise StepFailedError("exec_gate", f"the monitor cannot be asked: {error.strerror}") from error
    finally:
        credentials.set_dumpable(dumpable=False)
    if answer != FOLLOWED:
        raise StepFailedError("exec_gate", "the monitor has ended; its last words are in the runner's log")

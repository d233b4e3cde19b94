"""Pid 1 of a command's namespaces: starts it, reaps everything, and kills what it leaves behind.

A command is never pid 1 itself, so signals act on it as on any process. This process takes orders on one socket
(`run`, `signal`) and reports (`ready`, `started`, `refused`, `ended`). It answers denied system calls where the
profile counts them, unless execs are handed over as well: then the monitor does (`gate/listener.py`). When the launcher
dies the kernel kills it, and with it the whole pid namespace.

Knows nothing of time limits: they are the launcher's (`lifetime.py`). Runs as its own process, cloned from the
launcher; what runs beside it in its namespaces is the attacker.
"""

import _thread
import contextlib
import errno
import gc
import json
import os
import resource
import select
import signal
import socket
import time
import traceback
from collections import Counter
from typing import Any, Final, NoReturn

from guardhouse.errors import SetupError
from guardhouse.kernel import descriptors, seccomp
from guardhouse.kernel.syscalls import ARCHITECTURE
from guardhouse.launcher import channel
from guardhouse.launcher.confine import Confinement, Program, StepFailedError
from guardhouse.launcher.gate import LISTENER
from guardhouse.launcher.prepare import Place, PrepareFailedError, prepare
from guardhouse.launcher.self_confine import confine_process, plan_of
from guardhouse.launcher.vessel import Vessel
from guardhouse.limits import EGRESS_BACKLOG

__all__ = ["run_init"]

_LOOPBACK: Final = "127.0.0.1"

_THREAD_STACK_BYTES: Final = 256 * 1024
_DENIED_NAMES_MAX: Final = 512  # distinct calls counted by name; there are not that many
# RLIMIT_CPU counts for this process too. It asks to be replaced well before the limit would kill it.
_CPU_SHARE_BEFORE_RETIRING: Final = 0.25

# A command that ends sooner is reported by its end alone, which spares everybody on the way a wake-up.
_ANNOUNCE_AFTER_S: Final = 0.003
_LIMITS: Final = 16  # RLIM_NLIMITS of asm-generic/resource.h

_TRACEBACK_MAX_CHARS: Final = 8_000
_EXIT_CLOSED: Final = 0
_EXIT_BROKEN: Final = 70


class _Running:
    """One command from its order to its report."""

    def __init__(self, vessel: Vessel, program: Program) -> None:
        self.vessel = vessel
        self.program = program
        self.starting = True  # its thread has not said how it went
        self.announce_s: float | None = None  # when to say that it runs
        self.status: int | None = None
        self.signals: list[int] = []  # orders that came before there was a process
        self.ended_s = 0.0
        self.user_s = 0.0
        self.system_s = 0.0
        self.largest_bytes = 0
        self.killing = False  # everything was sent SIGKILL by us
        self.killed = 0
        # By architecture of the table, and number in it.
        self.denied: Counter[tuple[str, int]] = Counter()


class _Init:
    def __init__(self, place: Place, control: socket.socket) -> None:
        self._place = place
        self._control = control
        self._running: _Running | None = None
        # An order that waits for a new vessel, and the signals that came for it meanwhile.
        self._postponed: tuple[dict[str, Any], channel.Received] | None = None
        self._early_signals: list[int] = []
        self._gate = None if place.gate_fd < 0 else socket.socket(fileno=place.gate_fd)
        self._hands_over = place.plan.exec_notice != "none"
        self._handed_over: Vessel | None = None  # whose listener the monitor has
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        self._children_fd = descriptors.signal_descriptor((signal.SIGCHLD,))
        self._progress_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._listener_fd = -1
        self._proxy: socket.socket | None = None
        self._poll = select.poll()
        for descriptor in (control.fileno(), self._children_fd, self._progress_fd):
            self._poll.register(descriptor, select.POLLIN)
        self._unchanged = _own_state()
        self._vessel = self._new_vessel()

    def serve(self) -> NoReturn:
        self._report({"event": "ready"})
        while True:
            for descriptor, events in self._poll.poll(self._timeout_ms()):
                if descriptor == self._control.fileno():
                    self._take_order()
                elif descriptor == self._progress_fd:
                    os.eventfd_read(descriptor)
                    self._vessel_progressed()
                elif descriptor == self._children_fd:
                    _drain(descriptor)
                elif events & select.POLLIN:
                    self._answer_denied(descriptor)
                else:
                    # Nobody uses the filter any more; the descriptor would be reported until it is closed.
                    self._close_listener()
            self._reap()
            self._announce()

    def _new_vessel(self) -> Vessel:
        place = self._place
        return Vessel(
            Confinement(
                bundle=place.bundle,
                plan=place.plan,
                drops_ids=place.drops_ids,
                private_parts=place.private_parts,
                counts_denials=place.plan.count_denials,
                is_gated=place.gate_fd >= 0,
            ),
            self._progress_fd,
            -1 if self._hands_over else place.gate_fd,
        )

    def _timeout_ms(self) -> float | None:
        running = self._running
        if running is None or running.announce_s is None:
            return None
        return max(0.0, running.announce_s - time.monotonic()) * 1000

    # Orders

    def _take_order(self) -> None:
        received = channel.receive(self._control)
        if received is None:
            # The launcher let go of us: leaving kills every process of the namespace.
            os._exit(_EXIT_CLOSED)
        order = json.loads(received.body)
        if order["op"] == "run":
            self._start(order, received)
        else:
            self._signal(order["number"])

    def _start(self, order: dict[str, Any], received: channel.Received) -> None:
        masks = self._place.masks
        if masks is not None and masks.has_changed() and masks.cover_again():
            # The thread that waits has its copy of the view from before.
            self._postponed = order, received
            self._vessel.discard()
            return
        stdin, stdout, stderr = received.descriptors
        program = Program(
            argv=tuple(order["argv"]),
            workdir=order["workdir"],
            environment=order["environment"],
            stdio=(stdin, stdout, stderr),
        )
        if self._place.last_pid_fd >= 0:
            # pid_namespaces(7): the next process gets the next free number after this one.
            os.pwrite(self._place.last_pid_fd, str(self._place.first_number - 1).encode("ascii"), 0)
        self._running = _Running(self._vessel, program)
        self._running.signals, self._early_signals = self._early_signals, []
        if self._place.plan.network == "domains":
            self._listen_for_proxy(self._place.plan.proxy_port)
        self._watch_listener()
        self._vessel.start(program)

    def _listen_for_proxy(self, port: int) -> None:
        """Open the egress proxy's door in here and hand it out; its keeper sits outside and connects for the command.

        A new one for each command: what an earlier one left in its queue is nobody's to answer.
        """
        self._proxy = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        # Connections of the command before may still be closing.
        self._proxy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._proxy.bind((_LOOPBACK, port))
        self._proxy.listen(EGRESS_BACKLOG)
        self._report({"event": "proxy_listening"}, descriptors_sent=(self._proxy.fileno(),))

    def _close_proxy(self) -> None:
        """Shut the door for good: closing alone would leave it open for whoever was handed it."""
        if self._proxy is not None:
            with contextlib.suppress(OSError):
                self._proxy.shutdown(socket.SHUT_RDWR)
            self._proxy.close()
            self._proxy = None

    def _signal(self, number: int) -> None:
        running = self._running
        if running is None:
            if self._postponed is not None:
                self._early_signals.append(number)
            return
        running.killing = running.killing or number == signal.SIGKILL
        if running.starting:
            running.signals.append(number)
        else:
            _kill_everything(number)

    # What happens to a command

    def _vessel_progressed(self) -> None:
        self._watch_listener()
        if self._postponed is not None and self._vessel.is_done:
            self._start_anew(*self._postponed)
            return
        running = self._running
        if running is not None and running.starting and running.vessel.is_done:
            self._vessel_done(running)

    def _start_anew(self, order: dict[str, Any], received: channel.Received) -> None:
        """Begin the postponed command in a thread that has the view as it is now."""
        self._postponed = None
        self._take_gate_report(self._vessel)
        if self._listener_fd >= 0:
            self._close_listener()
        self._vessel = self._new_vessel()
        self._start(order, received)

    def _watch_listener(self) -> None:
        listener_fd = self._vessel.confinement.listener_fd
        if self._hands_over:
            self._hand_over(listener_fd)
        elif listener_fd >= 0 and self._listener_fd != listener_fd:
            self._listener_fd = listener_fd
            self._poll.register(listener_fd, select.POLLIN)

    def _hand_over(self, listener_fd: int) -> None:
        """Give the monitor the listener and keep none: when that ends, the kernel has to see that nobody listens."""
        if listener_fd < 0 or self._handed_over is self._vessel or self._gate is None:
            return
        self._handed_over = self._vessel
        try:
            channel.send(self._gate, LISTENER, (listener_fd,))
        except (BrokenPipeError, ConnectionResetError):
            os._exit(_EXIT_BROKEN)
        os.close(listener_fd)

    def _take_gate_report(self, vessel: Vessel) -> dict[str, Any] | None:
        """Return what the monitor saw of a vessel's command; None without a gate, or where it was told of none."""
        if self._gate is None or (self._hands_over and self._handed_over is not vessel):
            return None
        return _gate_report(self._gate)

    def _vessel_done(self, running: _Running) -> None:
        running.starting = False
        vessel, program = running.vessel, running.program
        if vessel.failure is None and not vessel.pid and not program.failure:
            # An error that nobody foresaw: its traceback went with the descriptors, the fact does not.
            vessel.failure = StepFailedError("launcher", "the starting thread ended without a result")
        if vessel.pid:
            running.announce_s = time.monotonic() + _ANNOUNCE_AFTER_S
        elif program.failure:
            _say_why_not(program)
            running.ended_s = time.monotonic()
            running.status = (126 if program.failure != errno.ENOENT else 127) << 8
        for descriptor in program.stdio:
            os.close(descriptor)
        for number in running.signals:
            _kill_everything(number)

    def _announce(self) -> None:
        """Say that the command runs, unless it ends so soon that its end says it all."""
        running = self._running
        if running is None or running.announce_s is None or time.monotonic() < running.announce_s:
            return
        running.announce_s = None
        self._report({"event": "started"}, as_pid=running.vessel.pid)

    def _answer_denied(self, listener_fd: int) -> None:
        running = self._running
        notification = None
        try:
            notification = seccomp.receive(listener_fd)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        if notification is None:
            # Readable with nothing to receive: the caller died meanwhile. The end of the command closes the listener.
            return
        if running is not None:
            architecture = seccomp.NAMES_OF_ARCHITECTURES.get(notification.audit_arch, "")
            call = architecture, notification.number
            if call in running.denied or len(running.denied) < _DENIED_NAMES_MAX:
                running.denied[call] += 1
        seccomp.answer_with_errno(listener_fd, notification, errno.EPERM)

    def _close_listener(self) -> None:
        self._poll.unregister(self._listener_fd)
        os.close(self._listener_fd)
        self._listener_fd = -1

    def _reap(self) -> None:
        running = self._running
        # glibc itself waits for a child whose exec failed: not before its thread is done.
        if running is None or running.starting:
            return
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                if running.status is not None and not running.killing:
                    running.killing = True
                    _kill_everything(signal.SIGKILL)
                return
            self._count(running, pid, status, usage)
        # No child is left, and every process of this namespace descends from us: it is empty.
        self._finish(running)

    def _count(self, running: _Running, pid: int, status: int, usage: resource.struct_rusage) -> None:
        running.user_s += usage.ru_utime
        running.system_s += usage.ru_stime
        running.largest_bytes = max(running.largest_bytes, usage.ru_maxrss * 1024)
        if pid == running.vessel.pid:
            running.status = status
            running.ended_s = time.monotonic()
            running.announce_s = None
        elif running.killing and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            running.killed += 1

    def _finish(self, running: _Running) -> None:
        if self._listener_fd >= 0:
            self._close_listener()
        self._close_proxy()
        self._running = None
        vessel = running.vessel
        execs = self._take_gate_report(vessel)
        if execs is not None and self._hands_over:
            running.denied.update({(ARCHITECTURE, int(number)): count for number, count in execs.pop("denied").items()})
        is_clean = self._is_clean()
        if vessel.failure is not None:
            # A layer that failed once may fail again for a reason that lies in this process: it is not kept.
            is_clean = is_clean and vessel.failure.layer == "workdir"
            self._report(
                {"event": "refused", "layer": vessel.failure.layer, "why": vessel.failure.why, "clean": is_clean}
            )
        else:
            self._report(
                {
                    "event": "ended",
                    "status": running.status,
                    "duration_s": running.ended_s - vessel.started_s,
                    "user_s": running.user_s,
                    "system_s": running.system_s,
                    "largest_bytes": running.largest_bytes,
                    "killed": running.killed,
                    "denied": self._named(running.denied),
                    "execs": execs,
                    "clean": is_clean,
                }
            )
        # After the report, so that nobody waits for it; the next command finds it done.
        self._vessel = self._new_vessel()

    def _named(self, denied: Counter[tuple[str, int]]) -> dict[str, int]:
        """Return the counts by name, a foreign table's with its architecture before it (``i386:socketcall``)."""
        compiled = self._place.plan.seccomp.get(ARCHITECTURE)
        tables = {} if compiled is None else {ARCHITECTURE: compiled.names, **compiled.foreign}
        names = {
            (architecture, number): name if architecture == ARCHITECTURE else f"{architecture}:{name}"
            for architecture, table in tables.items()
            for name, number in table.items()
        }
        return {names.get(call, f"syscall_{call[1]}"): count for call, count in denied.items()}

    def _is_clean(self) -> bool:
        """Whether the next command would find this namespace as the last one did: empty, its pid 1 unchanged."""
        # That it is empty, wait4 has said: whatever else lives in this pid namespace descends from us. (Asking by
        # kill(-1, 0) as well would walk every process of the host, which costs more than all the rest here.)
        if self._place.masks is not None and self._place.masks.is_worn:
            return False
        soft, _ = resource.getrlimit(resource.RLIMIT_CPU)
        if soft != resource.RLIM_INFINITY and time.process_time() > soft * _CPU_SHARE_BEFORE_RETIRING:
            return False
        return _own_state() == self._unchanged

    def _report(self, report: dict[str, Any], *, as_pid: int = 0, descriptors_sent: tuple[int, ...] = ()) -> None:
        try:
            channel.send(self._control, json.dumps(report).encode("ascii"), descriptors_sent, as_pid=as_pid)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(_EXIT_CLOSED)


def _gate_report(gate: socket.socket) -> dict[str, Any]:
    """Return what the monitor saw of the command that has just ended; without it this process must not go on."""
    received = channel.receive(gate)
    if received is None:
        os._exit(_EXIT_BROKEN)
    report: dict[str, Any] = json.loads(received.body)
    return report


def _own_state() -> tuple[object, ...]:
    """Return what a process of the same uid could change about this one from outside."""
    limits_now = tuple(resource.getrlimit(number) for number in range(_LIMITS))
    return (
        limits_now,
        os.getpriority(os.PRIO_PROCESS, 0),
        os.sched_getaffinity(0),
        os.sched_getscheduler(0),
    )


def _drain(signal_fd: int) -> None:
    try:
        # Pending signals of one number are one record: signalfd(2).
        os.read(signal_fd, 128)
    except BlockingIOError:
        return


def _kill_everything(number: int) -> None:
    """Signal every process of the pid namespace but this one; a fork under way cannot slip through.

    kill(2) with -1 walks the processes under the lock that a fork needs to add one, and a fork with a pending
    fatal signal is given up (kernel/fork.c, copy_process).
    """
    try:
        os.kill(-1, number)
    except ProcessLookupError:
        return


def _say_why_not(program: Program) -> None:
    """Tell the command's own stderr why there is no program, as a shell would."""
    if program.failure == errno.ENOENT and "/" not in program.argv[0]:
        why = "command not found"
    else:
        why = os.strerror(program.failure)
    text = f"guardhouse: {program.argv[0]}: {why}\n"
    try:
        os.set_blocking(program.stdio[2], False)
        os.write(program.stdio[2], text.encode("utf-8", "surrogateescape"))
    except OSError:
        # A closed or full stderr: the exit status tells it as well.
        return


def run_init(place: Place, control: socket.socket) -> NoReturn:
    """Prepare the namespaces this process was cloned into, then serve commands until the launcher is gone."""
    _thread.stack_size(_THREAD_STACK_BYTES)
    try:
        prepare(place)
        confine_process(plan_of(place.bundle, "init"))
    except (PrepareFailedError, SetupError) as error:
        layer, _, why = str(error).partition(": ")
        report = {"event": "failed", "layer": layer, "why": why}
        channel.send(control, json.dumps(report).encode("ascii"))
        os._exit(_EXIT_BROKEN)
    # What is not collected is not touched, and stays shared with the launcher's memory.
    gc.disable()
    try:
        _Init(place, control).serve()
    except BaseException:  # raised again: only told before this process ends
        # Ours to mend: let the launcher say it where an operator can read it, then end with everything in here.
        report = {"event": "broken", "why": traceback.format_exc()[-_TRACEBACK_MAX_CHARS:]}
        channel.send(control, json.dumps(report).encode("ascii"))
        raise
    finally:
        os._exit(_EXIT_BROKEN)

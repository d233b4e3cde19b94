"""The exec gate's monitor: one process for each slot that follows its commands and judges every program they start.

It stands outside the command's namespaces. The thread of init that will become a command asks to be followed before
it starts anything; from then on every fork is followed, every exec stops twice: at its entry, where a no becomes
``EACCES`` that a shell can print, and at the exec event, before the first instruction, where a no is a kill. No other
system call stops. What a person is to be asked about stays stopped until the launcher hands in the answer or time runs
out; everything else of the command goes on. When this process dies the kernel kills whatever it follows
(PTRACE_O_EXITKILL).

Decides nothing itself: `tree.py` knows who started whom, `judge.py` asks the policy, `questions.py` knows what waits.
"""

import contextlib
import errno
import gc
import json
import math
import os
import select
import signal
import socket
import sys
import time
import traceback
from dataclasses import replace
from typing import Final, NoReturn

from guardhouse.errors import InvariantError, SetupError
from guardhouse.kernel import credentials, descriptors, ptrace
from guardhouse.kernel.ptrace import StopKind
from guardhouse.kernel.title import set_title
from guardhouse.launcher import channel
from guardhouse.launcher.gate import ATTACH, FOLLOWED
from guardhouse.launcher.gate.asking import Asking
from guardhouse.launcher.gate.facts import (
    ExecFacts,
    FactsError,
    ForeignProgramError,
    read_entry,
    read_entry_facts,
    read_exec_facts,
    read_image,
)
from guardhouse.launcher.gate.judge import ExecJudge, Judgement
from guardhouse.launcher.gate.listener import ExecListener
from guardhouse.launcher.gate.questions import Answer, Held, Request
from guardhouse.launcher.gate.report import Refusals, judgement_of, report_of, size_bytes
from guardhouse.launcher.gate.tree import ExecRecord, ProcessTree
from guardhouse.launcher.self_confine import confine_process
from guardhouse.sandbox.bundle import ProcessPlan, ProfilePlan
from guardhouse.values import Verdict

__all__ = ["fork_monitor"]

_EXIT_CLOSED: Final = 0
_EXIT_BROKEN: Final = 70
# How long a child may wait for its parent's report after a thread has ended that may have been its parent.
_LOST_AFTER_S: Final = 0.2
_ENTRIES_MAX: Final = 1_024
_ENTRY_ARGUMENTS_MAX: Final = 64
_JUDGED_MAX: Final = 1_024
_CACHED_BYTES_MAX: Final = 4_096
_SIGNAL_RECORD_BYTES: Final = 128  # signalfd(2)
# Every stop is compared with these, and asking the class for a member costs more than the comparison.
_SIGNAL: Final = StopKind.SIGNAL
_NEW_CHILD: Final = StopKind.NEW_CHILD
_ATTACHED: Final = StopKind.ATTACHED
_EXEC_ENTRY: Final = StopKind.EXEC_ENTRY
_EXEC: Final = StopKind.EXEC
_GROUP_STOP: Final = StopKind.GROUP_STOP


class _Monitor:
    def __init__(
        self, judge: ExecJudge, sock: socket.socket, launcher: socket.socket, init_pid: int, *, permits_i386: bool
    ) -> None:
        self._judge = judge
        self._permits_i386 = permits_i386
        self._sock = sock
        self._launcher = launcher
        self._asking = Asking(launcher, self._release)
        self._questions = self._asking.questions
        self._cached_for = self._questions.request.context
        self._signals_fd = descriptors.signal_descriptor((signal.SIGCHLD,))
        self._poll = select.poll()
        for descriptor in (self._signals_fd, launcher.fileno()):
            self._poll.register(descriptor, select.POLLIN)
        self._init_pid = init_pid
        self._tree = ProcessTree()
        self._refusals = Refusals()
        self._started_s = 0.0
        self._kin_of = judge.kin_of
        self._allowed_entries: dict[tuple[object, ...], None] = {}
        self._judged: dict[tuple[object, ...], tuple[Judgement, int]] = {}

    def serve(self) -> NoReturn:
        while True:
            try:
                received = self._sock.recv(16)
            except ConnectionResetError:
                received = b""  # init was killed before it had read what we sent it
            if received != ATTACH:
                # Closed, or not the handshake: the slot is gone or not ours. Leaving kills what is followed.
                os._exit(_EXIT_CLOSED if not received else _EXIT_BROKEN)
            self._tree = ProcessTree()
            self._refusals = Refusals()
            self._started_s = time.monotonic()
            try:
                tid = self._find_thread()
                ptrace.seize(tid)
            except (FileNotFoundError, ProcessLookupError):
                os._exit(_EXIT_CLOSED)  # init was killed after it had asked
            self._tree.attach(tid)
            try:
                self._sock.send(FOLLOWED)
                self._follow()
                channel.send(self._sock, json.dumps(report_of(self._tree, self._refusals)).encode("ascii"))
            except (BrokenPipeError, ConnectionResetError):
                os._exit(_EXIT_CLOSED)  # init was killed with its command
            # Nothing is collected while a command is followed; between two there is time, and little to look at.
            gc.collect()

    def _find_thread(self) -> int:
        """Return the one thread of init beside its first: the one that asked and now waits.

        Raises:
            ProcessLookupError: init is being killed.
        """
        others = [int(name) for name in os.listdir(f"/proc/{self._init_pid}/task") if int(name) != self._init_pid]
        if not others:
            raise ProcessLookupError(errno.ESRCH, f"init {self._init_pid} has no thread beside its first any more")
        if len(others) != 1:
            raise InvariantError(f"init {self._init_pid} has {len(others)} threads beside its first, expected one")
        return others[0]

    def _follow(self) -> None:
        tree, questions = self._tree, self._questions
        wait_any, classify, continue_tracee = ptrace.wait_any, ptrace.classify, ptrace.continue_tracee
        while not tree.is_empty:
            try:
                waits = tree.has_lost_children or questions.is_waiting
                tid, status, usage = self._next_stop() if waits else wait_any()
            except ChildProcessError:
                return
            kind, number = classify(status)
            if kind is _SIGNAL:
                continue_tracee(tid, deliver=number)
            elif kind is _NEW_CHILD:
                self._new_child(tid)
            elif kind is _ATTACHED:
                if tree.first_stop(tid):
                    continue_tracee(tid)
            elif kind is _EXEC_ENTRY:
                self._judge_entry(tid)
            elif kind is _EXEC:
                self._judge_exec(tid)
            elif kind is _GROUP_STOP:
                # As job control asked.
                ptrace.listen(tid)
            else:
                if questions.is_waiting:
                    self._asking.let_go(tid)
                tree.ended(
                    tid,
                    exit_status=number if kind is StopKind.EXITED else None,
                    killed_by=number if kind is StopKind.KILLED else None,
                    now_s=time.monotonic() - self._started_s,
                    cpu_s=usage.ru_utime + usage.ru_stime,
                    peak=usage.ru_maxrss * 1024,
                )

    def _new_child(self, tid: int) -> None:
        try:
            child = ptrace.event_message(tid)
        except ProcessLookupError:
            return  # killed while it was stopped; its end is reported next, and its child waits as a lost one
        if self._tree.new_child(tid, child):
            ptrace.continue_tracee(child)
        ptrace.continue_tracee(tid)

    def _next_stop(self) -> tuple[int, int, ptrace.Usage]:
        """Wait for a stop; meanwhile take answers, and let go of children whose parent was killed unheard."""
        while self._tree.lost_children or self._questions.is_waiting:
            stop = ptrace.wait_any(block=False)
            if stop[0]:
                return stop
            timeout_s = self._questions.timeout_s(time.monotonic())
            lost = self._tree.lost_children
            if lost and (timeout_s is None or timeout_s > _LOST_AFTER_S):
                timeout_s = _LOST_AFTER_S
            timeout_ms = None if timeout_s is None else math.ceil(timeout_s * 1000)
            ready = [descriptor for descriptor, _ in self._poll.poll(timeout_ms)]
            if self._signals_fd in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._signals_fd, _SIGNAL_RECORD_BYTES)
            if self._launcher.fileno() in ready:
                self._asking.take_orders()
            self._asking.expire()
            if lost and not ready:
                for child in lost:
                    if self._tree.adopt(child):
                        ptrace.continue_tracee(child)
        return ptrace.wait_any()

    # What a person is asked

    def _release(self, held: Held, answer: Answer) -> None:
        tid = held.tid
        judgement = replace(held.judgement, because=f"{held.judgement.because}: {answer.why}")
        if answer.allows:
            if held.is_loaded:
                judgement = replace(judgement, verdict=Verdict.ALLOW)
                self._let_run(tid, judgement, size_bytes(judgement))
            else:
                ptrace.continue_tracee(tid)
            return
        self._note_refusal(tid, self._tree.program_of(tid), judgement, killed=held.is_loaded)
        if held.is_loaded:
            self._kill(tid)
        else:
            self._refuse_call(tid, errno.EACCES)

    def _judge_entry(self, tid: int) -> None:
        program = self._tree.program_of(tid)
        if program is None or self._judge.allows_everything:
            # The shell of this command, which is no question of policy, or nothing to refuse.
            ptrace.continue_tracee(tid)
            return
        parent = judgement_of(program)
        try:
            entry = read_entry(tid, permits_i386=self._permits_i386)
            if entry is None:
                # The command's own filter asked for this stop (seccomp(2), SECCOMP_RET_TRACE): as without a tracer.
                self._refuse_call(tid, errno.ENOSYS)
                return
            # What was allowed a moment ago is not looked up again: the check that counts is at the event. Only whole
            # paths, which mean the same file in every directory.
            key: tuple[object, ...] | None = None
            if entry.path.startswith(b"/") and len(entry.argv) <= _ENTRY_ARGUMENTS_MAX:
                key = (entry.path, entry.argv, parent.names, parent.inherits)
                if key in self._allowed_entries:
                    ptrace.continue_tracee(tid)
                    return
            facts = read_entry_facts(tid, entry, self._kin_of, permits_i386=self._permits_i386)
        except ForeignProgramError as error:
            self._note_refusal(tid, program, Judgement(Verdict.DENY, error.path, (), str(error)), killed=False)
            self._refuse_call(tid, errno.EACCES)
            return
        except FactsError:
            # The call may fail by itself, with its own errno; if it succeeds it is judged at the event all the same.
            ptrace.continue_tracee(tid)
            return
        judgement = self._judge.judge(facts, parent, self._judge.context(self._questions.request.context))
        if judgement.may_run:
            if key is not None and not self._judge.asks_time:
                self._remember_entry(key)
            ptrace.continue_tracee(tid)
            return
        if judgement.asks:
            self._asking.ask(Held(tid, judgement, is_loaded=False), started_by=parent.path)
            return
        self._note_refusal(tid, program, judgement, killed=False)
        self._refuse_call(tid, errno.EACCES)

    def _remember_entry(self, key: tuple[object, ...]) -> None:
        if len(self._allowed_entries) >= _ENTRIES_MAX:
            self._allowed_entries.pop(next(iter(self._allowed_entries)))
        self._allowed_entries[key] = None

    def _refuse_call(self, tid: int, code: int) -> None:
        try:
            ptrace.refuse_system_call(tid, code)
        except ProcessLookupError:
            return
        ptrace.continue_tracee(tid)

    def _judge_exec(self, tid: int) -> None:
        try:
            former = ptrace.event_message(tid)
        except ProcessLookupError:
            return  # killed while it was stopped; its end is reported next
        program = self._tree.loaded(tid, former)
        if program is None and self._tree.records:
            raise InvariantError(f"process {tid} starts a second program that nobody started")
        if program is None and self._judge.needs_request:
            # Sent before init was given the order that led to this exec.
            self._questions.begin(Request())
            self._asking.take_orders()
            if self._questions.request.context != self._cached_for:
                self._cached_for = self._questions.request.context
                self._allowed_entries.clear()
                self._judged.clear()
        parent = None if program is None else judgement_of(program)
        key: tuple[object, ...] | None = None
        facts: ExecFacts | None = None
        try:
            image = read_image(tid, permits_i386=self._permits_i386)
            if len(image.arguments) <= _CACHED_BYTES_MAX and not self._judge.asks_time:
                status = image.status
                which_file = (status.st_dev, status.st_ino, status.st_ctime_ns)
                by = None if parent is None else (parent.names, parent.inherits)
                key = (*which_file, image.arguments, image.given, image.only_lists, by)
                known = self._judged.get(key)
                if known is not None:
                    self._let_run(tid, *known)
                    return
            facts = read_exec_facts(tid, image, self._kin_of)
        except FactsError as error:
            judgement = _unreadable(tid, error)
        else:
            judgement = self._judge.judge(facts, parent, self._judge.context(self._questions.request.context))
        if judgement.asks:
            self._asking.ask(Held(tid, judgement, is_loaded=True), started_by="" if parent is None else parent.path)
            return
        if judgement.may_run:
            size = size_bytes(judgement)
            # A script is judged by what its path leads to now, and a file outside the trusted path by its own path,
            # which may change: neither is remembered.
            if key is not None and facts is not None and facts.script is None and judgement.names:
                if len(self._judged) >= _JUDGED_MAX:
                    self._judged.pop(next(iter(self._judged)))
                self._judged[key] = (judgement, size)
            self._let_run(tid, judgement, size)
            return
        self._note_refusal(tid, program, judgement, killed=True)
        self._kill(tid)

    def _kill(self, tid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(tid, signal.SIGKILL)
        ptrace.continue_tracee(tid)

    def _let_run(self, tid: int, judgement: Judgement, size_bytes: int) -> None:
        # It runs while this is written down; its next stop is heard of only after that.
        ptrace.continue_tracee(tid)
        self._tree.ran(tid, judgement, now_s=time.monotonic() - self._started_s, size_bytes=size_bytes)

    def _note_refusal(self, tid: int, parent: ExecRecord | None, judgement: Judgement, *, killed: bool) -> None:
        self._refusals.note(tid, parent, judgement, killed=killed, at_s=time.monotonic() - self._started_s)


def _unreadable(tid: int, error: FactsError) -> Judgement:
    """Return the no for a program that was loaded and cannot be looked at, with its path where that can be had."""
    path = ""
    with contextlib.suppress(OSError):
        path = os.readlink(f"/proc/{tid}/exe")  # noqa: PTH115 - the launcher does without pathlib
    return Judgement(Verdict.DENY, path, (), str(error))


def fork_monitor(
    judge: ExecJudge,
    sock: socket.socket,
    launcher: socket.socket,
    *,
    init_pid: int,
    plan: ProfilePlan,
    wall: ProcessPlan,
) -> int:
    """Fork a monitor for the init ``init_pid``, at the other end of ``sock``; return its pid.

    ``launcher`` carries questions to the launcher and its orders back (`gate.messages`). Where ``plan`` says so it does
    not follow the commands but listens to what their filter hands over.

    ``wall`` is how it confines itself, before it looks at anything of a command.

    Raises:
        OSError: fork(2) failed.
    """
    pid = os.fork()
    if pid != 0:
        return pid
    try:
        credentials.set_parent_death_signal(signal.SIGKILL)
        descriptors.close_all_but((2, sock.fileno(), launcher.fileno()))
        os.set_blocking(launcher.fileno(), False)
        set_title("guardhouse-monitor")
        try:
            confine_process(wall)
        except SetupError as error:
            sys.stderr.write(f"guardhouse monitor: {error}\n")
            os._exit(_EXIT_BROKEN)
        # Waited for with a time-out where a child's parent is lost; otherwise wait(2) tells of every stop.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        gc.disable()
        if plan.exec_notice != "none":
            ExecListener(judge, sock, launcher, init_pid, plan).serve()
        permits_i386 = any("i386" in compiled.foreign for compiled in plan.seccomp.values())
        _Monitor(judge, sock, launcher, init_pid, permits_i386=permits_i386).serve()
    except BaseException:  # raised again: only told before this process ends
        # Ours to mend: without this line nobody would know why every process of the command was killed.
        traceback.print_exc()
        raise
    finally:
        os._exit(_EXIT_BROKEN)

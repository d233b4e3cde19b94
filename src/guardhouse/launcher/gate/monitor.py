"""The exec gate's monitor: one process for each slot that follows its commands and judges every program they start.

It stands outside the command's namespaces. The thread of init that will become a command asks to be followed before
it starts anything; from then on every fork is followed, every exec stops twice: at its entry, where a no becomes
``EACCES`` that a shell can print, and at the exec event, before the first instruction, where a no is a kill. No other
system call stops. When this process dies the kernel kills whatever it follows (PTRACE_O_EXITKILL).

Decides nothing itself: `tree.py` knows who started whom, `judge.py` asks the policy.
"""

import contextlib
import errno
import json
import os
import signal
import socket
import time
from datetime import datetime
from typing import Any, Final, NoReturn

from guardhouse import limits
from guardhouse.errors import InvariantError
from guardhouse.kernel import credentials, descriptors, ptrace
from guardhouse.kernel.ptrace import StopKind
from guardhouse.launcher import channel
from guardhouse.launcher.gate import ATTACH, FOLLOWED
from guardhouse.launcher.gate.facts import ExecFacts, FactsError, read_entry_facts, read_exec_facts
from guardhouse.launcher.gate.judge import ExecJudge, Judgement
from guardhouse.launcher.gate.tree import Continue, ExecRecord, JudgeEntry, JudgeExec, Listen, ProcessTree
from guardhouse.policy.model import Context

__all__ = ["fork_monitor"]

_EXIT_CLOSED: Final = 0
_EXIT_BROKEN: Final = 70
# capabilities(7): to follow processes of other ids, to look at files the way they do, to kill them.
_CAP_DAC_READ_SEARCH: Final = 1 << 2
_CAP_KILL: Final = 1 << 5
_CAP_SYS_PTRACE: Final = 1 << 19
_SHOWN_ARGUMENT_CHARS: Final = 1_000
_SHOWN_ARGUMENTS: Final = 200


class _Monitor:
    def __init__(self, judge: ExecJudge, sock: socket.socket, init_pid: int) -> None:
        self._judge = judge
        self._sock = sock
        self._init_pid = init_pid
        self._tree = ProcessTree()
        self._refused: list[dict[str, Any]] = []
        self._left_out = 0
        self._started_s = 0.0

    def serve(self) -> NoReturn:
        while True:
            received = self._sock.recv(16)
            if received != ATTACH:
                # Closed, or not the handshake: the slot is gone or not ours. Leaving kills what is followed.
                os._exit(_EXIT_CLOSED if not received else _EXIT_BROKEN)
            self._tree = ProcessTree()
            self._refused, self._left_out = [], 0
            self._started_s = time.monotonic()
            tid = self._find_thread()
            ptrace.seize(tid)
            self._tree.attach(tid)
            self._sock.send(FOLLOWED)
            self._follow()
            channel.send(self._sock, json.dumps(self._report()).encode("ascii"))

    def _find_thread(self) -> int:
        """Return the one thread of init beside its first: the one that asked and now waits."""
        others = [int(name) for name in os.listdir(f"/proc/{self._init_pid}/task") if int(name) != self._init_pid]
        if len(others) != 1:
            raise InvariantError(f"init {self._init_pid} has {len(others)} threads beside its first, expected one")
        return others[0]

    def _follow(self) -> None:
        while not self._tree.is_empty:
            try:
                tid, status, usage = ptrace.wait_any()
            except ChildProcessError:
                return
            stop = ptrace.classify(tid, status)
            message = 0
            if stop.kind in (StopKind.NEW_CHILD, StopKind.EXEC):
                try:
                    message = ptrace.event_message(tid)
                except ProcessLookupError:
                    continue  # killed while it was stopped; its end is reported next
            actions = self._tree.on_stop(
                stop,
                message=message,
                now_s=time.monotonic() - self._started_s,
                cpu_s=usage.ru_utime + usage.ru_stime,
                peak=usage.ru_maxrss * 1024,
            )
            for action in actions:
                match action:
                    case Continue(tid=other, deliver=number):
                        ptrace.continue_tracee(other, deliver=number)
                    case Listen(tid=other):
                        ptrace.listen(other)
                    case JudgeEntry():
                        self._judge_entry(action)
                    case JudgeExec():
                        self._judge_exec(action)

    def _parent(self, record: ExecRecord | None) -> Judgement | None:
        if record is None:
            return None
        return _judgement_of(record)

    def _judge_entry(self, action: JudgeEntry) -> None:
        try:
            facts = read_entry_facts(action.tid)
        except FactsError:
            # The call may fail by itself, with its own errno; if it succeeds it is judged at the event all the same.
            ptrace.continue_tracee(action.tid)
            return
        judgement = self._judge.judge(facts, self._parent(action.parent), _context())
        if judgement.may_run:
            ptrace.continue_tracee(action.tid)
            return
        self._note_refusal(action.tid, action.parent, judgement, killed=False)
        try:
            ptrace.refuse_system_call(action.tid, errno.EACCES)
        except ProcessLookupError:
            return
        ptrace.continue_tracee(action.tid)

    def _judge_exec(self, action: JudgeExec) -> None:
        facts: ExecFacts | None = None
        try:
            facts = read_exec_facts(action.tid)
        except FactsError as error:
            judgement = self._judge.refuse(None, str(error))
        else:
            judgement = self._judge.judge(facts, self._parent(action.parent), _context())
        if judgement.may_run:
            self._tree.ran(action.tid, judgement, now_s=time.monotonic() - self._started_s)
            ptrace.continue_tracee(action.tid)
            return
        self._note_refusal(action.tid, action.parent, judgement, killed=True)
        with contextlib.suppress(ProcessLookupError):
            os.kill(action.tid, signal.SIGKILL)
        ptrace.continue_tracee(action.tid)

    def _note_refusal(self, tid: int, parent: ExecRecord | None, judgement: Judgement, *, killed: bool) -> None:
        if len(self._refused) >= limits.GATE_MAX_RECORDS:
            self._left_out += 1
            return
        self._refused.append(
            {
                "pid": tid,
                "parent": None if parent is None else parent.index,
                "killed": killed,
                "at_s": round(time.monotonic() - self._started_s, 6),
                **_as_json(judgement),
            }
        )

    def _report(self) -> dict[str, Any]:
        ran = [
            {
                "index": record.index,
                "parent": record.parent,
                "pid": record.pid,
                "started_s": round(record.started_s, 6),
                "ended_s": None if record.ended_s is None else round(record.ended_s, 6),
                "exit_status": record.exit_status,
                "signal": record.signal,
                "cpu_s": round(record.cpu_s, 6),
                "peak_memory_bytes": record.peak_memory_bytes,
                **_as_json(_judgement_of(record)),
            }
            for record in self._tree.records
        ]
        return {"ran": ran, "refused": self._refused, "left_out": self._left_out + self._tree.left_out}


def _judgement_of(record: ExecRecord) -> Judgement:
    if not isinstance(record.judgement, Judgement):
        raise InvariantError(f"the record of process {record.pid} has no judgement")
    return record.judgement


def _as_json(judgement: Judgement) -> dict[str, Any]:
    shown = [
        word if len(word) <= _SHOWN_ARGUMENT_CHARS else f"{word[:_SHOWN_ARGUMENT_CHARS]}… ({len(word)} characters)"
        for word in judgement.argv[:_SHOWN_ARGUMENTS]
    ]
    if len(judgement.argv) > _SHOWN_ARGUMENTS:
        shown.append(f"… ({len(judgement.argv)} arguments)")
    return {
        "path": judgement.path,
        "argv": shown,
        "verdict": judgement.verdict.value,
        "because": judgement.because,
        "rule": judgement.rule,
        "place": judgement.place,
        "interpreter": judgement.interpreter,
    }


def _context() -> Context:
    return Context(now=datetime.now().astimezone())


def fork_monitor(judge: ExecJudge, sock: socket.socket, *, init_pid: int, is_root: bool) -> int:
    """Fork a monitor for the init ``init_pid``, at the other end of ``sock``; return its pid.

    Raises:
        OSError: fork(2) failed.
    """
    pid = os.fork()
    if pid != 0:
        return pid
    try:
        credentials.set_parent_death_signal(signal.SIGKILL)
        descriptors.close_all_but((2, sock.fileno()))
        if is_root:
            credentials.keep_capabilities_only(_CAP_SYS_PTRACE | _CAP_KILL | _CAP_DAC_READ_SEARCH)
        _Monitor(judge, sock, init_pid).serve()
    finally:
        os._exit(_EXIT_BROKEN)

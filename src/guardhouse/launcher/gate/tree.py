"""Who started whom, and what to do at each stop: a state machine over ptrace stops.

Handed stops and times, it answers with actions; the monitor carries them out. It knows no policy, no file and no
system call, so that every order in which the kernel may report things can be played to it in a test.

Runs in the exec gate's monitor.
"""

from dataclasses import dataclass, field

from guardhouse import limits
from guardhouse.errors import InvariantError
from guardhouse.kernel.ptrace import Stop, StopKind

__all__ = ["Action", "Continue", "ExecRecord", "JudgeEntry", "JudgeExec", "Listen", "ProcessTree"]


@dataclass(frozen=True, slots=True)
class Continue:
    """Let ``tid`` run, delivering signal ``deliver`` (0: none)."""

    tid: int
    deliver: int = 0


@dataclass(frozen=True, slots=True)
class Listen:
    """Leave ``tid`` in its group stop, as job control asked."""

    tid: int


@dataclass(frozen=True, slots=True)
class JudgeEntry:
    """``tid`` is at the entry of execve: look at what it asks for, then refuse it readably or let it go on."""

    tid: int
    parent: "ExecRecord | None"


@dataclass(frozen=True, slots=True)
class JudgeExec:
    """``tid`` is a new program that has not run an instruction: this is the check that counts."""

    tid: int
    parent: "ExecRecord | None"


Action = Continue | Listen | JudgeEntry | JudgeExec


@dataclass(slots=True)
class ExecRecord:
    """One program that ran, or was not let to. Times are seconds since the command's start.

    ``index`` counts the command's programs; ``parent`` is the index of the one whose process started it, None for the
    first. ``judgement`` is whatever the judge handed in; the tree only keeps it.
    """

    index: int
    parent: int | None
    pid: int
    started_s: float
    judgement: object
    ended_s: float | None = None
    exit_status: int | None = None
    signal: int | None = None
    cpu_s: float = 0.0
    peak_memory_bytes: int = 0


@dataclass(slots=True)
class ProcessTree:
    """The threads of one command that are alive, and every program that they ran.

    A new child is reported twice, by itself and by its parent, in either order (ptrace(2), "Attaching and detaching";
    the kernel wakes the child before the parent's stop). It is held until both are known, since only the parent's
    report says which program it still is.

    ``records`` holds the first ``records_max`` programs; further ones are judged alike, but kept only while
    they run, and counted in ``left_out``.
    """

    records_max: int = limits.GATE_MAX_RECORDS
    records: list[ExecRecord] = field(default_factory=list)
    left_out: int = 0
    _program: dict[int, ExecRecord | None] = field(default_factory=dict)
    _early: set[int] = field(default_factory=set)

    def attach(self, tid: int) -> None:
        """Begin to follow ``tid``, which is no program yet: the thread that will start the command."""
        self._program[tid] = None

    @property
    def is_empty(self) -> bool:
        """Whether every thread that was followed has ended."""
        return not self._program and not self._early

    @property
    def threads(self) -> tuple[int, ...]:
        """The threads followed now, for a kill of them all."""
        return (*self._program, *self._early)

    def on_stop(
        self, stop: Stop, *, message: int = 0, now_s: float = 0.0, cpu_s: float = 0.0, peak: int = 0
    ) -> tuple[Action, ...]:
        """Take in one stop and say what to do: nothing for an end, or for a child that its parent has not named yet.

        Args:
            stop: as `guardhouse.kernel.ptrace.classify` tells it.
            message: of the event: the new child's id for `StopKind.NEW_CHILD`, the former thread id for
                `StopKind.EXEC`.
            now_s: seconds since the command's start.
            cpu_s: CPU time of an ended thread, likewise ``peak`` its peak memory in bytes.

        Raises:
            InvariantError: a thread that nobody announced stops for an exec.
        """
        tid = stop.tid
        match stop.kind:
            case StopKind.EXITED | StopKind.KILLED:
                self._end(stop, now_s=now_s, cpu_s=cpu_s, peak=peak)
                return ()
            case StopKind.NEW_CHILD:
                return self._new_child(tid, message)
            case StopKind.ATTACHED:
                if tid in self._program:
                    return (Continue(tid),)
                self._early.add(tid)
                return ()
            case StopKind.EXEC_ENTRY:
                return (JudgeEntry(tid, self._program_of(tid)),)
            case StopKind.EXEC:
                # A thread other than the first that execs takes the first one's id; its own is gone with every other
                # thread of the process (ptrace(2), "execve(2) under ptrace").
                parent = self._program_of(message if message in self._program else tid)
                self._program.pop(message, None)
                self._program[tid] = parent
                return (JudgeExec(tid, parent),)
            case StopKind.GROUP_STOP:
                return (Listen(tid),)
            case StopKind.SIGNAL:
                return (Continue(tid, stop.number),)

    def ran(self, tid: int, judgement: object, *, now_s: float) -> ExecRecord:
        """Take in that ``tid`` is a new program from now on, and return its record."""
        parent = self._program_of(tid)
        self._close_program(tid, parent, now_s)
        index = None if parent is None else parent.index
        record = ExecRecord(len(self.records) + self.left_out, index, tid, now_s, judgement)
        if len(self.records) < self.records_max:
            self.records.append(record)
        else:
            self.left_out += 1
        self._program[tid] = record
        return record

    def _program_of(self, tid: int) -> ExecRecord | None:
        try:
            return self._program[tid]
        except KeyError:
            raise InvariantError(f"thread {tid} stopped for an exec before anybody announced it") from None

    def _new_child(self, tid: int, child: int) -> tuple[Action, ...]:
        self._program[child] = self._program.get(tid)
        if child not in self._early:
            return (Continue(tid),)
        self._early.discard(child)
        return (Continue(child), Continue(tid))

    def _close_program(self, tid: int, record: ExecRecord | None, now_s: float) -> None:
        # A process that execs again ends its former program without an exit status.
        if record is not None and record.pid == tid and record.ended_s is None:
            record.ended_s = now_s

    def _end(self, stop: Stop, *, now_s: float, cpu_s: float, peak: int) -> None:
        self._early.discard(stop.tid)
        record = self._program.pop(stop.tid, None)
        if record is None or record.pid != stop.tid:
            return
        record.ended_s, record.cpu_s, record.peak_memory_bytes = now_s, cpu_s, peak
        if stop.kind is StopKind.EXITED:
            record.exit_status = stop.number
        else:
            record.signal = stop.number

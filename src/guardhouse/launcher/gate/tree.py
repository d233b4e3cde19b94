"""Who started whom, and who may go on when: a state machine over ptrace stops.

Told of stops and times, it answers who may run and which program a process is. It knows no policy, no file and no
system call, so that every order in which the kernel may report things can be played to it in a test.

Runs in the exec gate's monitor, several times for every process of a command.
"""

from dataclasses import dataclass, field

from guardhouse import limits
from guardhouse.errors import InvariantError

__all__ = ["ExecRecord", "ProcessTree"]


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

    A parent that is killed before it could report leaves such a child behind: `lost_children` are those that may wait
    for a dead parent, and `adopt` gives one of them to the command's first program, which has no special rights.

    ``records`` holds the first ``records_max`` programs, as long as they take ``bytes_max`` in the report; further
    ones are judged alike, but kept only while they run, and counted in ``left_out``.
    """

    records_max: int = limits.GATE_MAX_RECORDS
    bytes_max: int = limits.GATE_MAX_REPORT_BYTES
    bytes_kept: int = 0
    records: list[ExecRecord] = field(default_factory=list)
    left_out: int = 0
    _program: dict[int, ExecRecord | None] = field(default_factory=dict)
    _early: set[int] = field(default_factory=set)
    _unnamed_dead: set[int] = field(default_factory=set)
    _lost: set[int] = field(default_factory=set)

    def attach(self, tid: int) -> None:
        """Begin to follow ``tid``, which is no program yet: the thread that will start the command."""
        self._program[tid] = None

    @property
    def is_empty(self) -> bool:
        """Whether every thread that was followed has ended."""
        return not self._program and not self._early

    @property
    def has_lost_children(self) -> bool:
        """Whether there are `lost_children`; asked at every stop."""
        return bool(self._lost)

    @property
    def lost_children(self) -> tuple[int, ...]:
        """Children that wait to be named since before a thread ended: the one that ended may have been their parent."""
        return tuple(self._lost)

    def adopt(self, child: int) -> bool:
        """Take a child whose parent has ended unheard for one of the command's first program; whether it waits."""
        self._lost.discard(child)
        if child not in self._early:
            return False
        self._early.discard(child)
        self._program[child] = self.records[0] if self.records else None
        return True

    @property
    def threads(self) -> tuple[int, ...]:
        """The threads followed now, for a kill of them all."""
        return (*self._program, *self._early)

    def first_stop(self, tid: int) -> bool:
        """Take in that ``tid`` has stopped by itself; whether it may run, or waits for its parent's report."""
        if tid in self._program:
            return True
        self._unnamed_dead.discard(tid)
        self._early.add(tid)
        return False

    def new_child(self, tid: int, child: int) -> bool:
        """Take in ``tid``'s report of a new child; whether that waits and may run now.

        Raises:
            InvariantError: nobody announced ``tid`` itself, so its child may not go on.
        """
        self._lost.discard(child)
        if child in self._unnamed_dead:
            # It has come and gone before its parent's report; its number may be another's soon.
            self._unnamed_dead.discard(child)
            return False
        self._program[child] = self.program_of(tid)
        if child not in self._early:
            return False
        self._early.discard(child)
        return True

    def program_of(self, tid: int) -> ExecRecord | None:
        """Return which program ``tid`` is; None for the thread that was attached, before its first exec.

        Raises:
            InvariantError: nobody announced it, so it may not go on.
        """
        try:
            return self._program[tid]
        except KeyError:
            raise InvariantError(f"thread {tid} stopped for an exec or a fork before anybody announced it") from None

    def loaded(self, tid: int, former: int) -> ExecRecord | None:
        """Take in that a new program has been loaded into ``tid``, and return the one it was until now.

        A thread other than the first that execs takes the first one's id; its own, ``former``, is gone with every other
        thread of the process (ptrace(2), "execve(2) under ptrace").

        Raises:
            InvariantError: nobody announced it, so it may not go on.
        """
        program = self.program_of(former if former in self._program else tid)
        if former != tid:
            self._program.pop(former, None)
            self._program[tid] = program
        return program

    def ran(self, tid: int, judgement: object, *, now_s: float, size_bytes: int = 0) -> ExecRecord:
        """Take in that ``tid`` is a new program from now on, and return its record.

        Args:
            size_bytes: what it takes in the report.
        """
        parent = self.program_of(tid)
        self._close_program(tid, parent, now_s)
        index = None if parent is None else parent.index
        record = ExecRecord(len(self.records) + self.left_out, index, tid, now_s, judgement)
        self.bytes_kept += size_bytes
        if len(self.records) < self.records_max and self.bytes_kept <= self.bytes_max:
            self.records.append(record)
        else:
            self.left_out += 1
        self._program[tid] = record
        return record

    def _close_program(self, tid: int, record: ExecRecord | None, now_s: float) -> None:
        # A process that execs again ends its former program without an exit status.
        if record is not None and record.pid == tid and record.ended_s is None:
            record.ended_s = now_s

    def ended(
        self, tid: int, *, exit_status: int | None, killed_by: int | None, now_s: float, cpu_s: float, peak: int
    ) -> None:
        """Take in that ``tid`` has ended, with its CPU time and its peak memory in bytes."""
        if tid not in self._program:
            self._unnamed_dead.add(tid)
            self._early.discard(tid)
        if self._early or self._lost:
            self._lost.discard(tid)
            self._lost |= self._early
        record = self._program.pop(tid, None)
        if record is None or record.pid != tid:
            return
        record.ended_s, record.cpu_s, record.peak_memory_bytes = now_s, cpu_s, peak
        record.exit_status, record.signal = exit_status, killed_by

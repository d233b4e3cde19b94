"""Which programs a command has run, as far as its own notifications tell: the record where nothing can follow execs.

A state machine over three events: a process asked for a program and was let go on, it was seen to have become another
program, or it asks again. Between the first and the second stands only what the caller said; after the second what
was found in the new program. An exec that the kernel then refused shows as neither, until the process asks again.

Knows no policy, no file and no system call. Runs in the exec gate's monitor.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from guardhouse import limits
from guardhouse.launcher.gate.callers import ImageMark, ProcessKey
from guardhouse.launcher.gate.judge import Judgement
from guardhouse.launcher.gate.report import Refusals, as_json, judgement_of, size_bytes
from guardhouse.launcher.gate.tree import ExecRecord

__all__ = ["NoticedPrograms"]

# How many processes are remembered before those that have ended are forgotten.
_FORGET_FROM: Final = 2_048


@dataclass(slots=True)
class _Process:
    """What is known of one process.

    Attributes:
        record: the program that it is, or has asked to become; None where there is none of its own yet.
        mark: of the program that it was when it was last looked at; None where it could not be.
    """

    record: ExecRecord | None
    mark: ImageMark | None


class NoticedPrograms:
    """The programs of one command; as many are kept as the report has room for.

    Attributes:
        left_out: how many more there were.
    """

    def __init__(
        self, *, records_max: int = limits.GATE_MAX_RECORDS, bytes_max: int = limits.GATE_MAX_REPORT_BYTES
    ) -> None:
        self.left_out = 0
        self._records_max = records_max
        self._bytes_left = bytes_max
        self._next = 0
        self._records: list[ExecRecord] = []
        self._seen: set[int] = set()  # indexes of the records that were looked at in the new program
        self._void: set[int] = set()  # indexes of those that never became a program
        self._processes: dict[ProcessKey, _Process] = {}
        self._waiting: set[ProcessKey] = set()
        self._first: ProcessKey | None = None
        self._forget_at = _FORGET_FROM

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been recorded yet: the command's own shell comes first."""
        return self._next == 0

    def is_known(self, key: ProcessKey) -> bool:
        """Tell whether a process is a program of its own, or has asked to become one."""
        known = self._processes.get(key)
        return known is not None and known.record is not None

    def program_of(self, lineage: Iterable[ProcessKey]) -> ExecRecord | None:
        """Return which program a process is: its own, or that of the nearest parent that is known.

        The command's first one where none is: the parent has ended, and pid 1 has taken its child.
        """
        for key in lineage:
            known = self._processes.get(key)
            if known is not None and known.record is not None:
                return known.record
        return self._records[0] if self._records else None

    @property
    def waiting(self) -> tuple[ProcessKey, ...]:
        """The processes that were let go on to a program that nobody has seen yet."""
        return tuple(self._waiting)

    @property
    def has_waiting(self) -> bool:
        """Whether there are any; asked at every call."""
        return bool(self._waiting)

    def is_waiting(self, key: ProcessKey) -> bool:
        """Tell whether a process is one of them."""
        return key in self._waiting

    def ended(self, key: ProcessKey) -> None:
        """Take in that a process is gone: nobody will see what it had become."""
        self._processes.pop(key, None)
        self._waiting.discard(key)

    def is_first(self, key: ProcessKey) -> bool:
        """Tell whether a process is the command's own shell, on its way to its first program."""
        return key == self._first

    def is_new(self, key: ProcessKey, mark: ImageMark) -> bool:
        """Tell whether a process is another program than when it was last looked at; one that never asked is not."""
        known = self._processes.get(key)
        return known is not None and known.mark != mark

    def asked_in_vain(self, key: ProcessKey, mark: ImageMark | None) -> None:
        """Take in that a process asked for what was not there; should it start all the same, that will be new."""
        self._processes.setdefault(key, _Process(None, mark))

    def let_go(
        self,
        lineage: tuple[ProcessKey, ...],
        mark: ImageMark | None,
        judgement: Judgement,
        *,
        now_s: float,
    ) -> None:
        """Take in that a process, which is ``mark`` now, asked for a program and may go on to it."""
        known = self._processes.get(lineage[0])
        if known is not None and known.mark != mark:
            self._first = None
        if known is not None and lineage[0] in self._waiting and known.record is not None:
            # It asks again and is what it was: the kernel refused what it had asked for before.
            self._make_void(known.record)
            parent = known.record.parent
        else:
            program = self.program_of(lineage)
            parent = None if program is None else program.index
        if self.is_empty:
            self._first = lineage[0]
        self._processes[lineage[0]] = _Process(self._add(lineage[0], parent, judgement, now_s), mark)
        self._waiting.add(lineage[0])

    def began(self, lineage: tuple[ProcessKey, ...], mark: ImageMark, judgement: Judgement, *, now_s: float) -> None:
        """Take in that a process has become another program: ``judgement`` says which."""
        known = self._processes.get(lineage[0])
        if known is not None and lineage[0] in self._waiting and known.record is not None:
            record = known.record
            record.judgement = judgement
        else:
            program = self.program_of(lineage)
            record = self._add(lineage[0], None if program is None else program.index, judgement, now_s)
        if self._is_kept(record):
            self._seen.add(record.index)
        self._processes[lineage[0]] = _Process(record, mark)
        self._waiting.discard(lineage[0])
        if lineage[0] == self._first:
            self._first = None

    def refused(self, key: ProcessKey) -> None:
        """Take in that what a process has become is being killed: it is among the refused, not among what ran."""
        known = self._processes.pop(key, None)
        if known is not None and key in self._waiting and known.record is not None:
            self._make_void(known.record)
        self._waiting.discard(key)

    def forget(self, is_alive: Callable[[ProcessKey], bool]) -> None:
        """Forget the processes that have ended, where there are many: a command may run a million one by one."""
        if len(self._processes) < self._forget_at:
            return
        self._processes = {key: process for key, process in self._processes.items() if is_alive(key)}
        self._waiting &= self._processes.keys()
        self._forget_at = max(_FORGET_FROM, 2 * len(self._processes))

    def report(self, refusals: Refusals) -> dict[str, Any]:
        """Return the record of a command that has ended, as `report.report_of` does for one that was followed.

        ``words`` of a program says where path and arguments are from: ``program``, the new program's own memory before
        its main, or ``caller``, who said them and could change them. ``unseen`` counts the execs of which neither could
        be had. Ends, exit statuses, CPU time and memory are not known.
        """
        kept = [record for record in self._records if record.index not in self._void]
        known = [record for record in kept if judgement_of(record).path]
        ran = [
            {
                "index": record.index,
                "parent": record.parent,
                "pid": record.pid,
                "started_s": round(record.started_s, 6),
                "ended_s": None,
                "exit_status": None,
                "signal": None,
                "cpu_s": None,
                "peak_memory_bytes": None,
                "words": "program" if record.index in self._seen else "caller",
                **as_json(judgement_of(record)),
            }
            for record in known
        ]
        return {
            "ran": ran,
            "refused": [{**entry, "words": "program" if entry["killed"] else "caller"} for entry in refusals.entries],
            "left_out": refusals.left_out + self.left_out,
            "unseen": len(kept) - len(known),
        }

    def _is_kept(self, record: ExecRecord) -> bool:
        # Once one has been left out so are all that follow it.
        return record.index < len(self._records)

    def _make_void(self, record: ExecRecord) -> None:
        if self._is_kept(record):
            self._void.add(record.index)
        else:
            self.left_out -= 1

    def _add(self, key: ProcessKey, parent: int | None, judgement: Judgement, now_s: float) -> ExecRecord:
        record = ExecRecord(self._next, parent, key[0], now_s, judgement)
        self._next += 1
        self._bytes_left -= size_bytes(judgement)
        if len(self._records) < self._records_max and self._bytes_left >= 0:
            self._records.append(record)
        else:
            self.left_out += 1
        return record

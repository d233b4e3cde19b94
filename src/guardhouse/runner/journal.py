"""The runner's memory across restarts: which tasks it accepted, which results nobody has acknowledged.

One file of lines, each `CRC32 JSON`, appended and flushed to the disk before its effect: a task is recorded
before it starts, a result is kept until it is acknowledged. A crash at any byte loses at most the lines being
written, and a damaged line is counted and skipped, never believed. Runs in the runner, in a worker thread where it
must wait for the disk.
"""

import fcntl
import os
import secrets
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Self

import msgspec

from guardhouse.errors import SetupError

__all__ = ["AcceptedTask", "Journal", "JournalRecord", "Recovered", "open_journal", "recover"]

# Ids of tasks that are over are kept so that a platform that asks twice starts nothing twice.
REMEMBERED_TASKS: Final = 10_000
# Past this size the file is written anew with only what still matters.
COMPACT_ABOVE_BYTES: Final = 64 * 1024 * 1024


class AcceptedTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A task that was taken on; what is needed to answer for it after a restart."""

    task_id: str
    operation: str
    source_instance_id: str | None
    accepted_at: str


class JournalRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One record. ``result`` is the rendered payload of the task's one result.

    The first line of a file is of kind ``memory`` and has the memory's id in ``task_id``.
    """

    kind: Literal["memory", "accepted", "result", "acknowledged"]
    task_id: str
    task: AcceptedTask | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")

    @classmethod
    def accepted(cls, task: AcceptedTask) -> Self:
        """Return the record of a task that is about to start."""
        return cls(kind="accepted", task_id=task.task_id, task=task)

    @classmethod
    def finished(cls, task_id: str, result_json: bytes) -> Self:
        """Return the record of a task's one result, to be kept until it is acknowledged."""
        return cls(kind="result", task_id=task_id, result=msgspec.Raw(result_json))

    @classmethod
    def acknowledged(cls, task_id: str) -> Self:
        """Return the record that a result may be forgotten, though not its id."""
        return cls(kind="acknowledged", task_id=task_id)


@dataclass(slots=True)
class Recovered:
    """What a journal's bytes say.

    Attributes:
        interrupted: accepted and never finished, oldest first.
        results: finished and not acknowledged: task id to the result's JSON.
        over: ids that are finished and acknowledged, oldest first.
        damaged_lines: lines whose checksum or form is wrong.
        memory_id: names this memory towards the hub; a new one wherever something may have been forgotten.
    """

    interrupted: OrderedDict[str, AcceptedTask] = field(default_factory=OrderedDict)
    results: OrderedDict[str, bytes] = field(default_factory=OrderedDict)
    over: OrderedDict[str, None] = field(default_factory=OrderedDict)
    damaged_lines: int = 0
    memory_id: str = ""


def recover(content: bytes) -> Recovered:
    """Read a journal's bytes, however they end. Never raises: a journal must not keep the runner from starting."""
    recovered = Recovered()
    *lines, last = content.split(b"\n")
    for line in lines:
        record = _parse_line(line)
        if record is None:
            recovered.damaged_lines += 1
        else:
            _apply(recovered, record)
    if recovered.damaged_lines or not recovered.memory_id:
        # Something that was recorded is lost, perhaps that a task has run: the hub must know.
        recovered.memory_id = f"mem_{secrets.token_hex(8)}"
    # The last line has no newline: it was being written when the runner or the host went down, so its effect had not
    # come yet and nothing is lost with it. Where all of it but the newline is there, it counts.
    final = _parse_line(last)
    if final is None and last:
        recovered.damaged_lines += 1
        final = _parse_line(last[:-1])
    if final is not None:
        _apply(recovered, final)
    return recovered


def _parse_line(line: bytes) -> JournalRecord | None:
    checksum, separator, body = line.partition(b" ")
    if not separator or checksum != b"%08x" % zlib.crc32(body):
        return None
    try:
        return msgspec.json.decode(body, type=JournalRecord)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _apply(recovered: Recovered, record: JournalRecord) -> None:
    task_id = record.task_id
    if record.kind == "memory":
        recovered.memory_id = task_id
        return
    if record.kind == "accepted":
        if record.task is not None:
            recovered.interrupted[task_id] = record.task
        return
    recovered.interrupted.pop(task_id, None)
    if record.kind == "result":
        recovered.results[task_id] = bytes(record.result)
        return
    recovered.results.pop(task_id, None)
    recovered.over[task_id] = None
    while len(recovered.over) > REMEMBERED_TASKS:
        recovered.over.popitem(last=False)


def _render_line(record: JournalRecord) -> bytes:
    body = msgspec.json.encode(record)
    return b"%08x %b\n" % (zlib.crc32(body), body)


class Journal:
    """The open file. Each method returns once the disk has the record (fdatasync)."""

    def __init__(self, path: Path, descriptor: int, state: Recovered, *, lock: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._lock = lock
        self._state = state
        self._size_bytes = os.fstat(descriptor).st_size

    def record(self, records: Sequence[JournalRecord]) -> None:
        """Append ``records`` in their order, all of them or none.

        Raises:
            OSError: the disk did not take them.
        """
        lines = b"".join(map(_render_line, records))
        try:
            _write_all(self._descriptor, lines)
            os.fdatasync(self._descriptor)
        except OSError:
            # Half a line must not swallow the next one (a full disk takes the first part of it).
            os.ftruncate(self._descriptor, self._size_bytes)
            raise
        self._size_bytes += len(lines)
        for record in records:
            _apply(self._state, record)
        if self._size_bytes > COMPACT_ABOVE_BYTES and self._size_bytes > 2 * self._live_bytes():
            self._compact()

    def record_accepted(self, task: AcceptedTask) -> None:
        """Remember that ``task`` is about to start."""
        self.record([JournalRecord.accepted(task)])

    def record_result(self, task_id: str, result_json: bytes) -> None:
        """Remember the task's one result until it is acknowledged."""
        self.record([JournalRecord.finished(task_id, result_json)])

    def record_acknowledged(self, task_id: str) -> None:
        """Forget the result; keep the id."""
        self.record([JournalRecord.acknowledged(task_id)])

    def close(self) -> None:
        """Close the file and give up its lock."""
        os.close(self._descriptor)
        os.close(self._lock)

    def _live_bytes(self) -> int:
        return sum(len(result) for result in self._state.results.values())

    def _compact(self) -> None:
        """Write what still matters to a new file and put it in place of the old, whole or not at all."""
        descriptor, size_bytes = _write_anew(self._path, self._state)
        os.close(self._descriptor)
        self._descriptor, self._size_bytes = descriptor, size_bytes


def open_journal(state_directory: Path) -> tuple[Journal, Recovered]:
    """Open the journal in ``state_directory`` and say what an earlier runner left in it.

    The file is rewritten with what matters, so that damage is reported once and the file stays small.

    Raises:
        SetupError: the file cannot be written, or another runner has it open.
    """
    path = state_directory / "journal"
    try:
        lock = os.open(state_directory / "journal.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise SetupError(
            f"cannot keep a journal in {state_directory}: {error.strerror}; name a directory of the runner's own"
            " by --state-dir"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise SetupError(
            f"another runner keeps its journal in {state_directory}; stop it, or give this one its own --state-dir"
        ) from None
    try:
        content = path.read_bytes() if path.exists() else b""
        found = recover(content)
        state = Recovered(
            OrderedDict(found.interrupted),
            OrderedDict(found.results),
            OrderedDict(found.over),
            memory_id=found.memory_id,
        )
        descriptor, _ = _write_anew(path, state)
    except OSError as error:
        os.close(lock)
        raise SetupError(f"cannot write the journal {path}: {error.strerror}; check owner and free space") from None
    return Journal(path, descriptor, state, lock=lock), found


def _write_anew(path: Path, state: Recovered) -> tuple[int, int]:
    """Return the descriptor and size of a fresh journal that holds ``state`` and already has its final name."""
    lines = [JournalRecord(kind="memory", task_id=state.memory_id)]
    lines += [JournalRecord.acknowledged(task_id) for task_id in state.over]
    lines += [
        JournalRecord(kind="result", task_id=key, result=msgspec.Raw(body)) for key, body in state.results.items()
    ]
    lines += [JournalRecord(kind="accepted", task_id=key, task=task) for key, task in state.interrupted.items()]
    content = b"".join(map(_render_line, lines))
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(fresh, flags, 0o600)
    try:
        _write_all(descriptor, content)
        os.fsync(descriptor)
        fresh.replace(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor, len(content)


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]

"""Find what was changed, lost, moved, repeated or cut off in an audit log, and name it.

Pure: records and checkpoints in, a report out; what is read may be read twice. Runs in `guardhouse audit verify` and
in the hub.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from guardhouse.hub.audit.chain import (
    GENESIS,
    AuditRecord,
    Checkpoint,
    ExportEnd,
    is_signed_by,
    key_id_of,
    link_hash,
)
from guardhouse.hub.audit.keys import KeyChange, KeyLine, parse_key_change

__all__ = ["AuditSource", "Problem", "Report", "verify"]

ProblemKind = Literal[
    "changed", "lost", "moved", "repeated", "truncated", "checkpoint", "unsigned", "key", "unreadable", "gap"
]
# Every problem is counted; only so many are described and looked into.
PROBLEMS_MAX: Final = 200


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. ``seq`` is the record's number, or None where it is about the whole."""

    kind: ProblemKind
    seq: int | None
    text: str


@dataclass
class Report:
    """What was found. ``is_good`` holds when nothing is wrong.

    Attributes:
        signed_to: the highest record that a valid signature covers; records after it hang together, but whoever can
            write the store could have written them.
        key_id: of the public key that was believed.
        key_is_pinned: the public key came from the caller, not from what was verified.
        key_changes: where the hub changed its key, in order.
    """

    records: int = 0
    first_seq: int | None = None
    last_seq: int | None = None
    last_at_ms: int | None = None
    signed_to: int = 0
    checkpoints: int = 0
    key_id: str = ""
    key_is_pinned: bool = False
    key_changes: list[KeyChange] = field(default_factory=list)
    problem_count: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return self.problem_count == 0

    def add(self, kind: ProblemKind, seq: int | None, text: str) -> None:
        """Note a problem."""
        self.problem_count += 1
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(Problem(kind, seq, text))


@dataclass(frozen=True, kw_only=True)
class AuditSource:
    """Something to verify.

    Attributes:
        records: returns all records in the order in which they stand; may be called twice.
        checkpoints: all that are there, in their order.
        heads: checkpoints that were kept elsewhere (the state directory's ``audit.head``, an auditor's own note).
        end: of an export file; None where there is none although ``needs_end``.
        first_previous: the hash before the first record, for an export that does not begin with record 1.
        unreadable: lines that are no record, with what is wrong.
    """

    records: Callable[[], Iterable[AuditRecord]]
    checkpoints: list[Checkpoint]
    heads: list[Checkpoint] = field(default_factory=list)
    end: ExportEnd | None = None
    needs_end: bool = False
    first_previous: bytes = GENESIS
    first_seq: int = 1
    unreadable: list[str] = field(default_factory=list)


def verify(source: AuditSource, public_key: bytes, *, is_pinned: bool) -> Report:
    """Return what is wrong with ``source``, checked with the hub's ``public_key`` (32 raw bytes).

    Keys that came before or after that one are believed as far as it vouches for them (`KeyLine`).
    """
    report = Report(key_id=key_id_of(public_key), key_is_pinned=is_pinned)
    for text in source.unreadable:
        report.add("unreadable", None, text)
    wanted = {one.seq for one in (*source.checkpoints, *source.heads)}
    odd: list[AuditRecord] = []
    hashes: dict[int, bytes] = {}
    missing: list[int] = []
    _walk(source, report, odd=odd, missing=missing, wanted=wanted, hashes=hashes)
    if odd:
        _explain(source, report, odd, missing)
    keys = _follow_keys(source, report, public_key, hashes)
    _check_checkpoints(source, report, keys, hashes)
    _check_heads(source, report, keys, hashes)
    _check_end(source, report, keys)
    return report


def _follow_keys(source: AuditSource, report: Report, public_key: bytes, hashes: dict[int, bytes]) -> KeyLine:
    def fits(one: Checkpoint, key: bytes) -> bool:
        return hashes.get(one.seq) == one.hash and is_signed_by(key, one.signature, one.signed())

    def is_signed_at(seq: int, key: bytes) -> bool:
        return any(one.seq == seq and fits(one, key) for one in source.checkpoints)

    def signs_behind(seq: int, key: bytes) -> bool:
        return any(one.seq > seq and fits(one, key) for one in (*source.checkpoints, *source.heads))

    keys = KeyLine(report.key_changes, public_key, is_signed_at=is_signed_at, signs_behind=signs_behind)
    for seq, text in keys.problems:
        report.add("key", seq, text)
    return keys


def _walk(
    source: AuditSource,
    report: Report,
    *,
    odd: list[AuditRecord],
    missing: list[int],
    wanted: set[int],
    hashes: dict[int, bytes],
) -> None:
    """Check that each record follows from the one before; collect those that do not, and the numbers that lack."""
    previous, expected = source.first_previous, source.first_seq
    gaps: list[tuple[int, int, int | None]] = []
    late: set[int] = set()
    for record in source.records():
        report.records += 1
        if record.seq < expected:
            if record.seq not in late and any(first <= record.seq <= last for first, last, _ in gaps):
                late.add(record.seq)
                report.add("moved", record.seq, f"record {record.seq} stands behind record {expected - 1}")
            else:
                report.add("repeated", record.seq, f"record {record.seq} stands again behind record {expected - 1}")
            continue
        follows = link_hash(previous, record.body()) == record.hash
        if record.seq > expected:
            declared = record.seq if record.action == "audit.gap" and follows else None
            gaps.append((expected, record.seq - 1, declared))
            # The predecessor is gone with its hash: without it nothing can be said of this one.
            follows = True
        if not follows or not _is_canonical(record.detail):
            if len(odd) < PROBLEMS_MAX:
                odd.append(record)
            else:
                report.add("changed", record.seq, f"record {record.seq} is not what its hash says")
        elif record.seq == expected and (change := parse_key_change(record)):
            # Behind a hole a record's hash says nothing of its words, and nobody is believed for those.
            report.key_changes.append(change)
        if record.seq in wanted:
            hashes[record.seq] = record.hash
        previous, expected = record.hash, record.seq + 1
        report.first_seq = report.first_seq or record.seq
        report.last_seq, report.last_at_ms = record.seq, record.at_ms
    for first, last, declared in gaps:
        if all(seq in late for seq in range(first, min(last, first + len(late)) + 1)):
            continue
        missing += range(first, min(last + 1, first + PROBLEMS_MAX))
        if declared is None:
            report.add("lost", first, f"{_range(first, last)} missing: deleted, or moved elsewhere")
        else:
            report.add(
                "gap", first, f"{_range(first, last)} missing; the hub noticed it when it started (record {declared})"
            )


def _is_canonical(detail: str) -> bool:
    try:
        decoded = msgspec.json.decode(detail.encode())
    except (msgspec.DecodeError, UnicodeEncodeError):
        return False
    return msgspec.json.encode(decoded, order="sorted").decode() == detail


def _explain(source: AuditSource, report: Report, odd: list[AuditRecord], missing: list[int]) -> None:
    """Say of each odd record whether it came from elsewhere, repeats another, or was changed."""
    contents: dict[bytes, list[AuditRecord]] = {}
    for record in odd:
        contents.setdefault(record.body(seq=0), []).append(record)
    numbers = {record.seq for record in odd} | set(missing)
    before: dict[int, bytes] = {1: GENESIS, source.first_seq: source.first_previous}
    repeats: dict[int, int] = {}
    for record in source.records():
        if record.seq + 1 in numbers:
            before.setdefault(record.seq + 1, record.hash)
        for other in contents.get(record.body(seq=0), ()):
            if other.seq != record.seq:
                repeats.setdefault(other.seq, record.seq)
    candidates = {*before.values(), *(record.hash for record in odd)}
    for record in odd:
        came_from = _original_place(record, numbers - {record.seq}, candidates)
        if record.seq in repeats:
            report.add("repeated", record.seq, f"record {record.seq} holds what record {repeats[record.seq]} holds")
        elif came_from is not None:
            report.add("moved", record.seq, f"record {record.seq} is record {came_from}, moved here")
        elif not any(link_hash(previous, record.body()) == record.hash for previous in candidates):
            report.add("changed", record.seq, f"record {record.seq} ({record.action}) is not what its hash says")
        else:
            report.add(
                "changed",
                record.seq,
                f"record {record.seq} does not follow from record {record.seq - 1}: that one's hash was changed",
            )


def _original_place(record: AuditRecord, numbers: set[int], previous_hashes: set[bytes]) -> int | None:
    for number in sorted(numbers):
        body = record.body(seq=number)
        if any(link_hash(previous, body) == record.hash for previous in previous_hashes):
            return number
    return None


def _check_checkpoints(source: AuditSource, report: Report, keys: KeyLine, hashes: dict[int, bytes]) -> None:
    last: Checkpoint | None = None
    for one in source.checkpoints:
        report.checkpoints += 1
        if not _check_signature(report, one, keys):
            last = one
            continue
        if last is not None and one.previous != last.digest:
            report.add("checkpoint", one.seq, f"between the checkpoints at {last.seq} and {one.seq} one is missing")
        elif last is None and one.previous and source.first_seq == 1:
            report.add("checkpoint", one.seq, f"checkpoints before the one at {one.seq} are missing")
        _check_covered(report, one, hashes, place="checkpoint")
        last = one


def _check_signature(report: Report, one: Checkpoint, keys: KeyLine) -> bool:
    key = keys.at(one.seq)
    expected = "none that is vouched for there" if key is None else key_id_of(key)
    if key is None or one.key_id != expected:
        report.add("key", one.seq, f"the checkpoint at {one.seq} is signed with key {one.key_id}, expected {expected}")
    elif not is_signed_by(key, one.signature, one.signed()):
        report.add("checkpoint", one.seq, f"the checkpoint at {one.seq} has a false signature")
    else:
        return True
    return False


def _check_covered(report: Report, one: Checkpoint, hashes: dict[int, bytes], *, place: str) -> None:
    found = hashes.get(one.seq)
    if found is None:
        last = report.last_seq or 0
        if one.seq > last:
            report.add("truncated", last + 1, f"{_range(last + 1, one.seq)} cut off: a {place} covers {one.seq}")
        elif one.seq >= (report.first_seq or 0):
            report.add("lost", one.seq, f"record {one.seq}, which a {place} covers, is missing")
    elif found != one.hash:
        report.add(
            "changed",
            one.seq,
            f"the chain up to record {one.seq} is not the one that the hub signed: it was written anew after"
            f" record {report.signed_to}",
        )
    else:
        report.signed_to = max(report.signed_to, one.seq)


def _check_heads(source: AuditSource, report: Report, keys: KeyLine, hashes: dict[int, bytes]) -> None:
    known = {one.signature for one in source.checkpoints}
    for one in source.heads:
        if one.signature in known or not _check_signature(report, one, keys):
            continue
        report.add("checkpoint", one.seq, f"the checkpoint at {one.seq} was deleted from the store")
        _check_covered(report, one, hashes, place="checkpoint kept outside the store")


def _check_end(source: AuditSource, report: Report, keys: KeyLine) -> None:
    end = source.end
    if end is None:
        if source.needs_end:
            report.add("truncated", None, "the file has no last line of an export: it was cut off")
        return
    key = keys.at(end.last_seq)
    if key is None or end.key_id != key_id_of(key) or not is_signed_by(key, end.signature, end.signed()):
        report.add("unsigned", None, "the last line of the export has a false signature")
        return
    if (report.last_seq or end.first_seq - 1) < end.last_seq:
        first = (report.last_seq or end.first_seq - 1) + 1
        report.add("truncated", first, f"{_range(first, end.last_seq)} cut off: the export ended at {end.last_seq}")
    if report.first_seq is not None and report.first_seq > end.first_seq:
        report.add("lost", end.first_seq, f"{_range(end.first_seq, report.first_seq - 1)} missing at the start")
    last_hash = None
    for record in source.records():
        if record.seq == end.last_seq:
            last_hash = record.hash
    if last_hash is not None and last_hash != end.hash:
        report.add("changed", end.last_seq, f"record {end.last_seq} is not the last one that was exported")
    elif last_hash is not None:
        report.signed_to = max(report.signed_to, end.last_seq)


def _range(first: int, last: int) -> str:
    return f"record {first} is" if first >= last else f"records {first} to {last} are"

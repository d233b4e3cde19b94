"""Records that wait together share one flush, in their order, and each has its own outcome."""

from pathlib import Path

import pytest
import trio
import trio.testing

from guardhouse.errors import Refusal
from guardhouse.runner.journal import AcceptedTask, open_journal, recover
from guardhouse.runner.journal_writer import JournalWriter


def task(task_id: str) -> AcceptedTask:
    return AcceptedTask(task_id=task_id, operation="bash", source_instance_id=None, accepted_at="2026-01-01T00:00:00Z")


@pytest.fixture
def journal(tmp_path):
    opened, _ = open_journal(tmp_path)
    yield opened
    opened.close()


def read(directory: Path):
    return recover((directory / "journal").read_bytes())


async def test_what_waits_together_is_flushed_together(journal, tmp_path, monkeypatch) -> None:
    """Twenty tasks accepted at once cost two flushes: the first one's, and one for all that came meanwhile."""
    batches = []
    record = journal.record
    monkeypatch.setattr(journal, "record", lambda records: (batches.append(len(records)), record(records)))
    writer = JournalWriter(journal)
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(writer.record_accepted, task(f"t{number}"))
    assert sum(batches) == 20
    assert len(batches) <= 2
    assert len(read(tmp_path).interrupted) == 20


async def test_an_acknowledgement_shares_the_next_flush(journal, tmp_path, monkeypatch) -> None:
    """The acknowledgement of one task and the record of the next are one write, in that order."""
    batches = []
    record = journal.record
    monkeypatch.setattr(journal, "record", lambda records: (batches.append([r.kind for r in records]), record(records)))
    writer = JournalWriter(journal)
    await writer.record_result("t0", b"{}")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.record_acknowledged, "t0")
        await trio.testing.wait_all_tasks_blocked()
        await writer.record_accepted(task("t1"))
    assert batches == [["result"], ["acknowledged", "accepted"]]
    assert (list(read(tmp_path).over), list(read(tmp_path).interrupted)) == (["t0"], ["t1"])


async def test_an_acknowledgement_is_written_when_the_runner_stops(journal, tmp_path) -> None:
    """Cancelling does not lose what was acknowledged, nor a result."""
    writer = JournalWriter(journal)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.record_result, "t1", b"{}")
        nursery.start_soon(writer.record_acknowledged, "t0")
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    assert list(read(tmp_path).over) == ["t0"]
    assert list(read(tmp_path).results) == ["t1"]


async def test_one_record_that_fails_does_not_take_others_with_it(journal, tmp_path, monkeypatch) -> None:
    """Where a batch does not fit, each record is tried alone: only those that fail are refused."""
    record = journal.record

    def small_only(records) -> None:
        if any(one.kind == "result" for one in records):
            raise OSError(28, "No space left on device")
        record(records)

    monkeypatch.setattr(journal, "record", small_only)
    writer = JournalWriter(journal)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.record_result, "t0", b"{}")
        nursery.start_soon(writer.record_accepted, task("t1"))
    assert list(read(tmp_path).interrupted) == ["t1"]
    assert not read(tmp_path).results


async def test_a_task_that_cannot_be_recorded_is_refused(journal, monkeypatch) -> None:
    """The refusal says why, so that the task does not start."""

    def full(_records) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal, "record", full)
    with pytest.raises(Refusal, match="No space left on device"):
        await JournalWriter(journal).record_accepted(task("t0"))

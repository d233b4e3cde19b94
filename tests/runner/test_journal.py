"""The journal: what survives a crash at any byte, and what a damaged byte can do."""

import pytest

from guardhouse.errors import SetupError
from guardhouse.runner.journal import AcceptedTask, open_journal, recover


def _task(task_id: str) -> AcceptedTask:
    return AcceptedTask(
        task_id=task_id, operation="bash", source_instance_id="node-1", accepted_at="2026-01-01T00:00:00Z"
    )


def _write(directory, count: int = 4) -> bytes:
    journal, _ = open_journal(directory)
    for index in range(count):
        journal.record_accepted(_task(f"t{index}"))
        if index % 2 == 0:
            journal.record_result(f"t{index}", b'{"success":true,"index":%d}' % index)
        if index % 4 == 0:
            journal.record_acknowledged(f"t{index}")
    journal.close()
    return (directory / "journal").read_bytes()


def test_what_was_open_is_found_again(tmp_path) -> None:
    """After a restart a running task is interrupted, an unacknowledged result is kept, the rest is over."""
    _write(tmp_path)
    journal, found = open_journal(tmp_path)
    journal.close()
    assert list(found.interrupted) == ["t1", "t3"]
    assert found.interrupted["t1"] == _task("t1")
    assert found.results == {"t2": b'{"success":true,"index":2}'}
    assert list(found.over) == ["t0"]
    assert found.damaged_lines == 0


def test_recovery_is_the_same_the_second_time(tmp_path) -> None:
    """Opening rewrites the file without losing anything."""
    _write(tmp_path)
    first_journal, first = open_journal(tmp_path)
    first_journal.close()
    second_journal, second = open_journal(tmp_path)
    second_journal.close()
    assert first == second


def test_cut_at_every_byte(tmp_path) -> None:
    """A file that ends anywhere gives every whole line before the cut and at most one damaged line."""
    content = _write(tmp_path)
    truth_id = recover(content).memory_id
    ends = [index for index, byte in enumerate(content) if byte == ord("\n")]
    for cut in range(len(content) + 1):
        found = recover(content[:cut])
        whole = recover(content[: max((end for end in ends if end <= cut), default=0)] + b"\n")
        assert (found.interrupted, found.results, found.over) == (whole.interrupted, whole.results, whole.over)
        assert found.damaged_lines == (cut not in {0, *ends, *(end + 1 for end in ends)})
        assert found.memory_id == truth_id or cut < ends[0]


def test_every_flipped_bit_is_noticed(tmp_path) -> None:
    """One wrong bit anywhere is counted, and nothing false is believed."""
    content = _write(tmp_path)
    truth = recover(content)
    for position in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[position] ^= 1 << bit
            found = recover(bytes(damaged))
            assert found.damaged_lines > 0
            is_whole = (found.interrupted, found.results, found.over) == (truth.interrupted, truth.results, truth.over)
            assert is_whole or found.memory_id != truth.memory_id
            assert set(found.results.items()) <= set(truth.results.items()) | {("t0", b'{"success":true,"index":0}')}


def test_only_one_runner_may_keep_it(tmp_path) -> None:
    """A second runner with the same state directory is refused and told what to do; after the first it may."""
    journal, _ = open_journal(tmp_path)
    with pytest.raises(SetupError, match="another runner keeps its journal"):
        open_journal(tmp_path)
    journal.close()
    open_journal(tmp_path)[0].close()


def test_a_link_in_its_place_is_not_followed(tmp_path) -> None:
    """A symbolic link planted as the journal's lock is refused."""
    (tmp_path / "journal.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SetupError, match="cannot keep a journal"):
        open_journal(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_it_stays_small(tmp_path, monkeypatch) -> None:
    """Acknowledged results leave the file once it has grown."""
    monkeypatch.setattr("guardhouse.runner.journal.COMPACT_ABOVE_BYTES", 10_000)
    journal, _ = open_journal(tmp_path)
    for index in range(50):
        journal.record_accepted(_task(f"t{index}"))
        journal.record_result(f"t{index}", b'"%s"' % (b"x" * 1000))
        journal.record_acknowledged(f"t{index}")
    journal.close()
    assert (tmp_path / "journal").stat().st_size < 20_000
    assert list(recover((tmp_path / "journal").read_bytes()).over)[-1] == "t49"

"""How long the monitor looks before it sleeps: only where a processor stands free, and never for many threads."""

import os

import pytest

from guardhouse.kernel.ptrace import StopKind
from guardhouse.launcher.gate.patience import Patience, runnable_of


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (b"0.00 0.01 0.05 1/345 6789\n", 1),
        (b"9 9 9 24/800 1\n", 24),
        (b"", None),
        (b"1 2 3", None),
        (b"a b c d/e f", None),
    ],
)
def test_the_count_of_runnable_threads(text: bytes, count: int | None) -> None:
    """As proc(5) gives it, and nothing where it does not."""
    assert runnable_of(text) == count


def made(monkeypatch: pytest.MonkeyPatch, *, runnable: int, processors: int) -> Patience:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(processors)))
    monkeypatch.setattr(os, "pread", lambda _fd, _length, _offset: b"0 0 0 %d/99 1\n" % runnable)
    return Patience()


def test_it_looks_only_where_a_processor_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stopped thread that runs again counts with this process: one other on two processors is one too many."""
    assert made(monkeypatch, runnable=1, processors=2).poll_ns(StopKind.NEW_CHILD, followed=2) > 0
    assert made(monkeypatch, runnable=2, processors=2).poll_ns(StopKind.NEW_CHILD, followed=2) == 0
    assert made(monkeypatch, runnable=1, processors=1).poll_ns(None, followed=1) == 0


def test_it_never_looks_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment is under a millisecond, and a command of many threads gets none."""
    free = made(monkeypatch, runnable=1, processors=64)
    for kind in StopKind:
        assert 0 < free.poll_ns(kind, followed=1) < 1_000_000
        assert free.poll_ns(kind, followed=100) == 0

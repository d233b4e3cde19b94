"""From wait statuses and reports to an outcome that a person can read."""

import signal

import pytest

from guardhouse.errors import PeerError
from guardhouse.launcher.lifetime import Lifetime
from guardhouse.launcher.outcome import GroupUsage, lost_outcome, make_outcome

REPORT = {
    "status": 0,
    "duration_s": 1.0,
    "user_s": 0.1,
    "system_s": 0.2,
    "largest_bytes": 4096,
    "killed": 0,
    "denied": {},
}


PLAIN = GroupUsage(peak_bytes=1000)


def outcome(*, lifetime=None, usage=PLAIN, **changes):
    lifetime = lifetime or Lifetime(now_s=0, timeout_s=10, grace_s=1)
    return make_outcome({**REPORT, **changes}, lifetime, usage=usage, notes=())


@pytest.mark.parametrize(
    ("status", "exit_code", "signal_number", "reason"),
    [
        pytest.param(0, 0, None, None, id="success"),
        pytest.param(3 << 8, 3, None, None, id="own status"),
        pytest.param(signal.SIGTERM, 143, 15, None, id="a signal"),
        pytest.param(signal.SIGSEGV | 0x80, 139, 11, None, id="a signal with core"),
        pytest.param(signal.SIGSYS, 159, 31, "seccomp", id="the filter's death"),
        pytest.param(signal.SIGXCPU, 152, 24, "CPU time", id="CPU limit"),
        pytest.param(signal.SIGXFSZ, 153, 25, "file size", id="file size limit"),
    ],
)
def test_status(status, exit_code, signal_number, reason):
    """A wait status becomes an exit code, a signal, and a reason where a layer was it."""
    found = outcome(status=status)
    assert (found.exit_code, found.signal) == (exit_code, signal_number)
    assert (found.reason is None) == (reason is None)
    assert reason is None or reason in found.reason


def test_time_limit():
    """A command that was stopped at its limit is 124, whatever its own status was."""
    lifetime = Lifetime(now_s=0, timeout_s=1, grace_s=1)
    lifetime.tick(1.0)
    found = outcome(lifetime=lifetime, status=signal.SIGTERM)
    assert (found.exit_code, found.signal, found.timed_out) == (124, 15, True)
    assert "time limit" in found.reason


def test_stop():
    """A stopped command keeps the status of its end and is marked cancelled."""
    lifetime = Lifetime(now_s=0, timeout_s=100, grace_s=1)
    lifetime.stop(1.0)
    found = outcome(lifetime=lifetime, status=signal.SIGTERM)
    assert (found.exit_code, found.cancelled, found.timed_out) == (143, True, False)


def test_out_of_memory():
    """The OOM killer's visit is said in words: how many it killed, at which limit, and what there was together."""
    usage = GroupUsage(peak_bytes=64 << 20, oom_kills=3, limit_bytes=64 << 20)
    found = outcome(status=signal.SIGKILL, usage=usage)
    assert found.oom_killed
    for words in ("out of memory", "killed 3 processes", "may have 64 MiB", "had 64 MiB at most"):
        assert words in found.reason
    assert outcome(usage=GroupUsage(oom_kills=1)).reason == "out of memory: the kernel killed a process"


def test_memory_without_cgroup():
    """Without a cgroup the largest process stands in, and a note says so."""
    assert outcome(usage=GroupUsage(peak_bytes=5)).peak_memory_bytes == 5
    found = outcome(usage=GroupUsage())
    assert found.peak_memory_bytes == 4096
    assert any("largest single process" in note for note in found.notes)


def test_denied_calls_are_named():
    """Denied calls are counted and the most frequent are named for a person; none is dropped from the count."""
    denied = {f"call_{n}": n + 1 for n in range(8)}
    found = outcome(denied=denied)
    assert found.denied_syscalls == denied
    assert any("call_7 (8)" in note and "3 other calls" in note for note in found.notes)


@pytest.mark.parametrize("missing", list(REPORT))
def test_incomplete_report(missing):
    """A report that lacks something is the other side's fault, not ours."""
    report = {key: value for key, value in REPORT.items() if key != missing}
    with pytest.raises(PeerError):
        make_outcome(report, Lifetime(now_s=0, timeout_s=1, grace_s=1), usage=GroupUsage(), notes=())


def test_lost():
    """A command whose pid 1 was killed is 137 with the reason; with the time limit past it is 124."""
    lifetime = Lifetime(now_s=0, timeout_s=1, grace_s=1)
    assert lost_outcome(lifetime, duration_s=0.5, usage=GroupUsage(), notes=()).exit_code == 137
    killed = lost_outcome(lifetime, duration_s=0.5, usage=GroupUsage(peak_bytes=7, oom_kills=1), notes=())
    assert "out of memory" in killed.reason
    assert killed.peak_memory_bytes == 7
    lifetime.tick(1.0)
    assert lost_outcome(lifetime, duration_s=1.5, usage=GroupUsage(), notes=()).exit_code == 124

"""Groups of resource controllers: what is written where, what is missing, and what is left of the dead."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from guardhouse.kernel import cgroup_tree
from guardhouse.launcher import cgroup, cgroup_kill, slots
from guardhouse.launcher.cgroup import find_home
from guardhouse.sandbox.bundle import CgroupLimits
from tests.launcher.bundles import plan as make_plan

LIMITS = CgroupLimits(
    memory_bytes=1000, memory_swap_bytes=200, pids=30, cpu_weight=200, cpu_quota_percent=150, io_weight=50
)
NOTHING = CgroupLimits(None, None, None, None, None, None)


def files(version, limits):
    return {file: value for _, _, pairs in cgroup._limit_files(version, limits) for file, value in pairs}


def test_files_of_version_2():
    """Each limit becomes its file of cgroup v2, in the kernel's units; our own pid 1 and its thread are added."""
    assert files(2, LIMITS) == {
        "memory.max": "1000",
        "memory.swap.max": "200",
        "pids.max": "32",
        "cpu.weight": "200",
        "cpu.max": "150000 100000",
        "io.weight": "50",
    }


def test_files_of_version_1():
    """The same limits in cgroup v1's files: memory and swap together, shares for weight."""
    found = files(1, LIMITS)
    assert found == {
        "blkio.bfq.weight": "50",
        "memory.limit_in_bytes": "1000",
        "memory.memsw.limit_in_bytes": "1200",
        "pids.max": "32",
        "cpu.shares": "2048",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "150000",
    }


@pytest.mark.parametrize("version", [1, 2])
def test_no_limit_no_file(version):
    """What the plan leaves alone is not written."""
    assert files(version, NOTHING) == {}


def test_missing_controllers_are_named(tmp_path):
    """A limit without a controller, or without the kernel's file, is reported by name and not silently dropped."""
    memory = tmp_path / "memory"
    memory.mkdir()
    (memory / "memory.limit_in_bytes").touch()
    missing = cgroup._write_limits(1, {"memory": str(memory)}, LIMITS)
    assert set(missing) == {"memory_swap", "pids", "cpu_weight", "cpu_quota", "io_weight"}
    assert (memory / "memory.limit_in_bytes").read_text() == "1000"


def test_stale_groups_go_and_live_ones_stay(tmp_path):
    """A group of a launcher that is gone is removed; one of a living launcher, and any other directory, is not."""
    own = f"guardhouse.{os.getpid()}.{cgroup._start_time(os.getpid())}"
    reused = f"guardhouse.{os.getpid()}.1"
    for name in (own, f"{own}/slot0", reused, f"{reused}/slot0", "guardhouse.999999999.5", "other", "guardhouse.x"):
        (tmp_path / name).mkdir()
    cgroup._remove_stale(str(tmp_path))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([own, "other", "guardhouse.x"])


def test_kill_at_one_stroke(tmp_path):
    """Where the kernel has cgroup.kill it is written once, at the top, and no process is looked for."""
    (tmp_path / "slot0").mkdir()
    (tmp_path / "slot0/cgroup.procs").write_text(str(os.getpid()))
    (tmp_path / "cgroup.kill").touch()
    cgroup_kill.kill_members({str(tmp_path)}, None)
    assert (tmp_path / "cgroup.kill").read_text() == "1"


def test_kill_one_by_one(tmp_path):
    """Without it every process of every group below is killed."""
    sleeper = subprocess.Popen(["sleep", "60"])
    (tmp_path / "slot0").mkdir()
    (tmp_path / "slot0/cgroup.procs").write_text(str(sleeper.pid))
    cgroup_kill.kill_members({str(tmp_path)}, None)
    assert sleeper.wait(30) == -signal.SIGKILL


def test_kill_of_a_fork_bomb_that_is_frozen_first():
    """With v1's freezer nothing forks its way out, not even who is there for a moment; all is gone in the end."""
    home = find_home()
    if home is None or home.version != 1 or home._freezer is None or "pids" not in home.controllers:
        pytest.skip("needs root on a host with cgroup v1's pids controller and freezer")
    group = home.make_group(replace(NOTHING, pids=200))
    # It ends by itself, should the kernel or we be wrong.
    bomb = "import os, time\nend = time.monotonic() + 40\nprint(flush=True)\nwhile time.monotonic() < end:\n  {}\n"
    chain, tree = "if os.fork(): os._exit(0)", "try: os.fork()\n  except BlockingIOError: time.sleep(0.01)"
    pids_file = f"{group._directories['pids']}/cgroup.procs"
    joined = f"open({pids_file!r}, 'w').write('0')\n"
    started = [
        subprocess.Popen([sys.executable, "-I", "-S", "-c", joined + bomb.format(act)], stdout=subprocess.PIPE)
        for act in (chain, chain, tree)
    ]
    for process in started:
        process.stdout.readline()
    deadline_s = time.monotonic() + 30
    while not home.clear() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not os.path.isdir(pids_file.rpartition("/")[0])
    assert not os.path.isdir(home._freezer)
    for process in started:
        process.communicate()


def test_what_is_frozen_without_its_sweeper_is_thawed(tmp_path):
    """A sweeper that was killed at its work leaves a frozen group; the next launcher lets it go on to its end."""
    left = tmp_path / "guardhouse.999999999.5"
    left.mkdir()
    (left / "freezer.state").write_text("FROZEN")
    cgroup._remove_stale(str(tmp_path))
    assert (left / "freezer.state").read_text() == "THAWED"


def test_weight_of_disks_without_a_model_of_costs(tmp_path):
    """Where the kernel has no io.weight, BFQ's file takes it, in either version."""
    for version, file in ((2, "io.bfq.weight"), (1, "blkio.bfq.weight")):
        place = tmp_path / str(version)
        place.mkdir()
        (place / file).touch()
        assert cgroup._write_limits(version, {"io": str(place)}, replace(NOTHING, io_weight=5000)) == ()
        assert (place / file).read_text() == "1000"


def test_processes_move_into_the_leaf(tmp_path, monkeypatch):
    """A child that was forked while its parent was moved is moved in the next round."""
    rounds = [["10", "11"], ["12"], []]
    moved = []
    monkeypatch.setattr(cgroup, "_read_words", lambda path: rounds.pop(0))
    monkeypatch.setattr(cgroup, "_write", lambda path, text: moved.append((path, text)))
    cgroup._leave_for_leaf(str(tmp_path))
    leaf = f"{tmp_path}/{cgroup_tree.LEAF}/cgroup.procs"
    assert moved == [(leaf, "10"), (leaf, "11"), (leaf, "12")]


def test_only_bounds_are_noted():
    """A result says which bound nothing carries; weights and swap are the host's, and doctor's to say."""
    plan = replace(make_plan("isolate", (), "/w"), cgroup=LIMITS)
    (note,) = slots._notes(plan, None)
    assert "memory, pids, cpu_quota" in note
    assert slots._notes(plan, FakeGroup(("io_weight", "cpu_weight", "memory_swap"))) == ()
    assert "limits of pids here" in slots._notes(plan, FakeGroup(("io_weight", "pids")))[0]


class FakeGroup:
    """A group as far as notes look at it."""

    def __init__(self, missing):
        self.missing = missing


@pytest.mark.parametrize(("pids", "there", "bounds"), [(30, True, True), (30, False, False), (None, True, False)])
def test_whether_a_group_bounds_processes(tmp_path, pids, there, bounds):
    """Only a limit that was wanted and that a controller took lets the launcher do without RLIMIT_NPROC."""
    base = tmp_path / "pids"
    (base / "slot0").mkdir(parents=True)
    if there:
        (base / "slot0/pids.max").touch()
    home = cgroup.CgroupHome(version=1, bases={"pids": str(base)})
    assert home.make_group(replace(NOTHING, pids=pids)).bounds_pids is bounds


def test_group_of_this_host():
    """Where this host has controllers, a group can be made, used and removed without a rest."""
    home = find_home()
    if home is None:
        pytest.skip("no cgroup controller can be used here")
    group = home.make_group(CgroupLimits(64 << 20, None, 10, None, None, None))
    group.begin()
    assert group.usage().oom_kills == 0
    assert group.remove()
    assert home.clear()
    assert home.clear()

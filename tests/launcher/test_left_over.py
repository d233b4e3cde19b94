"""Nothing is left: however a command, its pid 1, the launcher or the runner ends."""

import os
import signal
import time
from dataclasses import replace

import pytest

from guardhouse.errors import SetupError
from guardhouse.launcher.direct import DirectClient
from guardhouse.launcher.messages import LaunchRequest
from guardhouse.launcher.start import start_launcher
from tests.launcher.bundles import bundle

# No other suite on this host sleeps as long.
MARK = f"71.{os.getpid():07}5"
TREE = f"trap '' TERM; setsid sleep {MARK} & (trap '' TERM; sleep {MARK} & sleep {MARK}) & sleep {MARK}; sleep {MARK}"


def shell(text, **changes):
    return LaunchRequest("isolate", ("bash", "-c", text), **changes)


def processes():
    """Return {pid: command line} of every process that is ours: marked sleepers, and those of a launcher."""
    found = {}
    for pid in os.listdir("/proc"):
        if pid.isdecimal():
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    line = file.read().replace(b"\0", b" ").decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            ours = ("guardhouse-init", "guardhouse-sweeper", "guardhouse-template", "launcher/__main__")
            if MARK in line or any(name in line for name in ours):
                found[int(pid)] = line
    return found


def descendants_of(pid):
    """Return the pids below ``pid``, itself included; the test's own launcher among others that may run."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                    parents[int(entry)] = int(file.read().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found = {pid}
    grew = True
    while grew:
        below = {child for child, parent in parents.items() if parent in found}
        grew = not below <= found
        found |= below
    return found


def groups_of(pid):
    found = []
    for top, directories, _ in os.walk("/sys/fs/cgroup"):
        found += [f"{top}/{name}" for name in directories if name.startswith(f"guardhouse.{pid}.")]
    return found


def wait_until_gone(pids, launcher_pid, *, within_s=30.0):
    """Wait until none of ``pids`` is alive (a zombie of another parent is not) and no group is left."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        alive = [pid for pid in pids if is_alive(pid)]
        if not alive and not groups_of(launcher_pid):
            return
        time.sleep(0.01)
    raise AssertionError(f"left over: processes {alive}, groups {groups_of(launcher_pid)}")


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def start_tree(handle):
    client = DirectClient(handle)
    identifier = client.launch(shell(TREE), stdout_fd=2, stderr_fd=2)
    client.wait_started(identifier)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        pids = descendants_of(handle.pid)
        if sum(MARK in line for pid, line in processes().items() if pid in pids) >= 4:
            return client, identifier, pids
        time.sleep(0.01)
    raise AssertionError("the tree did not come up")


def test_launcher_killed(workspace):
    """Kill -9 of the launcher ends every process of every command, and its groups go too."""
    handle = start_launcher(bundle(workspace))
    _, _, pids = start_tree(handle)
    handle.process.kill()
    handle.process.wait()
    wait_until_gone(pids, handle.pid)
    handle.close()


def test_runner_killed(workspace):
    """When the runner's end of the socket closes, for whatever reason, the launcher kills all and leaves."""
    handle = start_launcher(bundle(workspace))
    _, _, pids = start_tree(handle)
    handle.sock.close()
    assert handle.process.wait(30) == 0
    wait_until_gone(pids, handle.pid)


def test_init_killed(workspace):
    """Kill -9 of a command's pid 1 ends the command, says so, and the launcher goes on."""
    handle = start_launcher(bundle(workspace))
    client, identifier, pids = start_tree(handle)
    inits = [pid for pid in pids if "guardhouse-init" in processes().get(pid, "")]
    for pid in inits:
        os.kill(pid, signal.SIGKILL)
    outcome = client.wait(identifier)
    assert (outcome.exit_code, outcome.signal) == (137, signal.SIGKILL)
    assert "pid 1" in outcome.reason
    again = client.launch(shell("exit 6"), stdout_fd=2, stderr_fd=2)
    assert client.wait(again).exit_code == 6
    handle.close()
    wait_until_gone(pids, handle.pid)


def test_bundle_that_does_not_fit_is_refused_at_start(workspace, capfd):
    """A bundle compiled for another kind of user ends the start with SetupError, and says why on stderr."""
    found = bundle(workspace)
    plans = {name: replace(plan, namespaces=plan.namespaces ^ {"user"}) for name, plan in found.profiles.items()}
    with pytest.raises(SetupError, match="did not start"):
        start_launcher(replace(found, profiles=plans))
    assert "compile the bundle as the user who starts the launcher" in capfd.readouterr().err


def test_launcher_terminated_from_a_terminal(workspace):
    """SIGTERM and SIGINT do not end the launcher: its socket does, so that the runner can end it in order."""
    handle = start_launcher(bundle(workspace))
    with DirectClient(handle) as client:
        assert client.wait(client.launch(shell("true"), stdout_fd=2, stderr_fd=2)).exit_code == 0
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            handle.process.send_signal(number)
        assert client.wait(client.launch(shell("exit 4"), stdout_fd=2, stderr_fd=2)).exit_code == 4


def test_many_commands_leave_nothing(workspace):
    """After 300 commands, many killed, counts of processes, mounts, descriptors and groups are where they were."""
    handle = start_launcher(bundle(workspace))
    with DirectClient(handle) as client:
        for _ in range(3):
            client.wait(client.launch(shell("true"), stdout_fd=2, stderr_fd=2))
        before = counts(handle.pid)
        for number in range(300):
            match number % 10:
                case 0:
                    request = shell(TREE, timeout_s=0.02, grace_s=0.0)
                case 1:
                    request = shell("sleep 60 & setsid sleep 60 & exit 0")
                case 2:
                    request = LaunchRequest("isolate", ("no-such-program",))
                case _:
                    request = LaunchRequest("isolate", ("true",))
            client.wait(client.launch(request, stdout_fd=2, stderr_fd=2))
        deadline = time.monotonic() + 30
        while counts(handle.pid) != before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert counts(handle.pid) == before
        pids = descendants_of(handle.pid)
    wait_until_gone(pids, handle.pid)


def counts(launcher_pid):
    """Return what there is of each kind that belongs to the launcher, whose one slot may be a different one."""
    pids = descendants_of(launcher_pid)
    return {
        "processes": len(pids),
        "groups": sum(len(directories) for top in groups_of(launcher_pid) for _, directories, _ in os.walk(top)),
        "descriptors": sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids) if os.geteuid() == 0 else 0,
        "namespaces": len({os.readlink(f"/proc/{pid}/ns/mnt") for pid in pids}) if os.geteuid() == 0 else 0,
        "host mounts": len(open("/proc/self/mountinfo").readlines()),
        "own descriptors": len(os.listdir("/proc/self/fd")),
    }


ADOPTED = """
import ctypes, os, signal, sys, time
libc = ctypes.CDLL(None)
CLONE_PARENT = 0x8000
CLONE = 220 if os.uname().machine == "aarch64" else 56
for exit_signal in (signal.SIGCHLD, 0, signal.SIGUSR1):
    if libc.syscall(CLONE, CLONE_PARENT | exit_signal, 0, 0, 0, 0) == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.setsid()
        time.sleep(300)
print("started")
"""


def test_children_given_to_pid_one_by_clone_end_with_the_command(workspace):
    """CLONE_PARENT makes them pid 1's from the start, with whatever signal at their end: they hold nobody up."""
    with DirectClient(start_launcher(bundle(workspace))) as client:
        request = LaunchRequest("isolate", ("/usr/bin/python3", "-I", "-c", ADOPTED), timeout_s=60)
        outcome = client.wait(client.launch(request, stdout_fd=2, stderr_fd=2))
        assert (outcome.exit_code, outcome.timed_out, outcome.killed_descendants) == (0, False, 3)

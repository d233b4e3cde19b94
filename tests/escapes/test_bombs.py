"""Bombs end where they start: the launcher stays, the next command runs, and the outcome says what happened.

Each bomb is bounded by itself as well, so that a missing limit costs seconds and not the machine.
"""

import os
import time

import pytest

STARTS = ("root", "user")
PYTHON = "/usr/bin/python3"

FORK_BOMB = """
import os, time
made = 0
try:
    while made < 3000:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        made += 1
except BlockingIOError:
    print("EAGAIN after", made, flush=True)
else:
    print("unbounded", made, flush=True)
"""
MEMORY_TREE = """
import os, time
held = []
for child in range(4):
    if os.fork() == 0:
        block = bytearray(56 << 20)
        for place in range(0, len(block), 4096):
            block[place] = 1
        print("held", flush=True)
        time.sleep(2)
        os._exit(0)
for child in range(4):
    os.wait()
"""
SOCKETS = """
import resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
held = []
for _ in range(1500):
    held.append(socket.socketpair())
    held[-1][0].setblocking(False)
    try:
        while True:
            held[-1][0].send(bytes(65536))
    except BlockingIOError:
        pass
print("held", flush=True)
"""
SIGNALS_UPWARDS = """
import os, signal
for target in (1, os.getppid(), 0x7ffffff0):
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP, signal.SIGSEGV):
        try:
            if target > 0:
                os.kill(target, number)
        except OSError:
            pass
signal.signal(signal.SIGTERM, signal.SIG_IGN)
try:
    os.kill(-1, signal.SIGTERM)
except ProcessLookupError:
    pass
print("alive", flush=True)
"""

DENIED_FLOOD = """
import ctypes, os
libc = ctypes.CDLL(None)
children = []
for _ in range(16):
    children.append(os.fork())
    if children[-1] == 0:
        for _ in range(1000):
            libc.ptrace(0, 0, 0, 0)
        os._exit(0)
for pid in children:
    os.waitpid(pid, 0)
"""


def needs(start):
    if start == "root" and os.geteuid() != 0:
        pytest.skip("this way starts the launcher as root, and the tests do not run as root here")


def survives(arena, profile, start):
    """The next command runs: neither launcher nor init was harmed."""
    text, outcome = arena.run(profile, start, ("/bin/echo", "still here"))
    return text == "still here\n" and outcome.exit_code == 0


@pytest.mark.parametrize("start", STARTS)
def test_fork_bomb_meets_a_limit(arena, start):
    """A fork bomb gets EAGAIN before 3000 processes, and nothing of it is left afterwards."""
    needs(start)
    text, outcome = arena.run("isolate", start, (PYTHON, "-I", "-c", FORK_BOMB), timeout_s=60)
    assert text.startswith("EAGAIN after"), (text, outcome)
    assert int(text.split()[-1]) < 1100
    assert survives(arena, "isolate", start)


@pytest.mark.parametrize(
    ("bomb", "most"), [pytest.param(MEMORY_TREE, 3, id="processes"), pytest.param(SOCKETS, 0, id="sockets")]
)
def test_memory_of_the_whole_tree_is_bounded(arena, bomb, most):
    """Who wants more than the limit does not get it: four children together, or one in what waits in sockets."""
    needs("root")
    text, outcome = arena.run("isolate", "root small", (PYTHON, "-I", "-c", bomb), timeout_s=60)
    if outcome.peak_memory_bytes is None or any("memory limit" in note for note in outcome.notes):
        pytest.skip("no cgroup memory controller can be used here")
    assert outcome.oom_killed, (text, outcome)
    assert text.count("held") <= most
    assert survives(arena, "isolate", "root small")


@pytest.mark.parametrize("start", STARTS)
def test_endless_loop_ends_at_its_time_limit(arena, start):
    """Processes that spin and ignore SIGTERM are gone after the time limit and the grace, however busy the host is."""
    needs(start)
    began = time.monotonic()
    script = "trap '' TERM; (trap '' TERM; while :; do :; done) & while :; do :; done"
    _, outcome = arena.run("isolate", start, ("bash", "-c", script), timeout_s=1)
    assert outcome.timed_out
    assert outcome.exit_code == 124
    assert time.monotonic() - began < 1 + 1 + 30
    assert survives(arena, "isolate", start)


@pytest.mark.parametrize("start", STARTS)
def test_flood_of_denied_calls_is_answered_and_counted(arena, start):
    """Sixteen processes that do what is denied and nothing else keep pid 1 busy; it answers and counts every call."""
    needs(start)
    _, outcome = arena.run("isolate", start, (PYTHON, "-I", "-c", DENIED_FLOOD))
    assert (outcome.exit_code, outcome.denied_syscalls) == (0, {"ptrace": 16_000})
    assert survives(arena, "isolate", start)


@pytest.mark.parametrize("start", STARTS)
def test_daemon_that_outlives_its_parent_is_killed(arena, start):
    """A double fork with setsid is gone when the command ends."""
    needs(start)
    marker = f"86{os.getpid()}"
    arena.run("isolate", start, ("bash", "-c", f"setsid bash -c 'sleep {marker} & disown' >/dev/null 2>&1 & sleep 0.2"))
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and _running(f"sleep\0{marker}\0"):
        time.sleep(0.02)
    assert not _running(f"sleep\0{marker}\0")


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("profile", ["isolate", "observe", "operate"])
def test_signals_upwards_reach_nobody(arena, profile, start):
    """SIGKILL, SIGTERM, SIGSTOP and SIGSEGV to pid 1, the parent and everybody harm neither init nor launcher."""
    needs(start)
    text, outcome = arena.run(profile, start, (PYTHON, "-I", "-c", SIGNALS_UPWARDS))
    assert text == "alive\n", outcome
    assert survives(arena, profile, start)


@pytest.mark.parametrize("start", STARTS)
def test_nothing_written_in_tmp_is_left_for_the_next_command(arena, start):
    """Each command begins with empty private directories; the workspace is kept (the twin)."""
    needs(start)
    arena.run("observe", start, ("bash", "-c", "touch /tmp/left /var/tmp/left /dev/shm/left kept"))
    text, _ = arena.run(
        "observe", start, ("bash", "-c", "ls /tmp/left /var/tmp/left /dev/shm/left 2>/dev/null; ls kept")
    )
    assert text == "kept\n"


@pytest.mark.parametrize("start", STARTS)
def test_denied_call_is_counted_and_named(arena, start):
    """The outcome names the call that the wall refused and how often."""
    needs(start)
    script = "import ctypes; c = ctypes.CDLL(None); [c.unshare(0x10000000) for _ in range(3)]"
    _, outcome = arena.run("isolate", start, (PYTHON, "-I", "-c", script))
    assert outcome.denied_syscalls.get("unshare") == 3


def _running(arguments):
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", encoding="utf-8", errors="replace") as file:
                    if file.read() == arguments:
                        return True
            except (FileNotFoundError, ProcessLookupError):
                continue
    return False

"""Real commands behind the whole wall of the hand-written profiles: statuses, signals, time, what is left behind."""

import errno
import os
import resource
import signal
import time

import pytest

from guardhouse.launcher.direct import DirectClient
from guardhouse.launcher.messages import LaunchError, LaunchRequest
from guardhouse.launcher.start import start_launcher
from tests.launcher.bundles import bundle


@pytest.fixture(scope="module")
def client(workspace):
    with DirectClient(start_launcher(bundle(workspace), warm=("isolate",))) as found:
        yield found


class Ran:
    def __init__(self, text, outcome):
        self.text = text
        self.outcome = outcome


def run(client, request, *, stdin=None):
    """Run one command with its output through a pipe; small outputs only."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    try:
        identifier = client.launch(request, stdin_fd=stdin, stdout_fd=write_fd, stderr_fd=write_fd)
        os.close(write_fd)
        write_fd = -1
        outcome = client.wait(identifier)
        os.set_blocking(read_fd, False)
        text = b""
        while True:
            try:
                chunk = os.read(read_fd, 65536)
            except BlockingIOError:
                break
            if not chunk:
                break
            text += chunk
        return Ran(text.decode(errors="replace"), outcome)
    finally:
        os.close(read_fd)
        if write_fd >= 0:
            os.close(write_fd)


def seconds_of_ours(seconds):
    """A time to sleep that no other process of this host sleeps: other suites may run the same tests at once."""
    return f"{seconds}.{os.getpid():07}5"


def shell(text, *, profile="isolate", **changes):
    return LaunchRequest(profile, ("bash", "-c", text), **changes)


@pytest.mark.parametrize(
    ("text", "exit_code", "signal_number"),
    [
        pytest.param("exit 0", 0, None, id="success"),
        pytest.param("exit 3", 3, None, id="own status"),
        pytest.param("no-such-command-here", 127, None, id="bash's own 127"),
        pytest.param("/etc/passwd", 126, None, id="bash's own 126"),
        pytest.param("kill -TERM $$", 143, signal.SIGTERM, id="a signal to itself acts, pid 1 or not"),
        pytest.param("kill -KILL $$", 137, signal.SIGKILL, id="kill -9 to itself"),
        pytest.param("kill -SEGV $$", 139, signal.SIGSEGV, id="a crash"),
        pytest.param("trap 'exit 9' TERM; kill -TERM $$; sleep 5", 9, None, id="a trap runs"),
        pytest.param("(exit 4) | true; exit ${PIPESTATUS[0]}", 4, None, id="pipelines"),
        pytest.param("yes | head -1 >/dev/null; exit ${PIPESTATUS[0]}", 141, None, id="SIGPIPE is at its default"),
    ],
)
def test_status(client, text, exit_code, signal_number):
    """The exit status is the one that plain bash would give."""
    outcome = run(client, shell(text)).outcome
    assert (outcome.exit_code, outcome.signal) == (exit_code, signal_number)
    assert not outcome.timed_out


def test_program_that_cannot_run(client):
    """A file that is no program is 126 and says so on the command's own stderr."""
    ran = run(client, LaunchRequest("isolate", ("/etc/passwd",)))
    assert ran.outcome.exit_code == 126
    assert ran.text == "guardhouse: /etc/passwd: Permission denied\n"


def test_argument_list_survives(client):
    """Quotes, newlines, non-UTF-8 bytes and a text of the kernel's maximum arrive as they were sent."""
    words = ("a b", "line\nline", "\udcff\udcfe", "ü", "", "x" * 131_071)
    ran = run(client, LaunchRequest("isolate", ("python3", "-c", _PRINT_ARGUMENTS, *words)))
    assert ran.text.split() == ["3", "9", "2", "2", "0", "131071"]


_PRINT_ARGUMENTS = "import sys, os; print(*(len(os.fsencode(word)) for word in sys.argv[1:]))"


def test_stdin_is_empty_unless_given(client):
    """Without a stdin a reader sees the end of file at once; with one it reads it."""
    assert run(client, shell("cat; echo end")).text == "end\n"
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    os.write(write_fd, b"given\n")
    os.close(write_fd)
    assert run(client, shell("cat"), stdin=read_fd).text == "given\n"
    os.close(read_fd)


def test_environment_is_the_profiles(client):
    """A command's environment is the profile's and the request's few entries: nothing of the launcher or runner."""
    names = run(client, shell("env | cut -d= -f1 | sort", environment={"TICKET": "42"})).text.split()
    allowed = {"HOME", "LANG", "PATH", "PWD", "SHELL", "SHLVL", "TERM", "TICKET", "USER", "_"}
    assert set(names) == allowed


def test_request_cannot_replace_profile_environment(client):
    """An entry of the request does not displace the profile's own of the same name."""
    assert run(client, shell("echo $TERM", environment={"TERM": "xterm"})).text == "dumb\n"


def test_descriptors(client):
    """A command has exactly three descriptors."""
    assert run(client, LaunchRequest("isolate", ("ls", "/proc/self/fd"))).text.split() == ["0", "1", "2", "3"]
    # The fourth is ls's own, on the directory it lists: the twin shows what an inherited one would add.
    assert run(client, shell("exec 7</dev/null; exec ls /proc/self/fd")).text.split() == ["0", "1", "2", "3", "7"]


def test_workdir(client, workspace):
    """The working directory is below the workspace; one that leads out of it or is missing is refused."""
    (workspace / "sub").mkdir(exist_ok=True)
    link = workspace / "out"
    if not link.is_symlink():
        link.symlink_to("/usr")
    assert run(client, shell("pwd; echo $PWD", workdir="sub")).text == f"{workspace}/sub\n" * 2
    with pytest.raises(LaunchError, match="path escapes workspace"):
        run(client, shell("pwd", workdir="out"))
    with pytest.raises(LaunchError, match="No such file"):
        run(client, shell("pwd", workdir="missing"))


def test_private_parts_are_private(client):
    """What one command leaves in /tmp, /dev/shm or SysV memory, the next one does not find."""
    leave = (
        "echo x > /tmp/left; echo x > /dev/shm/left; ipcmk -M 4096 >/dev/null; ls /tmp /dev/shm; ipcs -m | grep -c 0x"
    )
    look = "ls /tmp/left /dev/shm/left 2>/dev/null; ipcs -m | grep -c 0x"
    assert "left" in run(client, shell(leave)).text
    assert run(client, shell(look)).text == "0\n"


def test_workspace_is_kept(client, workspace):
    """What a command writes to the workspace is there for the next one, and outside."""
    run(client, shell("echo kept > kept"))
    assert run(client, shell("cat kept")).text == "kept\n"
    assert (workspace / "kept").read_text() == "kept\n"


def test_time_limit_with_stubborn_tree(client):
    """A tree that ignores TERM, double-forks and calls setsid is gone at limit plus grace; the code is 124."""
    long = seconds_of_ours(61)
    text = (
        f"trap '' TERM; (setsid bash -c \"trap '' TERM; sleep {long}\" &) ; "
        "python3 -c 'import os, signal, time; signal.signal(15, 1); os.fork(); os.fork() or os.setsid();"
        f" time.sleep({long})' & "
        f"sleep {long}; sleep {long}"
    )
    began = time.monotonic()
    outcome = run(client, shell(text, timeout_s=0.6, grace_s=0.4)).outcome
    assert outcome.timed_out
    assert outcome.exit_code == 124
    assert time.monotonic() - began < 40
    assert outcome.killed_descendants >= 4
    assert not processes_with(long)


def test_time_limit_with_willing_tree(client):
    """A command that ends on TERM is not waited for longer than it needs."""
    began = time.monotonic()
    outcome = run(client, shell("sleep 60", timeout_s=0.3, grace_s=30)).outcome
    assert outcome.timed_out
    assert outcome.signal == signal.SIGTERM
    assert time.monotonic() - began < 25


def test_stop(client):
    """A stop ends the whole tree and is not taken for a time limit."""
    long = seconds_of_ours(62)
    identifier = client.launch(shell(f"sleep {long} & sleep {long}", grace_s=1), stdout_fd=2, stderr_fd=2)
    assert client.wait_started(identifier) > 1
    client.stop(identifier)
    outcome = client.wait(identifier)
    assert outcome.cancelled
    assert not outcome.timed_out
    assert not processes_with(long)


def test_what_is_left_behind_is_killed(client):
    """A background child ends with its command, is counted, and the outcome says so."""
    long = seconds_of_ours(63)
    outcome = run(client, shell(f"sleep {long} & setsid sleep {long} & disown; echo done")).outcome
    assert outcome.exit_code == 0
    assert outcome.killed_descendants == 2
    assert any("still running" in note for note in outcome.notes)
    assert not processes_with(long)


def test_usage(client):
    """CPU time of the whole tree is counted, orphans included."""
    outcome = run(client, shell("(bash -c 'for ((n = 0; n < 200000; n++)); do :; done' & wait)")).outcome
    assert outcome.cpu_user_s + outcome.cpu_system_s > 0.05
    assert outcome.duration_s > 0.3


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a memory controller, which an ordinary user has not here")
def test_out_of_memory(client):
    """A command beyond its memory limit is killed, the outcome names the reason, and the next one runs."""
    text = "python3 -c 'x = bytearray(900 << 20); print(len(x))'"
    outcome = run(client, LaunchRequest("isolate", ("bash", "-c", f"{text}; exit 3"), timeout_s=30)).outcome
    assert outcome.oom_killed
    assert outcome.exit_code in (3, 137)
    assert "out of memory" in outcome.reason
    assert run(client, shell("exit 7")).outcome.exit_code == 7


def test_fork_bomb(client):
    """A fork bomb ends at its time limit with everything it made, and the next command runs."""
    outcome = run(client, shell("bomb() { bomb | bomb & }; bomb; sleep 5", timeout_s=1, grace_s=0)).outcome
    assert outcome.timed_out or outcome.exit_code != 0
    assert run(client, shell("exit 7")).outcome.exit_code == 7


def test_unknown_profile_and_worker_profile(client):
    """Only profiles of the bundle can be named."""
    with pytest.raises(LaunchError, match="unknown profile"):
        run(client, shell("true", profile="nothing"))


def test_commands_overlap(client):
    """Commands of one launcher run side by side, each with its own output and status."""
    began = time.monotonic()
    identifiers = [client.launch(shell(f"sleep 2; exit {n}"), stdout_fd=2, stderr_fd=2) for n in range(6)]
    assert [client.wait(identifier).exit_code for identifier in identifiers] == list(range(6))
    # One after the other they would take 12.
    assert time.monotonic() - began < 10


def processes_with(word):
    """Return the command lines of this host's processes that have ``word`` as an argument."""
    found = []
    for pid in os.listdir("/proc"):
        if pid.isdecimal():
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if word.encode() in words:
                found.append(words)
    return found


IN_FLIGHT = """
import socket, sys
held = []
while True:
    near, far = socket.socketpair()
    try:
        socket.send_fds(near, [b"x"], [0] * 250)
    except OSError as error:
        held.append(near)
        print("full", error.errno, len(held) * 250 > 1024, flush=True)
        break
    held.append((near, far))
sys.stdin.read()
"""


def test_descriptors_that_a_command_sends_itself_keep_no_other_from_starting(workspace):
    """The kernel sums what an account has under way and holds it against the sender's limit: ours is above theirs."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    given, taken = os.pipe()
    heard, says = os.pipe()
    try:
        with DirectClient(start_launcher(bundle(workspace))) as client:
            request = LaunchRequest("isolate", ("/usr/bin/python3", "-I", "-c", IN_FLIGHT))
            holder = client.launch(request, stdin_fd=given, stdout_fd=says, stderr_fd=says)
            assert os.read(heard, 100) == f"full {errno.ETOOMANYREFS} True\n".encode()
            for _ in range(3):
                other = client.launch(LaunchRequest("isolate", ("/bin/true",)), stdout_fd=2, stderr_fd=2)
                assert client.wait(other).exit_code == 0
            os.close(taken)
            taken = -1
            assert client.wait(holder).exit_code == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in (given, taken, heard, says):
            if descriptor >= 0:
                os.close(descriptor)

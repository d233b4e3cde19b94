"""Init processes come from a child of the launcher that does nothing else: whose they are, and what it saves."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from guardhouse.launcher.direct import DirectClient
from guardhouse.launcher.messages import LaunchRequest
from guardhouse.launcher.start import start_launcher
from tests.launcher.bundles import bundle

# FIGURES.md, "Ours": at most 3 MB private memory per running command.
PRIVATE_MAX_KIB = 3072


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])


def template_of(launcher: int) -> int:
    """Return the launcher's one template."""
    found = [
        int(entry)
        for entry in os.listdir("/proc")
        if entry.isdecimal() and name_of(entry) == "guardhouse-temp" and parent_of(int(entry)) == launcher
    ]
    (pid,) = found
    return pid


def name_of(entry: str) -> str:
    try:
        return Path(f"/proc/{entry}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def private_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def sleepers(client: DirectClient, count: int) -> dict[int, int]:
    """Start ``count`` commands at once; return {id: pid}, each of them running."""
    ids = [client.launch(LaunchRequest("isolate", ("sleep", "60")), stdout_fd=2, stderr_fd=2) for _ in range(count)]
    return {identifier: client.wait_started(identifier) for identifier in ids}


def test_an_init_is_the_launchers_own_and_outlives_its_template(workspace: Path) -> None:
    """A template that is killed takes no command along, and the next init comes from a new one."""
    with DirectClient(start_launcher(bundle(workspace))) as client:
        before = sleepers(client, 1)
        (first,) = before.values()
        launcher = parent_of(parent_of(first))
        template = template_of(launcher)
        os.kill(template, signal.SIGKILL)
        after = sleepers(client, 2)
        assert {parent_of(parent_of(pid)) for pid in after.values()} == {launcher}
        assert template_of(launcher) != template
        assert Path(f"/proc/{first}").exists()
        for identifier in (*before, *after):
            client.stop(identifier)
            assert client.wait(identifier).signal == signal.SIGTERM


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user cannot look into an undumpable process")
def test_the_private_memory_of_a_running_command(workspace: Path) -> None:
    """At most 3 MB with its pid 1, of one that begins and of one in a slot that has served before."""
    with DirectClient(start_launcher(bundle(workspace), warm=("isolate",))) as client:
        for _ in range(2):
            running = sleepers(client, 3)
            each = [private_kib(pid) + private_kib(parent_of(pid)) for pid in running.values()]
            assert sum(each) / len(each) <= PRIVATE_MAX_KIB, each
            for identifier in running:
                client.stop(identifier)
                client.wait(identifier)
            for _ in range(60):
                client.wait(client.launch(LaunchRequest("isolate", ("/bin/true",)), stdout_fd=2, stderr_fd=2))


STOPPED = """
import os, signal, socket, sys
from guardhouse import limits
from guardhouse.errors import SetupError
limits.SLOT_CLONE_TIMEOUT_S = 0.3
from guardhouse.launcher.template import InitOrder, Template
from guardhouse.sandbox.bundle import Bundle
template = Template(Bundle.from_json(sys.stdin.buffer.read()))
first = template._pid
os.kill(first, signal.SIGSTOP)
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
order = InitOrder("isolate", control=theirs, gate=None, cgroup_fd=None, cgroup_files=(), pids_in_cgroup=True,
                  first_number=0)
try:
    template.clone(order)
except SetupError as error:
    print(str(error).partition(":")[0], template._pid != first)
pid, pidfd = template.clone(order)
print(os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG) is None, ours.recv(1000).decode())
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
template.finish()
"""


def test_a_template_that_hangs_is_replaced_and_holds_nobody_up(workspace: Path) -> None:
    """The order is refused, naming the layer, which the launcher gives again; the next is for a new template."""
    done = subprocess.run(
        [sys.executable, "-c", STOPPED], input=bundle(workspace).to_json().encode(), capture_output=True, check=True
    )
    refused, cloned = done.stdout.decode().splitlines()
    assert refused == "namespaces True", done.stderr
    assert cloned.startswith("True J"), done.stderr
    assert '"ready"' in cloned

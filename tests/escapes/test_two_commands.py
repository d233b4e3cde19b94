"""Two commands at the same time have nothing in common but the workspace and what their profile shows of the host.

One command holds what a neighbour could use; another, of the same profile and account, tries to get at it. The twin is
the same try from inside the first command, where all of it succeeds: what is held is really there, and can be reached.
"""

import json
import os
import textwrap

import pytest

from guardhouse.launcher.messages import LaunchRequest

from .conftest import PYTHON
from .table import ALL, CLOSED

LIMIT_S = 30.0

# What both do. `pid` is the holder's number, `entry` its number in /proc as whoever tries sees it.
PROBE = """
import ctypes, errno, json, os, signal, socket, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)

def number(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result

def reach(address):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(address)

def open_it(path, flags=os.O_RDONLY):
    os.close(os.open(path, flags))

def read(path):
    with open(path, "rb") as file:
        if not file.read(16):
            raise OSError(errno.ENODATA, "")

def outcomes(name, pid, entry, port):
    process = f"/proc/{entry}/"
    tries = {
        "abstract socket": lambda: reach("\\0" + name),
        "socket in /tmp": lambda: reach("/tmp/" + name + "-socket"),
        "pipe in /tmp": lambda: open_it("/tmp/" + name + "-pipe", os.O_RDWR),
        "POSIX shared memory": lambda: open_it("/dev/shm/" + name, os.O_RDWR),
        "POSIX semaphore": lambda: open_it("/dev/shm/sem." + name, os.O_RDWR),
        "System V memory": lambda: number(libc.shmget(0x6768, 4096, 0o666)),
        "System V queue": lambda: number(libc.msgget(0x6768, 0o666)),
        "System V semaphore": lambda: number(libc.semget(0x6768, 1, 0o666)),
        "signal": lambda: os.kill(pid, 0),
        "signal to its group": lambda: os.killpg(pid, 0),
        "priority": lambda: os.getpriority(os.PRIO_PROCESS, pid) and os.setpriority(os.PRIO_PROCESS, pid, 19),
        "scheduling": lambda: os.sched_setaffinity(pid, os.sched_getaffinity(0)),
        "limits": lambda: number(libc.prlimit(pid, 7, None, ctypes.create_string_buffer(16))),
        "environment": lambda: read(process + "environ"),
        "memory map": lambda: read(process + "maps"),
        "its files": lambda: os.stat(process + "root/tmp/" + name + "-pipe"),
        "its directory": lambda: os.readlink(process + "cwd"),
        "its descriptors": lambda: os.readlink(process + "fd/1"),
        "its namespaces": lambda: os.readlink(process + "ns/ipc"),
    }
    if port:
        tries["its loopback"] = lambda: socket.create_connection(("127.0.0.1", port), 5).close()
    found = {}
    for what, act in tries.items():
        try:
            act()
            found[what] = "GOT"
        except OSError as error:
            found[what] = errno.errorcode.get(error.errno, str(error.errno))
    return found
"""
HOLDER = """
name = sys.argv[1]
held = [socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
try:
    held.append(socket.create_server(("127.0.0.1", 0)))
    port = held[2].getsockname()[1]
except PermissionError:
    port = 0  # a profile without network
held[0].bind("\\0" + name)
held[1].bind("/tmp/" + name + "-socket")
held[0].listen(); held[1].listen()
for path in ("/dev/shm/" + name, "/dev/shm/sem." + name):
    open(path, "w").close()
os.mkfifo("/tmp/" + name + "-pipe")
number(libc.shmget(0x6768, 4096, 0o1666)); number(libc.msgget(0x6768, 0o1666)); number(libc.semget(0x6768, 1, 0o1666))
facts = [name, os.getpid(), int(os.readlink("/proc/self")), port]
if os.fork() == 0:
    with open(name + ".part", "w") as file:
        json.dump({"port": facts[3], "twin": outcomes(*facts)}, file)
    os.rename(name + ".part", name + ".held")
    os._exit(0)
while not os.path.exists(name + ".done"):
    time.sleep(0.02)
"""
NEIGHBOUR = """
name, pid = sys.argv[1], int(sys.argv[2])
while not os.path.exists(name + ".held"):
    time.sleep(0.02)
with open(name + ".held") as file:
    holder = json.load(file)
print(json.dumps({"twin": holder["twin"], "attack": outcomes(name, pid, pid, holder["port"])}))
open(name + ".done", "w").close()
"""


def script(text: str) -> tuple[str, ...]:
    return (PYTHON, "-I", "-c", PROBE + textwrap.dedent(text))


@pytest.mark.parametrize("start", ["root", "user"])
@pytest.mark.parametrize("profile", ALL)
def test_two_commands_do_not_reach_each_other(arena, profile, start):
    """Whatever one holds, the other is refused; from inside the first command the same succeeds."""
    if start == "root" and os.geteuid() != 0:
        pytest.skip("this way starts the launcher as root, and the tests do not run as root here")
    name = f"two-{os.getpid()}"
    client = arena.client(profile, start)
    null = os.open(os.devnull, os.O_WRONLY)
    identifier = client.launch(
        LaunchRequest(profile=profile, argv=(*script(HOLDER), name), timeout_s=LIMIT_S, grace_s=1),
        stdout_fd=null,
        stderr_fd=2,
    )
    os.close(null)
    pid = client.wait_started(identifier)
    text, outcome = arena.run(profile, start, (*script(NEIGHBOUR), name, str(pid)), timeout_s=LIMIT_S)
    assert outcome.exit_code == 0, (text, outcome)
    assert client.wait(identifier).exit_code == 0
    found = json.loads(text)
    assert found["twin"] == dict.fromkeys(found["twin"], "GOT")
    # Over the host's network a server on the host's loopback is everybody's: the profile says so.
    reached = {what for what, came in found["attack"].items() if came == "GOT"}
    assert reached == (set() if profile in CLOSED[:1] else {"its loopback"}), found["attack"]

"""The raw calls do what their names say, each tried in a child process of its own where it cannot be undone."""

import ctypes
import errno
import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from guardhouse.kernel import descriptors, landlock, sealed, syscalls
from guardhouse.kernel.spawn import spawn

SOURCE = str(Path(__file__).resolve().parents[2] / "src")


def in_child(code):
    """Run ``code`` in a fresh interpreter; it prints one JSON value, which is returned."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {SOURCE!r})\n{code}"],
        stdout=subprocess.PIPE,
        check=True,
        timeout=30,
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(syscalls.ARCHITECTURE != "x86_64", reason="the header is this machine's")
def test_numbers_are_the_headers():
    """Every system call number of ours is the one in the machine's own header."""
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("the kernel's headers are not installed here (Debian: linux-libc-dev)")
    known = dict(re.findall(r"#define __NR_(\w+) (\d+)", header.read_text()))
    assert {name: int(known[name]) for name in syscalls.NUMBERS if name in known} == {
        name: number for name, number in syscalls.NUMBERS.items() if name in known
    }
    assert len(known) > 300


def test_errno_becomes_oserror():
    """A call that fails raises OSError with the kernel's errno."""
    with pytest.raises(OSError, match="pidfd_open") as caught:
        syscalls.declare("pidfd_open", ctypes.c_int, ctypes.c_uint)(-1, 0)
    assert caught.value.errno == errno.EINVAL


def test_clone_process_makes_pid_1():
    """A clone with a pid namespace is pid 1 there, knows it through every layer of libc, and can make threads."""
    code = """
import json, os, _thread
from guardhouse.kernel import namespaces
read_fd, write_fd = os.pipe()
kinds = ("pid",) if os.geteuid() == 0 else ("user", "pid")
pid, pidfd = namespaces.clone_process(kinds)
if pid == 0:
    lock = _thread.allocate_lock(); lock.acquire()
    seen = []
    _thread.start_new_thread(lambda: (seen.append(1), lock.release()), ())
    lock.acquire()
    child = os.fork()
    if child == 0:
        os._exit(5)
    status = os.waitpid(child, 0)[1]
    os.write(write_fd, json.dumps([os.getpid(), len(seen), child, os.waitstatus_to_exitcode(status)]).encode())
    os._exit(0)
os.waitpid(pid, 0)
print(os.read(read_fd, 100).decode())
"""
    pid, threads, child, status = in_child(code)
    assert (pid, threads, status) == (1, 1, 5)
    assert child > 1


def test_spawn_gives_three_descriptors_and_default_signals():
    """A spawned program has descriptors 0 to 2 alone, no blocked or ignored signal, and a session of its own."""
    script = (
        "import os, json; print(json.dumps([sorted(map(int, os.listdir('/proc/self/fd')))[:-1],"
        " os.getsid(0) == os.getpid()])); print(open('/proc/self/status').read())"
    )
    extra = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(extra, True)
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        pid = spawn(
            os.fsencode(sys.executable), [b"python", b"-ISc", script.encode()], [b"A=1"], stdio=(null, write_fd, 2)
        )
        os.close(write_fd)
        assert os.waitpid(pid, 0)[1] == 0
        first, _, status = os.read(read_fd, 65536).decode().partition("\n")
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        for descriptor in (extra, read_fd, null):
            os.close(descriptor)
    found, leads_session = json.loads(first)
    assert found == [0, 1, 2]
    assert leads_session
    assert int(re.search(r"SigBlk:\s*(\w+)", status)[1], 16) == 0


def test_spawn_reports_exec_errors():
    """A program that cannot be executed is the caller's OSError, not a child's exit status."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    with pytest.raises(FileNotFoundError):
        spawn(b"/no/such/program", [b"x"], [], stdio=(null, null, null))
    with pytest.raises(PermissionError):
        spawn(b"/etc/passwd", [b"x"], [], stdio=(null, null, null))
    os.close(null)


def test_close_all_but():
    """Every descriptor but the kept ones is closed, whoever opened it."""
    code = """
import json, os
from guardhouse.kernel.descriptors import close_all_but
kept = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)][7]
close_all_but((0, 1, 2, kept))
alive = []
for number in range(100):
    try:
        os.fstat(number); alive.append(number)
    except OSError:
        pass
print(json.dumps([alive, kept]))
"""
    alive, kept = in_child(code)
    assert alive == [0, 1, 2, kept]


def test_sealed_memory():
    """A sealed file is read whole and nobody can change it; an unsealed one is not accepted."""
    descriptor = sealed.seal_memory("test", b"content")
    assert sealed.read_sealed(descriptor, limit_bytes=100) == b"content"
    with pytest.raises(ValueError, match="limit"):
        sealed.read_sealed(descriptor, limit_bytes=3)
    with pytest.raises(PermissionError):
        os.pwrite(descriptor, b"x", 0)
    os.close(descriptor)
    loose = os.memfd_create("loose", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with pytest.raises(ValueError, match="not a sealed"):
        sealed.read_sealed(loose, limit_bytes=100)
    os.close(loose)


def test_signal_descriptor():
    """A blocked signal makes the descriptor readable and is taken by reading it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    descriptor = descriptors.signal_descriptor((signal.SIGUSR2,))
    try:
        with pytest.raises(BlockingIOError):
            os.read(descriptor, 128)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
        assert struct.unpack_from("=I", os.read(descriptor, 128))[0] == signal.SIGUSR2
    finally:
        os.close(descriptor)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})


def test_seccomp_notification():
    """A call that the filter hands over waits for its answer, is named by number, and fails with the errno given."""
    # ld [nr]; jeq getppid: USER_NOTIF, else ALLOW (x86_64 110, aarch64 173).
    number = {"x86_64": 110, "aarch64": 173}[syscalls.ARCHITECTURE]
    code = f"""
import json, os, struct, _thread
from guardhouse.kernel import credentials, seccomp
program = b"".join(struct.pack("=HBBI", *i) for i in (
    (0x20, 0, 0, 0), (0x15, 0, 1, {number}), (0x06, 0, 0, 0x7fc00000), (0x06, 0, 0, 0x7fff0000)))
credentials.set_no_new_privs()
listener = []
done = _thread.allocate_lock(); done.acquire()
result = []
def confined():
    listener.append(seccomp.install(program, listener=True))
    pid = os.fork()
    if pid == 0:
        import ctypes
        # glibc hands this call's result on as it is: minus the errno.
        os._exit(max(0, -ctypes.CDLL(None).getppid()))
    result.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    done.release()
_thread.start_new_thread(confined, ())
import time
while not listener: time.sleep(0.001)
found = seccomp.receive(listener[0])
seccomp.answer_with_errno(listener[0], found, 13)
done.acquire()
print(json.dumps([found.number, result[0]]))
"""
    assert in_child(code) == [number, errno.EACCES]


def test_landlock_refuses_what_is_not_allowed():
    """Under a ruleset an allowed directory can be read and another cannot; a file takes only a file's accesses."""
    code = """
import json, os
from guardhouse.kernel import credentials, landlock
ruleset = landlock.create_ruleset(handled_fs=("read_file", "read_dir"), handled_net=(), scoped=())
etc = os.open("/usr", os.O_PATH); file = os.open("/etc/passwd", os.O_PATH)
landlock.allow_path(ruleset, etc, ("read_file", "read_dir"), is_directory=True)
landlock.allow_path(ruleset, file, ("read_file", "read_dir"), is_directory=False)
credentials.set_no_new_privs()
landlock.restrict_self(ruleset)
def tried(path):
    try:
        os.close(os.open(path, os.O_RDONLY)); return 0
    except OSError as error:
        return error.errno
print(json.dumps([tried("/usr/bin"), tried("/etc/passwd"), tried("/etc"), tried("/etc/group")]))
"""
    assert in_child(code) == [0, 0, errno.EACCES, errno.EACCES]


def test_landlock_unknown_names():
    """A name that the table does not have is refused by name, never dropped."""
    with pytest.raises(Exception, match="'levitate'"):
        landlock.create_ruleset(handled_fs=("levitate",), handled_net=(), scoped=())


def test_title():
    """The title replaces the whole command line, and nothing of the old one is left in it."""
    code = """
import json
from guardhouse.kernel.title import set_title
set_title("guardhouse-test")
print(json.dumps([open("/proc/self/cmdline").read().rstrip(chr(0)), open("/proc/self/comm").read()]))
"""
    assert in_child(code) == ["guardhouse-test", "guardhouse-test\n"]


def test_capabilities_are_gone():
    """After dropping, no set holds a capability and the bounding set is empty."""
    code = """
import json, os
from guardhouse.kernel import credentials
if os.geteuid() == 0:
    credentials.set_securebits()
    credentials.drop_bounding_set()
credentials.keep_capabilities_only(0)
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
print(json.dumps([int(status[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")]
                 + [int(status["CapBnd"], 16) if os.geteuid() == 0 else 0]))
"""
    assert in_child(code) == [0, 0, 0, 0, 0]

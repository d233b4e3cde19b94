"""A process of ours that was taken over: what it tries is refused behind its own wall, and works without.

Each attempt runs in a forked child that confines itself with the very function and plan that the real process uses.
"""

import errno
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from guardhouse.data_files import shipped_directory
from guardhouse.errors import InvariantError
from guardhouse.kernel.credentials import capability_mask
from guardhouse.kernel.probe import probe_host
from guardhouse.launcher.self_confine import confine_process
from guardhouse.sandbox.bundle import ProcessPlan
from guardhouse.sandbox.compile_process import compile_process
from guardhouse.sandbox.load import list_processes, read_library

from . import attempts

NAMES = list_processes(shipped_directory("sandbox"))
IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="without the wall only root may: the twin could not succeed")


@pytest.fixture(scope="module")
def journal() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="guardhouse-test-journal-") as found:
        (Path(found) / "outside").mkdir()
        (Path(found) / "journal").mkdir()
        yield Path(found) / "journal"


@pytest.fixture(scope="module")
def plans(journal: Path) -> dict[str, ProcessPlan]:
    processes = read_library(shipped_directory("sandbox")).processes
    features = probe_host()
    paths = {
        "journal": (str(journal),),
        "installation": ("/usr",),
        "certificates": ("/etc/ssl/certs",),
        "resolver": ("/etc",),
    }
    return {name: compile_process(processes[name], features=features, paths=paths) for name in NAMES}


def errno_of(attempt: Callable[[], object], plan: ProcessPlan | None) -> int:
    """Try it in a forked child, behind ``plan`` where there is one; return 0 or the errno of its refusal."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            if plan is not None:
                confine_process(plan)
            attempt()
            code = 0
        except OSError as error:
            code = error.errno or 254
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def status_of(plan: ProcessPlan) -> dict[str, str]:
    """What /proc says of a child that has confined itself."""
    ready_r, ready_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            confine_process(plan)
            os.write(ready_w, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.close(ready_w)
    try:
        assert os.read(ready_r, 1) == b"x"
        return read_status(pid)
    finally:
        os.close(ready_r)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def read_status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


EPERM, EACCES, ENOSYS = errno.EPERM, errno.EACCES, errno.ENOSYS
INHERITED = ("launcher", "init", "keeper")

exec_in_a_thread = partial(attempts.with_a_thread, attempts.start_a_program)
write_hostname = partial(attempts.open_for_writing, "/etc/hostname")
openat2_hostname = partial(attempts.openat2_for_writing, "/etc/hostname")

REFUSED = [
    pytest.param("runner", attempts.start_a_program, EPERM, id="runner-exec"),
    pytest.param("runner", attempts.make_a_process, EPERM, id="runner-fork"),
    pytest.param("runner", exec_in_a_thread, EPERM, id="runner-exec in a thread"),
    pytest.param("runner", attempts.mount_something, EPERM, id="runner-mount", marks=needs_root),
    pytest.param("runner", attempts.trace_oneself, EPERM, id="runner-ptrace"),
    pytest.param("runner", attempts.enter_another_namespace, EPERM, id="runner-setns", marks=needs_root),
    pytest.param("runner", attempts.open_a_raw_socket, EPERM, id="runner-raw socket", marks=needs_root),
    pytest.param("runner", partial(attempts.read_a_file, "/root"), EACCES, id="runner-other file", marks=needs_root),
    pytest.param("runner", partial(attempts.read_a_file, "/var/log"), EACCES, id="runner-other directory"),
    pytest.param("runner", write_hostname, EACCES, id="runner-system file", marks=needs_root),
    pytest.param("runner", attempts.load_a_bpf_program, EPERM, id="runner-bpf", marks=needs_root),
    pytest.param("monitor", attempts.start_a_program, EPERM, id="monitor-exec"),
    pytest.param("monitor", attempts.make_a_process, EPERM, id="monitor-fork"),
    pytest.param("monitor", attempts.mount_something, EPERM, id="monitor-mount", marks=needs_root),
    pytest.param("monitor", attempts.open_an_internet_socket, EPERM, id="monitor-socket"),
    pytest.param("monitor", attempts.open_a_unix_socket, EPERM, id="monitor-unix socket"),
    pytest.param("monitor", partial(attempts.open_for_writing, "/dev/null"), EPERM, id="monitor-open for writing"),
    pytest.param("monitor", openat2_hostname, EACCES, id="monitor-openat2 for writing", marks=needs_root),
    pytest.param("monitor", attempts.write_into_memory, EPERM, id="monitor-process_vm_writev"),
    pytest.param("monitor", attempts.change_root, EPERM, id="monitor-chroot", marks=needs_root),
    *(
        pytest.param(name, attempt, ENOSYS, id=f"{name}-{what}", marks=marks)
        for name in INHERITED
        for what, attempt, marks in (
            ("bpf", attempts.load_a_bpf_program, needs_root),
            ("io_uring", attempts.set_up_io_uring, ()),
            ("keyring", attempts.add_a_key, ()),
            ("setns", attempts.enter_another_namespace, needs_root),
            ("chroot", attempts.change_root, needs_root),
            ("userfaultfd", attempts.take_a_userfaultfd, needs_root),
            ("process_vm_writev", attempts.write_into_memory, ()),
            ("clock", attempts.read_the_clocks_discipline, ()),
            ("raw socket", attempts.open_a_raw_socket, needs_root),
        )
    ),
    pytest.param("init", attempts.trace_oneself, ENOSYS, id="init-ptrace"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "attempt", "code"), REFUSED)
def test_refused(name: str, attempt: Callable[[], None], code: int, plans: dict[str, ProcessPlan]) -> None:
    """The attempt succeeds without the wall (the twin) and fails behind it with the errno of the layer that refuses."""
    unconfined = errno_of(attempt, None)
    if unconfined == ENOSYS:
        pytest.skip("this kernel does not have the call")
    if unconfined in (EPERM, EACCES):
        pytest.skip(f"this host refuses it to everybody: {os.strerror(unconfined)}")
    assert unconfined == 0
    assert errno_of(attempt, plans[name]) == code


@pytest.fixture
def bystander() -> Iterator[int]:
    """A process of the same account that has nothing to do with ours."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.mark.parametrize("name", ["runner", "launcher", "keeper"])
def test_nobody_else_is_signalled(name: str, plans: dict[str, ProcessPlan], bystander: int) -> None:
    """A process outside its Landlock domain gets no signal from it, whatever its capabilities; its own child does."""
    if "signal" not in getattr(plans[name].landlock, "scoped", ()):
        pytest.skip("needs Landlock ABI 6 (Linux 6.12)")
    attempt = partial(attempts.send_a_signal, bystander)
    assert errno_of(attempt, None) == 0
    assert errno_of(attempt, plans[name]) == EPERM
    assert errno_of(lambda: attempts.send_a_signal(os.getpid()), plans[name]) == 0


@pytest.mark.parametrize("name", ["launcher", "keeper"])
def test_nobody_else_is_traced(name: str, plans: dict[str, ProcessPlan], bystander: int) -> None:
    """Although it holds CAP_SYS_PTRACE it traces its own children only."""
    if plans[name].landlock is None:
        pytest.skip("needs Landlock ABI 6 (Linux 6.12)")

    def trace_a_child() -> None:
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        try:
            attempts.trace(pid)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    assert errno_of(partial(attempts.trace, bystander), None) == 0
    assert errno_of(partial(attempts.trace, bystander), plans[name]) == EPERM
    assert errno_of(trace_a_child, plans[name]) == 0


@pytest.mark.parametrize("name", ["runner", "launcher", "keeper"])
def test_no_abstract_socket_is_reached(name: str, plans: dict[str, ProcessPlan]) -> None:
    """A door that has no file, such as a desktop's bus, stays shut; without the wall it is open."""
    if "abstract_unix_socket" not in getattr(plans[name].landlock, "scoped", ()):
        pytest.skip("needs Landlock ABI 6 (Linux 6.12)")
    door = f"guardhouse-test-{os.getpid()}".encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(b"\0" + door)
        sock.listen(8)
        attempt = partial(attempts.connect_to_an_abstract_socket, door)
        assert errno_of(attempt, None) == 0
        assert errno_of(attempt, plans[name]) == EPERM


def test_runner_writes_its_journal_and_nothing_beside_it(plans: dict[str, ProcessPlan], journal: Path) -> None:
    """The one directory is writable, with renames and all; the next one is not, neither is the workspace readable."""
    if plans["runner"].landlock is None:
        pytest.skip("this kernel has no Landlock")

    def rotate() -> None:
        attempts.write_a_file(str(journal / "new"))
        os.replace(journal / "new", journal / "current")
        os.unlink(journal / "current")

    beside = journal.parent / "outside" / "file"
    assert errno_of(rotate, plans["runner"]) == 0
    assert errno_of(partial(attempts.write_a_file, str(beside)), None) == 0
    assert errno_of(partial(attempts.write_a_file, str(beside)), plans["runner"]) == EACCES
    assert errno_of(partial(attempts.read_a_file, str(beside)), plans["runner"]) == EACCES


def test_runner_keeps_its_threads_its_sockets_and_its_settings(plans: dict[str, ProcessPlan]) -> None:
    """What its work needs goes on: threads, TCP and unix sockets, certificates, facts of the host."""

    def work() -> None:
        attempts.with_a_thread(attempts.open_an_internet_socket)
        attempts.open_a_unix_socket()
        for path in ("/etc/passwd", "/proc/meminfo", "/proc/stat"):
            attempts.read_a_file(path)
        socket.getaddrinfo("localhost", 443)

    assert errno_of(work, plans["runner"]) == 0


@pytest.mark.parametrize("name", NAMES)
def test_capabilities_are_those_with_a_reason(name: str, plans: dict[str, ProcessPlan]) -> None:
    """Permitted, effective and bounding set hold what the profile names, inheritable and ambient nothing."""
    said = status_of(plans[name])
    kept = capability_mask(plans[name].capabilities) if IS_ROOT else 0
    assert int(said["CapPrm"], 16) & ~kept == 0
    assert int(said["CapEff"], 16) & ~kept == 0
    assert int(said["CapInh"], 16) == int(said["CapAmb"], 16) == 0
    if IS_ROOT:
        assert int(said["CapBnd"], 16) & ~(kept if plans[name].bounding_kept else 0) == 0
    assert said["NoNewPrivs"] == "1"
    assert said["Seccomp"] == "2"
    if plans[name].becomes_nobody and IS_ROOT:
        assert set(said["Uid"].split()) == {"65534"}


def test_confining_with_threads_is_refused_where_it_would_leave_one_out(plans: dict[str, ProcessPlan]) -> None:
    """A Landlock domain is for one thread: a process that has several must not believe that it is confined."""
    if plans["runner"].landlock is None:
        pytest.skip("this kernel has no Landlock")

    def confine_late() -> None:
        release = threading.Event()
        threading.Thread(target=release.wait, daemon=True).start()
        try:
            confine_process(plans["runner"])
        except InvariantError:
            raise OSError(errno.EBUSY, "refused") from None

    assert errno_of(confine_late, None) == errno.EBUSY

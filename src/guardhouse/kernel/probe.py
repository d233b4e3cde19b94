"""What this host gives a sandbox: every layer tried for real, in a child that ends, with nothing left behind.

Knows how to try, not what for: profiles and the launcher judge the answers. Runs at boot and under
`guardhouse doctor`, in a process with one thread.
"""

import contextlib
import ctypes
import errno
import os
import signal
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from guardhouse.kernel import cgroup_tree, credentials, mounts, namespaces
from guardhouse.kernel.ptrace import exec_entry, seize
from guardhouse.kernel.syscalls import NUMBERS, declare
from guardhouse.kernel.tracee import read_memory

__all__ = ["HostFeatures", "probe_host"]

_LANDLOCK_CREATE_RULESET_VERSION: Final = 1
_CAP_SYS_ADMIN: Final = 21
_CLONE_KINDS: Final = ("mount", "ipc", "uts", "net", "cgroup", "pid")
_SYSTEM_DIRECTORIES: Final = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_CONTROLLERS: Final = ("memory", "pids", "cpu", "io")
_CHILD_MESSAGE_MAX_BYTES: Final = 4096
_NO_SWAP_LIMIT: Final = "swap is not counted for groups here: a command's memory beyond its limit goes to swap first"

_landlock_version = declare("landlock_create_ruleset", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)
_openat2 = declare("openat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)


@dataclass(frozen=True, slots=True)
class HostFeatures:
    """The answers. Texts say why something is missing and are empty where it is there.

    Attributes:
        landlock_abi: 0 where there is none.
        privileged: this process has CAP_SYS_ADMIN, so namespaces need no user namespace.
        user_namespaces: why an ordinary process cannot have one; ``""`` where it can.
        cgroup_version: 2, 1 or 0; of the hierarchy in which groups can be made.
        cgroup_controllers: those whose limits can be set below this process's own group.
        seccomp_actions: what the kernel's filters can answer (``user_notif``, ``trace`` …).
        system_links: ``/bin`` and its like where they are symbolic links, with their text.
        exec_notices: why a filter cannot hand execs to a listener and let them go on; ``""`` where it can.
        caller_words: why the memory of another process of the account cannot be read; ``""`` where it can.
        layers: by layer (the names a profile's ``requires`` uses), why it cannot be put up; ``""`` where it can.
        notes: what works less well here than elsewhere, in words, with what to do.
    """

    kernel_release: str
    architecture: str
    hostname: str
    uid: int
    privileged: bool
    landlock_abi: int
    user_namespaces: str
    openat2: bool
    seccomp_actions: frozenset[str]
    cgroup_version: int
    cgroup_controllers: frozenset[str]
    exec_notices: str
    caller_words: str
    system_links: Mapping[str, str]
    layers: Mapping[str, str]
    notes: tuple[str, ...]


def probe_host() -> HostFeatures:
    """Try everything and say what this host gives to this process."""
    system = os.uname()
    privileged = bool(credentials.permitted_capabilities() & 1 << _CAP_SYS_ADMIN)
    user_namespaces = _in_child(_try_user_namespace)
    landlock_abi, landlock_why = _landlock()
    actions = _seccomp_actions()
    version, controllers, why_no_v2, weak = _cgroup_controllers()
    layers = {f"cgroup_{name}": _why_no_controller(name, version, controllers, why_no_v2) for name in _CONTROLLERS}
    layers |= {
        "namespaces": _in_child(lambda: _try_namespaces(privileged=privileged)),
        "mount_view": _in_child(lambda: _try_view(privileged=privileged)),
        "rlimits": "",
        "capabilities": "",
        "no_new_privs": _in_child(credentials.set_no_new_privs),
        "landlock": landlock_why,
        "seccomp": _why_no_seccomp(actions, system.machine),
        "exec_gate": _why_no_gate(actions),
    }
    return HostFeatures(
        kernel_release=system.release,
        architecture=system.machine,
        hostname=system.nodename,
        uid=os.getuid(),
        privileged=privileged,
        landlock_abi=landlock_abi,
        user_namespaces=user_namespaces,
        openat2=_has_openat2(),
        seccomp_actions=actions,
        cgroup_version=version,
        cgroup_controllers=controllers,
        exec_notices=_why_no_notices(actions),
        caller_words=_in_child(_try_read),
        system_links=_system_links(),
        layers=layers,
        notes=(*_notes(landlock_abi=landlock_abi, privileged=privileged, version=version), *weak),
    )


def _in_child(attempt: Callable[[], None]) -> str:
    """Run ``attempt`` in a forked child; return why it failed, or ``""``."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            attempt()
        except OSError as error:
            os.write(writing, _reason(error).encode()[:_CHILD_MESSAGE_MAX_BYTES])
        finally:
            os._exit(0)  # the child must never return into its parent's code
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.read(_CHILD_MESSAGE_MAX_BYTES).decode("utf-8", "replace")
    finally:
        _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return f"the attempt was killed by signal {os.WTERMSIG(status)}"
    return said


def _reason(error: OSError) -> str:
    name = errno.errorcode.get(error.errno or 0, "an error")
    return f"{error.strerror or error} ({name})"


def _try_user_namespace() -> None:
    uid, gid = os.getuid(), os.getgid()
    namespaces.unshare({"user"})
    # The kernel gives /proc/self of an undumpable process (one that has changed its ids) to root.
    credentials.set_dumpable(dumpable=True)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        Path(f"/proc/self/{name}").write_text(text, encoding="ascii")


def _try_namespaces(*, privileged: bool) -> None:
    if not privileged:
        _try_user_namespace()
    for kind in _CLONE_KINDS:
        try:
            namespaces.unshare({kind})
        except OSError as error:
            raise OSError(error.errno, f"no {kind} namespace: {os.strerror(error.errno or 0)}") from error


def _try_view(*, privileged: bool) -> None:
    if not privileged:
        _try_user_namespace()
    namespaces.unshare({"mount", "pid"})
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        if os.waitstatus_to_exitcode(status) != 0:
            code = os.waitstatus_to_exitcode(status)
            raise OSError(code, f"the view cannot be built: {os.strerror(code) if code > 0 else 'killed'}")
        return
    code = 1
    try:
        _build_small_view()
        code = 0
    except OSError as error:
        code = error.errno or errno.EIO
    finally:
        os._exit(code)


def _build_small_view() -> None:
    """Do in small what the launcher does: every kind of mount that a shipped profile uses."""
    mounts.make_private()
    mounts.mount_new("tmpfs", "/tmp", flags=frozenset({"nosuid", "nodev"}))  # noqa: S108 - covers, creates nothing there
    tree = mounts.clone_tree("/", recursive=True)
    mounts.set_attributes(tree, frozenset({"readonly", "nosuid", "nodev"}), recursive=True)
    Path("/tmp/view").mkdir()  # noqa: S108 - in the covered /tmp
    target = os.open("/tmp/view", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # noqa: S108 - in the covered /tmp
    mounts.move_tree(tree, target)
    # A new procfs is refused in a user namespace where the host's own is partly covered (containers do that).
    mounts.mount_new("proc", "/tmp/view/proc", flags=frozenset({"nosuid", "nodev", "noexec"}))  # noqa: S108 - in the covered /tmp
    os.chdir("/tmp/view")  # noqa: S108 - in the covered /tmp
    mounts.pivot_root_here()


def _try_trace() -> None:
    """Attach to a child of one's own and read its registers, as the gate's monitor does to a command."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    try:
        seize(pid)
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, 0)
        try:
            exec_entry(pid)
        except OSError as error:
            # User-mode Linux gives them by an older request only.
            raise OSError(error.errno, f"a tracer cannot read registers: {os.strerror(error.errno or 0)}") from error
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _try_read() -> None:
    """Read a child's memory, as the gate's listener does to a command's."""
    text = ctypes.create_string_buffer(b"read")
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    try:
        read_memory(pid, ctypes.addressof(text), len(text))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _landlock() -> tuple[int, str]:
    try:
        # SAFE: with this flag the kernel reads no memory and returns the version.
        return _landlock_version(None, 0, _LANDLOCK_CREATE_RULESET_VERSION), ""
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return 0, "built into this kernel but not switched on: add landlock to lsm= on the kernel's command line"
        if error.errno == errno.ENOSYS:
            return 0, "this kernel has none (CONFIG_SECURITY_LANDLOCK, Linux 5.13 or later)"
        return 0, _reason(error)


def _has_openat2() -> bool:
    try:
        # SAFE: struct open_how is three 64-bit words; the descriptor is closed at once.
        os.close(_openat2(-100, b"/", struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, 0), 24))
    except OSError:
        return False
    return True


def _seccomp_actions() -> frozenset[str]:
    try:
        return frozenset(Path("/proc/sys/kernel/seccomp/actions_avail").read_text(encoding="ascii").split())
    except OSError:
        return frozenset()


def _why_no_seccomp(actions: frozenset[str], machine: str) -> str:
    if not NUMBERS:
        return f"filters are made for x86_64 and aarch64, not for {machine}"
    missing = {"errno", "kill_process", "allow"} - actions
    return f"this kernel's filters cannot answer {', '.join(sorted(missing))} (needs Linux 4.14)" if missing else ""


def _why_no_gate(actions: frozenset[str]) -> str:
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    with contextlib.suppress(OSError, ValueError):
        if int(scope.read_text(encoding="ascii")) >= 3:
            return "kernel.yama.ptrace_scope=3 forbids tracing until the next boot"
    if "trace" not in actions:
        return "this kernel's filters cannot stop a call for a tracer"
    return _in_child(_try_trace)


def _why_no_notices(actions: frozenset[str]) -> str:
    missing = {"user_notif", "errno", "allow"} - actions
    return f"this kernel's filters cannot answer {', '.join(sorted(missing))} (needs Linux 5.5)" if missing else ""


def _system_links() -> dict[str, str]:
    links: dict[str, str] = {}
    for directory in _SYSTEM_DIRECTORIES:
        with contextlib.suppress(OSError):
            links[directory] = str(Path(directory).readlink())
    return links


def _cgroup_controllers() -> tuple[int, frozenset[str], str, tuple[str, ...]]:
    """Return version, controllers whose limits can be set below this process's group, why no v2, and weak points."""
    own, found = cgroup_tree.own_groups(), cgroup_tree.cgroup_mounts()
    divisible, why = cgroup_tree.find_v2(own, found, ours=frozenset({os.getpid()}))
    if divisible is not None and _can_make_group(Path(divisible.directory)):
        weak = _absent_files(Path(divisible.directory), divisible.controllers) if divisible.must_leave else ()
        return 2, frozenset(divisible.controllers), "", weak
    usable: dict[str, Path] = {}
    for kind, root, point, options in found:
        for controller, name in cgroup_tree.V1_CONTROLLERS.items():
            if kind == "cgroup" and name in own and name in options.split(","):
                directory = Path(cgroup_tree.below_mount(own[name], root, point))
                if _can_make_group(directory, with_file=cgroup_tree.V1_IO_WEIGHT if controller == "io" else ""):
                    usable[controller] = directory
    if not usable:
        return 0, frozenset(), why, ()
    memory = usable.get("memory")
    no_swap = memory is not None and not (memory / "memory.memsw.limit_in_bytes").exists()
    return 1, frozenset(usable), "", (_NO_SWAP_LIMIT,) if no_swap else ()


def _absent_files(directory: Path, controllers: tuple[str, ...]) -> tuple[str, ...]:
    """Say which limits a controller that is here cannot take: parts of it are built separately."""
    weak = []
    if "io" in controllers and not (directory / "io.weight").exists():
        weak.append(
            "the io controller knows no weights here (CONFIG_BLK_CGROUP_IOCOST): disks are not shared by weight"
        )
    if "memory" in controllers and not (directory / "memory.swap.max").exists():
        weak.append(_NO_SWAP_LIMIT)
    return tuple(weak)


def _can_make_group(directory: Path, *, with_file: str = "") -> bool:
    """Tell whether a group can be made there, and has the file that its limit is written to."""
    trial = directory / f"guardhouse-probe.{os.getpid()}"
    try:
        trial.mkdir()
        has_file = (trial / with_file).exists()
        trial.rmdir()
    except OSError:
        return False
    return has_file


def _why_no_controller(name: str, version: int, controllers: frozenset[str], why_no_v2: str) -> str:
    if name in controllers:
        return ""
    if version == 1 and name == "io":
        return (
            "cgroup v1 without disk weights here (BFQ with CONFIG_BFQ_GROUP_IOSCHED gives them), or not this account's"
        )
    if version == 0:
        return (
            f"no control group that this process may divide ({why_no_v2}): start it by systemd with Delegate=yes,"
            " as packaging/systemd does"
        )
    return f"the {name} controller is not handed down to this process's group: Delegate={name} in its unit"


def _notes(*, landlock_abi: int, privileged: bool, version: int) -> list[str]:
    notes: list[str] = []
    if 0 < landlock_abi < 6:
        notes.append(
            f"Landlock ABI {landlock_abi} does not scope abstract unix sockets (ABI 6, Linux 6.12): profiles on the"
            " host's network can connect to the host's abstract sockets"
        )
    if 0 < landlock_abi < 4:
        notes.append(f"Landlock ABI {landlock_abi} does not see TCP ports (ABI 4, Linux 6.7): mode ports is refused")
    if not version:
        notes.append("without control groups memory and processes are bounded by rlimits only, one process at a time")
    if privileged:
        notes.append("started with CAP_SYS_ADMIN: commands drop to an ordinary account and need no user namespace")
    return notes

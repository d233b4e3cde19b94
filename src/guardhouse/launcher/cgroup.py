"""Groups of the kernel's resource controllers: one for each init process, limits written before it begins.

Finds what this process may use: a cgroup v2 subtree that is delegated to it, or v1 hierarchies that it may write
to, or nothing. Never touches a group outside its own. Runs in the launcher, before and beside commands.
"""

# ruff: noqa: PTH103, PTH106, PTH110 - the launcher does without pathlib: it would double what each fork copies
import contextlib
import os
import sys
from typing import Final

from guardhouse.kernel import cgroup_tree
from guardhouse.kernel.cgroup_tree import Divisible
from guardhouse.launcher.cgroup_kill import kill_members, thaw
from guardhouse.launcher.outcome import GroupUsage
from guardhouse.sandbox.bundle import CgroupLimits

__all__ = ["CgroupHome", "Group", "find_home"]

_PREFIX: Final = "guardhouse."
_LEAVING_TRIES: Final = 10  # a process that forks while it is moved leaves its child behind once
_CPU_PERIOD_US: Final = 100_000  # the kernel's default for both versions
_V1_SHARES_OF_WEIGHT_100: Final = 1024
_BFQ_WEIGHT_MAX: Final = 1000  # block/bfq-iosched.h; io.weight goes to 10,000
# Where the io controller has no model of costs (CONFIG_BLK_CGROUP_IOCOST), BFQ may take the weight.
_INSTEAD: Final = {"io.weight": "io.bfq.weight"}


class Group:
    """One init's group. ``directories`` by controller; in v2 all are the same one.

    Attributes:
        procs_files: to be written by a process that joins; empty when ``directory_fd`` is given to clone3.
        missing: limits of the plan that no controller carries here.
        bounds_pids: the plan has a limit of processes and a controller took it.
    """

    def __init__(
        self, *, version: int, directories: dict[str, str], missing: tuple[str, ...], limits: CgroupLimits
    ) -> None:
        self._directories = directories
        self.bounds_pids = limits.pids is not None and "pids" not in missing
        self._memory_limit_bytes = None if "memory" in missing else limits.memory_bytes
        self.missing = missing
        self.procs_files: tuple[str, ...] = ()
        self.directory_fd: int | None = None
        if version == 2:
            directory = next(iter(directories.values()))
            self.directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            peak, events = "memory.peak", "memory.events"
        else:
            self.procs_files = tuple(f"{directory}/cgroup.procs" for directory in directories.values())
            peak, events = "memory.max_usage_in_bytes", "memory.oom_control"
        memory = directories.get("memory")
        self._peak_fd = -1 if memory is None else _open_if_there(f"{memory}/{peak}")
        self._events_fd = -1 if memory is None else _open_if_there(f"{memory}/{events}")
        self._kills_seen = 0
        self._peak_seen = 0

    def begin(self) -> None:
        """Start counting for the next command."""
        if self._peak_fd < 0:
            return
        try:
            os.pwrite(self._peak_fd, b"0", 0)
            self._peak_seen = 0
        except OSError:
            # memory.peak of cgroup v2 can be reset from Linux 6.12 on; before, a peak that does not rise above
            # an earlier command's is not known.
            self._peak_seen = _read_number(self._peak_fd)

    def usage(self) -> GroupUsage:
        """Return what was used since `begin`."""
        peak = _read_number(self._peak_fd) if self._peak_fd >= 0 else 0
        killed = self._count_kills()
        kills = killed - self._kills_seen
        self._kills_seen = killed
        return GroupUsage(
            peak_bytes=peak if peak > self._peak_seen else None,
            oom_kills=kills,
            limit_bytes=self._memory_limit_bytes,
        )

    def _count_kills(self) -> int:
        if self._events_fd < 0:
            return 0
        for line in os.pread(self._events_fd, 4096, 0).decode("ascii", "replace").splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
        return 0

    def remove(self) -> bool:
        """Remove the group. False when a process that is just dying still holds it: call again."""
        for descriptor in (self._peak_fd, self._events_fd, self.directory_fd):
            if descriptor is not None and descriptor >= 0:
                os.close(descriptor)
        self._peak_fd = self._events_fd = -1
        self.directory_fd = None
        done = True
        for directory in set(self._directories.values()):
            done = _remove_tree(directory) and done
        return done


class CgroupHome:
    """Where this launcher makes its groups."""

    def __init__(self, *, version: int, bases: dict[str, str], freezer: str | None = None) -> None:
        """Args: ``freezer`` is where cgroup v1 stops processes before they are killed, made only then."""
        self.version = version
        self._bases = bases
        self._freezer = freezer
        self._next = 0

    @property
    def controllers(self) -> tuple[str, ...]:
        """Names of the controllers that groups get."""
        return tuple(self._bases)

    def make_group(self, limits: CgroupLimits) -> Group:
        """Make a group and write its limits.

        Raises:
            OSError: the kernel refuses; the message names the file.
        """
        name = f"slot{self._next}"
        self._next += 1
        directories: dict[str, str] = {}
        for controller, base in self._bases.items():
            directories[controller] = f"{base}/{name}"
            os.makedirs(directories[controller], exist_ok=True)
        missing = _write_limits(self.version, directories, limits)
        return Group(version=self.version, directories=directories, missing=missing, limits=limits)

    def clear(self) -> bool:
        """Kill and remove whatever this launcher made; False when something is still dying: call again."""
        places = set(self._bases.values())
        kill_members(places, self._freezer)
        if self._freezer is not None:
            places.add(self._freezer)
        done = True
        for place in places:
            done = _remove_tree(place) and done
        return done


def find_home() -> CgroupHome | None:
    """Return where groups can be made, clearing what dead launchers left there; None where nowhere."""
    own = cgroup_tree.own_groups()
    mounts = cgroup_tree.cgroup_mounts()
    # The runner, or whoever else started this launcher, does nothing but hold its socket.
    divisible, _ = cgroup_tree.find_v2(own, mounts, ours=frozenset({os.getpid(), os.getppid()}))
    home = None if divisible is None else _make_v2_home(divisible)
    return home or _find_v1(own, mounts)


def _base_name() -> str:
    """Name a launcher by pid and start time, so that a later process of the same pid is not taken for it."""
    return f"{_PREFIX}{os.getpid()}.{_start_time(os.getpid())}"


def _start_time(pid: int) -> str | None:
    """Return field 22 of /proc/PID/stat, or None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The second field may hold blanks and brackets: count from behind its closing one.
            return file.read().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return None


def _find_v1(own: dict[str, str], mounts: list[tuple[str, str, str, str]]) -> CgroupHome | None:
    bases: dict[str, str] = {}
    for controller, name in cgroup_tree.V1_CONTROLLERS.items():
        parent = _writable_v1_group(name, own, mounts)
        if parent is not None:
            _remove_stale(parent)
            bases[controller] = f"{parent}/{_base_name()}"
    for controller, base in list(bases.items()):
        try:
            os.makedirs(base, exist_ok=True)
        except OSError:
            # A read-only or restricted hierarchy: the controller is missing, and `make_group` says so.
            del bases[controller]
    if "io" in bases and not os.path.exists(f"{bases['io']}/{cgroup_tree.V1_IO_WEIGHT}"):
        # Nothing to be written there: joining it would cost every slot some milliseconds for nothing.
        os.rmdir(bases.pop("io"))
    freezer = _writable_v1_group("freezer", own, mounts)
    if freezer is not None:
        _remove_stale(freezer)
        freezer = f"{freezer}/{_base_name()}"
    return CgroupHome(version=1, bases=bases, freezer=freezer) if bases else None


def _writable_v1_group(name: str, own: dict[str, str], mounts: list[tuple[str, str, str, str]]) -> str | None:
    """Return this process's group of a v1 hierarchy, where groups may be made below it."""
    for kind, root, point, options in mounts:
        if kind == "cgroup" and name in options.split(",") and name in own:
            parent = cgroup_tree.below_mount(own[name], root, point)
            return parent if os.access(parent, os.W_OK) else None
    return None


def _make_v2_home(found: Divisible) -> CgroupHome | None:
    parent = found.directory
    _remove_stale(parent)
    base = f"{parent}/{_base_name()}"
    try:
        if found.must_leave:
            _leave_for_leaf(parent)
        os.makedirs(base, exist_ok=True)
        enable = " ".join(f"+{name}" for name in found.controllers)
        for directory in (parent, base):
            _write(f"{directory}/cgroup.subtree_control", enable)
    except OSError as error:
        # The probe may have promised controllers: without this line nobody knew why a profile refuses.
        sys.stderr.write(f"guardhouse launcher: cannot divide the group {parent}: {error}\n")
        _remove_tree(base)
        return None
    return CgroupHome(version=2, bases=dict.fromkeys(found.controllers, base))


def _leave_for_leaf(parent: str) -> None:
    """Move every process of our own group into a leaf below it.

    A v2 group that has processes cannot hand controllers to its children ("no internal processes",
    cgroup-v2.rst). With systemd's Delegate=yes the group holds this service's processes and no others.

    Raises:
        OSError: a process cannot be moved.
    """
    leaf = f"{parent}/{cgroup_tree.LEAF}"
    os.makedirs(leaf, exist_ok=True)
    for _ in range(_LEAVING_TRIES):
        members = _read_words(f"{parent}/cgroup.procs")
        if not members:
            return
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                _write(f"{leaf}/cgroup.procs", pid)


def _write_limits(version: int, directories: dict[str, str], limits: CgroupLimits) -> tuple[str, ...]:
    """Write what the plan wants; return the names of limits that have no controller here."""
    missing: list[str] = []
    for name, controller, files in _limit_files(version, limits):
        directory = directories.get(controller)
        if directory is None:
            missing.append(name)
            continue
        for file, value in files:
            path = f"{directory}/{file}"
            if not os.path.exists(path) and file in _INSTEAD:
                path = f"{directory}/{_INSTEAD[file]}"
            if not os.path.exists(path):
                missing.append(name)
                break
            _write(path, value)
    return tuple(missing)


def _limit_files(version: int, limits: CgroupLimits) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Return (limit, controller, [(file, value)]) for every limit that is set."""
    found: list[tuple[str, str, list[tuple[str, str]]]] = []
    v2 = version == 2
    if limits.memory_bytes is not None:
        file = "memory.max" if v2 else "memory.limit_in_bytes"
        found.append(("memory", "memory", [(file, str(limits.memory_bytes))]))
    if limits.memory_swap_bytes is not None:
        swap = limits.memory_swap_bytes
        total = swap + (limits.memory_bytes or 0)
        files = [("memory.swap.max", str(swap))] if v2 else [("memory.memsw.limit_in_bytes", str(total))]
        found.append(("memory_swap", "memory", files))
    if limits.pids is not None:
        # Our own pid 1 and its threads count as well.
        found.append(("pids", "pids", [("pids.max", str(limits.pids + 2))]))
    if limits.cpu_weight is not None:
        shares = max(2, limits.cpu_weight * _V1_SHARES_OF_WEIGHT_100 // 100)
        files = [("cpu.weight", str(limits.cpu_weight))] if v2 else [("cpu.shares", str(shares))]
        found.append(("cpu_weight", "cpu", files))
    if limits.cpu_quota_percent is not None:
        quota = limits.cpu_quota_percent * _CPU_PERIOD_US // 100
        files = (
            [("cpu.max", f"{quota} {_CPU_PERIOD_US}")]
            if v2
            else [("cpu.cfs_period_us", str(_CPU_PERIOD_US)), ("cpu.cfs_quota_us", str(quota))]
        )
        found.append(("cpu_quota", "cpu", files))
    if limits.io_weight is not None:
        file = "io.weight" if v2 else cgroup_tree.V1_IO_WEIGHT
        found.append(("io_weight", "io", [(file, str(min(limits.io_weight, _BFQ_WEIGHT_MAX)))]))
    return found


def _remove_stale(parent: str) -> None:
    """Remove what launchers that are gone left below ``parent``; what still has members stays.

    Their processes went with them. A launcher of another pid namespace could look gone from here, so nothing is
    killed on the strength of a name.
    """
    for entry in os.listdir(parent):
        if not entry.startswith(_PREFIX):
            continue
        pid, _, started = entry.removeprefix(_PREFIX).partition(".")
        if pid.isdecimal() and _start_time(int(pid)) != started:
            # A sweeper that was killed at its work may have left it frozen: who is killed in there ends only now.
            thaw(f"{parent}/{entry}")
            _remove_tree(f"{parent}/{entry}")


def _remove_tree(directory: str) -> bool:
    """Remove a group and those below it; False when something still lives there."""
    done = True
    for path, _, _ in os.walk(directory, topdown=False):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            continue
        except OSError:
            done = False
    return done


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    except OSError as error:
        raise OSError(error.errno, f"cannot write {text!r} to {path}: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _read_words(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().split()
    except (FileNotFoundError, PermissionError):
        return []


def _read_number(descriptor: int) -> int:
    return int(os.pread(descriptor, 64, 0))


def _open_if_there(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

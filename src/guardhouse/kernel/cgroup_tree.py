"""Where this process stands in the control group trees, and whether its group may be divided by it.

Reads only. The probe (boot process, `guardhouse doctor`) and the launcher ask the same questions here, so that what
one promises the other can do.
"""

# ruff: noqa: PTH110, PTH119, PTH120 - the launcher does without pathlib: it would double what each fork copies
import os
from dataclasses import dataclass
from typing import Final

__all__ = [
    "LEAF",
    "V1_CONTROLLERS",
    "V1_IO_WEIGHT",
    "V2_CONTROLLERS",
    "Divisible",
    "below_mount",
    "cgroup_mounts",
    "find_v2",
    "own_groups",
]

LEAF: Final = "supervisor"
# Our name of a controller, and what its hierarchy is called in cgroup v1.
V1_CONTROLLERS: Final = {"memory": "memory", "pids": "pids", "cpu": "cpu", "io": "blkio"}
# Only groups below the root have it, and only where BFQ is built with groups (block/bfq-cgroup.c).
V1_IO_WEIGHT: Final = "blkio.bfq.weight"
V2_CONTROLLERS: Final = ("memory", "pids", "cpu", "io")
_SYSTEMD_RUNS: Final = "/run/systemd/system"  # sd_booted(3)
# systemd.resource-control(5), Delegate=: the mark of a group that is handed down. A user's manager sets none (252).
_DELEGATE_MARKS: Final = ("user.delegate", "trusted.delegate")


@dataclass(frozen=True, slots=True)
class Divisible:
    """A cgroup v2 group below which this process may make groups.

    Attributes:
        directory: its path; the group of this process, or the one above when that is the leaf of an earlier launcher.
        controllers: those that it can hand down, in the order of `V2_CONTROLLERS`.
        must_leave: processes stand in it, and have to move into a leaf before it hands controllers down.
    """

    directory: str
    controllers: tuple[str, ...]
    must_leave: bool


def own_groups() -> dict[str, str]:
    """Return this process's group by controller; ``""`` is cgroup v2. Empty where the kernel has no groups."""
    found: dict[str, str] = {}
    for line in _lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


def cgroup_mounts() -> list[tuple[str, str, str, str]]:
    """Return (file system type, root, mount point, super options) of each cgroup mount."""
    found = []
    for line in _lines("/proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            fields = before.split(" ")
            found.append((kind, fields[3], fields[4], options))
    return found


def below_mount(path: str, root: str, point: str) -> str:
    """Return where the group ``path`` shows below a mount of the hierarchy's part ``root`` at ``point``."""
    if root != "/" and (path == root or path.startswith(f"{root}/")):
        path = path[len(root) :]
    return f"{point}{path}".rstrip("/")


def find_v2(
    own: dict[str, str], mounts: list[tuple[str, str, str, str]], *, ours: frozenset[int]
) -> tuple[Divisible | None, str]:
    """Return the cgroup v2 group that this process may divide, or None and why there is none.

    Args:
        ours: pids that may be moved: this process, and those that are known to serve nothing but it.
    """
    for kind, root, point, _ in mounts:
        if kind != "cgroup2" or "" not in own:
            continue
        directory = below_mount(own[""], root, point) or point
        has_left = os.path.basename(directory) == LEAF
        if has_left:
            directory = os.path.dirname(directory)
        offered = _words(f"{directory}/cgroup.controllers")
        controllers = tuple(name for name in V2_CONTROLLERS if name in offered)
        if not controllers:
            return None, f"the group {directory} has no controller"
        if not os.access(f"{directory}/cgroup.subtree_control", os.W_OK):
            return None, f"the group {directory} is not this account's"
        if not _is_handed_down(directory, ours):
            return None, f"systemd keeps the group {directory} to itself"
        # The tree's real root has no type, and may hold processes beside groups that have controllers.
        must_leave = not has_left and os.path.exists(f"{directory}/cgroup.type")
        return Divisible(directory, controllers, must_leave), ""
    return None, "no cgroup v2 tree is mounted"


def _is_handed_down(directory: str, ours: frozenset[int]) -> bool:
    """Tell whether a group is ours to divide, and not one that its service manager goes on keeping.

    A writable group is not enough: root may write to all, and the scope of root's login shell holds the shell.
    """
    if not os.path.exists(_SYSTEMD_RUNS) or any(_mark(directory, name) == b"1" for name in _DELEGATE_MARKS):
        return True
    # A user's own manager leaves no mark. Its groups all are the user's: one that holds nothing but us may be taken.
    members = {int(word) for word in _words(f"{directory}/cgroup.procs")}
    return os.geteuid() != 0 and members <= ours


def _mark(directory: str, name: str) -> bytes:
    try:
        return os.getxattr(directory, name)
    except OSError:
        return b""


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def _words(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().split()
    except (FileNotFoundError, PermissionError):
        return []

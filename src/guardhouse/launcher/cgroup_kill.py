"""Kill every process of some control groups, so that none of them forks its way out.

cgroup v2 does it at one stroke (`cgroup.kill`, Linux 5.14). cgroup v1 has a freezer: each process is moved into a group
that is frozen, where it can fork no more, until all are in it; then they are killed and thawed. Where there is neither,
they are killed one by one. Whoever calls looks for what is left, and calls again.

Commands do not need it to end: the kernel ends a pid namespace with its pid 1. This is for what a launcher that was
killed left in its groups. Runs in the launcher and its sweeper.
"""

# ruff: noqa: PTH103 - the launcher does without pathlib: it would double what each fork copies
import contextlib
import os
import signal
from collections.abc import Collection
from typing import Final

__all__ = ["kill_members", "thaw"]

# Each round moves whoever was forked meanwhile by a process that was not moved yet. pids.max bounds how many there
# are, but a chain, each of whom forks the next and ends, is met by chance.
_FREEZE_ROUNDS: Final = 100


def kill_members(directories: Collection[str], freezer: str | None) -> None:
    """Send SIGKILL to every process of the groups and of those below them.

    Args:
        freezer: a group of cgroup v1's freezer that may be made for it; None where there is none.
    """
    for directory in directories:
        try:
            _write(f"{directory}/cgroup.kill", "1")
        except FileNotFoundError:
            # v1, Linux before 5.14, or no such group.
            break
    else:
        return
    members = _members(directories)
    if not members:
        return
    if freezer is not None:
        members |= _freeze(directories, freezer)
    for pid in members:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(int(pid), signal.SIGKILL)
    if freezer is not None:
        thaw(freezer)


def thaw(freezer: str) -> None:
    """Let a frozen group of cgroup v1 go on; nothing happens where it is none."""
    with contextlib.suppress(FileNotFoundError):
        _write(f"{freezer}/freezer.state", "THAWED")


def _freeze(directories: Collection[str], freezer: str) -> set[str]:
    """Move every process of the groups into the frozen group; return those that were."""
    moved: set[str] = set()
    try:
        os.makedirs(freezer, exist_ok=True)
        _write(f"{freezer}/freezer.state", "FROZEN")
    except OSError:
        # A hierarchy that is read-only, or not ours after all: they are killed unfrozen.
        return moved
    for _ in range(_FREEZE_ROUNDS):
        still_free = _members(directories) - moved
        if not still_free:
            break
        for pid in still_free:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                _write(f"{freezer}/cgroup.procs", pid)
            moved.add(pid)
    return moved


def _members(directories: Collection[str]) -> set[str]:
    found: set[str] = set()
    for directory in directories:
        for path, _, files in os.walk(directory):
            if "cgroup.procs" not in files:
                continue
            with (
                contextlib.suppress(FileNotFoundError, PermissionError),
                open(f"{path}/cgroup.procs", encoding="ascii") as file,
            ):
                found.update(file.read().split())
    return found


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)

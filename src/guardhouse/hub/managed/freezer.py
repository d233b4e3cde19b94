"""The kernel's freezer for runners of managed sandboxes: a control group each, whose every process stops and goes on.

Needs cgroup v1's freezer, or cgroup v2 (`cgroup.freeze`, Linux 5.2), below a group of the hub's own that it may divide.
Moves nothing but the runners that it starts. Where there is none, a frozen sandbox's runner is ended instead.
Runs in the hub.
"""

import contextlib
import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Freezer", "FreezerGroup", "find_freezer", "thaw_process"]

_BASE_PREFIX: Final = "guardhouse-sandboxes-"
_SYSTEMD_RUNS: Final = Path("/run/systemd/system")  # sd_booted(3)
_DELEGATE_MARKS: Final = ("user.delegate", "trusted.delegate")  # systemd.resource-control(5), Delegate=
# The kernel stops every process at its next return to user space; one that waits for a disk can take this long.
_SETTLE_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.01


@dataclass(frozen=True)
class FreezerGroup:
    """The group of one runner and of everything that it starts; ``version`` is that of its hierarchy."""

    path: Path
    version: int

    @property
    def procs_file(self) -> Path:
        """What a process writes itself into to belong to the group."""
        return self.path / "cgroup.procs"

    def make(self) -> None:
        """Make the group, or take one that is left over.

        Raises:
            OSError: the kernel refuses.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self.thaw()

    def freeze(self) -> None:
        """Stop every process of the group, and return when all have stopped.

        Raises:
            OSError: the kernel refuses; or one would not stop in time, and then all go on.
        """
        end_s = time.monotonic() + _SETTLE_S
        while True:
            self._write(is_frozen=True)
            if self.is_frozen():
                return
            if time.monotonic() > end_s:
                self.thaw()
                raise TimeoutError(f"the processes of {self.path} did not stop within {_SETTLE_S:g} s")
            time.sleep(_LOOK_EVERY_S)

    def thaw(self) -> None:
        """Let every process of the group go on.

        Raises:
            OSError: the kernel refuses.
        """
        self._write(is_frozen=False)

    def is_frozen(self) -> bool:
        """Whether every process of the group has stopped."""
        if self.version == 1:
            return (self.path / "freezer.state").read_text(encoding="ascii").strip() == "FROZEN"
        return "frozen 1" in (self.path / "cgroup.events").read_text(encoding="ascii")

    def processes(self) -> list[int]:
        """Return the numbers of the processes in the group itself."""
        return [int(word) for word in self.procs_file.read_text(encoding="ascii").split()]

    def remove(self) -> bool:
        """Remove the group; False while a process that is just dying still holds it."""
        try:
            below = [Path(entry.path) for entry in os.scandir(self.path) if entry.is_dir(follow_symlinks=False)]
            for path in below:
                # Of a launcher that divided the group further (cgroup v2).
                if not FreezerGroup(path, self.version).remove():
                    return False
            self.path.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def _write(self, *, is_frozen: bool) -> None:
        if self.version == 1:
            (self.path / "freezer.state").write_text("FROZEN" if is_frozen else "THAWED", encoding="ascii")
        else:
            (self.path / "cgroup.freeze").write_text("1" if is_frozen else "0", encoding="ascii")


@dataclass(frozen=True)
class Freezer:
    """Where this hub makes its groups."""

    base: Path
    version: int

    def group(self, name: str) -> FreezerGroup:
        """Return the group ``name``, which need not be there."""
        return FreezerGroup(self.base / name, self.version)

    def sweep(self) -> None:
        """Let go on, and remove, what an earlier hub left; its runners are ended already."""
        if not self.base.is_dir():
            return
        for entry in os.scandir(self.base):
            if entry.is_dir(follow_symlinks=False):
                group = self.group(entry.name)
                group.thaw()
                group.remove()

    def close(self) -> None:
        """Remove what is left of the groups, if nothing is in them any more."""
        if self.base.is_dir():
            self.sweep()
            with contextlib.suppress(OSError):
                self.base.rmdir()


def find_freezer(directory: Path) -> tuple[Freezer | None, str]:
    """Return the freezer that this process may use, made and tried; or None, and why there is none.

    ``directory`` holds the sandboxes: two hubs of one host have two, and so groups of their own.
    """
    name = _BASE_PREFIX + hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
    reasons = []
    for version in (1, 2):
        base = _own_group(Path("/proc/self"), version)
        if base is None:
            reasons.append(f"no cgroup v{version} {'freezer ' if version == 1 else ''}is mounted")
            continue
        if version == 2 and not _may_divide(base):
            reasons.append(f"systemd keeps the group {base} to itself (Delegate=yes hands it down)")
            continue
        freezer = Freezer(base / name, version)
        try:
            trial = freezer.group(f"trial{os.getpid()}")
            trial.make()
            trial.freeze()
            trial.thaw()
            trial.remove()
        except OSError as error:
            reasons.append(f"cgroup v{version}: {error.strerror or error} at {base}")
            continue
        return freezer, ""
    return None, "; ".join(reasons)


def thaw_process(pid: int, *, name: str) -> None:
    """Let a process go on that an earlier hub froze: the group that the kernel says it is in, if it is one of ``name``.

    Raises:
        OSError: the kernel refuses.
    """
    for version in (1, 2):
        parts = (_own_group(Path(f"/proc/{pid}"), version) or Path("/")).parts
        for position, part in enumerate(parts[:-1]):
            if part.startswith(_BASE_PREFIX) and parts[position + 1].startswith(f"{name}."):
                FreezerGroup(Path(*parts[: position + 2]), version).thaw()


def _own_group(process: Path, version: int) -> Path | None:
    """Return where the group of a process shows in the mounted hierarchy; None where it does not."""
    wanted = "freezer" if version == 1 else ""
    group = None
    for line in _lines(process / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if wanted in controllers.split(","):
            group = path
    for line in _lines(Path("/proc/self/mountinfo")):
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if group is None or kind != ("cgroup" if version == 1 else "cgroup2"):
            continue
        if version == 1 and "freezer" not in options.split(" ")[-1].split(","):
            continue
        _, _, _, root, point, *_ = before.split(" ")
        below = group[len(root) :] if root != "/" and (group == root or group.startswith(f"{root}/")) else group
        return Path(f"{point}{below}".rstrip("/"))
    return None


def _may_divide(group: Path) -> bool:
    """Whether a cgroup v2 group is ours to divide, and not one that systemd goes on keeping (root may write to all)."""
    return not _SYSTEMD_RUNS.exists() or any(_mark(group, name) == b"1" for name in _DELEGATE_MARKS)


def _mark(group: Path, name: str) -> bytes:
    try:
        return os.getxattr(group, name)
    except OSError:
        return b""


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []

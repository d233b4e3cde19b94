"""How much the workspace holds, and the quota that a write must fit into.

Counts what files occupy (a sparse file's holes do not) and leaves `.work/` out: outputs have a bound of their
own. What commands write by themselves is counted but not prevented. Runs in the files worker.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from guardhouse.workspace.entry import Kind
from guardhouse.workspace.errors import Code, WorkspaceRefusal, shown
from guardhouse.workspace.handle import Workspace
from guardhouse.workspace.place import WORK_DIRECTORY, Place
from guardhouse.workspace.walk import Walk

__all__ = ["Quota", "Usage", "measure"]

_FRESH_S: Final = 5.0
# A walk may take at most a fiftieth of the time: a large workspace is measured less often.
_SHARE: Final = 50


@dataclass(slots=True)
class Usage:
    """Bytes and entries (files, directories and links) in the workspace, and in its `.work/`."""

    size_bytes: int = 0
    entries: int = 0
    work_size_bytes: int = 0
    work_entries: int = 0
    problem_count: int = 0


def measure(workspace: Workspace, *, tick: Callable[[], None] = lambda: None) -> Usage:
    """Walk the workspace and add up."""
    usage = Usage()
    walk = Walk(workspace, b".", tick=tick)
    for walked in walk.entries():
        size = walked.entry.occupied if walked.entry.kind is Kind.FILE else 0
        if walked.entry.path == WORK_DIRECTORY or walked.entry.path.startswith(WORK_DIRECTORY + b"/"):
            usage.work_entries += 1
            usage.work_size_bytes += size
        else:
            usage.entries += 1
            usage.size_bytes += size
    usage.problem_count = walk.problem_count
    return usage


class Quota:
    """Admits writes while the workspace stays within its bounds; 0 is no bound."""

    def __init__(self, workspace: Workspace, *, max_bytes: int, max_entries: int) -> None:
        self._workspace = workspace.without_rules()
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._usage: Usage | None = None
        self._stale_at_monotonic_s = 0.0

    def admit(self, place: Place, size: int) -> None:
        """Raise unless ``size`` bytes may stand at ``place`` in the stead of what stands there now.

        Raises:
            WorkspaceRefusal: QUOTA.
        """
        old = place.found.st_size if place.found is not None else 0
        self.admit_growth(size - old, 0 if place.found is not None else 1, place.path)

    def admit_growth(self, more_bytes: int, more_entries: int, path: bytes) -> None:
        """Raise unless the workspace may grow so much; ``path`` is named in the refusal.

        Raises:
            WorkspaceRefusal: QUOTA.
        """
        if not (self._max_bytes or self._max_entries) or (more_bytes <= 0 and more_entries <= 0):
            return
        usage = self._current()
        if self._max_bytes and more_bytes > 0 and usage.size_bytes + more_bytes > self._max_bytes:
            raise _over(path, f"{usage.size_bytes} + {more_bytes} bytes are over {self._max_bytes}")
        if self._max_entries and more_entries > 0 and usage.entries + more_entries > self._max_entries:
            raise _over(path, f"{usage.entries} + {more_entries} files are over {self._max_entries}")
        usage.size_bytes += more_bytes
        usage.entries += more_entries

    def _current(self) -> Usage:
        began = time.monotonic()
        if self._usage is None or began >= self._stale_at_monotonic_s:
            self._usage = measure(self._workspace)
            took = time.monotonic() - began
            self._stale_at_monotonic_s = began + max(_FRESH_S, took * _SHARE)
        return self._usage


def _over(path: bytes, why: str) -> WorkspaceRefusal:
    return WorkspaceRefusal(
        f"workspace quota: {shown(path)} does not fit, {why}; remove files, or have the operator raise the quota",
        code=Code.QUOTA,
    )

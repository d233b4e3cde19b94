"""How much the workspace holds, and the quota that a write must fit into.

Counts what files occupy (a sparse file's holes do not) and leaves `.work/` out, where outputs have a bound of their
own; only unfinished uploads in it count, since they are on their way into the workspace. What commands write by
themselves is counted but not prevented. The tree is not walked for each write: what was counted is carried on, and
counted anew when it is old, and before anything is refused. Runs in the files worker.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from guardhouse.workspace.entry import Kind
from guardhouse.workspace.errors import Code, WorkspaceRefusal, shown
from guardhouse.workspace.handle import Workspace
from guardhouse.workspace.place import UPLOADS, WORK_DIRECTORY, Place
from guardhouse.workspace.walk import Walk

__all__ = ["Quota", "Usage", "measure"]

_FRESH_S: Final = 5.0
# Nothing is refused on a count older than this, or than four times the walk itself takes.
_REFUSAL_FRESH_S: Final = 0.5
_REFUSAL_SHARE: Final = 4
# A walk may take at most a fiftieth of the time: a large workspace is measured less often.
_SHARE: Final = 50


@dataclass(slots=True)
class Usage:
    """Bytes and entries (files, directories and links) in the workspace, in its `.work/`, and there in uploads."""

    size_bytes: int = 0
    entries: int = 0
    work_size_bytes: int = 0
    work_entries: int = 0
    upload_size_bytes: int = 0
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
            if walked.entry.path.startswith(UPLOADS + b"/"):
                # A part may have been sent ahead of others: what it will take counts, not what it takes.
                usage.upload_size_bytes += walked.entry.size
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
        self._counted_at_s = 0.0
        self._walk_s = 0.0

    def admit(self, place: Place, size: int, *, uploaded: int = 0) -> None:
        """Raise unless ``size`` bytes may stand at ``place`` in the stead of what stands there now.

        Args:
            uploaded: how many of them were admitted already, as parts of an upload.

        Raises:
            WorkspaceRefusal: QUOTA.
        """
        old = place.found.st_size if place.found is not None else 0
        self.admit_growth(size - old - uploaded, 0 if place.found is not None else 1, place.path)

    def admit_growth(self, more_bytes: int, more_entries: int, path: bytes) -> None:
        """Raise unless the workspace may grow so much; ``path`` is named in the refusal.

        Raises:
            WorkspaceRefusal: QUOTA.
        """
        if not (self._max_bytes or self._max_entries):
            return
        usage = self._usage
        age_s = time.monotonic() - self._counted_at_s
        if (
            usage is None
            or age_s >= max(_FRESH_S, self._walk_s * _SHARE)
            or (
                age_s >= max(_REFUSAL_FRESH_S, self._walk_s * _REFUSAL_SHARE)
                and self._excess(usage, more_bytes, more_entries) is not None
            )
        ):
            usage = self._count()
        excess = self._excess(usage, more_bytes, more_entries)
        if excess is not None:
            raise _over(path, excess)
        usage.size_bytes += more_bytes
        usage.entries += more_entries

    def _excess(self, usage: Usage, more_bytes: int, more_entries: int) -> str | None:
        held = usage.size_bytes + usage.upload_size_bytes
        if self._max_bytes and more_bytes > 0 and held + more_bytes > self._max_bytes:
            return f"{held} + {more_bytes} bytes are over {self._max_bytes}"
        if self._max_entries and more_entries > 0 and usage.entries + more_entries > self._max_entries:
            return f"{usage.entries} + {more_entries} files are over {self._max_entries}"
        return None

    def _count(self) -> Usage:
        began = time.monotonic()
        self._usage = measure(self._workspace)
        self._counted_at_s = time.monotonic()
        self._walk_s = self._counted_at_s - began
        return self._usage


def _over(path: bytes, why: str) -> WorkspaceRefusal:
    return WorkspaceRefusal(
        f"workspace quota: {shown(path)} does not fit, {why}; remove files, or have the operator raise the quota",
        code=Code.QUOTA,
    )

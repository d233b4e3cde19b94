"""Keep what a view masks masked, while the host below it changes.

A mask is a mount. Where the host replaces a masked file by renaming another over it (as ``passwd`` does with
/etc/shadow, and a daemon with its socket), the kernel takes the mount off in every mount namespace, and the new file
would show; and where the host makes a file that was not there when the view was built, nothing covers it. So before
each command what may have changed is looked at, which costs some microseconds, and covered again where it must be.

Knows masks of one view; what is masked is the plan's. Runs in init processes, in their own mount namespace.
"""

# ruff: noqa: PTH110, PTH116, PTH120 - the launcher does without pathlib
import os
import select
from typing import Final

from guardhouse.kernel import mounts
from guardhouse.sandbox.bundle import MountStep

__all__ = ["MaskWatch", "open_mount_table"]

_MOUNT_TABLE: Final = "/proc/self/mountinfo"


def open_mount_table() -> int:
    """Return a descriptor of the calling process's mount table; it goes on telling of changes after the root changed.

    Raises:
        OSError: there is no /proc.
    """
    return os.open(_MOUNT_TABLE, os.O_RDONLY | os.O_CLOEXEC)


class MaskWatch:
    """The masks of the calling process's view.

    Attributes:
        is_worn: the kernel took something off; what else of the view went with it only a fresh one shows.
    """

    def __init__(self, steps: tuple[MountStep, ...], table_fd: int) -> None:
        """Begin to watch; the view must be in place and be the root. ``table_fd`` must stay open.

        Raises:
            OSError: a directory above a mask cannot be looked at.
        """
        targets = tuple(step.target for step in steps if step.kind == "mask")
        covers = {target: status.st_dev for target in targets if (status := _empty_thing(target)) is not None}
        self._device = max(covers.values(), key=list(covers.values()).count, default=-1)
        # A later step of the plan may stand on a mask or above it (a grant, an own /run): that is not to be undone.
        self._targets = tuple(
            target for target in targets if not os.path.exists(target) or covers.get(target) == self._device
        )
        self.is_worn = False
        self._absent: frozenset[str] = frozenset()
        self._times: dict[str, int] = {}
        self._poll = select.poll()
        # Always readable; a change of the table is told as "priority" and "error": proc_pid_mountinfo(5).
        self._poll.register(table_fd, select.POLLPRI)
        self._poll.poll(0)
        self._look()

    def _look(self) -> None:
        """Note which masks have nothing to cover yet, and when the directories that would show it were last changed."""
        # The times first: what appears between the two looks is found by the next one.
        above = {_nearest(target) for target in self._targets}
        self._times = {directory: os.stat(directory).st_mtime_ns for directory in above}
        self._absent = frozenset(target for target in self._targets if not os.path.exists(target))

    def has_changed(self) -> bool:
        """Whether a mask may be off, or something to be masked may have appeared, since the last look."""
        if self._poll.poll(0):
            self.is_worn = True
            return True
        try:
            return any(os.stat(directory).st_mtime_ns != time_ns for directory, time_ns in self._times.items())
        except OSError:
            return True

    def cover_again(self) -> bool:
        """Put every mask back that is missing; return whether one was, so that the view had shown what it hides.

        Raises:
            OSError: one cannot be put back, so nothing may run in this view.
        """
        was_bare = False
        while True:
            # Before the look: what changes after it is news again. Our own mounts only bring one more look.
            self._poll.poll(0)
            self._look()
            present = [target for target in self._targets if target not in self._absent]
            bare = [target for target in present if os.stat(target).st_dev != self._device]
            if not bare:
                return was_bare
            was_bare = True
            covers = {_is_directory(target): target for target in present if target not in bare}
            root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                for target in bare:
                    _cover(root_fd, target, covers)
            finally:
                os.close(root_fd)


def _cover(root_fd: int, target: str, covers: dict[bool, str]) -> None:
    target_fd = mounts.open_in_root(root_fd, target)
    try:
        is_directory = (os.fstat(target_fd).st_mode & 0o170000) == 0o040000
        if is_directory not in covers:
            raise FileNotFoundError(f"no mask is left in this view that could cover {target!r}")
        mask = mounts.clone_tree(covers[is_directory], recursive=False)
        try:
            mounts.move_tree(mask, target_fd)
        finally:
            os.close(mask)
    finally:
        os.close(target_fd)


def _empty_thing(target: str) -> os.stat_result | None:
    """Return what stands at ``target`` if it has no permission bit, as every mask."""
    try:
        status = os.stat(target)
    except OSError:
        return None
    return status if status.st_mode & 0o7777 == 0 else None


def _is_directory(target: str) -> bool:
    return (os.stat(target).st_mode & 0o170000) == 0o040000


def _nearest(target: str) -> str:
    """Return the closest directory above ``target`` that is there."""
    while True:
        target = os.path.dirname(target) or "/"
        try:
            if target == "/" or _is_directory(target):
                return target
        except OSError:
            continue

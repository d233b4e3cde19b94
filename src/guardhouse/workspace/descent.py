"""The directories on the way down a tree, kept open: few of them, however deep the tree is.

A walk that goes depth first needs the parent of what it is at. The last ones stay open; one that was closed
is opened again from the top, name by name and never through a link, a batch at once so that a deep tree costs
no square of its depth. Runs in the files worker.
"""

import os
from typing import Final

__all__ = ["Descent"]

_KEPT: Final = 64
_FLAGS: Final = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Descent:
    """Open directories of one walk, by depth; depth 0 is ``top_fd``, which the caller owns."""

    def __init__(self, top_fd: int) -> None:
        self._top_fd = top_fd
        self._chain: list[tuple[int, int]] = []

    def directory(self, depth: int, names: bytes) -> int:
        """Return the descriptor of the directory at ``depth``; it stays this object's.

        Args:
            depth: 0 for the top; what was kept open below it is closed.
            names: its path from the top, of ``depth`` components; read only when it must be opened again.

        Raises:
            OSError: it is gone, or has become something else.
        """
        while self._chain and self._chain[-1][0] > depth:
            os.close(self._chain.pop()[1])
        if depth == 0:
            return self._top_fd
        if not self._chain or self._chain[-1][0] != depth:
            at, fd = self._chain[-1] if self._chain else (0, self._top_fd)
            for name in names.split(b"/")[at:depth]:
                fd = os.open(name, os.O_PATH | _FLAGS, dir_fd=fd)
                at += 1
                self.push(at, fd)
        return self._chain[-1][1]

    def push(self, depth: int, fd: int) -> None:
        """Take over ``fd``, the directory at ``depth``, one below the last one asked for."""
        self._chain.append((depth, fd))
        if len(self._chain) > _KEPT:
            os.close(self._chain.pop(0)[1])

    def close(self) -> None:
        """Close everything but the top."""
        while self._chain:
            os.close(self._chain.pop()[1])

"""Which files are the programs that a policy's rules name: every plain name in the trusted path, by device and inode.

A copy, a hard link in the workspace under another name, a memory file or a program of the same name elsewhere is not
in the table, whatever it calls itself. Runs in the launcher (made once) and in the exec gate's monitor (asked).
"""

# ruff: noqa: PTH116 - the launcher does without pathlib: it would double what each fork copies
import os
from collections.abc import Mapping, Sequence

__all__ = ["TrustedPrograms"]

_EXECUTABLE = 0o111


class TrustedPrograms:
    """Plain names of the files in the trusted path. A file replaced by an upgrade is looked up again when it runs."""

    def __init__(self, directories: Sequence[str]) -> None:
        self._directories = frozenset(directories) | {os.path.realpath(directory) for directory in directories}
        self._names: dict[tuple[int, int], frozenset[str]] = {}
        found: dict[tuple[int, int], set[str]] = {}
        for directory in directories:
            for name, identity in _programs_in(directory):
                found.setdefault(identity, set()).add(name)
        self._names = {identity: frozenset(names) for identity, names in found.items()}

    @property
    def names(self) -> Mapping[tuple[int, int], frozenset[str]]:
        """The whole table, for `doctor` and tests."""
        return self._names

    def names_of(self, identity: tuple[int, int], *, path: str) -> frozenset[str]:
        """Return the plain names of a file, empty when it is not in the trusted path.

        Args:
            identity: device and inode of the file that runs.
            path: where the kernel says that it is; only a hint where to look for a file that is new since the start.
        """
        known = self._names.get(identity)
        if known is not None:
            return known
        directory, _, name = path.rpartition("/")
        if directory not in self._directories or not name:
            return frozenset()
        try:
            status = os.stat(path)
        except OSError:
            return frozenset()
        if (status.st_dev, status.st_ino) != identity:
            return frozenset()
        self._names[identity] = frozenset({name})
        return self._names[identity]

    def is_trusted_directory(self, directory: str) -> bool:
        """Tell whether programs in ``directory`` go by their plain names."""
        return directory in self._directories


def _programs_in(directory: str) -> list[tuple[str, tuple[int, int]]]:
    try:
        entries = list(os.scandir(directory))
    except OSError:
        # /usr/local/sbin need not exist; what is not there cannot be run from there.
        return []
    found = []
    for entry in entries:
        try:
            status = entry.stat()
        except OSError:
            continue  # a dangling link is no program
        if status.st_mode & _EXECUTABLE and not entry.is_dir():
            found.append((entry.name, (status.st_dev, status.st_ino)))
    return found

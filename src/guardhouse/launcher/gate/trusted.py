"""Which files are the programs that a policy's rules name: every plain name in the trusted path, by device and inode.

A copy, a hard link in the workspace under another name, a memory file or a program of the same name elsewhere is not
in the table, whatever it calls itself. Runs in the launcher (made once) and in the exec gate's monitor (asked).
"""

# ruff: noqa: PTH116 - the launcher does without pathlib: it would double what each fork copies
import os
import time
from collections.abc import Mapping, Sequence
from typing import Final

from guardhouse.launcher.gate.facts import File

__all__ = ["TrustedPrograms", "is_system_file"]

_EXECUTABLE: Final = 0o111
_OTHERS_WRITE: Final = 0o022
# A command that runs unknown files one after the other must not make us read the directories for each of them.
_READ_AGAIN_AFTER_S: Final = 1.0

# Files outside every PATH that are a program of the trusted path once more: git starts itself by this one, and rules
# about git are about it.
_ALSO: Final = {"/usr/lib/git-core/git": "git", "/usr/libexec/git-core/git": "git"}

Identity = tuple[int, int]


class TrustedPrograms:
    """Plain names of the files in the trusted path.

    A file is known by device, inode and the time of its last change: when an upgrade frees an inode and the file system
    gives it to a file of the workspace, that file has another time. The directories are read again when a file
    that runs from one of them is not as it was.
    """

    def __init__(self, directories: Sequence[str]) -> None:
        self._given = tuple(directories)
        self._directories = frozenset(directories) | {os.path.realpath(directory) for directory in directories}
        self._names: dict[Identity, tuple[int, frozenset[str]]] = {}
        self._read_s = 0.0
        self._read()

    @property
    def directories(self) -> tuple[str, ...]:
        """The trusted path as it was given."""
        return self._given

    @property
    def names(self) -> Mapping[Identity, frozenset[str]]:
        """The whole table, for `doctor` and tests."""
        return {identity: names for identity, (_, names) in self._names.items()}

    def has(self, identity: Identity, changed_ns: int) -> bool:
        """Tell whether a file is in the table as it is now."""
        known = self._names.get(identity)
        return known is not None and known[0] == changed_ns

    def names_of(self, identity: Identity, *, path: str, changed_ns: int) -> frozenset[str]:
        """Return the plain names of a file, empty when it is not in the trusted path.

        Args:
            identity: device and inode of the file that runs.
            path: where the kernel says that it is; only a hint whether to look at the directories again.
            changed_ns: its st_ctime.
        """
        known = self._names.get(identity)
        if known is not None and known[0] == changed_ns:
            return known[1]
        in_trusted_directory = path.rpartition("/")[0] in self._directories or path in _ALSO
        if known is None and not in_trusted_directory:
            return frozenset()
        if time.monotonic() - self._read_s > _READ_AGAIN_AFTER_S:
            self._read()
            known = self._names.get(identity)
        # Read a moment ago, or changed once more: ask for the names that it had, and for the one it has.
        paths = [path] if in_trusted_directory else []
        if known is not None:
            paths += [f"{directory}/{name}" for directory in self._given for name in known[1]]
        names = frozenset(p.rpartition("/")[2] for p in paths if _is(p, identity, changed_ns))
        if names:
            self._names[identity] = (changed_ns, names)
        return names

    def is_trusted_directory(self, directory: str) -> bool:
        """Tell whether programs in ``directory`` go by their plain names."""
        return directory in self._directories

    def _read(self) -> None:
        found: dict[Identity, tuple[int, set[str]]] = {}
        for directory in self._given:
            for name, status in _programs_in(directory):
                identity = (status.st_dev, status.st_ino)
                found.setdefault(identity, (status.st_ctime_ns, set()))[1].add(name)
        for path, name in _ALSO.items():
            if _is_only_roots(path):
                status = os.stat(path)
                found.setdefault((status.st_dev, status.st_ino), (status.st_ctime_ns, set()))[1].add(name)
        self._names = {identity: (changed, frozenset(names)) for identity, (changed, names) in found.items()}
        self._read_s = time.monotonic()


def _is(path: str, identity: Identity, changed_ns: int) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_dev, status.st_ino, status.st_ctime_ns) == (*identity, changed_ns)


def is_system_file(file: File, path: str) -> bool:
    """Tell whether ``path`` leads to this very file, and nobody but root can change that or the file."""
    is_whole = path.startswith("/") and os.path.normpath(path) == path
    return is_whole and _is(path, file.identity, file.changed_ns) and _is_only_roots(path)


def _is_only_roots(path: str) -> bool:
    at = os.path.realpath(path)
    # The links on the way are root's as well, since the directories that hold them are.
    places = {path, at, *_directories_above(path), *_directories_above(at)}
    return all(_is_roots(place) for place in places)


def _directories_above(path: str) -> list[str]:
    found = []
    while path:
        path = path.rpartition("/")[0]
        found.append(path or "/")
    return found


def _is_roots(path: str) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return status.st_uid == 0 and not status.st_mode & _OTHERS_WRITE


def _programs_in(directory: str) -> list[tuple[str, os.stat_result]]:
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
            found.append((entry.name, status))
    return found

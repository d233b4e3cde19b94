"""Where this host cannot follow execs: which of its files a policy allows as programs, and what stays readable.

Looks at the trusted path once, at boot. What appears there later cannot be executed until the policy is loaded again.
Runs in the boot process and in the keeper.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from guardhouse.policy import Policy
from guardhouse.policy.always_allowed import is_always_allowed, is_sometimes_allowed

__all__ = ["find_allowed_files", "find_readable"]

# The shell of every command text (`commands._SHELL`), and the dynamic loaders, which every dynamic program needs; ABI
# documents of each architecture and libc.
_SHELL: Final = "bash"
# They run another program inside themselves, named by an argument, which nobody reads here: busybox(1), toybox(1).
_APPLET_HOSTS: Final = frozenset({"busybox", "toybox"})
_LOADERS: Final = (
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-musl-x86_64.so.1",
    "/lib/ld-musl-aarch64.so.1",
)


def find_allowed_files(policy: Policy, *, with_some_arguments: bool = False) -> tuple[str, ...]:
    """Return the files of the trusted path that the policy allows whatever their arguments, the shell and the loaders.

    A file that goes by several names counts only where all of them are allowed.

    Args:
        with_some_arguments: also those that it allows, or asks about, with some arguments: for where these are judged.
    """
    is_allowed = is_sometimes_allowed if with_some_arguments else is_always_allowed
    names: dict[tuple[int, int], set[str]] = {}
    paths: dict[tuple[int, int], set[str]] = {}
    for directory in policy.trusted_path:
        for name, found in _programs_in(directory):
            identity = (found.st_dev, found.st_ino)
            names.setdefault(identity, set()).add(name)
            paths.setdefault(identity, set()).update((f"{directory}/{name}", os.path.realpath(f"{directory}/{name}")))
    allowed = {
        path
        for identity, known in names.items()
        if not known & _APPLET_HOSTS and is_allowed(policy, frozenset(known), frozenset(paths[identity]))
        for path in paths[identity]
    }
    shells = [f"{directory}/{_SHELL}" for directory in policy.trusted_path if Path(directory, _SHELL).is_file()]
    return tuple(sorted({*allowed, *shells[:1], *_LOADERS}))


def find_readable(directories: Sequence[str]) -> tuple[str, ...]:
    """Return everything below ``/`` but ``directories``, in as few paths as it takes; links lead to what is listed."""
    closed = {os.path.realpath(directory) for directory in directories}
    readable: list[str] = []
    waiting = ["/"]
    while waiting:
        directory = waiting.pop()
        for entry in _entries(directory):
            path = str(Path(directory) / entry.name)
            if entry.is_symlink() or path in closed:
                continue
            if any(one.startswith(path + "/") for one in closed):
                waiting.append(path)
            else:
                readable.append(path)
    return tuple(sorted(readable))


def _programs_in(directory: str) -> list[tuple[str, os.stat_result]]:
    found = []
    for entry in _entries(directory):
        try:
            status = entry.stat()
        except OSError:
            continue  # a dangling link is no program
        if stat.S_ISREG(status.st_mode) and status.st_mode & 0o111:
            found.append((entry.name, status))
    return found


def _entries(directory: str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError:
        return []  # what is not there, or not for us, needs no rule

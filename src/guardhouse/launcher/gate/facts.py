"""What the kernel knows of a program that is about to run, or has just been loaded: facts, not claims.

At the exec event no instruction of the new program has run: `/proc/PID/exe` is the file that runs, `cmdline` the
kernel's copy of argv, `AT_EXECFN` the path that was given, which for a script with ``#!`` is the script's own. At the
entry of execve there are only the caller's words; they serve for a refusal that a shell can print and are
checked again at the event.

Judges nothing. Runs in the exec gate's monitor, outside the command's namespaces.
"""

# ruff: noqa: PTH115, PTH116 - the launcher does without pathlib: it would double what each fork copies
import errno
import os
import stat
import struct
from dataclasses import dataclass
from typing import Final

from guardhouse import limits
from guardhouse.kernel import ptrace
from guardhouse.kernel.files import RESOLVE_NO_MAGICLINKS, openat2

__all__ = ["ExecFacts", "FactsError", "File", "Script", "read_entry_facts", "read_exec_facts"]

# include/uapi/linux/auxvec.h
_AT_EXECFN: Final = 31
# include/uapi/linux/openat2.h: absolute paths and ".." stay below the given root, as in a chroot.
_RESOLVE_IN_ROOT: Final = 0x10
_PATH_MAX: Final = 4096
_DELETED: Final = " (deleted)"
# include/uapi/linux/fcntl.h
_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000


class FactsError(Exception):
    """The facts of an exec cannot be had, so it cannot be judged: it is refused. The text says which and why."""


@dataclass(frozen=True, slots=True)
class File:
    """A file that would run: its path as the kernel shows it, and which file that is."""

    path: str
    device: int
    inode: int

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode: the file itself, however it is called."""
        return (self.device, self.inode)


@dataclass(frozen=True, slots=True)
class Script:
    """A file that an interpreter reads. ``file`` is None where its path cannot be followed from outside."""

    path: str
    file: File | None


@dataclass(frozen=True, slots=True)
class ExecFacts:
    """One exec.

    Attributes:
        file: what runs; for a script, its interpreter (None at an entry, where only the script is known).
        argv: the argument vector; undecodable bytes as surrogate escapes. At the event of a script the interpreter's
            own words stand first, as the kernel put them there.
        script: the file that the interpreter was started for, None for a binary.
        is_final: read at the event, so that nothing can change it any more.
    """

    file: File
    argv: tuple[str, ...]
    script: Script | None
    is_final: bool

    @property
    def script_arguments(self) -> tuple[str, ...]:
        """The words after a script's own path."""
        if self.script is None:
            return self.argv[1:]
        if not self.is_final:
            return self.argv[1:]
        # execve(2): interpreter [optional-arg] pathname arg…
        position = 2 if len(self.argv) > 2 and self.argv[1] != self.script.path else 1
        return self.argv[position + 1 :]


def read_exec_facts(tid: int) -> ExecFacts:
    """Return the facts of the program that ``tid`` has just become, at its exec event.

    Raises:
        FactsError: one of them cannot be read.
    """
    try:
        file = _stat_file(f"/proc/{tid}/exe")
        argv = _read_argv(tid)
        given = _read_execfn(tid)
    except (OSError, ValueError) as error:
        raise FactsError(f"the program of process {tid} cannot be looked at: {error}") from error
    try:
        named = _find_in_view(tid, given, dirfd=None)
    except OSError:
        # Gone or moved since: what runs is known, what it was called by is only its text.
        named = None
    # The kernel hands a script's path to its interpreter as the first or second argument; without that it is none.
    if given not in argv[1:3] or (named is not None and named.identity == file.identity):
        return ExecFacts(file, argv, None, is_final=True)
    return ExecFacts(file, argv, Script(given, named), is_final=True)


def read_entry_facts(tid: int) -> ExecFacts:
    """Return what ``tid``, stopped at the entry of execve or execveat, asks for.

    Raises:
        FactsError: the file cannot be found or read as asked; the call would fail by itself, or is judged at the event.
    """
    try:
        entry = ptrace.exec_entry(tid)
        path = os.fsdecode(ptrace.read_string(tid, entry.path, limit_bytes=_PATH_MAX))
        words = ptrace.read_vector(
            tid, entry.argv, limit=limits.GATE_MAX_ARGUMENTS, limit_bytes=limits.GATE_MAX_ARGUMENT_BYTES
        )
        argv = tuple(os.fsdecode(word) for word in words)
        if path == "" and entry.flags & _AT_EMPTY_PATH and entry.dirfd is not None:
            found: File | None = _stat_file(f"/proc/{tid}/fd/{entry.dirfd}")
        else:
            found = _find_in_view(tid, path, dirfd=entry.dirfd)
        if found is None:
            raise FactsError(f"{path!r} leads through a magic link")
        script = Script(found.path, found) if _begins_like_a_script(tid, found) else None
    except (OSError, ValueError) as error:
        raise FactsError(f"what process {tid} wants to run cannot be looked at: {error}") from error
    return ExecFacts(found, argv, script, is_final=False)


def _stat_file(link: str) -> File:
    found = os.stat(link)
    path = os.readlink(link)
    return File(path, found.st_dev, found.st_ino)


def _read_argv(tid: int) -> tuple[str, ...]:
    with open(f"/proc/{tid}/cmdline", "rb", buffering=0) as file:
        text = file.read(limits.GATE_MAX_ARGUMENT_BYTES + 1)
        while text and len(text) <= limits.GATE_MAX_ARGUMENT_BYTES:
            more = file.read(limits.GATE_MAX_ARGUMENT_BYTES + 1 - len(text))
            if not more:
                break
            text += more
    if len(text) > limits.GATE_MAX_ARGUMENT_BYTES:
        raise ValueError(f"more than {limits.GATE_MAX_ARGUMENT_BYTES} bytes of arguments")
    if not text:
        return ()
    words = text.split(b"\0")
    if words[-1] == b"":
        words.pop()
    if len(words) > limits.GATE_MAX_ARGUMENTS:
        raise ValueError(f"more than {limits.GATE_MAX_ARGUMENTS} arguments")
    return tuple(os.fsdecode(word) for word in words)


def _read_execfn(tid: int) -> str:
    with open(f"/proc/{tid}/auxv", "rb", buffering=0) as file:
        raw = file.read(4096)
    for kind, value in struct.iter_unpack("<QQ", raw[: len(raw) // 16 * 16]):
        if kind == _AT_EXECFN:
            return os.fsdecode(ptrace.read_string(tid, value, limit_bytes=_PATH_MAX))
    raise ValueError("no AT_EXECFN in its auxiliary vector (a 32-bit program?)")


def _find_in_view(tid: int, path: str, *, dirfd: int | None) -> File | None:
    """Return the file that ``path`` names in the tracee's own view, or None where a magic link is in the way."""
    if not path:
        raise OSError(errno.ENOENT, "an empty path")
    if not path.startswith("/"):
        base = "cwd" if dirfd is None or dirfd == _AT_FDCWD else f"fd/{dirfd}"
        path = os.readlink(f"/proc/{tid}/{base}") + "/" + path
    root = os.open(f"/proc/{tid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = openat2(root, os.fsencode(path), os.O_PATH, resolve=_RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise
    finally:
        os.close(root)
    try:
        status = os.fstat(found)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EACCES, f"{path!r} is not a regular file")
        return File(os.readlink(f"/proc/self/fd/{found}"), status.st_dev, status.st_ino)
    finally:
        os.close(found)


def _begins_like_a_script(tid: int, found: File) -> bool:
    """Tell whether the kernel would take the file for a script: it begins with ``#!`` (execve(2))."""
    try:
        root = os.open(f"/proc/{tid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            opened = openat2(
                root, os.fsencode(found.path), os.O_RDONLY, resolve=_RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
            )
        finally:
            os.close(root)
    except OSError:
        # Executable but not readable: no script could be read by its interpreter either.
        return False
    try:
        return os.read(opened, 2) == b"#!"
    finally:
        os.close(opened)

"""What the kernel knows of a program that is about to run, or has just been loaded: facts, not claims.

At the exec event no instruction of the new program has run: `/proc/PID/exe` is the file that runs, its stack holds the
kernel's copy of argv and `AT_EXECFN`, the path that was given, which for a script with ``#!`` is the script's own. At
the entry of execve there are only the caller's words; they serve for a refusal that a shell can print and are
checked again at the event.

Judges nothing. Runs in the exec gate's monitor, outside the command's namespaces.
"""

# ruff: noqa: PTH115, PTH116 - the launcher does without pathlib: it would double what each fork copies
import errno
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from guardhouse import limits
from guardhouse.kernel import ptrace, tracee
from guardhouse.kernel.files import RESOLVE_NO_MAGICLINKS, openat2

__all__ = [
    "Entry",
    "ExecFacts",
    "FactsError",
    "File",
    "ForeignProgramError",
    "Image",
    "KinOf",
    "Script",
    "is_foreign",
    "read_entry",
    "read_entry_facts",
    "read_exec_facts",
    "read_image",
    "read_words",
]

# include/uapi/linux/openat2.h: absolute paths and ".." stay below the given root, as in a chroot.
_RESOLVE_IN_ROOT: Final = 0x10
_PATH_MAX: Final = 4096
_WORD_32_BYTES: Final = 4
# fs/exec.c, bprm_stack_limits: strings and pointers are at most three quarters of 8 MiB, whatever the rlimit.
_STACK_MAX_BYTES: Final = 8 * 1024 * 1024
# include/uapi/linux/binfmts.h, BINPRM_BUF_SIZE: as much of a "#!" line as the kernel reads.
_FIRST_LINE_BYTES: Final = 256
_INTERPRETERS_MAX: Final = 5  # fs/exec.c, exec_binprm: scripts whose interpreters are scripts
# include/uapi/linux/fcntl.h
_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_ELF_32: Final = b"\x7fELF\x01"  # elf(5), EI_CLASS
# elf(5), e_machine: which of them i386 programs have. EM_486 was given up before Linux ran on anything else.
_ELF_MACHINE_AT: Final = 18
_ELF_MACHINE_I386: Final = b"\x03\x00"
# A path whose text does not tell where it leads; matched by no rule but those for every path.
_UNSETTLED: Final = "/.."
_OPEN_FILE: Final = re.compile(r"/(?:dev|proc/(?:self|thread-self))/fd/([0-9]{1,10})")
# What ldd sets for the dynamic loader, see ld.so(8).
_LISTS_ONLY: Final = b"LD_TRACE_LOADED_OBJECTS="


class FactsError(Exception):
    """The facts of an exec cannot be had, so it cannot be judged: it is refused. The text says which and why."""


class ForeignProgramError(FactsError):
    """The program is of another table of system calls than the wall's filter has: it would be killed at its first."""

    def __init__(self, path: str) -> None:
        super().__init__(
            "a program of 32 bits, whose system calls the profile does not permit; build it for 64 bits, or, for i386,"
            " permit that under the profile's 'architectures'"
        )
        self.path = path


@dataclass(frozen=True, slots=True)
class File:
    """A file that would run: its path as the kernel shows it, and which file that is.

    Attributes:
        changed_ns: when its contents, names or mode last changed (st_ctime): an inode that was freed and given to
            another file has another time.
        kin: plain names of the programs that it is a copy of, for a file that is none of them.
    """

    path: str
    device: int
    inode: int
    changed_ns: int = 0
    kin: frozenset[str] = frozenset()

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode: the file itself, however it is called."""
        return (self.device, self.inode)


KinOf = Callable[[os.stat_result, str], frozenset[str]]
"""Asked for a file's status and a path at which it can be opened; returns `File.kin`."""


@dataclass(frozen=True, slots=True)
class Script:
    """A file that an interpreter reads. ``file`` is None where its path cannot be followed from outside.

    Attributes:
        is_sure: off where what runs may as well be a binary that was given this path as an argument.
        settled: the path that was given, absolute, with no link of it followed: where it is not the file's own, a link
            on the way can be turned elsewhere before the interpreter opens it. Empty for the file's own.
    """

    path: str
    file: File | None
    is_sure: bool = True
    settled: str = ""


@dataclass(frozen=True, slots=True)
class ExecFacts:
    """One exec.

    Attributes:
        file: what runs; for a script, its interpreter (None at an entry, where only the script is known).
        argv: the argument vector; undecodable bytes as surrogate escapes. At the event of a script the interpreter's
            own words stand first, as the kernel put them there.
        script: the file that the interpreter was started for, None for a binary.
        is_final: read at the event, so that nothing can change it any more.
        only_lists: its environment tells the dynamic loader to list libraries and run nothing, as `ldd` does.
    """

    file: File
    argv: tuple[str, ...]
    script: Script | None
    is_final: bool
    only_lists: bool = False

    @property
    def script_arguments(self) -> tuple[str, ...]:
        """The words after a script's own path."""
        if self.script is None or not self.is_final:
            return self.argv[1:]
        # execve(2): interpreter [optional-arg] pathname arg…
        position = 2 if len(self.argv) > 2 and self.argv[1] != self.script.path else 1
        return self.argv[position + 1 :]


class Image(NamedTuple):
    """What has just been loaded into a process, as the kernel gives it: enough to know whether it was judged before.

    Attributes:
        arguments: argv, each word with a NUL behind it.
        given: AT_EXECFN.
    """

    status: os.stat_result
    arguments: bytes
    given: bytes
    only_lists: bool


def read_image(tid: int, *, permits_i386: bool = False) -> Image:
    """Return what ``tid`` has just become, at its exec event.

    Raises:
        ForeignProgramError: a program of 32 bits, and those are not permitted.
        FactsError: it cannot be read.
    """
    try:
        status = os.stat(f"/proc/{tid}/exe")
        stack = tracee.new_stack(tid, limit_bytes=_STACK_MAX_BYTES)
    except (OSError, ValueError) as error:
        raise FactsError(f"the program of process {tid} cannot be looked at: {error}") from error
    if stack.word_bytes == _WORD_32_BYTES and not permits_i386:
        raise ForeignProgramError(_path_of_program(tid))
    environment = stack.environment
    at = environment.find(_LISTS_ONLY)
    only_lists = at >= 0 and (at == 0 or environment[at - 1] == 0) and environment[at + len(_LISTS_ONLY)] != 0
    return Image(status, stack.arguments, stack.execfn, only_lists)


def _path_of_program(tid: int) -> str:
    try:
        return os.readlink(f"/proc/{tid}/exe")
    except OSError:
        return ""


def read_exec_facts(tid: int, image: Image, kin_of: KinOf) -> ExecFacts:
    """Return the facts of the program that ``tid`` has just become, at its exec event.

    Raises:
        FactsError: one of them cannot be read.
    """
    link = f"/proc/{tid}/exe"
    try:
        file = _file(os.readlink(link), image.status, link, kin_of)
    except OSError as error:
        raise FactsError(f"the program of process {tid} cannot be looked at: {error}") from error
    argv = tuple([os.fsdecode(word) for word in image.arguments.split(b"\0")[:-1]])
    given = os.fsdecode(image.given)
    only_lists = image.only_lists
    # The kernel hands a script's path to its interpreter as the first or second argument; without that it is none.
    if given not in argv[1:3]:
        return ExecFacts(file, argv, None, is_final=True, only_lists=only_lists)
    return ExecFacts(file, argv, _script_of(tid, given, file, kin_of), is_final=True, only_lists=only_lists)


def _script_of(tid: int, given: str, file: File, kin_of: KinOf) -> Script | None:
    """Return the script that ``file`` was started for, or None where ``file`` itself is what was asked for."""
    try:
        named = _find_in_view(tid, given, dirfd=None)
    except OSError:
        # Gone or moved since: what runs is known, what it was called by is only its text.
        named = None
    if named is None:
        return Script(given, _open_file(tid, given, kin_of), is_sure=False, settled=given)
    found, status, opened = named
    try:
        if (status.st_dev, status.st_ino) == file.identity:
            return None
        # A path that led to a binary when it was executed and leads to a script now must not make the one go by the
        # other's name: what runs has to be what the script's first line asks for.
        is_sure = _leads_to(tid, opened, file)
        read = _file(found, status, f"/proc/self/fd/{opened}", kin_of)
        return Script(given, read, is_sure=is_sure, settled=_settled(tid, given, dirfd=None, found=found))
    finally:
        os.close(opened)


def _open_file(tid: int, given: str, kin_of: KinOf) -> File | None:
    """Return the file behind ``/dev/fd/N``, which is the process's own since its exec; None for any other path."""
    named = _OPEN_FILE.fullmatch(given)
    if named is None:
        return None
    try:
        return _stat_file(f"/proc/{tid}/fd/{named[1]}", kin_of)
    except OSError:
        return None


def _settled(tid: int, path: str, *, dirfd: int | None, found: str) -> str:
    """Return the absolute path that ``path`` is as text; empty where it is ``found``, so that no link was followed.

    Where a ``..`` stands behind a name, that name may be a link and the text says nothing of where it leads.
    """
    try:
        words = [word for word in _absolute(tid, path, dirfd).split("/") if word not in ("", ".")]
    except OSError:
        return _UNSETTLED
    given = [word for word in path.split("/") if word not in ("", ".")]
    leading = next((number for number, word in enumerate(given) if word != ".."), len(given))
    if ".." in given[leading:] or (path.startswith("/") and leading):
        return _UNSETTLED
    # What is left of them stands behind the working directory, which has no links in it.
    base = len(words) - len(given)
    settled = "/" + "/".join([*words[: max(0, base - leading)], *given[leading:]])
    return "" if settled == found else settled


def _absolute(tid: int, path: str, dirfd: int | None) -> str:
    if path.startswith("/"):
        return path
    base = "cwd" if dirfd is None or dirfd == _AT_FDCWD else f"fd/{dirfd}"
    return os.readlink(f"/proc/{tid}/{base}") + "/" + path


def _leads_to(tid: int, opened: int, interpreter: File) -> bool:
    """Tell whether the first line of a script, followed as the kernel does, ends at ``interpreter``."""
    descriptor = os.dup(opened)
    try:
        for _ in range(_INTERPRETERS_MAX):
            words = _first_line(_beginning(descriptor))
            if not words:
                return False
            next_one = _find_in_view(tid, words, dirfd=None)
            if next_one is None:
                return False
            os.close(descriptor)
            descriptor = next_one[2]
            if (next_one[1].st_dev, next_one[1].st_ino) == interpreter.identity:
                return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def is_foreign(begun: bytes, *, permits_i386: bool = False) -> bool:
    """Tell whether a file that begins so is a program of 32 bits, other than one of i386 where that is permitted. Pure.

    x32 programs are of 32 bits too, and of another machine's number than i386 ones.
    """
    if not begun.startswith(_ELF_32):
        return False
    return not (permits_i386 and begun[_ELF_MACHINE_AT:].startswith(_ELF_MACHINE_I386))


def _beginning(opened: int) -> bytes:
    """Return as much of a file as the kernel looks at to know what it is; empty where it cannot be read."""
    try:
        descriptor = os.open(f"/proc/self/fd/{opened}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        # Executable but not readable: no script could be read by its interpreter either.
        return b""
    try:
        return os.read(descriptor, _FIRST_LINE_BYTES)
    finally:
        os.close(descriptor)


def _first_line(begun: bytes) -> str:
    """Return the interpreter that a file's ``#!`` line names; empty where it has none. Pure."""
    if not begun.startswith(b"#!"):
        return ""
    words = begun[2:].partition(b"\n")[0].partition(b"\0")[0].replace(b"\t", b" ").split(b" ")
    return next((os.fsdecode(word) for word in words if word), "")


class Entry(NamedTuple):
    """What a tracee stopped at the entry of execve or execveat passes: its words as they are now, of either table.

    ``dirfd`` is None for execve.
    """

    path: bytes
    argv: tuple[bytes, ...]
    dirfd: int | None
    flags: int


def read_entry(tid: int, *, permits_i386: bool = False) -> Entry | None:
    """Return what ``tid``, stopped at the entry of execve or execveat, passes; None at the entry of another call.

    Args:
        permits_i386: the call may be one of the i386 table.

    Raises:
        FactsError: its memory cannot be read as that; the call would fail by itself, or is judged at the event.
    """
    try:
        entry = ptrace.exec_entry(tid, knows_i386=permits_i386)
    except (OSError, ValueError) as error:
        raise FactsError(f"what process {tid} wants to run cannot be looked at: {error}") from error
    return None if entry is None else read_words(tid, entry)


def read_words(tid: int, entry: ptrace.ExecEntry) -> Entry:
    """Return what ``tid`` passes to execve or execveat, by the addresses in its registers.

    Raises:
        FactsError: as `read_entry`.
    """
    try:
        path, words = tracee.read_path_and_words(
            tid,
            entry.path,
            entry.argv,
            path_bytes=_PATH_MAX,
            limit=limits.GATE_MAX_ARGUMENTS,
            limit_bytes=limits.GATE_MAX_ARGUMENT_BYTES,
            word_bytes=entry.word_bytes,
        )
    except (OSError, ValueError) as error:
        raise FactsError(f"what process {tid} wants to run cannot be looked at: {error}") from error
    return Entry(path, words, entry.dirfd, entry.flags)


def read_entry_facts(tid: int, entry: Entry, kin_of: KinOf, *, permits_i386: bool = False) -> ExecFacts:
    """Return what ``tid`` asks for, by the files that its words lead to now.

    Raises:
        ForeignProgramError: it is no program that could run here.
        FactsError: the file cannot be found as asked; the call would fail by itself, or is judged at the event.
    """
    argv = tuple([os.fsdecode(word) for word in entry.argv])
    try:
        if entry.path == b"" and entry.flags & _AT_EMPTY_PATH and entry.dirfd is not None:
            found = _stat_file(f"/proc/{tid}/fd/{entry.dirfd}", kin_of)
            return ExecFacts(found, argv, None, is_final=False)
        named = _find_in_view(tid, os.fsdecode(entry.path), dirfd=entry.dirfd)
        if named is None:
            raise FactsError(f"{os.fsdecode(entry.path)!r} leads through a magic link")
        path, status, opened = named
        try:
            file = _file(path, status, f"/proc/self/fd/{opened}", kin_of)
            begun = _beginning(opened)
            if is_foreign(begun, permits_i386=permits_i386):
                raise ForeignProgramError(path)
            # As the event will name it: by the path that was given, which may be a link (AT_EXECFN).
            given = os.fsdecode(entry.path)
            settled = _settled(tid, given, dirfd=entry.dirfd, found=path)
            script = Script(given, file, settled=settled) if _first_line(begun) else None
        finally:
            os.close(opened)
    except (OSError, ValueError) as error:
        raise FactsError(f"what process {tid} wants to run cannot be looked at: {error}") from error
    return ExecFacts(file, argv, script, is_final=False)


def _file(path: str, status: os.stat_result, openable: str, kin_of: KinOf) -> File:
    return File(path, status.st_dev, status.st_ino, status.st_ctime_ns, kin_of(status, openable))


def _stat_file(link: str, kin_of: KinOf) -> File:
    found = os.stat(link)
    return _file(os.readlink(link), found, link, kin_of)


def _find_in_view(tid: int, path: str, *, dirfd: int | None) -> tuple[str, os.stat_result, int] | None:
    """Return path, status and an O_PATH descriptor of what ``path`` names in the tracee's own view.

    None where a magic link is in the way; the caller closes the descriptor.
    """
    if not path:
        raise OSError(errno.ENOENT, "an empty path")
    path = _absolute(tid, path, dirfd)
    root = os.open(f"/proc/{tid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = openat2(
            root, os.fsencode(path), os.O_PATH | os.O_CLOEXEC, resolve=_RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
        )
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
        return os.readlink(f"/proc/self/fd/{found}"), status, found
    except OSError:
        os.close(found)
        raise

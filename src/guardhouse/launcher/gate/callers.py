"""What /proc tells of a process that nothing may trace: who started it, and which program it has become.

Without ptrace its memory may be closed to us (process_vm_readv(2) and /proc/PID/mem want PTRACE_MODE_ATTACH, which
kernel.yama.ptrace_scope=3 gives to nobody). What stands here wants less, see proc(5) and ptrace(2): ``exe``, ``root``,
``auxv`` and ``environ`` PTRACE_MODE_READ, ``cmdline``, ``status`` and ``stat`` nothing at all.

Judges nothing. Runs in the exec gate's monitor, outside the command's namespaces.
"""

# ruff: noqa: PTH116 - the launcher does without pathlib: it would double what each fork copies
import os
import struct
from collections.abc import Callable
from typing import Final

from guardhouse.kernel import tracee
from guardhouse.launcher.gate.facts import FactsError, Image

__all__ = ["ImageMark", "ProcessKey", "find_lineage", "find_process", "is_alive", "mark_image", "read_loaded_image"]

ProcessKey = tuple[int, int]
"""A process: its number, and when it was started in clock ticks since boot, which no later one of that number was."""

ImageMark = tuple[int, int, bytes]
"""Which program a process is: device and inode of its file, and its auxiliary vector, full of addresses of its own."""

# A command that nests deeper than this hides nothing: its programs count as started by the command's first one.
_LINEAGE_MAX: Final = 64
# The kernel makes up status, stat and auxv whole at the first read; each has less than half of this.
_SMALL_BYTES: Final = 8_192
_AT_EXECFN: Final = 31  # linux/auxvec.h
_PATH_MAX: Final = 4_096
# fs/exec.c, bprm_stack_limits: strings and pointers are at most three quarters of 8 MiB, whatever the rlimit.
_WORDS_MAX_BYTES: Final = 8 * 1024 * 1024
_ENVIRONMENT_BYTES: Final = 256 * 1024
_LISTS_ONLY: Final = b"LD_TRACE_LOADED_OBJECTS="


def find_process(tid: int) -> int:
    """Return the process that the thread ``tid`` is of.

    Raises:
        ProcessLookupError: it is gone.
    """
    for line in _read_small(f"/proc/{tid}/status").split(b"\n"):
        if line.startswith(b"Tgid:"):
            return int(line[5:])
    raise ProcessLookupError(f"thread {tid} has no process")


def find_lineage(pid: int, *, ancestor: int, is_known: Callable[[ProcessKey], bool]) -> tuple[ProcessKey, ...]:
    """Return ``pid``, its parent, that one's, and so on below ``ancestor``, up to one that is known; never empty.

    Raises:
        ProcessLookupError: it is gone.
    """
    found: list[ProcessKey] = []
    while pid not in (0, 1, ancestor) and len(found) < _LINEAGE_MAX:
        try:
            parent, started = _parent_and_start(pid)
        except ProcessLookupError:
            if not found:
                raise
            break  # its child has another parent by now, and nobody says who that was
        found.append((pid, started))
        if is_known(found[-1]):
            break
        pid = parent
    if not found:
        raise ProcessLookupError(f"process {pid} is none of a command")
    return tuple(found)


def is_alive(key: ProcessKey) -> bool:
    """Tell whether a process still exists."""
    try:
        return _parent_and_start(key[0])[1] == key[1]
    except ProcessLookupError:
        return False


def mark_image(pid: int) -> ImageMark:
    """Return which program a process is now: another mark after each exec.

    Raises:
        FactsError: it cannot be looked at.
    """
    try:
        status = os.stat(f"/proc/{pid}/exe")
        return (status.st_dev, status.st_ino, _read_small(f"/proc/{pid}/auxv"))
    except OSError as error:
        raise FactsError(f"the program of process {pid} cannot be looked at: {error}") from error


def read_loaded_image(pid: int) -> Image:
    """Return what a process has become that has just called from its C library's start.

    Raises:
        FactsError: it cannot be looked at.
    """
    try:
        status = os.stat(f"/proc/{pid}/exe")
        words = _read(f"/proc/{pid}/cmdline", _WORDS_MAX_BYTES)
        environment = _read(f"/proc/{pid}/environ", _ENVIRONMENT_BYTES)
        auxv = _read_small(f"/proc/{pid}/auxv")
    except OSError as error:
        raise FactsError(f"the program of process {pid} cannot be looked at: {error}") from error
    if len(words) >= _WORDS_MAX_BYTES:
        raise FactsError(f"process {pid} has {_WORDS_MAX_BYTES} bytes of arguments or more")
    at = environment.find(_LISTS_ONLY)
    only_lists = at >= 0 and (at == 0 or environment[at - 1] == 0) and environment[at + len(_LISTS_ONLY) :][:1] > b"\0"
    arguments = words if words.endswith(b"\0") else words + b"\0"
    return Image(status, arguments, _given_path(pid, auxv), only_lists)


def _given_path(pid: int, auxv: bytes) -> bytes:
    """Return AT_EXECFN; empty where the process's memory is closed to us."""
    for kind, address in struct.iter_unpack("=QQ", auxv[: len(auxv) // 16 * 16]):
        if kind == _AT_EXECFN:
            try:
                return tracee.read_string(pid, address, limit_bytes=_PATH_MAX)
            except OSError:
                return b""
    return b""


def _parent_and_start(pid: int) -> tuple[int, int]:
    # proc_pid_stat(5): the name stands in parentheses and may hold anything; behind it the state, then the parent, and
    # as the 22nd of all fields the time of start.
    fields = _read_small(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return int(fields[1]), int(fields[19])


def _read_small(path: str) -> bytes:
    """Return a file of /proc that one read has whole; raises as `_read`."""
    descriptor = _open(path)
    try:
        return os.read(descriptor, _SMALL_BYTES)
    finally:
        os.close(descriptor)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ProcessLookupError(*error.args) from error


def _read(path: str, limit_bytes: int) -> bytes:
    """Return a file of /proc, cut at ``limit_bytes``.

    Raises:
        ProcessLookupError: the process is gone.
        OSError: it may not be read.
    """
    descriptor = _open(path)
    try:
        pieces = [os.read(descriptor, min(limit_bytes, 65_536))]
        size = len(pieces[0])
        while pieces[-1] and size < limit_bytes:
            pieces.append(os.read(descriptor, min(limit_bytes - size, 65_536)))
            size += len(pieces[-1])
    finally:
        os.close(descriptor)
    return b"".join(pieces)

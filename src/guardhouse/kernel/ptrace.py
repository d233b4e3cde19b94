"""ptrace(2) for following a process tree: attach, stop, look, go on. x86_64 and aarch64.

Raw facts only: what stopped and why. What to do about it is decided in `guardhouse.launcher.gate`. Only the
thread that attached may call anything here for a tracee (ptrace(2)), so a monitor is a process of one thread.

Runs in the exec gate's monitor.
"""

import ctypes
import errno
import os
import resource
import signal
import struct
from dataclasses import dataclass
from enum import Enum
from typing import Final

from guardhouse.errors import SetupError
from guardhouse.kernel.syscalls import ARCHITECTURE

__all__ = [
    "ExecEntry",
    "Stop",
    "StopKind",
    "classify",
    "continue_tracee",
    "event_message",
    "exec_entry",
    "listen",
    "read_memory",
    "read_string",
    "read_vector",
    "refuse_system_call",
    "seize",
    "wait_any",
]

# include/uapi/linux/ptrace.h
_CONT: Final = 7
_GETEVENTMSG: Final = 0x4201
_GETREGSET: Final = 0x4204
_SETREGSET: Final = 0x4205
_SEIZE: Final = 0x4206
_LISTEN: Final = 0x4208

_O_TRACEFORK: Final = 1 << 1
_O_TRACEVFORK: Final = 1 << 2
_O_TRACECLONE: Final = 1 << 3
_O_TRACEEXEC: Final = 1 << 4
_O_TRACESECCOMP: Final = 1 << 7
_O_EXITKILL: Final = 1 << 20
_OPTIONS: Final = _O_TRACEFORK | _O_TRACEVFORK | _O_TRACECLONE | _O_TRACEEXEC | _O_TRACESECCOMP | _O_EXITKILL

_EVENT_FORK: Final = 1
_EVENT_VFORK: Final = 2
_EVENT_CLONE: Final = 3
_EVENT_EXEC: Final = 4
_EVENT_SECCOMP: Final = 7
_EVENT_STOP: Final = 128

# wait(2): children made by clone without SIGCHLD are waited for as well.
_WALL: Final = 0x40000000

_NT_PRSTATUS: Final = 1
_NT_ARM_SYSTEM_CALL: Final = 0x404

_GROUP_STOPS: Final = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})

_PTRACE = ctypes.CDLL(None, use_errno=True)["ptrace"]
_PTRACE.restype = ctypes.c_long
_PTRACE.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)

_READV = ctypes.CDLL(None, use_errno=True)["process_vm_readv"]
_READV.restype = ctypes.c_ssize_t
_READV.argtypes = (
    ctypes.c_long,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_ulong,
)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class StopKind(Enum):
    """Why wait(2) returned for a tracee."""

    EXITED = "exited"
    KILLED = "killed"
    NEW_CHILD = "new child"
    EXEC = "exec"
    EXEC_ENTRY = "exec entry"
    ATTACHED = "attached"
    GROUP_STOP = "group stop"
    SIGNAL = "signal"


@dataclass(frozen=True, slots=True)
class Stop:
    """One return of wait(2). ``number`` is the exit status or the signal, by ``kind``."""

    tid: int
    kind: StopKind
    number: int = 0


@dataclass(frozen=True, slots=True)
class ExecEntry:
    """Arguments of execve or execveat at its entry, as addresses in the tracee. ``dirfd`` is None for execve."""

    path: int
    argv: int
    dirfd: int | None
    flags: int


def _call(request: int, tid: int, address: int, data: int) -> int:
    result = int(_PTRACE(request, tid, address, data))
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"ptrace request {request:#x}: {os.strerror(code)}")
    return result


def seize(tid: int) -> None:
    """Attach to the thread ``tid`` without stopping it; its children are followed; it dies with this process.

    Raises:
        OSError: EPERM (Yama, another tracer, not ours to trace), ESRCH.
    """
    # SAFE: no memory of ours is named; the options are a plain number.
    _call(_SEIZE, tid, 0, _OPTIONS)


def continue_tracee(tid: int, *, deliver: int = 0) -> None:
    """Let a stopped tracee run, delivering signal ``deliver`` (0: none). A tracee that is gone is no error."""
    try:
        _call(_CONT, tid, 0, deliver)
    except ProcessLookupError:
        return


def listen(tid: int) -> None:
    """Leave a tracee in its group stop until SIGCONT, as it would be without a tracer (ptrace(2), PTRACE_LISTEN)."""
    try:
        _call(_LISTEN, tid, 0, 0)
    except ProcessLookupError:
        return


def event_message(tid: int) -> int:
    """Return the message of the event that ``tid`` stopped for: a new child's pid, or an exec's former thread id."""
    value = ctypes.c_ulong(0)
    # SAFE: the kernel writes one unsigned long to the address, and ``value`` lives until after the call.
    _call(_GETEVENTMSG, tid, 0, ctypes.addressof(value))
    return value.value


def wait_any(*, block: bool = True) -> tuple[int, int, resource.struct_rusage]:
    """Return (tid, wait status, resource usage) of any tracee or child; tid 0 when ``block`` is off and none waits.

    Raises:
        ChildProcessError: there is none left.
    """
    options = _WALL if block else _WALL | os.WNOHANG
    tid, status, usage = os.wait4(-1, options)
    return tid, status, usage


def classify(tid: int, status: int) -> Stop:
    """Say what a wait status means for a tracee attached by `seize` with these options. Pure."""
    if os.WIFEXITED(status):
        return Stop(tid, StopKind.EXITED, os.WEXITSTATUS(status))
    if os.WIFSIGNALED(status):
        return Stop(tid, StopKind.KILLED, os.WTERMSIG(status))
    event, stopped_by = status >> 16, os.WSTOPSIG(status)
    if event in (_EVENT_FORK, _EVENT_VFORK, _EVENT_CLONE):
        return Stop(tid, StopKind.NEW_CHILD)
    if event == _EVENT_EXEC:
        return Stop(tid, StopKind.EXEC)
    if event == _EVENT_SECCOMP:
        return Stop(tid, StopKind.EXEC_ENTRY)
    if event == _EVENT_STOP:
        kind = StopKind.GROUP_STOP if stopped_by in _GROUP_STOPS else StopKind.ATTACHED
        return Stop(tid, kind, stopped_by)
    return Stop(tid, StopKind.SIGNAL, stopped_by)


# struct user_regs_struct (x86_64): r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs
# eflags rsp ss fs_base gs_base ds es fs gs. struct user_pt_regs (aarch64): x0..x30 sp pc pstate.
_X86_64_WORDS: Final = 27
_X86_64: Final = {"rax": 10, "rdx": 12, "rsi": 13, "rdi": 14, "orig_rax": 15, "r10": 7, "r8": 9}
_AARCH64_WORDS: Final = 34

_EXECVE: Final = {"x86_64": 59, "aarch64": 221}.get(ARCHITECTURE, -1)
_EXECVEAT: Final = {"x86_64": 322, "aarch64": 281}.get(ARCHITECTURE, -1)


def _registers(tid: int) -> list[int]:
    words = {"x86_64": _X86_64_WORDS, "aarch64": _AARCH64_WORDS}.get(ARCHITECTURE)
    if words is None:
        raise SetupError(f"the exec gate knows no registers of {ARCHITECTURE}; use x86_64 or aarch64")
    buffer = ctypes.create_string_buffer(words * 8)
    vector = _Iovec(ctypes.addressof(buffer), len(buffer))
    # SAFE: the kernel writes at most ``vector.length`` bytes into ``buffer``; both live until after the call.
    _call(_GETREGSET, tid, _NT_PRSTATUS, ctypes.addressof(vector))
    return list(struct.unpack(f"<{words}Q", buffer.raw))


def exec_entry(tid: int) -> ExecEntry:
    """Return what a tracee stopped at the entry of execve or execveat is about to pass.

    Raises:
        OSError: the tracee is gone (ESRCH).
        SetupError: it is stopped in another system call, which the filter never traces.
    """
    words = _registers(tid)
    if ARCHITECTURE == "x86_64":
        number = words[_X86_64["orig_rax"]]
        arguments = [words[_X86_64[name]] for name in ("rdi", "rsi", "rdx", "r10", "r8")]
    else:
        number, arguments = words[8], words[:5]
    if number == _EXECVE:
        return ExecEntry(path=arguments[0], argv=arguments[1], dirfd=None, flags=0)
    if number == _EXECVEAT:
        dirfd = ctypes.c_int(arguments[0] & 0xFFFFFFFF).value
        return ExecEntry(path=arguments[1], argv=arguments[2], dirfd=dirfd, flags=arguments[4] & 0xFFFFFFFF)
    raise SetupError(f"stopped at the entry of system call {number}, which no filter of ours traces")


def refuse_system_call(tid: int, code: int) -> None:
    """Make the system call that ``tid`` is stopped at the entry of do nothing and return ``-code`` (an errno)."""
    words = _registers(tid)
    if ARCHITECTURE == "x86_64":
        words[_X86_64["orig_rax"]] = (1 << 64) - 1
        words[_X86_64["rax"]] = (1 << 64) - code
    else:
        words[0] = (1 << 64) - code
    buffer = ctypes.create_string_buffer(struct.pack(f"<{len(words)}Q", *words), len(words) * 8)
    vector = _Iovec(ctypes.addressof(buffer), len(buffer))
    # SAFE: the kernel reads ``vector.length`` bytes of ``buffer``; both live until after the call.
    _call(_SETREGSET, tid, _NT_PRSTATUS, ctypes.addressof(vector))
    if ARCHITECTURE == "aarch64":
        # The number has a register set of its own there (arch/arm64/kernel/ptrace.c, system_call_set).
        number = ctypes.c_int(-1)
        vector = _Iovec(ctypes.addressof(number), ctypes.sizeof(number))
        # SAFE: as above, four bytes.
        _call(_SETREGSET, tid, _NT_ARM_SYSTEM_CALL, ctypes.addressof(vector))


def read_memory(tid: int, address: int, length: int) -> bytes:
    """Return up to ``length`` bytes at ``address`` of the tracee: fewer where its mapping ends.

    Raises:
        OSError: EFAULT when nothing is mapped there, EPERM when the tracee may not be read.
    """
    buffer = ctypes.create_string_buffer(length)
    local = _Iovec(ctypes.addressof(buffer), length)
    remote = _Iovec(address, length)
    # SAFE: the kernel writes at most ``length`` bytes into ``buffer``; the remote address is the kernel's to check.
    got = int(_READV(tid, ctypes.addressof(local), 1, ctypes.addressof(remote), 1, 0))
    if got < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"process_vm_readv: {os.strerror(code)}")
    return buffer.raw[:got]


_PAGE: Final = 4096


def read_string(tid: int, address: int, *, limit_bytes: int) -> bytes:
    """Return the NUL-terminated string at ``address``, without its NUL.

    Raises:
        OSError: EFAULT for an unmapped address, E2BIG for a string longer than ``limit_bytes``.
    """
    collected = bytearray()
    while len(collected) <= limit_bytes:
        # Never across a page's end in one read: the next page may be unmapped and the string may end before it.
        piece = read_memory(tid, address + len(collected), _PAGE - (address + len(collected)) % _PAGE)
        end = piece.find(b"\0")
        if end >= 0:
            collected += piece[:end]
            break
        collected += piece
    if len(collected) > limit_bytes:
        raise OSError(errno.E2BIG, f"a string of more than {limit_bytes} bytes in the tracee")
    return bytes(collected)


def read_vector(tid: int, address: int, *, limit: int, limit_bytes: int) -> tuple[bytes, ...]:
    """Return the strings of a NULL-terminated pointer array (argv) of the tracee; a NULL array is empty.

    Raises:
        OSError: EFAULT, or E2BIG for more than ``limit`` strings or ``limit_bytes`` bytes in all.
    """
    if address == 0:
        return ()
    pointers: list[int] = []
    while True:
        position = address + len(pointers) * 8
        piece = read_memory(tid, position, max(8, (_PAGE - position % _PAGE) // 8 * 8))
        words = struct.unpack(f"<{len(piece) // 8}Q", piece[: len(piece) // 8 * 8])
        if not words:
            raise OSError(errno.EFAULT, "a pointer array that ends outside the tracee's memory")
        if 0 in words:
            pointers += words[: words.index(0)]
            break
        pointers += words
        if len(pointers) > limit:
            break
    if len(pointers) > limit:
        raise OSError(errno.E2BIG, f"more than {limit} arguments in the tracee")
    strings: list[bytes] = []
    left = limit_bytes
    for pointer in pointers:
        strings.append(read_string(tid, pointer, limit_bytes=left))
        left -= len(strings[-1]) + 1
        if left < 0:
            raise OSError(errno.E2BIG, f"more than {limit_bytes} bytes of arguments in the tracee")
    return tuple(strings)

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
from typing import Final, NamedTuple

from guardhouse.errors import SetupError
from guardhouse.kernel.syscalls import ARCHITECTURE

__all__ = [
    "ExecEntry",
    "Stack",
    "StopKind",
    "classify",
    "continue_tracee",
    "event_message",
    "exec_entry",
    "listen",
    "new_stack",
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
    # SAFE: the kernel writes one unsigned long to the address, which lives as long as this module.
    _call(_GETEVENTMSG, tid, 0, _MESSAGE_ADDRESS)
    return _MESSAGE.value


# Reused by every call: a monitor is one thread, and it makes these calls for every stop of every process.
_MESSAGE: Final = ctypes.c_ulong(0)
_MESSAGE_ADDRESS: Final = ctypes.addressof(_MESSAGE)


def wait_any(*, block: bool = True) -> tuple[int, int, resource.struct_rusage]:
    """Return (tid, wait status, resource usage) of any tracee or child; tid 0 when ``block`` is off and none waits.

    Raises:
        ChildProcessError: there is none left.
    """
    options = _WALL if block else _WALL | os.WNOHANG
    tid, status, usage = os.wait4(-1, options)
    return tid, status, usage


def classify(status: int) -> tuple[StopKind, int]:
    """Say what a wait status means for a tracee attached by `seize` with these options, and its exit status or signal.

    Pure.
    """
    # wait(2), <bits/waitstatus.h>: 0x7f in the low bits is a stop, 0 an exit, anything else a death by that signal.
    low = status & 0x7F
    if low == _STOPPED:
        event, stopped_by = status >> 16, status >> 8 & 0xFF
        if event == _EVENT_STOP:
            return (StopKind.GROUP_STOP if stopped_by in _GROUP_STOPS else StopKind.ATTACHED), stopped_by
        return _KIND_OF_EVENT.get(event, StopKind.SIGNAL), stopped_by
    if low == 0:
        return StopKind.EXITED, status >> 8 & 0xFF
    return StopKind.KILLED, low


_STOPPED: Final = 0x7F
_KIND_OF_EVENT: Final = {
    _EVENT_FORK: StopKind.NEW_CHILD,
    _EVENT_VFORK: StopKind.NEW_CHILD,
    _EVENT_CLONE: StopKind.NEW_CHILD,
    _EVENT_EXEC: StopKind.EXEC,
    _EVENT_SECCOMP: StopKind.EXEC_ENTRY,
}


# struct user_regs_struct (x86_64): r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs
# eflags rsp ss fs_base gs_base ds es fs gs. struct user_pt_regs (aarch64): x0..x30 sp pc pstate.
_X86_64_WORDS: Final = 27
_R10, _R8, _RAX, _RDX, _RSI, _RDI, _ORIG_RAX, _CS, _RSP = 7, 9, 10, 12, 13, 14, 15, 17, 19
_AARCH64_WORDS: Final = 34

_EXECVE: Final = {"x86_64": 59, "aarch64": 221}.get(ARCHITECTURE, -1)
_EXECVEAT: Final = {"x86_64": 322, "aarch64": 281}.get(ARCHITECTURE, -1)


_WORDS: Final = {"x86_64": _X86_64_WORDS, "aarch64": _AARCH64_WORDS}.get(ARCHITECTURE, 0)
_REGISTERS: Final = (ctypes.c_uint64 * max(1, _WORDS))()
_REGISTERS_VECTOR: Final = _Iovec(ctypes.addressof(_REGISTERS), _WORDS * 8)
_REGISTERS_VECTOR_ADDRESS: Final = ctypes.addressof(_REGISTERS_VECTOR)


def _registers(tid: int) -> "ctypes.Array[ctypes.c_uint64]":
    """Return the registers; the next call overwrites them."""
    if not _WORDS:
        raise SetupError(f"the exec gate knows no registers of {ARCHITECTURE}; use x86_64 or aarch64")
    _REGISTERS_VECTOR.length = _WORDS * 8
    # SAFE: the kernel writes at most the vector's length into the array; both live as long as this module.
    _call(_GETREGSET, tid, _NT_PRSTATUS, _REGISTERS_VECTOR_ADDRESS)
    return _REGISTERS


def exec_entry(tid: int) -> ExecEntry | None:
    """Return what a tracee stopped at the entry of execve or execveat is about to pass; None at another call.

    Raises:
        OSError: the tracee is gone (ESRCH).
    """
    words = _registers(tid)
    if ARCHITECTURE == "x86_64":
        number = words[_ORIG_RAX]
        arguments = (words[_RDI], words[_RSI], words[_RDX], words[_R10], words[_R8])
    else:
        number, arguments = words[8], (words[0], words[1], words[2], words[3], words[4])
    if number == _EXECVE:
        return ExecEntry(path=arguments[0], argv=arguments[1], dirfd=None, flags=0)
    if number == _EXECVEAT:
        dirfd = ctypes.c_int(arguments[0] & 0xFFFFFFFF).value
        return ExecEntry(path=arguments[1], argv=arguments[2], dirfd=dirfd, flags=arguments[4] & 0xFFFFFFFF)
    return None


def refuse_system_call(tid: int, code: int) -> None:
    """Make the system call that ``tid`` is stopped at the entry of do nothing and return ``-code`` (an errno)."""
    words = _registers(tid)
    if ARCHITECTURE == "x86_64":
        words[_ORIG_RAX] = (1 << 64) - 1
        words[_RAX] = (1 << 64) - code
    else:
        words[0] = (1 << 64) - code
    # SAFE: the kernel reads the vector's length of the array; both live as long as this module.
    _call(_SETREGSET, tid, _NT_PRSTATUS, _REGISTERS_VECTOR_ADDRESS)
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
    if length > _BUFFER_BYTES:
        pieces = []
        for offset in range(0, length, _BUFFER_BYTES):
            wanted = min(_BUFFER_BYTES, length - offset)
            pieces.append(read_memory(tid, address + offset, wanted))
            if len(pieces[-1]) < wanted:
                break
        return b"".join(pieces)
    # One iovec a page on the other side: a transfer is cut between iovecs, never inside one (process_vm_readv(2)), so
    # what is mapped before a hole is read and what lies behind it is not asked for.
    count = 0
    end = address + length
    while address < end:
        step = min(end, (address // _PAGE + 1) * _PAGE)
        _REMOTE[count].base = address
        _REMOTE[count].length = step - address
        count += 1
        address = step
    _LOCAL.length = length
    # SAFE: the kernel writes at most ``length`` bytes into the buffer, which is as long and lives as long as this
    # module; the remote addresses are the kernel's to check.
    got = int(_READV(tid, _LOCAL_ADDRESS, 1, _REMOTE_ADDRESS, count, 0))
    if got < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"process_vm_readv: {os.strerror(code)}")
    return ctypes.string_at(_BUFFER_ADDRESS, got)


_PAGE: Final = 4096
_BUFFER_BYTES: Final = 256 * 1024
_BUFFER: Final = ctypes.create_string_buffer(_BUFFER_BYTES)
_BUFFER_ADDRESS: Final = ctypes.addressof(_BUFFER)
_LOCAL: Final = _Iovec(_BUFFER_ADDRESS, _BUFFER_BYTES)
_LOCAL_ADDRESS: Final = ctypes.addressof(_LOCAL)
# IOV_MAX of limits.h
_IOVECS: Final = 1024
_REMOTE: Final = (_Iovec * _IOVECS)()
_REMOTE_ADDRESS: Final = ctypes.addressof(_REMOTE)


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


# How many bytes one read for many strings takes at each: most words are shorter, the others are read by themselves.
_WORD_BYTES: Final = 128


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
        piece = read_memory(tid, position, max(8, (_PAGE - position % _PAGE) // 8 * 8) if pointers else 64)
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
    for first in range(0, len(pointers), _IOVECS):
        group = pointers[first : first + _IOVECS]
        for pointer, begun in zip(group, _beginnings(tid, group), strict=True):
            end = begun.find(b"\0")
            strings.append(begun[:end] if end >= 0 else read_string(tid, pointer, limit_bytes=left))
            left -= len(strings[-1]) + 1
            if left < 0:
                raise OSError(errno.E2BIG, f"more than {limit_bytes} bytes of arguments in the tracee")
    return tuple(strings)


def _beginnings(tid: int, addresses: list[int]) -> list[bytes]:
    """Return up to `_WORD_BYTES` from each address, none of them across a page's end; empty where it cannot be read."""
    lengths = [min(_WORD_BYTES, _PAGE - address % _PAGE) for address in addresses]
    for index, address in enumerate(addresses):
        _REMOTE[index].base = address
        _REMOTE[index].length = lengths[index]
    _LOCAL.length = sum(lengths)
    # SAFE: as in `read_memory`; `_IOVECS` times `_WORD_BYTES` is less than the buffer.
    got = max(0, int(_READV(tid, _LOCAL_ADDRESS, 1, _REMOTE_ADDRESS, len(addresses), 0)))
    raw = ctypes.string_at(_BUFFER_ADDRESS, got)
    pieces: list[bytes] = []
    position = 0
    for length in lengths:
        pieces.append(raw[position : position + length] if position + length <= got else b"")
        position += length
    return pieces


class Stack(NamedTuple):
    """What the kernel puts on the stack of a new program (fs/binfmt_elf.c, create_elf_tables).

    Attributes:
        arguments: argv, each word with the NUL behind it, as one text.
        environment: the environment likewise, and AT_EXECFN behind it.
        execfn: AT_EXECFN, the path that was given to execve; None where the kernel left none.
    """

    arguments: bytes
    environment: bytes
    execfn: bytes | None

    @property
    def argv(self) -> tuple[bytes, ...]:
        """The argument vector."""
        return tuple(self.arguments.split(b"\0")[:-1])


# include/uapi/linux/auxvec.h
_AT_EXECFN: Final = 31
# A first look that holds the whole of it for an everyday environment and argument list.
_STACK_FIRST_BYTES: Final = 8 * 1024
# arch/x86/include/asm/segment.h: __USER_CS. A 32-bit program has another code segment, and words of four bytes.
_USER_CS: Final = 0x33


def new_stack(tid: int, *, limit_bytes: int) -> Stack:
    """Return argv, environment and AT_EXECFN of a tracee at its exec event, as the new program will find them.

    Args:
        limit_bytes: of the whole: pointers, strings and all.

    Raises:
        OSError: the tracee is gone (ESRCH), its stack cannot be read, or is larger (E2BIG).
        ValueError: not the stack of a 64-bit program that has just been loaded.
    """
    words = _registers(tid)
    if ARCHITECTURE == "x86_64":
        top = words[_RSP]
        if words[_CS] != _USER_CS:
            raise ValueError("a 32-bit program")
    else:
        top = words[31]
    length = _STACK_FIRST_BYTES
    while True:
        raw = read_memory(tid, top, length)
        found = _parse_stack(raw, top)
        if found is not None:
            return found
        if len(raw) < length:
            raise ValueError("the stack of the new program ends too soon")
        if length >= limit_bytes:
            raise OSError(errno.E2BIG, f"more than {limit_bytes} bytes of arguments and environment")
        length = min(length * 8, limit_bytes)


_NULL: Final = bytes(8)
_VECTOR_MAX_BYTES: Final = 1024
_STACK_MIN_BYTES: Final = 64


def _parse_stack(raw: bytes, top: int) -> Stack | None:
    """Read a stack that begins at address ``top``; None where ``raw`` ends before it does. Pure.

    argc, argv…, NULL, envp…, NULL, auxiliary vector of pairs that ends with AT_NULL; above them the strings of argv,
    then those of the environment, without gaps (fs/exec.c, copy_strings).
    """
    if len(raw) < _STACK_MIN_BYTES:
        return None
    (count,) = struct.unpack_from("<Q", raw)
    environment = 8 * (count + 2)
    # A pointer is never zero, so eight zero bytes end the list; they may begin in the zero top bytes of the last one.
    environment_end = (raw.find(_NULL, environment) + 7) // 8 * 8
    vector = environment_end + 8
    if environment > len(raw) or environment_end < environment:
        return None
    # Pairs of words: what, and its value. More than the kernel has kinds of.
    pairs = memoryview(raw)[vector : vector + _VECTOR_MAX_BYTES]
    words = pairs[: len(pairs) // 16 * 16].cast("Q").tolist()
    kinds = words[::2]
    if 0 not in kinds:
        return None
    end = kinds.index(0)
    execfn = None
    strings_end = -1
    if _AT_EXECFN in kinds[:end]:
        strings_end = words[2 * kinds.index(_AT_EXECFN) + 1] - top
        stop = raw.find(b"\0", strings_end) if strings_end >= 0 else -1
        if strings_end < 0:
            raise ValueError("AT_EXECFN below the stack of the new program")
        if stop < 0:
            return None
        execfn = raw[strings_end:stop]
    first = struct.unpack_from("<Q", raw, 8)[0] - top if count else strings_end
    has_environment = environment_end > environment
    middle = struct.unpack_from("<Q", raw, environment)[0] - top if has_environment else strings_end
    if middle >= len(raw):
        return None
    if not 0 <= first <= middle <= strings_end:
        raise ValueError("strings of the new program that are not where the kernel puts them")
    arguments = raw[first:middle]
    if arguments.count(b"\0") != count:
        raise ValueError("other arguments on the stack of the new program than it counts")
    return Stack(arguments, raw[middle:strings_end], execfn)

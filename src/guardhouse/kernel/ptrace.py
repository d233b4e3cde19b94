"""ptrace(2) for following a process tree: attach, stop, look, go on. x86_64 (with i386 programs) and aarch64.

Raw facts only: what stopped and why. What to do about it is decided in `guardhouse.launcher.gate`. Only the
thread that attached may call anything here for a tracee (ptrace(2)), so a monitor is a process of one thread.

Runs in the exec gate's monitor.
"""

import contextlib
import ctypes
import os
import signal
import struct
from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from guardhouse.errors import SetupError
from guardhouse.kernel.syscalls import ARCHITECTURE

__all__ = [
    "ExecEntry",
    "StackPointer",
    "StopKind",
    "Usage",
    "classify",
    "continue_tracee",
    "event_message",
    "exec_arguments",
    "exec_entry",
    "listen",
    "refuse_system_call",
    "seize",
    "stack_pointer",
    "wait_any",
]

# include/uapi/linux/ptrace.h
_POKEUSER: Final = 6
_CONT: Final = 7
_GETEVENTMSG: Final = 0x4201
_GETREGSET: Final = 0x4204
_SETREGSET: Final = 0x4205
_SEIZE: Final = 0x4206
_LISTEN: Final = 0x4208
_GET_SYSCALL_INFO: Final = 0x420E

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

# The calls of every stop, made without what ctypes does for safety and a monitor of one thread does not need: no lock
# to let go of, no errno to keep, no conversion of arguments. They are only ever given small numbers, which pass as C
# ints, and addresses that were wrapped once. One that fails is made again by the calls above, which say why.
_QUICK_LIBRARY = ctypes.PyDLL(None)
_QUICK_PTRACE = _QUICK_LIBRARY["ptrace"]
_QUICK_WAIT = _QUICK_LIBRARY["wait4"]


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


class ExecEntry(NamedTuple):
    """Arguments of execve or execveat at its entry, as addresses in the tracee.

    Attributes:
        dirfd: None for execve.
        word_bytes: of a pointer in ``argv``: 4 for a call of the i386 table, whoever makes it.
    """

    path: int
    argv: int
    dirfd: int | None
    flags: int
    word_bytes: int = 8


class StackPointer(NamedTuple):
    """Where the stack of a stopped tracee ends, and how many bytes a word of its code has: 8, or 4 (i386)."""

    address: int
    word_bytes: int


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
    # SAFE: no memory of ours is named.
    if _QUICK_PTRACE(_CONT, tid, 0, deliver) == -1:
        with contextlib.suppress(ProcessLookupError):
            _call(_CONT, tid, 0, deliver)


def listen(tid: int) -> None:
    """Leave a tracee in its group stop until SIGCONT, as it would be without a tracer (ptrace(2), PTRACE_LISTEN)."""
    try:
        _call(_LISTEN, tid, 0, 0)
    except ProcessLookupError:
        return


def event_message(tid: int) -> int:
    """Return the message of the event that ``tid`` stopped for: a new child's pid, or an exec's former thread id."""
    # SAFE: the kernel writes one unsigned long to the address, which lives as long as this module.
    if _QUICK_PTRACE(_GETEVENTMSG, tid, 0, _MESSAGE_POINTER) == -1:
        _call(_GETEVENTMSG, tid, 0, _MESSAGE_ADDRESS)
    return _MESSAGE.value


# Reused by every call: a monitor is one thread, and it makes these calls for every stop of every process.
_MESSAGE: Final = ctypes.c_ulong(0)
_MESSAGE_ADDRESS: Final = ctypes.addressof(_MESSAGE)
_MESSAGE_POINTER: Final = ctypes.byref(_MESSAGE)


class Usage:
    """CPU time and memory of the tracee that `wait_any` returned last, named as getrusage(2) names them.

    The next call overwrites them.
    """

    __slots__ = ()

    @property
    def ru_utime(self) -> float:
        """Seconds in user mode."""
        return _RUSAGE[0] + _RUSAGE[1] / 1_000_000

    @property
    def ru_stime(self) -> float:
        """Seconds in the kernel."""
        return _RUSAGE[2] + _RUSAGE[3] / 1_000_000

    @property
    def ru_maxrss(self) -> int:
        """The largest resident set, in KiB."""
        return _RUSAGE[4]


_STATUS: Final = ctypes.c_int(0)
_STATUS_POINTER: Final = ctypes.byref(_STATUS)
# struct rusage of getrusage(2): two struct timeval, then fourteen longs of which the first is ru_maxrss in KiB.
_RUSAGE: Final = (ctypes.c_long * 18)()
_RUSAGE_POINTER: Final = ctypes.byref(_RUSAGE)
_USAGE: Final = Usage()
_NOT_BLOCKING: Final = _WALL | os.WNOHANG


def wait_any(*, block: bool = True) -> tuple[int, int, Usage]:
    """Return (tid, wait status, resource usage) of any tracee or child; tid 0 when ``block`` is off and none waits.

    Raises:
        ChildProcessError: there is none left.
    """
    # Not os.wait4, which imports a module and makes sixteen objects for every stop.
    while True:
        # SAFE: the kernel writes one int and one struct rusage, which live as long as this module.
        tid = _QUICK_WAIT(-1, _STATUS_POINTER, _WALL if block else _NOT_BLOCKING, _RUSAGE_POINTER)
        if tid != -1:
            return tid, _STATUS.value, _USAGE
        try:
            # Without taking anything, to learn why: none is left, or a signal came in between.
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WSTOPPED | os.WNOWAIT | os.WNOHANG | _WALL)
        except ChildProcessError:
            raise
        except OSError as error:
            raise OSError(error.errno, f"wait4: {error.strerror}") from error


def classify(status: int) -> tuple[StopKind, int]:
    """Say what a wait status means for a tracee attached by `seize` with these options, and its exit status or signal.

    Pure.
    """
    # There are few of them, and every stop asks.
    known = _CLASSIFIED.get(status)
    if known is None:
        known = _CLASSIFIED[status] = _classify(status)
    return known


_CLASSIFIED: Final[dict[int, tuple[StopKind, int]]] = {}


def _classify(status: int) -> tuple[StopKind, int]:
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
_AARCH64_SP: Final = 31
# struct user_regs_struct32 (arch/x86/include/asm/user32.h): ebx ecx edx esi edi ebp eax ds es fs gs orig_eax eip cs
# eflags esp ss.
_I386_WORDS: Final = 17
_ESP: Final = 15
_I386_LAYOUT: Final = struct.Struct(f"<{_I386_WORDS}I")

_EXECVE: Final = {"x86_64": 59, "aarch64": 221}.get(ARCHITECTURE, -1)
_EXECVEAT: Final = {"x86_64": 322, "aarch64": 281}.get(ARCHITECTURE, -1)


_WORDS: Final = {"x86_64": _X86_64_WORDS, "aarch64": _AARCH64_WORDS}.get(ARCHITECTURE, 0)
# Read and written as bytes: unpacking them at once is quicker than asking an array for each.
_REGISTERS: Final = bytearray(8 * max(1, _WORDS))
_REGISTERS_IN_C: Final = (ctypes.c_char * len(_REGISTERS)).from_buffer(_REGISTERS)
_REGISTERS_LAYOUT: Final = struct.Struct(f"<{max(1, _WORDS)}Q")
_REGISTERS_VECTOR: Final = _Iovec(ctypes.addressof(_REGISTERS_IN_C), _WORDS * 8)
_REGISTERS_VECTOR_ADDRESS: Final = ctypes.addressof(_REGISTERS_VECTOR)
_REGISTERS_VECTOR_POINTER: Final = ctypes.byref(_REGISTERS_VECTOR)


def _registers(tid: int) -> tuple[int, ...]:
    """Return the registers, and leave them in `_REGISTERS`; of code of 32 bits that code's own, which are fewer.

    Raises:
        ValueError: code of 32 bits of another architecture than i386.
    """
    if not _WORDS:
        raise SetupError(f"the exec gate knows no registers of {ARCHITECTURE}; use x86_64 or aarch64")
    _REGISTERS_VECTOR.length = _WORDS * 8
    # SAFE: the kernel writes at most the vector's length into the array; both live as long as this module.
    if _QUICK_PTRACE(_GETREGSET, tid, _NT_PRSTATUS, _REGISTERS_VECTOR_POINTER) == -1:
        _call(_GETREGSET, tid, _NT_PRSTATUS, _REGISTERS_VECTOR_ADDRESS)
    # The kernel gives the registers of the code segment that runs, and says how long they are (user_regset_view).
    if _REGISTERS_VECTOR.length == _WORDS * 8:
        return _REGISTERS_LAYOUT.unpack(_REGISTERS)
    if ARCHITECTURE == "x86_64" and _REGISTERS_VECTOR.length == _I386_LAYOUT.size:
        return _I386_LAYOUT.unpack_from(_REGISTERS)
    raise ValueError("registers of a program of 32 bits")


def exec_entry(tid: int, *, knows_i386: bool = False) -> ExecEntry | None:
    """Return what a tracee stopped at the entry of execve or execveat is about to pass; None at another call.

    Args:
        knows_i386: the tracee's filter lets calls of the i386 table through. Which table a call is of cannot be told
            from registers: code of 64 bits can make one of 32 (``int 0x80``). Needs Linux 5.3.

    Raises:
        OSError: the tracee is gone (ESRCH), or an older kernel (EIO).
        ValueError: code of 32 bits of aarch64.
    """
    if knows_i386:
        return _exec_entry_of_any_table(tid)
    words = _registers(tid)
    if ARCHITECTURE == "x86_64":
        if len(words) != _X86_64_WORDS:
            return None  # code of 32 bits, whose calls the filter kills for before anybody is asked
        number = words[_ORIG_RAX]
        arguments = (words[_RDI], words[_RSI], words[_RDX], words[_R10], words[_R8])
    else:
        number, arguments = words[8], (words[0], words[1], words[2], words[3], words[4])
    return exec_arguments(number, arguments)


def exec_arguments(number: int, arguments: Sequence[int]) -> ExecEntry | None:
    """Return what the words in the registers mean to execve or execveat; None for another call. Pure."""
    if number == _EXECVE:
        return ExecEntry(arguments[0], arguments[1], None, 0)
    if number == _EXECVEAT:
        dirfd = ctypes.c_int(arguments[0] & 0xFFFFFFFF).value
        return ExecEntry(arguments[1], arguments[2], dirfd, arguments[4] & 0xFFFFFFFF)
    return None


# struct ptrace_syscall_info: what kind of stop, the architecture of the call's table, two addresses; then for a stop by
# a filter the number, six arguments, and the filter's data.
_SYSCALL_INFO: Final = struct.Struct("<BxxxIQQQ6QI")
_SYSCALL_INFO_BY_FILTER: Final = 3
_INFO: Final = (ctypes.c_char * 96)()
_INFO_ADDRESS: Final = ctypes.addressof(_INFO)
# linux/audit.h; numbers of arch/x86/entry/syscalls/syscall_32.tbl.
_AUDIT_ARCH_I386: Final = 0x40000003
_I386_EXECVE: Final = 11
_I386_EXECVEAT: Final = 358


def _exec_entry_of_any_table(tid: int) -> ExecEntry | None:
    # SAFE: the kernel writes at most the given size into the buffer, which lives as long as this module.
    got = _call(_GET_SYSCALL_INFO, tid, ctypes.sizeof(_INFO), _INFO_ADDRESS)
    kind, architecture, _at, _stack, number, *arguments = _SYSCALL_INFO.unpack_from(_INFO.raw)[:11]
    if got < _SYSCALL_INFO.size or kind != _SYSCALL_INFO_BY_FILTER:
        return None
    execve, execveat, word_bytes = _EXECVE, _EXECVEAT, 8
    if architecture == _AUDIT_ARCH_I386:
        # The kernel takes the low 32 bits of each, whatever a 64-bit process has above them.
        arguments = [argument & 0xFFFFFFFF for argument in arguments]
        execve, execveat, word_bytes = _I386_EXECVE, _I386_EXECVEAT, 4
    if number == execve:
        return ExecEntry(arguments[0], arguments[1], None, 0, word_bytes)
    if number == execveat:
        dirfd = ctypes.c_int(arguments[0] & 0xFFFFFFFF).value
        return ExecEntry(arguments[1], arguments[2], dirfd, arguments[4] & 0xFFFFFFFF, word_bytes)
    return None


def refuse_system_call(tid: int, code: int) -> None:
    """Make the system call that ``tid`` is stopped at the entry of do nothing and return ``-code`` (an errno)."""
    if ARCHITECTURE == "x86_64":
        # Two registers by themselves: a whole set of those that code of 32 bits has would take with it what it lacks,
        # where that is code of a process of 64 bits.
        for index, value in ((_ORIG_RAX, -1), (_RAX, -code)):
            # SAFE: no memory of ours is named; ctypes passes the number as the pointer of so many bits.
            _call(_POKEUSER, tid, 8 * index, value)
        return
    words = list(_registers(tid))
    words[0] = (1 << 64) - code
    _REGISTERS_LAYOUT.pack_into(_REGISTERS, 0, *words)
    # SAFE: the kernel reads the vector's length of the array, which is what it wrote; both live as long as this module.
    _call(_SETREGSET, tid, _NT_PRSTATUS, _REGISTERS_VECTOR_ADDRESS)
    # The number has a register set of its own there (arch/arm64/kernel/ptrace.c, system_call_set).
    number = ctypes.c_int(-1)
    vector = _Iovec(ctypes.addressof(number), ctypes.sizeof(number))
    # SAFE: as above, four bytes.
    _call(_SETREGSET, tid, _NT_ARM_SYSTEM_CALL, ctypes.addressof(vector))


# arch/x86/include/asm/segment.h: __USER_CS, __USER32_CS.
_USER_CS: Final = 0x33
_USER_32_CS: Final = 0x23
_CS_32: Final = 13


def stack_pointer(tid: int) -> StackPointer:
    """Return where the stack of a stopped tracee ends.

    Raises:
        OSError: the tracee is gone (ESRCH).
        ValueError: in neither of the code segments that the kernel gives to programs, or a 32-bit program of aarch64.
    """
    words = _registers(tid)
    if ARCHITECTURE != "x86_64":
        return StackPointer(words[_AARCH64_SP], 8)
    if len(words) == _I386_WORDS and words[_CS_32] == _USER_32_CS:
        return StackPointer(words[_ESP], 4)
    if len(words) == _X86_64_WORDS and words[_CS] == _USER_CS:
        return StackPointer(words[_RSP], 8)
    raise ValueError("a code segment that no program begins in")

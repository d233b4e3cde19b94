"""Which call of the i386 table is which of x86_64's: reviewed data, and the rules that follow from it.

A kernel for x86_64 serves a second table, to programs of 32 bits and to any process that executes ``int 0x80``. Its
numbers mean other calls. A profile that permits it (`architectures:`) lets through exactly those i386 calls that stand
here and whose x86_64 counterpart it lets through, under the same conditions. What stands in no table here is refused,
whatever it is called.

Sources: arch/x86/entry/syscalls/syscall_32.tbl and the compat entry points that it names (Linux 6.18), net/compat.c,
ipc/compat.c. The kernel takes the low 32 bits of each argument, whatever a 64-bit process left above them
(arch/x86/include/asm/syscall_wrapper.h, SC_IA32_REGS_TO_ARGS), so conditions look at those alone.

Pure. Runs at boot and in the CLI.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from guardhouse.sandbox.profile import Answer, CallRule, Condition, Reason

__all__ = ["MULTIPLEXED", "REFUSED", "RENAMED", "SAME", "i386_answers", "i386_rules"]

# The same call under the same name: every argument that a condition may look at stands in the same place and means the
# same (or the call has no such argument). Structures behind pointers may be those of 32 bits; no condition sees them.
# fmt: off
SAME: Final = frozenset({
    # processes, threads, programs
    "arch_prctl", "capget", "capset", "clone", "clone3", "execve", "execveat", "exit", "exit_group", "fork",
    "get_robust_list", "getegid", "geteuid", "getgid", "getgroups", "getpgid", "getpgrp", "getpid", "getppid",
    "getresgid", "getresuid", "getsid", "gettid", "getuid", "membarrier", "personality", "pidfd_open",
    "pidfd_send_signal", "prctl", "rseq", "set_robust_list", "set_tid_address", "setfsgid", "setfsuid", "setgid",
    "setgroups", "setpgid", "setregid", "setresgid", "setresuid", "setreuid", "setsid", "setuid", "vfork", "wait4",
    "waitid",
    # signals and time
    "alarm", "clock_getres", "clock_gettime", "clock_nanosleep", "getitimer", "gettimeofday", "kill", "nanosleep",
    "pause", "restart_syscall", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn",
    "rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo", "setitimer", "sigaltstack", "signalfd", "signalfd4",
    "tgkill", "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime",
    "timerfd_create", "timerfd_gettime", "timerfd_settime", "times", "tkill",
    # memory
    "brk", "get_mempolicy", "madvise", "mbind", "memfd_create", "mincore", "mlock", "mlock2", "mlockall", "mprotect",
    "mremap", "msync", "munlock", "munlockall", "munmap", "pkey_alloc", "pkey_free", "pkey_mprotect",
    "remap_file_pages", "set_mempolicy",
    # waiting
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd", "eventfd2",
    "futex", "futex_waitv", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "poll", "ppoll",
    "pselect6", "select",
    # files
    "access", "chdir", "chmod", "chown", "close", "close_range", "copy_file_range", "creat", "dup", "dup2", "dup3",
    "faccessat", "faccessat2", "fadvise64", "fallocate", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown",
    "fchownat", "fcntl", "fdatasync", "fgetxattr", "flistxattr", "flock", "fremovexattr", "fsetxattr", "fstat",
    "fstatfs", "fsync", "ftruncate", "futimesat", "getcwd", "getdents", "getdents64", "getxattr", "ioctl", "lchown",
    "lgetxattr", "link", "linkat", "listxattr", "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lstat", "mkdir",
    "mkdirat", "mknod", "mknodat", "open", "openat", "openat2", "pipe", "pipe2", "pread64", "preadv", "preadv2",
    "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readlink", "readlinkat", "readv", "removexattr",
    "rename", "renameat", "renameat2", "rmdir", "sendfile", "setxattr", "splice", "stat", "statfs", "statx",
    "symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "tee", "truncate", "umask", "unlink", "unlinkat",
    "utime", "utimensat", "utimes", "write", "writev",
    # sockets and System V, by calls of their own (Linux 4.3 and 5.1); POSIX message queues
    "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recvfrom", "recvmmsg",
    "recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown", "socket", "socketpair",
    "msgctl", "msgget", "msgrcv", "msgsnd", "semctl", "semget", "shmat", "shmctl", "shmdt", "shmget",
    "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink",
    # limits, scheduling, questions
    "getcpu", "getpriority", "getrandom", "getrlimit", "getrusage", "ioprio_get", "ioprio_set", "prlimit64",
    "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam",
    "sched_getscheduler", "sched_rr_get_interval", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "setpriority", "setrlimit", "sysfs", "sysinfo", "syslog", "uname", "ustat",
})
# fmt: on

_IDS: Final = (
    *("chown", "fchown", "lchown", "getegid", "geteuid", "getgid", "getgroups", "getresgid", "getresuid", "getuid"),
    *("setfsgid", "setfsuid", "setgid", "setgroups", "setregid", "setresgid", "setresuid", "setreuid", "setuid"),
)
_LARGE: Final = ("fcntl", "fstat", "fstatfs", "ftruncate", "lstat", "sendfile", "stat", "statfs", "truncate")
_TIME_64: Final = (
    *("clock_getres", "clock_nanosleep", "futex", "mq_timedreceive", "mq_timedsend", "ppoll", "pselect6", "recvmmsg"),
    *("rt_sigtimedwait", "sched_rr_get_interval", "semtimedop", "utimensat"),
)

# i386 name -> x86_64 name, where i386 has the same call under another one, or a further form of it.
RENAMED: Final[Mapping[str, str]] = MappingProxyType(
    {
        **{f"{name}32": name for name in _IDS},  # ids of 32 bits instead of 16
        **{f"{name}64": name for name in _LARGE},  # offsets of 64 bits
        **{f"{name}_time64": name for name in _TIME_64},  # seconds of 64 bits (Linux 5.1)
        "clock_gettime64": "clock_gettime",
        "timer_gettime64": "timer_gettime",
        "timer_settime64": "timer_settime",
        "timerfd_gettime64": "timerfd_gettime",
        "timerfd_settime64": "timerfd_settime",
        "_llseek": "lseek",
        "_newselect": "select",
        "fadvise64_64": "fadvise64",
        "fstatat64": "newfstatat",
        "mmap2": "mmap",  # the offset in pages; the flags stand where mmap of x86_64 has them
        "nice": "setpriority",
        "sigaction": "rt_sigaction",
        "sigpending": "rt_sigpending",
        "sigprocmask": "rt_sigprocmask",
        "sigreturn": "rt_sigreturn",  # the end of every handler that was set without SA_SIGINFO
        "sigsuspend": "rt_sigsuspend",
        "ugetrlimit": "getrlimit",
        "waitpid": "wait4",
        # The thread pointer: a data segment of the caller's own (arch/x86/kernel/tls.c, tls_desc_okay, takes no other),
        # which clone(CLONE_SETTLS) sets as well. modify_ldt, which could set more, has no counterpart in any profile.
        "get_thread_area": "arch_prctl",
        "set_thread_area": "arch_prctl",
    }
)

# Calls that are many in one, by their first argument (linux/net.h, linux/ipc.h): which operation is which call of
# x86_64. The operation's own arguments lie in memory, where no filter can look, so only those are let through whose
# counterpart is allowed under every argument.
MULTIPLEXED: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "socketcall": {
            "SYS_SOCKET": "socket",
            "SYS_BIND": "bind",
            "SYS_CONNECT": "connect",
            "SYS_LISTEN": "listen",
            "SYS_ACCEPT": "accept",
            "SYS_GETSOCKNAME": "getsockname",
            "SYS_GETPEERNAME": "getpeername",
            "SYS_SOCKETPAIR": "socketpair",
            "SYS_SEND": "sendto",
            "SYS_RECV": "recvfrom",
            "SYS_SENDTO": "sendto",
            "SYS_RECVFROM": "recvfrom",
            "SYS_SHUTDOWN": "shutdown",
            "SYS_SETSOCKOPT": "setsockopt",
            "SYS_GETSOCKOPT": "getsockopt",
            "SYS_SENDMSG": "sendmsg",
            "SYS_RECVMSG": "recvmsg",
            "SYS_ACCEPT4": "accept4",
            "SYS_RECVMMSG": "recvmmsg",
            "SYS_SENDMMSG": "sendmmsg",
        },
        "ipc": {
            "SEMOP": "semop",
            "SEMGET": "semget",
            "SEMCTL": "semctl",
            "SEMTIMEDOP": "semtimedop",
            "MSGSND": "msgsnd",
            "MSGRCV": "msgrcv",
            "MSGGET": "msgget",
            "MSGCTL": "msgctl",
            "SHMAT": "shmat",
            "SHMDT": "shmdt",
            "SHMGET": "shmget",
            "SHMCTL": "shmctl",
        },
    }
)

# Calls that i386 has under the name of a call that profiles allow, and that stay refused.
REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "mmap": "its flags lie in memory (struct mmap_arg_struct), so huge pages could be had; libc calls mmap2",
    }
)

# Values of an argument that i386 has in another form, by name of the call of x86_64 and of the argument.
_VALUES: Final[Mapping[tuple[str, str], Mapping[str, tuple[str, ...]]]] = MappingProxyType(
    {
        # F_GETLK64 and its like: the same locks, with offsets of 64 bits.
        ("fcntl", "cmd"): {
            "F_GETLK": ("F_GETLK", "F_GETLK64"),
            "F_SETLK": ("F_SETLK", "F_SETLK64"),
            "F_SETLKW": ("F_SETLKW", "F_SETLKW64"),
        },
        # The size of a long is part of the number.
        ("ioctl", "request"): {
            "FS_IOC_GETFLAGS": ("FS_IOC32_GETFLAGS",),
            "BLKGETSIZE64": ("BLKGETSIZE64_32",),
        },
    }
)

_PLACE: Final = "src/guardhouse/sandbox/i386_calls.py"


def i386_rules(allow: Sequence[CallRule]) -> tuple[CallRule, ...]:
    """Return what ``allow``, the rules of a filter for x86_64, permits of the i386 table; unsorted."""
    return (*_plain(allow), *_multiplexed(allow))


def i386_answers(answers: Sequence[Answer]) -> tuple[Answer, ...]:
    """Return those of ``answers``, which are for x86_64, whose call i386 has as well."""
    return tuple([answer for answer in answers if answer.call in SAME])


def _plain(allow: Sequence[CallRule]) -> Iterator[CallRule]:
    forms: dict[str, list[str]] = {name: [name] for name in SAME}
    for name, counterpart in RENAMED.items():
        forms.setdefault(counterpart, []).append(name)
    for rule in allow:
        for name in forms.get(rule.call, ()):
            conditions = tuple([_translated(rule.call, condition) for condition in rule.conditions])
            yield replace(rule, call=name, conditions=conditions)


def _translated(call: str, condition: Condition) -> Condition:
    forms = _VALUES.get((call, condition.arg))
    if forms is None or not condition.any_of:
        return condition
    return replace(condition, any_of=tuple([form for name in condition.any_of for form in forms.get(name, (name,))]))


def _multiplexed(allow: Sequence[CallRule]) -> Iterator[CallRule]:
    free = {rule.call for rule in allow if not rule.conditions}
    for name, operations in MULTIPLEXED.items():
        permitted = tuple([operation for operation, counterpart in operations.items() if counterpart in free])
        if permitted:
            why = "operations whose counterpart is allowed under every argument; theirs cannot be seen"
            yield CallRule(name, (Condition("call", any_of=permitted),), Reason(why, _PLACE))

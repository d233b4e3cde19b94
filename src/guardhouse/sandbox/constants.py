"""Names of kernel constants that a profile may use in conditions, and where each call keeps its arguments.

Data writes names, never numbers; this table is the only place where they meet. Values are those of the kernel's
UAPI headers (named at each block); a test compiles them against the headers of the machine. They are the same on
x86_64 and aarch64; a name whose value differs between the two does not belong here.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["ARGUMENTS", "CONSTANTS", "CONSTANT_SETS"]

_VALUES: Final = {
    # linux/sched.h
    "CLONE_NEWTIME": 0x80,
    "CLONE_PTRACE": 0x2000,
    "CLONE_THREAD": 0x10000,
    "CLONE_NEWNS": 0x20000,
    "CLONE_UNTRACED": 0x800000,
    "CLONE_NEWCGROUP": 0x2000000,
    "CLONE_NEWUTS": 0x4000000,
    "CLONE_NEWIPC": 0x8000000,
    "CLONE_NEWUSER": 0x10000000,
    "CLONE_NEWPID": 0x20000000,
    "CLONE_NEWNET": 0x40000000,
    # asm-generic/ioctls.h, asm-generic/ioctl.h; terminals and descriptors
    "TCGETS": 0x5401,
    "TCSETS": 0x5402,
    "TCSETSW": 0x5403,
    "TCSETSF": 0x5404,
    "TCGETS2": 0x802C542A,
    "TCSBRK": 0x5409,
    "TCXONC": 0x540A,
    "TCFLSH": 0x540B,
    "TIOCEXCL": 0x540C,
    "TIOCNXCL": 0x540D,
    "TIOCSCTTY": 0x540E,
    "TIOCGPGRP": 0x540F,
    "TIOCSPGRP": 0x5410,
    "TIOCOUTQ": 0x5411,
    "TIOCSTI": 0x5412,
    "TIOCGWINSZ": 0x5413,
    "TIOCSWINSZ": 0x5414,
    "FIONREAD": 0x541B,
    "TIOCLINUX": 0x541C,
    "TIOCCONS": 0x541D,
    "FIONBIO": 0x5421,
    "TIOCNOTTY": 0x5422,
    "TIOCSETD": 0x5423,
    "TIOCGETD": 0x5424,
    "TIOCGSID": 0x5429,
    "TIOCGPTN": 0x80045430,
    "TIOCSPTLCK": 0x40045431,
    "TIOCGPTLCK": 0x80045439,
    "TIOCGPTPEER": 0x5441,
    "FIONCLEX": 0x5450,
    "FIOCLEX": 0x5451,
    "FIOASYNC": 0x5452,
    "FIOQSIZE": 0x5460,
    # linux/fs.h, linux/fiemap.h
    "FS_IOC_GETFLAGS": 0x80086601,
    "FS_IOC_FIEMAP": 0xC020660B,
    "FICLONE": 0x40049409,
    "FICLONERANGE": 0x4020940D,
    "FIDEDUPERANGE": 0xC0189436,
    "BLKROGET": 0x125E,
    "BLKGETSIZE": 0x1260,
    "BLKSSZGET": 0x1268,
    "BLKPBSZGET": 0x127B,
    "BLKGETSIZE64": 0x80081272,
    # linux/sockios.h
    "SIOCGSTAMP": 0x8906,
    "SIOCGIFNAME": 0x8910,
    "SIOCGIFCONF": 0x8912,
    "SIOCGIFFLAGS": 0x8913,
    "SIOCSIFFLAGS": 0x8914,
    "SIOCGIFADDR": 0x8915,
    "SIOCGIFDSTADDR": 0x8917,
    "SIOCGIFBRDADDR": 0x8919,
    "SIOCGIFNETMASK": 0x891B,
    "SIOCGIFMETRIC": 0x891D,
    "SIOCGIFMTU": 0x8921,
    "SIOCGIFHWADDR": 0x8927,
    "SIOCGIFINDEX": 0x8933,
    "SIOCGIFTXQLEN": 0x8942,
    "SIOCETHTOOL": 0x8946,
    "SIOCGIFMAP": 0x8970,
    # linux/prctl.h
    "PR_SET_PDEATHSIG": 1,
    "PR_GET_PDEATHSIG": 2,
    "PR_GET_DUMPABLE": 3,
    "PR_SET_DUMPABLE": 4,
    "PR_GET_KEEPCAPS": 7,
    "PR_SET_KEEPCAPS": 8,
    "PR_SET_NAME": 15,
    "PR_GET_NAME": 16,
    "PR_GET_SECCOMP": 21,
    "PR_SET_SECCOMP": 22,
    "PR_CAPBSET_READ": 23,
    "PR_CAPBSET_DROP": 24,
    "PR_GET_TSC": 25,
    "PR_GET_SECUREBITS": 27,
    "PR_SET_SECUREBITS": 28,
    "PR_SET_TIMERSLACK": 29,
    "PR_GET_TIMERSLACK": 30,
    "PR_SET_MM": 35,
    "PR_SET_CHILD_SUBREAPER": 36,
    "PR_GET_CHILD_SUBREAPER": 37,
    "PR_SET_NO_NEW_PRIVS": 38,
    "PR_GET_NO_NEW_PRIVS": 39,
    "PR_GET_TID_ADDRESS": 40,
    "PR_SET_THP_DISABLE": 41,
    "PR_GET_THP_DISABLE": 42,
    "PR_CAP_AMBIENT": 47,
    "PR_CAP_AMBIENT_IS_SET": 1,
    "PR_GET_SPECULATION_CTRL": 52,
    "PR_SET_SPECULATION_CTRL": 53,
    "PR_SET_VMA": 0x53564D41,
    "PR_SET_PTRACER": 0x59616D61,
    # linux/socket.h, linux/net.h
    "AF_UNIX": 1,
    "AF_INET": 2,
    "AF_INET6": 10,
    "AF_NETLINK": 16,
    "SOCK_STREAM": 1,
    "SOCK_DGRAM": 2,
    "SOCK_RAW": 3,
    "SOCK_SEQPACKET": 5,
    "SOCK_NONBLOCK": 0x800,
    "SOCK_CLOEXEC": 0x80000,
    "MSG_FASTOPEN": 0x20000000,
    # linux/fs.h
    "RENAME_WHITEOUT": 4,
    # linux/netlink.h
    "NETLINK_ROUTE": 0,
    "NETLINK_SOCK_DIAG": 4,
    "NETLINK_AUDIT": 9,
    "NETLINK_KOBJECT_UEVENT": 15,
    "NETLINK_GENERIC": 16,
    # linux/in.h, linux/in6.h
    "IPPROTO_IP": 0,
    "IPPROTO_ICMP": 1,
    "IPPROTO_TCP": 6,
    "IPPROTO_UDP": 17,
    "IPPROTO_ICMPV6": 58,
    # linux/stat.h
    "S_ISGID": 0x400,
    "S_ISUID": 0x800,
    "S_IFIFO": 0x1000,
    "S_IFREG": 0x8000,
    "S_IFSOCK": 0xC000,
    "S_IFMT": 0xF000,
    # asm-generic/fcntl.h (__O_TMPFILE: O_TMPFILE without the O_DIRECTORY bit, which differs by architecture)
    "O_WRONLY": 1,
    "O_RDWR": 2,
    "O_CREAT": 64,
    "O_TRUNC": 0x200,
    "O_APPEND": 0x400,
    "__O_TMPFILE": 0x400000,
    # linux/seccomp.h
    "SECCOMP_IOCTL_NOTIF_RECV": 0xC0502100,
    "SECCOMP_IOCTL_NOTIF_SEND": 0xC0182101,
    # linux/personality.h
    "PER_LINUX": 0,
    "PERSONALITY_QUERY": 0xFFFFFFFF,
    # kernel/printk: actions of syslog(2), man page syslog(2)
    "SYSLOG_ACTION_READ_ALL": 3,
    "SYSLOG_ACTION_SIZE_UNREAD": 9,
    "SYSLOG_ACTION_SIZE_BUFFER": 10,
}

CONSTANTS: Final[Mapping[str, int]] = MappingProxyType(_VALUES)

CONSTANT_SETS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        # Every CLONE_NEW* of clone(2) as of Linux 6.18. CLONE_NEWTIME shares its bit with the exit signal of clone
        # (CSIGNAL) and cannot be asked for there, so it is not among them.
        "NAMESPACE_FLAGS": (
            "CLONE_NEWNS",
            "CLONE_NEWCGROUP",
            "CLONE_NEWUTS",
            "CLONE_NEWIPC",
            "CLONE_NEWUSER",
            "CLONE_NEWPID",
            "CLONE_NEWNET",
        ),
        "SET_ID_BITS": ("S_ISUID", "S_ISGID"),
        "SOCKET_FLAGS": ("SOCK_NONBLOCK", "SOCK_CLOEXEC"),
        "CREATING_FLAGS": ("O_CREAT", "__O_TMPFILE"),
        # Whatever makes an open file more than something to read.
        "WRITING_FLAGS": ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND", "__O_TMPFILE"),
    }
)

# Position of the named arguments that conditions may speak of; from the man page of each call.
ARGUMENTS: Final[Mapping[str, Mapping[str, int]]] = MappingProxyType(
    {
        "chmod": {"mode": 1},
        "clone": {"flags": 0},
        "creat": {"mode": 1},
        "fchmod": {"mode": 1},
        "fchmodat": {"mode": 2},
        "fchmodat2": {"mode": 2},
        "ioctl": {"request": 1},
        "mknod": {"mode": 1},
        "mknodat": {"mode": 2},
        "open": {"flags": 1, "mode": 2},
        "openat": {"flags": 2, "mode": 3},
        "personality": {"persona": 0},
        "prctl": {"option": 0, "arg2": 1},
        "prlimit64": {"pid": 0},
        "renameat2": {"flags": 4},
        "sendmmsg": {"flags": 3},
        "sendmsg": {"flags": 2},
        "sendto": {"flags": 3},
        "socket": {"domain": 0, "type": 1, "protocol": 2},
        "socketpair": {"domain": 0, "type": 1, "protocol": 2},
        "syslog": {"type": 0},
        "unshare": {"flags": 0},
    }
)

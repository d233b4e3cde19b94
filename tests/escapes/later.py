"""Attacks that were thought of later: pid 1 of the own namespace, memory that no limit counts, sweeps of settings.

Same form and placeholders as in `table.py`.
"""

# ruff: noqa: E501 - a row is one line of thought; broken script text reads worse

from .table import CLOSED, EACCES, EINVAL, ENOENT, EPERM, EROFS, HOST, Attack

__all__ = ["LATER"]

_PROCESS = "return os.getppid() >= 0"
# Opens whatever can be opened for writing below a directory, and writes nothing.
_SWEEP = """got = []
    for top, directories, files in os.walk({top!r}):
        if top == "/proc": directories[:] = [name for name in directories if not name.isdigit() and name not in ("self", "thread-self")]
        for name in files:
            try:
                os.close(os.open(top + "/" + name, os.O_WRONLY | os.O_NONBLOCK)); got.append(name)
            except OSError: continue
    if got: return got[:5]
    raise PermissionError(errno.EACCES, "")"""
_FILES_OF_A_PROCESS = """got = []
    for name in ("autogroup", "clear_refs", "comm", "coredump_filter", "gid_map", "loginuid", "mem", "oom_adj", "oom_score_adj", "projid_map", "sched", "setgroups", "timens_offsets", "timerslack_ns", "uid_map", "attr/current", "attr/exec"):
        try:
            open_for_writing("/proc/%s/" + name); got.append(name)
        except OSError: continue
    if got: return got
    raise PermissionError(errno.EACCES, "")"""
_INSIDE_OF_THREADS = """got = []
    for thread in os.listdir("/proc/%s/task"):
        for name, act in (("environ", read_some), ("mem", read_some), ("maps", read_some), ("auxv", read_some), ("stack", read_some), ("syscall", read_some), ("io", read_some), ("root", os.readlink), ("cwd", os.readlink), ("exe", os.readlink), ("ns/mnt", os.readlink), ("fd", os.listdir), ("fdinfo", os.listdir)):
            try:
                act("/proc/%s/task/" + thread + "/" + name); got.append(name)
            except OSError: continue
    if got: return got
    raise PermissionError(errno.EACCES, "")"""
_NETLINK = 's = socket.socket(16, 3, 0); s.send(%s); code = struct.unpack_from("i", s.recv(4096), 16)[0]\n    if code: raise OSError(-code, "")\n    return 0'


def _number(x86: int, arm: int) -> str:
    return f'({arm} if platform.machine() == "aarch64" else {x86})'


def _pid_one() -> list[Attack]:
    """Under an ordinary user's launcher it has the account of the command, and it serves the next command too."""
    slice_ = 'struct.pack("IIQiIQQQ", 48, 0, 0, 0, 0, 100000, 0, 0)'
    queued = 'struct.pack("iii", 17, 0, -1) + bytes(116)'
    return [
        Attack("io-priority-of-pid-one", 'return call("ioprio_set", 1, 1, 3 << 13)', (EPERM,), 'return call("ioprio_set", 1, 0, 3 << 13)'),
        Attack("slice-of-pid-one", f"return raw_number({_number(314, 274)}, 1, {slice_}, 0)", (EPERM,), f"return raw_number({_number(314, 274)}, 0, {slice_}, 0)"),
        Attack("nice-of-every-thread-of-pid-one", 'return [os.setpriority(os.PRIO_PROCESS, int(name), 5) for name in os.listdir("/proc/1/task")]', (EPERM, "ESRCH"), "return os.setpriority(os.PRIO_PROCESS, 0, 5)", profiles=("isolate",)),
        Attack("scheduler-of-pid-one", "return os.sched_setscheduler(1, os.SCHED_BATCH, os.sched_param(0))", (EPERM,), "return os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))"),
        Attack("processors-of-pid-one", "return os.sched_setaffinity(1, {min(os.sched_getaffinity(0))})", (EPERM,), "return os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"),
        Attack("stop-pid-one", "return os.kill(1, 19)", (EPERM,), "return os.kill(os.getpid(), 0)"),
        Attack("end-pid-one", "return os.kill(1, 9)", (EPERM,), "return os.kill(os.getpid(), 0)"),
        Attack("child-signals-to-pid-one", "return [os.kill(1, 17) for _ in range(100)][0]", (EPERM,), "return os.kill(os.getpid(), 17)"),
        Attack("queue-to-pid-one", f"return raw_number({_number(129, 138)}, 1, 17, {queued})", (EPERM,), f"return raw_number({_number(129, 138)}, os.getpid(), 17, {queued})"),
        Attack("program-of-pid-one", 'return open_for_writing("/proc/1/exe")', (EACCES, EPERM, ENOENT, EROFS, "ETXTBSY"), 'return read_start("/proc/self/exe")'),
        Attack("files-of-pid-one-for-writing", _FILES_OF_A_PROCESS.replace("%s", "1"), (EACCES,), 'open("/tmp/own-3", "w").close(); return open_for_writing("/tmp/own-3")', profiles=("isolate",)),
        Attack("inside-of-the-threads-of-pid-one", _INSIDE_OF_THREADS.replace("%s", "1"), (EACCES,), _INSIDE_OF_THREADS.replace("%s", "self"), profiles=("isolate",)),
    ]  # fmt: skip


def _memory() -> list[Attack]:
    """Huge pages that a host reserves are counted by no memory limit: whoever asks first has them."""
    mapped = 'LIBC.mmap.restype = ctypes.c_long; address = LIBC.mmap(ctypes.c_void_p(0), ctypes.c_size_t(2 << 20), 3, %s, -1, ctypes.c_long(0))\n    if address == -1: raise OSError(ctypes.get_errno(), "")\n    return address'
    return [
        Attack("huge-pages", mapped % "0x40022", (EPERM,), mapped % "0x22"),
        Attack("huge-pages-of-a-gigabyte", mapped % "0x78040022", (EPERM,), mapped % "0x22"),
        Attack("huge-pages-with-high-bits", f"return raw_number({_number(9, 222)}, 0, 2 << 20, 3, (1 << 32) | 0x40022, -1, 0)", (EPERM,), mapped % "0x22"),
        Attack("memory-file-of-huge-pages", 'return os.memfd_create("x", 4)', (EPERM,), 'return os.memfd_create("x", 1)'),
        Attack("poison-a-page", "import mmap; return mmap.mmap(-1, 4096).madvise(100, 0, 4096)", (EPERM, EINVAL), "import mmap; return mmap.mmap(-1, 4096).madvise(4, 0, 4096)"),
        Attack("take-a-page-offline", "import mmap; return mmap.mmap(-1, 4096).madvise(101, 0, 4096)", (EPERM, EINVAL), "import mmap; return mmap.mmap(-1, 4096).madvise(4, 0, 4096)"),
    ]  # fmt: skip


def _settings() -> list[Attack]:
    writable = 'open("/tmp/own-%d", "w").close(); ' + _SWEEP.format(top="/tmp").replace("%", "%%")
    return [
        Attack("every-setting-in-sys", _SWEEP.format(top="/sys"), (EACCES,), writable % 1, profiles=HOST),
        Attack("every-setting-in-proc", _SWEEP.format(top="/proc"), (EACCES,), writable % 2),
        Attack("notes-of-the-kernel", 'return read_some("/sys/kernel/notes")', (EACCES, ENOENT), 'return read_some("/sys/kernel/uevent_seqnum")', profiles=HOST),
        Attack("crash-information-of-the-kernel", 'return read_some("/sys/kernel/vmcoreinfo")', (EACCES, ENOENT), 'return read_some("/sys/kernel/uevent_seqnum")', profiles=HOST),
        Attack("entropy-count", 'import fcntl; return fcntl.ioctl(os.open("/dev/urandom", os.O_RDWR), 0x40045201, struct.pack("i", 1))', (EPERM,), 'return open_for_writing("/dev/urandom")'),
        Attack("file-system-user-id-of-root", f'raw_number({_number(122, 151)}, 0)\n    if raw_number({_number(122, 151)}, -1) != 0: raise PermissionError(errno.EPERM, "")\n    return 0', (EPERM,), f"return raw_number({_number(122, 151)}, os.getuid())"),
        Attack("rename-the-workspace", 'return os.rename(os.getcwd(), os.path.dirname(os.getcwd()) + "/elsewhere")', ("EBUSY", EACCES, EROFS, EPERM), 'os.mkdir("here"); os.rename("here", "there"); return os.rmdir("there")'),
        Attack("rename-the-private-tmp", 'return os.rename("/tmp", "/tmp-elsewhere")', ("EBUSY", EACCES, EROFS, EPERM), 'os.mkdir("/tmp/here"); os.rename("/tmp/here", "/tmp/there"); return os.rmdir("/tmp/there")'),
        Attack("mode-of-the-root", 'return os.chmod("/", 0o777)', (EPERM, EROFS, EACCES), 'return os.chmod(os.getcwd(), 0o755)', profiles=CLOSED),
    ]  # fmt: skip


def _network() -> list[Attack]:
    asked = 'struct.pack("IHHII", 36, 88, 5, 1, 0) + bytes(4) + struct.pack("HHI", 8, 1, 0xffffffff) + struct.pack("HHI", 8, 2, os.getpid())'
    moved = 'struct.pack("IHHII", 40, 16, 5, 1, 0) + bytes(16) + struct.pack("HHI", 8, 19, 1)'
    links = 's = socket.socket(16, 3, 0); s.send(struct.pack("IHHII", 32, 18, 0x301, 1, 0) + bytes(16)); return len(s.recv(4096))'
    return [
        Attack("number-of-a-network-namespace", _NETLINK % asked, (EPERM,), links, profiles=HOST),
        Attack("interface-into-another-namespace", _NETLINK % moved, (EPERM,), links, profiles=HOST),
        Attack("packet-filter-of-the-host", "return socket.socket(2, 2).getsockopt(0, 64, 84)", (EPERM, "ENOPROTOOPT"), "return socket.socket(2, 2).getsockopt(1, 8)", profiles=HOST),
    ]  # fmt: skip


def _ends() -> list[Attack]:
    """What a command leaves to pid 1 while it still runs."""
    return [
        Attack("child-of-pid-one-untraced", 'return call("clone", 0x8000 | CLONE["untraced"] | SIGCHLD, 0, 0, 0, 0)', (EPERM,), _PROCESS),
    ]  # fmt: skip


LATER: tuple[Attack, ...] = (*_pid_one(), *_memory(), *_settings(), *_network(), *_ends())

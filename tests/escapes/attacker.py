"""What every attack script can use: raw system calls by name, and one way to say what came of it.

This text is put before each script of `table.py` and runs inside the sandbox under the host's own python3, or
outside for the twin. Standard library only. Prints one line: ``GOT detail`` or ``ERR ERRNO``.
"""

# ruff: noqa: F401 - the scripts that follow this text use them

import ctypes
import errno
import os
import platform
import socket
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
_X86, _ARM = 0, 1
_COLUMN = _ARM if platform.machine() == "aarch64" else _X86
# Numbers of Linux 6.18: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h.
NUMBERS = {
    "acct": (163, 89), "add_key": (248, 217), "adjtimex": (159, 171), "bpf": (321, 280), "capset": (126, 91),
    "chroot": (161, 51), "clock_adjtime": (305, 266), "clock_settime": (227, 112), "clone": (56, 220),
    "clone3": (435, 435), "delete_module": (176, 106), "execveat": (322, 281), "fanotify_init": (300, 262),
    "fchmodat2": (452, 452), "finit_module": (313, 273), "fsmount": (432, 432), "fsopen": (430, 430),
    "fspick": (433, 433), "futex_wake": (454, 454), "getpid": (39, 172), "init_module": (175, 105),
    "io_setup": (206, 0), "io_uring_setup": (425, 425), "ioctl": (16, 29), "ioprio_set": (251, 30),
    "kcmp": (312, 272), "kexec_file_load": (320, 294), "kexec_load": (246, 104), "keyctl": (250, 219),
    "listmount": (458, 458), "lookup_dcookie": (212, 18), "memfd_secret": (447, 447), "migrate_pages": (256, 238),
    "mknodat": (259, 33), "mount": (165, 40), "mount_setattr": (442, 442), "move_mount": (429, 429),
    "move_pages": (279, 239), "mseal": (462, 462), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "open_tree": (428, 428), "openat2": (437, 437),
    "perf_event_open": (298, 241), "personality": (135, 92), "pidfd_getfd": (438, 438), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "pivot_root": (155, 41), "prctl": (157, 167), "process_madvise": (440, 440),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "ptrace": (101, 117), "quotactl": (179, 60),
    "reboot": (169, 142), "request_key": (249, 218), "seccomp": (317, 277), "sendto": (44, 206),
    "set_mempolicy_home_node": (450, 450), "setdomainname": (171, 162), "sethostname": (170, 161),
    "setns": (308, 268), "settimeofday": (164, 170), "statmount": (457, 457), "swapoff": (168, 225),
    "swapon": (167, 224), "syslog": (103, 116), "tgkill": (234, 131), "umount2": (166, 39), "unshare": (272, 97),
    "userfaultfd": (323, 282), "vhangup": (153, 58), "vmsplice": (278, 75),
    # x86_64 only
    "iopl": (172, 0), "ioperm": (173, 0), "modify_ldt": (154, 0), "uselib": (134, 0), "create_module": (174, 0),
    "_sysctl": (156, 0), "nfsservctl": (180, 42), "mknod": (133, 0),
}  # fmt: skip

CLONE = {
    "time": 0x80, "ptrace": 0x2000, "mount": 0x20000, "untraced": 0x800000, "cgroup": 0x2000000, "uts": 0x4000000,
    "ipc": 0x8000000, "user": 0x10000000, "pid": 0x20000000, "net": 0x40000000,
}  # fmt: skip
SIGCHLD = 17
AT_FDCWD = -100


def call(name, *arguments):
    """Make the raw system call; return its result or raise OSError with its errno."""
    words = [
        ctypes.c_long(argument)
        if isinstance(argument, int)
        else argument
        if not isinstance(argument, str)
        else argument.encode()
        for argument in arguments
    ]
    result = LIBC.syscall(ctypes.c_long(NUMBERS[name][_COLUMN]), *words)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def raw_number(number, *arguments):
    """As `call`, by number; bytes are passed as they are."""
    words = [argument if isinstance(argument, bytes) else ctypes.c_long(argument) for argument in arguments]
    result = LIBC.syscall(ctypes.c_long(number), *words)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def clone(flags):
    """Clone by raw system call; the child ends at once and the parent waits for it."""
    pid = call("clone", flags, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "cloned"


def in_child(function):
    """Run ``function`` in a forked child and return its exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
        except OSError as error:
            os._exit(error.errno % 256)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status > 0:
        raise OSError(status, os.strerror(status))
    return status


def open_for_writing(path):
    """Open without writing a byte: enough to know, and harms nothing where it succeeds."""
    descriptor = os.open(path, os.O_WRONLY)
    os.close(descriptor)
    return path


def read_start(path):
    """Read a few bytes."""
    with open(path, "rb") as file:
        return len(file.read(64))


def _session(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[3]


def sweep(names, act):
    """Try ``act`` on each of ``names`` of every process that is not of this command; fail unless one succeeds."""
    got = []
    own = _session("self")
    for pid in os.listdir("/proc"):
        try:
            if not pid.isdigit() or _session(pid) == own:
                continue
        except OSError:
            continue
        for name in names:
            try:
                act(f"/proc/{pid}/{name}")
                got.append((pid, name))
            except OSError:
                continue
    if got:
        return got[:5]
    raise PermissionError(errno.EACCES, "")


def read_some(path):
    """Read what is there; a kernel thread's empty map is nothing."""
    if not read_start(path):
        raise FileNotFoundError(errno.ENOENT, path)
    return path


def set_limit(number, soft, hard):
    """Set a limit of this process's; Python calls a refusal a wrong value."""
    import resource

    try:
        return resource.setrlimit(number, (soft, hard))
    except ValueError as error:
        raise PermissionError(errno.EPERM, str(error)) from None


def run_machine_code(code):
    """Execute bytes in this process."""
    import mmap

    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return ctypes.CFUNCTYPE(ctypes.c_long)(address)()


def program(words, text=""):
    """Run a program to its end; it was refused where it fails, whatever it says about that."""
    import subprocess

    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False, timeout=15)
    if done.returncode:
        raise PermissionError(errno.EACCES, done.stderr)
    return done.stdout[:60]


def private_mounts():
    """For twins outside: a mount namespace of one's own, so that what succeeds touches nobody."""
    call("unshare", CLONE["mount"])
    call("mount", "none", "/", 0, 0x4000 | (1 << 18), 0)


def report(function):
    """Run the attack and print what came of it."""
    try:
        result = function()
    except OSError as error:
        print(f"ERR {errno.errorcode.get(error.errno or 0, error.errno)}", flush=True)
    except MemoryError:
        print("ERR ENOMEM", flush=True)
    else:
        print(f"GOT {result!r}", flush=True)

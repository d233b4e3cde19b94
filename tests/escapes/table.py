"""The attacks, one a row, each with the twin that must succeed.

An attack is the body of a Python function; `attacker.py` stands before it. It runs behind the wall and must end
with one of ``refused``: an errno, or ``SIGSYS`` when the kernel kills it. The twin shows that the attack would have
been able to succeed: the same body outside (as root, harmless by its arguments), or a neighbouring permitted act
inside. Placeholders: ``{victim}`` a host process of the command's own account, ``{host_socket}`` a listening unix
socket of the host, ``{abstract}`` an abstract one, ``{abstract_datagram}`` one for datagrams, ``{port}`` a listening TCP port on the host's loopback,
``{secret}`` a file of the account in the host's /tmp, ``{host_file}`` one beside the system's own, ``{marker}`` a name
beside that one that does not exist yet, ``{shm_file}`` and ``{shm_key}`` shared memory of the account.
"""

# ruff: noqa: E501 - a row is one line of thought; broken script text reads worse

from dataclasses import dataclass

EPERM, EACCES, ENOENT, EROFS, ENOSYS, EINVAL = "EPERM", "EACCES", "ENOENT", "EROFS", "ENOSYS", "EINVAL"
ALL = ("isolate", "observe", "operate")
CLOSED = ("isolate", "observe")
HOST = ("observe", "operate")
X86 = ("x86_64",)


# Bombs of `newer.py`.
_ALONE = frozenset(
    {
        "shm-inodes",
        "var-tmp-space",
        "inotify-instances",
        "message-queues",
        "pending-signals",
        "priority-of-the-whole-account",
    }
)


@dataclass(frozen=True, slots=True)
class Attack:
    """One row.

    Attributes:
        refused: what an attempt must end with, any of them.
        twin: a body; ``""`` for the same body.
        where: ``outside`` (as this test's user, needs root), ``inside`` (same sandbox) or ``outside_private`` (in a
            mount namespace of its own).
        twin_ends: prefixes, one of which the twin's line must have.
        machines: where the attack makes sense.
    """

    name: str
    body: str
    refused: tuple[str, ...]
    twin: str = ""
    where: str = "inside"
    twin_ends: tuple[str, ...] = ("GOT",)
    profiles: tuple[str, ...] = ALL
    machines: tuple[str, ...] = ("x86_64", "aarch64")

    @property
    def alone(self) -> bool:
        """Whether it needs a sandbox of its own: it counts or fills what the others share."""
        return self.name in {
            "inherited-descriptors",
            "launcher-environment",
            "descriptors",
            "tmp-inodes",
            "tmp-space",
            *_ALONE,
        }


def _calls_with_harmless_arguments() -> list[Attack]:
    """Calls that are denied outright; outside, the same arguments are refused for another reason or do nothing."""
    rows = [
        ("ptrace-traceme", 'return call("ptrace", 0, 0, 0, 0)', ("GOT",)),
        (
            "perf-event-open",
            'return call("perf_event_open", 0, 0, -1, -1, 0)',
            ("ERR EFAULT", "ERR EINVAL", "ERR ENOENT", "ERR ENOSYS"),
        ),
        ("bpf", 'return call("bpf", 99, 0, 0)', ("ERR EINVAL", "ERR ENOSYS")),
        ("userfaultfd", 'return call("userfaultfd", 0xffff)', ("ERR EINVAL", "ERR ENOSYS")),
        ("io-uring", 'return call("io_uring_setup", 0, 0)', ("ERR EFAULT", "ERR EINVAL", "ERR ENOSYS")),
        ("keyctl", 'return call("keyctl", 0, -3, 0)', ("GOT", "ERR ENOKEY", "ERR ENOSYS")),
        ("add-key", 'return call("add_key", "user", "guardhouse", 0, 0, 0)', ("ERR EINVAL", "ERR ENOSYS")),
        ("request-key", 'return call("request_key", "user", "guardhouse-none", 0, 0)', ("ERR ENOKEY", "ERR ENOSYS")),
        ("memfd-secret", 'return call("memfd_secret", 0xffff)', ("ERR EINVAL", "ERR ENOSYS")),
        ("kexec-load", 'return call("kexec_load", 0, 0, 0, 0xff)', ("ERR EINVAL", "ERR ENOSYS", "ERR EPERM")),
        (
            "kexec-file-load",
            'return call("kexec_file_load", -1, -1, 0, 0, 0xff)',
            ("ERR EINVAL", "ERR ENOSYS", "ERR EPERM"),
        ),
        (
            "init-module",
            'return call("init_module", 0, 0, 0)',
            ("ERR ENOEXEC", "ERR EFAULT", "ERR ENOSYS", "ERR EINVAL"),
        ),
        ("finit-module", 'return call("finit_module", -1, 0, 0)', ("ERR EBADF", "ERR ENOSYS")),
        ("delete-module", 'return call("delete_module", "guardhouse_none", 0)', ("ERR ENOENT", "ERR ENOSYS")),
        ("quotactl", 'return call("quotactl", 0x7fffff00, "/none", 0, 0)', ("ERR EINVAL", "ERR ENOENT", "ERR ENOSYS")),
        ("swapon", 'return call("swapon", "/guardhouse-none", 0)', ("ERR ENOENT", "ERR ENOSYS")),
        ("swapoff", 'return call("swapoff", "/guardhouse-none")', ("ERR ENOENT", "ERR ENOSYS")),
        ("reboot", 'return call("reboot", 0, 0, 0, 0)', ("ERR EINVAL",)),
        ("acct", 'return call("acct", "/guardhouse-none")', ("ERR ENOENT", "ERR ENOSYS")),
        ("clock-settime", 'return call("clock_settime", 99, 0)', ("ERR EINVAL",)),
        ("settimeofday", 'return call("settimeofday", struct.pack("qq", 0, -1), 0)', ("ERR EINVAL",)),
        ("adjtimex", 'return call("adjtimex", ctypes.create_string_buffer(256))', ("GOT",)),
        ("clock-adjtime", 'return call("clock_adjtime", 0, ctypes.create_string_buffer(256))', ("GOT",)),
        ("sethostname", 'return call("sethostname", "x", -1)', ("ERR EINVAL",)),
        ("setdomainname", 'return call("setdomainname", "x", -1)', ("ERR EINVAL",)),
        (
            "open-by-handle-at",
            'return call("open_by_handle_at", -1, struct.pack("II", 999, 0), 0)',
            ("ERR EBADF", "ERR EINVAL"),
        ),
        (
            "name-to-handle-at",
            'return call("name_to_handle_at", -100, "/", struct.pack("II", 0, 0), ctypes.create_string_buffer(8), 0)',
            ("ERR EOVERFLOW", "ERR EOPNOTSUPP"),
        ),
        ("fanotify-init", 'return call("fanotify_init", 0xffffffff, 0)', ("ERR EINVAL", "ERR ENOSYS")),
        ("vmsplice", 'return call("vmsplice", -1, 0, 0, 0)', ("ERR EBADF", "GOT")),
        ("migrate-pages", 'return call("migrate_pages", 0, 0, 0, 0)', ("GOT", "ERR EINVAL", "ERR ENOSYS")),
        ("move-pages", 'return call("move_pages", 0, 0, 0, 0, 0, 0)', ("GOT", "ERR ENOSYS")),
        ("process-vm-readv", 'return call("process_vm_readv", os.getpid(), 0, 0, 0, 0, 0)', ("GOT",)),
        ("process-vm-writev", 'return call("process_vm_writev", os.getpid(), 0, 0, 0, 0, 0)', ("GOT",)),
        (
            "process-madvise",
            'return call("process_madvise", -1, 0, 0, 0, 0)',
            ("ERR EBADF", "ERR EINVAL", "ERR ENOSYS"),
        ),
        ("kcmp", 'return call("kcmp", os.getpid(), os.getpid(), 0, 0, 0)', ("GOT", "ERR ENOSYS")),
        ("pidfd-getfd", 'return call("pidfd_getfd", -1, 0, 0)', ("ERR EBADF",)),
        ("seccomp-own-filter", 'return call("seccomp", 2, 0, struct.pack("I", 0x7fff0000))', ("GOT",)),
        ("chroot", 'return in_child(lambda: call("chroot", "/"))', ("GOT",)),
        ("lookup-dcookie", 'return call("lookup_dcookie", 0, 0, 0)', ("ERR EINVAL", "ERR ENOSYS", "ERR EFAULT")),
        ("mempolicy-home-node", 'return call("set_mempolicy_home_node", 0, 0, 0, 1)', ("ERR EINVAL", "ERR ENOSYS")),
        ("nfsservctl", 'return call("nfsservctl", 0, 0, 0)', ("ERR ENOSYS",)),
    ]
    attacks = [Attack(name, body, (EPERM,), where="outside", twin_ends=ends) for name, body, ends in rows]
    x86 = [
        ("iopl", 'return call("iopl", 99)', ("ERR EINVAL", "ERR ENOSYS")),
        ("ioperm", 'return call("ioperm", -1, 0, 1)', ("ERR EINVAL", "ERR ENOSYS")),
        ("modify-ldt", 'return call("modify_ldt", 99, 0, 0)', ("GOT -38", "ERR ENOSYS")),
        ("uselib", 'return call("uselib", "/guardhouse-none")', ("ERR ENOENT", "ERR ENOSYS")),
        ("create-module", 'return call("create_module", "x", 0)', ("ERR ENOSYS",)),
        ("sysctl", 'return call("_sysctl", 0)', ("ERR ENOSYS", "ERR EFAULT")),
        ("aio-setup", 'return call("io_setup", 0, 0)', ("ERR EFAULT", "ERR EINVAL", "ERR ENOSYS")),
    ]
    attacks += [Attack(n, b, (EPERM,), where="outside", twin_ends=e, machines=X86) for n, b, e in x86]
    return attacks


def _namespaces() -> list[Attack]:
    kinds = ("user", "mount", "pid", "net", "ipc", "uts", "cgroup", "time")
    rows = [
        Attack(
            f"unshare-{kind}", f'return in_child(lambda: call("unshare", CLONE["{kind}"]))', (EPERM,), where="outside"
        )
        for kind in kinds
    ]
    rows += [
        Attack(f"clone-{kind}", f'return clone(CLONE["{kind}"] | SIGCHLD)', (EPERM,), "return clone(SIGCHLD)")
        for kind in ("user", "mount", "pid", "net", "ipc", "uts", "cgroup", "untraced", "ptrace")
    ]
    rows += [
        Attack(
            "clone-user-and-net",
            'return clone(CLONE["user"] | CLONE["net"] | SIGCHLD)',
            (EPERM,),
            "return clone(SIGCHLD)",
        ),
        Attack("clone3", 'return call("clone3", 0, 0)', (ENOSYS,), where="outside", twin_ends=("ERR EINVAL",)),
        Attack(
            "clone3-untraced",
            'return call("clone3", struct.pack("11Q", CLONE["untraced"], *([0] * 10)), 88)',
            (ENOSYS,),
            "return clone(SIGCHLD)",
        ),
        Attack(
            "setns-own", 'return call("setns", os.open("/proc/self/ns/uts", os.O_RDONLY), 0)', (EPERM,), where="outside"
        ),
        Attack(
            "setns-of-init",
            'return call("setns", os.open("/proc/1/ns/mnt", os.O_RDONLY), 0)',
            (EPERM, EACCES),
            'return os.open("/proc/self/ns/mnt", os.O_RDONLY)',
        ),
        Attack(
            "setns-victim",
            'return call("setns", os.open("/proc/{victim}/ns/net", os.O_RDONLY), 0)',
            (EPERM, EACCES, ENOENT),
            where="outside",
        ),
    ]
    return rows


def _mounts() -> list[Attack]:
    rows = [
        ("mount-tmpfs", 'return call("mount", "none", "/tmp", "tmpfs", 0, 0)'),
        ("mount-proc", 'return call("mount", "none", "/tmp", "proc", 0, 0)'),
        ("mount-bind", 'return call("mount", "/etc", "/tmp", 0, 4096, 0)'),
        ("mount-remount-writable", 'return call("mount", "none", "/", 0, 32 | 4096, 0)'),
        ("mount-propagation", 'return call("mount", "none", "/", 0, 0x4000 | (1 << 18), 0)'),
        ("umount-proc", 'return call("umount2", "/proc", 2)'),
        ("open-tree-clone", 'return call("open_tree", -100, "/", 1)'),
        ("fsopen", 'return call("fsopen", "tmpfs", 0)'),
        ("fspick", 'return call("fspick", -100, "/tmp", 0)'),
        ("mount-setattr", 'return call("mount_setattr", -100, "/", 0, struct.pack("QQQQ", 0, 0, 0, 0), 32)'),
    ]
    found = [
        Attack(name, body, (EPERM,), where="outside_private", twin_ends=("GOT", "ERR EINVAL")) for name, body in rows
    ]
    found += [
        Attack(
            "pivot-root",
            'return call("pivot_root", "/", "/")',
            (EPERM,),
            where="outside_private",
            twin_ends=("ERR EBUSY", "ERR EINVAL"),
        ),
        Attack(
            "move-mount",
            'return call("move_mount", -100, "/tmp", -100, "/mnt", 0)',
            (EPERM,),
            where="outside_private",
            twin_ends=("ERR EINVAL", "GOT"),
        ),
        Attack(
            "fsmount", 'return call("fsmount", -1, 0, 0)', (EPERM,), where="outside_private", twin_ends=("ERR EBADF",)
        ),
        Attack(
            "listmount-newer-call",
            'return call("listmount", 0, 0, 0, 0)',
            (ENOSYS,),
            where="outside",
            twin_ends=("ERR EFAULT", "ERR EINVAL", "ERR ENOSYS"),
        ),
        Attack(
            "statmount-newer-call",
            'return call("statmount", 0, 0, 0, 0)',
            (ENOSYS,),
            where="outside",
            twin_ends=("ERR EFAULT", "ERR EINVAL", "ERR ENOSYS"),
        ),
        Attack(
            "mount-program",
            'import subprocess; r = subprocess.run(["mount", "-t", "tmpfs", "none", "/tmp"], capture_output=True)\n    if r.returncode: raise PermissionError(errno.EPERM, r.stderr)\n    return "mounted"',
            (EPERM,),
            where="outside_private",
        ),
    ]
    return found


def _proc_and_sys() -> list[Attack]:
    writes = {
        "core-pattern": "/proc/sys/kernel/core_pattern",
        "kernel-hostname": "/proc/sys/kernel/hostname",
        "modprobe-path": "/proc/sys/kernel/modprobe",
        "drop-caches": "/proc/sys/vm/drop_caches",
        "ip-forward": "/proc/sys/net/ipv4/ip_forward",
        "sysrq": "/proc/sysrq-trigger",
        "sysrq-mask": "/proc/sys/kernel/sysrq",
        "binfmt": "/proc/sys/fs/binfmt_misc/register",
        "uevent-helper": "/sys/kernel/uevent_helper",
        "power-state": "/sys/power/state",
        "init-oom-score": "/proc/1/oom_score_adj",
        "init-clear-refs": "/proc/1/clear_refs",
        "victim-oom-score": "/proc/{victim}/oom_score_adj",
        "victim-mem": "/proc/{victim}/mem",
        "own-uid-map": "/proc/self/uid_map",
        "thp": "/sys/kernel/mm/transparent_hugepage/enabled",
        "kvm-parameters": "/sys/module/kernel/parameters/panic",
    }
    refused = (EROFS, EACCES, ENOENT, EPERM)
    rows = [
        Attack(
            f"write-{name}",
            f'return open_for_writing("{path}")',
            refused,
            where="outside",
            twin_ends=("GOT", "ERR ENOENT"),
        )
        for name, path in writes.items()
    ]
    reads = {
        "init-environ": "/proc/1/environ",
        "init-maps": "/proc/1/maps",
        "init-auxv": "/proc/1/auxv",
        "victim-environ": "/proc/{victim}/environ",
        "init-mem": "/proc/1/mem",
        "victim-mem": "/proc/{victim}/mem",
        "victim-maps": "/proc/{victim}/maps",
        "victim-stack": "/proc/{victim}/stack",
        "victim-exe-file": "/proc/{victim}/exe",
        "kcore": "/proc/kcore",
        "kmsg": "/proc/kmsg",
        "kpagecount": "/proc/kpagecount",
        "debugfs": "/sys/kernel/debug/sched/debug",
        "tracefs": "/sys/kernel/tracing/trace",
    }
    twin = 'return read_start("/proc/self/environ")'
    rows += [
        Attack(
            f"read-{name}",
            f'return read_start("{path}")',
            refused,
            twin,
        )
        for name, path in reads.items()
    ]
    rows += [
        Attack("read-kallsyms", 'return read_start("/proc/kallsyms")', refused, twin, profiles=HOST),
        Attack("read-proc-keys", 'return read_start("/proc/keys")', refused, twin, profiles=HOST),
    ]
    rows += [
        Attack(
            "init-root",
            'return os.listdir("/proc/1/root/")',
            (EACCES, EPERM, ENOENT),
            'return os.listdir("/proc/self/root/")',
        ),
        Attack(
            "init-cwd",
            'return os.listdir("/proc/1/cwd/")',
            (EACCES, EPERM, ENOENT),
            'return os.listdir("/proc/self/cwd/")',
        ),
        Attack(
            "init-descriptors",
            'return os.listdir("/proc/1/fd")',
            (EACCES, EPERM, ENOENT),
            'return os.listdir("/proc/self/fd")',
        ),
        Attack(
            "victim-root",
            'return os.listdir("/proc/{victim}/root/")',
            (EACCES, EPERM, ENOENT),
            'return os.listdir("/proc/self/root/")',
        ),
        Attack(
            "victim-descriptors",
            'return os.readlink("/proc/{victim}/fd/0")',
            (EACCES, EPERM, ENOENT),
            'return os.readlink("/proc/self/fd/0")',
        ),
        Attack(
            "dots-above-root",
            'return open_for_writing("/" + "../" * 40 + "etc/passwd")',
            (EROFS, EACCES),
            'return open_for_writing("/dev/null")',
        ),
        Attack(
            "own-root-link",
            'return read_start("/proc/self/root{secret}")',
            (ENOENT, EACCES),
            'return read_start("/proc/self/root/usr/bin/env")',
        ),
        Attack(
            "own-cwd-dots",
            'return read_start("/proc/self/cwd/" + "../" * 40 + "{secret}")',
            (ENOENT, EACCES),
            'return read_start("/proc/self/cwd/../" * 1 + "../" * 40 + "usr/bin/env")',
        ),
    ]
    return rows


def _other_processes() -> list[Attack]:
    gone = ("ESRCH", EPERM, EACCES, ENOENT, EINVAL)
    return [
        Attack("kill-victim", "return os.kill({victim}, 9)", gone, "return os.kill(os.getpid(), 0)"),
        Attack("kill-victim-zero", "return os.kill({victim}, 0)", gone, "return os.kill(os.getpid(), 0)"),
        Attack(
            "tgkill-victim",
            'return call("tgkill", {victim}, {victim}, 9)',
            gone,
            'return call("tgkill", os.getpid(), os.getpid(), 0)',
        ),
        Attack(
            "pidfd-victim", 'return call("pidfd_open", {victim}, 0)', gone, 'return call("pidfd_open", os.getpid(), 0)'
        ),
        Attack(
            "pidfd-by-proc-directory",
            'return call("pidfd_send_signal", os.open("/proc/{victim}", os.O_DIRECTORY), 0, 0, 0)',
            (*gone, "EBADF"),
            'return call("pidfd_send_signal", call("pidfd_open", os.getpid(), 0), 0, 0, 0)',
        ),
        Attack("ptrace-victim", 'return call("ptrace", 0x4206, {victim}, 0, 0)', (EPERM,), "return os.getppid() >= 0"),
        Attack("ptrace-init", 'return call("ptrace", 0x4206, 1, 0, 0)', (EPERM,), "return os.getppid() >= 0"),
        Attack(
            "vm-read-victim",
            'return call("process_vm_readv", {victim}, 0, 0, 0, 0, 0)',
            (EPERM,),
            "return os.getppid() >= 0",
        ),
        Attack(
            "prlimit-victim",
            "import resource; return resource.prlimit({victim}, resource.RLIMIT_CORE)",
            gone,
            "import resource; return resource.prlimit(os.getpid(), resource.RLIMIT_CORE)",
        ),
        Attack(
            "setpriority-victim",
            "return os.setpriority(os.PRIO_PROCESS, {victim}, 19)",
            gone,
            "return os.setpriority(os.PRIO_PROCESS, 0, 19)",
        ),
        Attack(
            "sched-affinity-victim",
            "return os.sched_setaffinity({victim}, [0])",
            gone,
            "return os.sched_setaffinity(0, os.sched_getaffinity(0))",
        ),
        Attack("setpgid-victim", "return os.setpgid({victim}, 0)", gone, "return os.getpgid(0) >= 0"),
    ]


def _privileges() -> list[Attack]:
    return [
        Attack("setuid-root", "return os.setuid(0)", (EPERM, EINVAL), "return os.setuid(os.getuid())"),
        Attack("setgid-root", "return os.setgid(0)", (EPERM, EINVAL), "return os.setgid(os.getgid())"),
        Attack("setresuid-root", "return os.setresuid(0, 0, 0)", (EPERM, EINVAL), "return os.setresuid(-1, -1, -1)"),
        Attack("setreuid-other", "return os.setreuid(1, 1)", (EPERM, EINVAL), "return os.setreuid(os.getuid(), -1)"),
        Attack("setgroups", "return os.setgroups([0])", (EPERM, EINVAL), "return os.getgroups() is not None"),
        Attack(
            "capset-all",
            'return call("capset", struct.pack("II", 0x20080522, 0), struct.pack("6I", *([0xffffffff] * 6)))',
            (EPERM,),
            'return call("capset", struct.pack("II", 0x20080522, 0), struct.pack("6I", *([0] * 6)))',
        ),
        Attack(
            "ambient-raise", 'return call("prctl", 47, 2, 21, 0, 0)', (EPERM,), 'return call("prctl", 47, 1, 21, 0, 0)'
        ),
        Attack(
            "bounding-drop",
            'return call("prctl", 24, 0, 0, 0, 0)',
            (EPERM,),
            'return call("prctl", 23, 0, 0, 0, 0) == 0',
        ),
        Attack("securebits", 'return call("prctl", 28, 0, 0, 0, 0)', (EPERM,), 'return call("prctl", 27, 0, 0, 0, 0)'),
        Attack(
            "no-new-privs-off",
            'return call("prctl", 38, 0, 0, 0, 0)',
            (EINVAL,),
            'return call("prctl", 38, 1, 0, 0, 0)',
        ),
        Attack(
            "prctl-own-filter", 'return call("prctl", 22, 2, 0, 0, 0)', (EPERM,), 'return call("prctl", 21, 0, 0, 0, 0)'
        ),
        Attack("prctl-set-mm", 'return call("prctl", 35, 8, 0, 0, 0)', (EPERM,), 'return call("prctl", 3, 0, 0, 0, 0)'),
        Attack(
            "prctl-set-ptracer",
            'return call("prctl", 0x59616d61, -1, 0, 0, 0)',
            (EPERM,),
            'return call("prctl", 3, 0, 0, 0, 0)',
        ),
        Attack(
            "prctl-high-bits",
            'return call("prctl", (1 << 32) | 22, 2, 0, 0, 0)',
            (EPERM,),
            'return call("prctl", (1 << 32) | 21, 0, 0, 0, 0)',
        ),
        Attack(
            "personality", 'return call("personality", 0x0400000)', (EPERM,), 'return call("personality", 0xffffffff)'
        ),
        Attack(
            "setuid-bit-chmod",
            'open("f", "w").close(); return os.chmod("f", 0o4755)',
            (EPERM,),
            'open("f", "w").close(); return os.chmod("f", 0o755)',
        ),
        Attack(
            "setgid-bit-fchmod",
            'f = open("f", "w"); return os.fchmod(f.fileno(), 0o2755)',
            (EPERM,),
            'f = open("f", "w"); return os.fchmod(f.fileno(), 0o755)',
        ),
        Attack(
            "setuid-bit-fchmodat2",
            'open("f", "w").close(); return call("fchmodat2", -100, "f", 0o4755, 0)',
            (EPERM,),
            'open("f", "w").close(); return call("fchmodat2", -100, "f", 0o755, 0)',
        ),
        Attack(
            "setuid-bit-create",
            'return os.open("s", os.O_CREAT | os.O_WRONLY, 0o4755)',
            (EPERM,),
            'return os.open("s2", os.O_CREAT | os.O_WRONLY, 0o755)',
        ),
        Attack(
            "setuid-bit-tmpfile",
            'return os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o4755)',
            (EPERM,),
            'return os.open("s2", os.O_CREAT | os.O_WRONLY, 0o755)',
        ),
        Attack(
            "setuid-bit-openat2",
            'return call("openat2", -100, "s", struct.pack("QQQ", 0o101, 0o4755, 0), 24)',
            (ENOSYS,),
            'return os.open("s2", os.O_CREAT | os.O_WRONLY, 0o755)',
        ),
        Attack(
            "setuid-bit-mkdir-kept",
            'os.makedirs("d", exist_ok=True); return os.chmod("d", 0o2775)',
            (EPERM,),
            'os.makedirs("d", exist_ok=True); return os.chmod("d", 0o775)',
        ),
        Attack(
            "file-capability",
            'open("f", "w").close(); return os.setxattr("f", "security.capability", struct.pack("<5I", 0x02000001, 0xffffffff, 0, 0xffffffff, 0))',
            (EPERM, "ENOTSUP"),
            'open("f", "w").close(); return os.chmod("f", 0o755)',
        ),
        Attack(
            "mknod-device",
            'import stat; return os.mknod("c", stat.S_IFCHR | 0o600, os.makedev(1, 1))',
            (EPERM,),
            'import stat; return os.mkfifo("p") if not os.path.exists("p") else 0',
        ),
        Attack(
            "mknod-block",
            'import stat; return os.mknod("b", stat.S_IFBLK | 0o600, os.makedev(8, 0))',
            (EPERM,),
            'import stat; return os.mkfifo("p") if not os.path.exists("p") else 0',
        ),
        Attack(
            "mknodat-device",
            'return call("mknodat", -100, "c2", 0o020600, 0x101)',
            (EPERM,),
            'return call("mknodat", -100, "r" + str(os.getpid()), 0o100600, 0)',
        ),
        Attack(
            "chown-root",
            'open("f", "w").close(); return os.chown("f", 0, 0)',
            (EPERM, EINVAL),
            'open("f", "w").close(); return os.chown("f", os.getuid(), os.getgid())',
        ),
        Attack(
            "setuid-program-gains-nothing",
            'import subprocess; t = subprocess.run(["/usr/bin/su", "-c", "id -u"], stdin=subprocess.DEVNULL, capture_output=True, text=True)\n    if t.stdout.strip() != "0": raise PermissionError(errno.EPERM, t.stderr)\n    return "root"',
            (EPERM,),
            'import subprocess; return subprocess.run(["id", "-u"], check=True, capture_output=True).stdout',
        ),
        Attack(
            "rlimit-raise",
            "import resource; s, h = resource.getrlimit(resource.RLIMIT_NOFILE)\n    try:\n        return resource.setrlimit(resource.RLIMIT_NOFILE, (s, h + 1))\n    except ValueError: raise PermissionError(errno.EPERM, '')",
            (EPERM,),
            "import resource; s, h = resource.getrlimit(resource.RLIMIT_NOFILE); return resource.setrlimit(resource.RLIMIT_NOFILE, (h, h))",
        ),
        Attack(
            "realtime",
            "return os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
            (EPERM,),
            "return os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))",
        ),
        Attack(
            "nice-raise",
            "return os.setpriority(os.PRIO_PROCESS, 0, -10)",
            (EACCES, EPERM),
            "return os.setpriority(os.PRIO_PROCESS, 0, 5)",
        ),
        Attack(
            "ioprio-realtime",
            'return call("ioprio_set", 1, 0, (1 << 13) | 0)',
            (EPERM,),
            'return call("ioprio_set", 1, 0, (3 << 13) | 0)',
        ),
    ]


def _abis() -> list[Attack]:
    return [
        Attack(
            "int-0x80",
            'return run_machine_code(bytes.fromhex("b814000000cd80c3"))',
            ("SIGSYS",),
            'return run_machine_code(bytes.fromhex("b827000000" "0f05" "c3"))',
            machines=X86,
        ),
        Attack("x32-getpid", "return raw_number(0x40000000 | 39)", ("SIGSYS",), "return raw_number(39)", machines=X86),
        Attack(
            "x32-ptrace",
            "return raw_number(0x40000000 | 521, 0, 0, 0, 0)",
            ("SIGSYS",),
            "return raw_number(39)",
            machines=X86,
        ),
        Attack(
            "call-newer-than-list",
            'return call("mseal", 0, 0, 0)',
            (ENOSYS,),
            where="outside",
            twin_ends=("GOT", "ERR ENOSYS", "ERR EINVAL"),
        ),
        Attack("call-unknown-1000", "return raw_number(1000)", (ENOSYS,), where="outside", twin_ends=("ERR ENOSYS",)),
        Attack(
            "call-futex-wake-newer",
            'return call("futex_wake", 0, 0, 0, 0)',
            (ENOSYS,),
            where="outside",
            twin_ends=("ERR EINVAL", "ERR ENOSYS"),
        ),
    ]


def _sockets() -> list[Attack]:
    unix = "return socket.socket(socket.AF_UNIX).close()"
    families = {
        "packet": "socket.socket(17, 3, 0)",
        "inet-raw": "socket.socket(2, 3, 1)",
        "inet6-raw": "socket.socket(10, 3, 58)",
        "vsock": "socket.socket(40, 1, 0)",
        "alg": "socket.socket(38, 5, 0)",
        "bluetooth": "socket.socket(31, 3, 1)",
        "key": "socket.socket(15, 3, 2)",
        "xdp": "socket.socket(44, 3, 0)",
        "tipc": "socket.socket(30, 1, 0)",
        "can": "socket.socket(29, 3, 1)",
        "rds": "socket.socket(21, 5, 0)",
        "appletalk": "socket.socket(5, 2, 0)",
        "netlink-generic": "socket.socket(16, 3, 16)",
        "netlink-audit": "socket.socket(16, 3, 9)",
        "netlink-uevent": "socket.socket(16, 3, 15)",
        "netlink-netfilter": "socket.socket(16, 3, 12)",
        "netlink-xfrm": "socket.socket(16, 3, 6)",
        "sctp": "socket.socket(2, 1, 132)",
        "mptcp": "socket.socket(2, 1, 262)",
        "dccp": "socket.socket(2, 6, 33)",
        "udplite": "socket.socket(2, 2, 136)",
        "smc": "socket.socket(43, 1, 0)",
    }
    rows = [Attack(f"socket-{name}", f"return {body}.close()", (EPERM,), unix) for name, body in families.items()]
    rows += [
        Attack(
            "socket-inet-in-isolate", "return socket.socket(2, 1, 0).close()", (EPERM,), unix, profiles=("isolate",)
        ),
        Attack(
            "socket-netlink-route-in-isolate",
            "return socket.socket(16, 3, 0).close()",
            (EPERM,),
            unix,
            profiles=("isolate",),
        ),
        Attack(
            "socket-family-high-bits",
            'return raw_number(41 if platform.machine() == "x86_64" else 198, (1 << 32) | 17, 3, 0)',
            (EPERM,),
            unix,
        ),
        Attack(
            "host-loopback",
            'return socket.create_connection(("127.0.0.1", {port}), 2).close()',
            (EPERM,),
            unix,
            profiles=("isolate",),
        ),
        Attack(
            "metadata",
            'return socket.create_connection(("169.254.169.254", 80), 2).close()',
            (EPERM,),
            unix,
            profiles=("isolate",),
        ),
        Attack(
            "tcp-fast-open",
            'return call("sendto", -1, 0, 0, 0x20000000, 0, 0)',
            (EPERM,),
            'try:\n        return call("sendto", -1, 0, 0, 0, 0, 0)\n    except OSError as error:\n        return error.errno == errno.EBADF',
        ),
        Attack(
            "abstract-socket",
            'return socket.socket(1, 1).connect("\\0{abstract}")',
            (EPERM, "ECONNREFUSED"),
            'a = socket.socket(1, 1); a.bind("\\0own"); a.listen(); return socket.socket(1, 1).connect("\\0own")',
        ),
        Attack(
            "host-socket-in-run",
            'return socket.socket(1, 1).connect("{host_socket}")',
            (ENOENT, EACCES),
            where="outside",
            profiles=CLOSED,
        ),
        Attack(
            "docker-socket",
            'return socket.socket(1, 1).connect("/run/docker.sock")',
            (ENOENT, EACCES, "ECONNREFUSED"),
            unix,
        ),
        Attack(
            "docker-socket-var-run",
            'return socket.socket(1, 1).connect("/var/run/docker.sock")',
            (ENOENT, EACCES, "ECONNREFUSED"),
            unix,
        ),
        Attack(
            "containerd-socket",
            'return socket.socket(1, 1).connect("/run/containerd/containerd.sock")',
            (ENOENT, EACCES),
            unix,
        ),
        Attack(
            "systemd-private",
            'return socket.socket(1, 1).connect("/run/systemd/private")',
            (ENOENT, EACCES, "ECONNREFUSED"),
            unix,
        ),
        Attack("user-bus", 'return socket.socket(1, 1).connect("/run/user/0/bus")', (ENOENT, EACCES), unix),
        Attack(
            "interface-down",
            'import fcntl; s = socket.socket(2, 2); return fcntl.ioctl(s, 0x8914, struct.pack("16sh", b"lo", 0))',
            (EPERM,),
            'import fcntl; s = socket.socket(2, 2); return fcntl.ioctl(s, 0x8913, struct.pack("16sh14x", b"lo", 0)) and True',
            profiles=HOST,
        ),
        Attack(
            "route-change",
            's = socket.socket(16, 3, 0); s.send(struct.pack("IHHIIBBHiII", 32, 17, 5, 1, 0, 0, 0, 0, 1, 0, 0xffffffff)); code = struct.unpack_from("i", s.recv(4096), 16)[0]\n    if code: raise OSError(-code, "")\n    return 0',
            (EPERM,),
            's = socket.socket(16, 3, 0); return s.send(struct.pack("IHHIIB", 17, 18, 0x301, 1, 0, 0))',
            profiles=HOST,
        ),
    ]
    return rows


def _terminals() -> list[Attack]:
    pty = "import fcntl, pty, termios; m, s = pty.openpty(); "
    twin = pty + 'return fcntl.ioctl(s, termios.TIOCGWINSZ, b"\\0" * 8)'
    return [
        Attack("tiocsti", pty + 'return fcntl.ioctl(s, 0x5412, b"x")', (EPERM,), twin),
        Attack("tiocsti-high-bits", pty + 'return call("ioctl", s, (1 << 32) | 0x5412, b"x")', (EPERM,), twin),
        Attack("tioclinux", pty + 'return fcntl.ioctl(s, 0x541C, b"\\x02")', (EPERM,), twin),
        Attack("tioccons", pty + "return fcntl.ioctl(s, 0x541D, 0)", (EPERM,), twin),
        Attack("tiocsetd", pty + 'return fcntl.ioctl(s, 0x5423, struct.pack("i", 0))', (EPERM,), twin),
        Attack("vhangup", 'return call("vhangup")', (EPERM,), twin),
        Attack("unknown-ioctl", "import fcntl; return fcntl.ioctl(0, 0xAE01, 0)", (EPERM,), twin),
        Attack(
            "host-terminals",
            'return [n for n in os.listdir("/dev/pts") if n != "ptmx"][0]',
            ("EMPTY",),
            'import pty; pty.openpty(); return [n for n in os.listdir("/dev/pts") if n != "ptmx"][0]',
        ),
        Attack("controlling-terminal", 'return os.open("/dev/tty", os.O_RDWR)', ("ENXIO",), twin),
    ]


def _cgroups_and_devices() -> list[Attack]:
    refused = (EROFS, EACCES, ENOENT, EPERM)
    paths = {
        "release-agent": "/sys/fs/cgroup/memory/release_agent",
        "cgroup-procs-v1": "/sys/fs/cgroup/memory/cgroup.procs",
        "cgroup-procs-v2": "/sys/fs/cgroup/cgroup.procs",
        "cgroup-unified": "/sys/fs/cgroup/unified/cgroup.procs",
        "cgroup-devices": "/sys/fs/cgroup/devices/devices.allow",
    }
    rows = [
        Attack(
            f"write-{n}", f'return open_for_writing("{p}")', refused, where="outside", twin_ends=("GOT", "ERR ENOENT")
        )
        for n, p in paths.items()
    ]
    rows += [
        Attack(
            "cgroup-mkdir",
            'import glob\n    for d in ["/sys/fs/cgroup", *glob.glob("/sys/fs/cgroup/*/")]:\n        try:\n            os.mkdir(d + "/guardhouse-attack")\n            return d\n        except OSError as error: last = error\n    raise last',
            refused,
            'return os.makedirs("made", exist_ok=True)',
        ),
    ]
    devices = (
        "mem",
        "kmem",
        "port",
        "kmsg",
        "sda",
        "vda",
        "loop-control",
        "kvm",
        "fuse",
        "net/tun",
        "uinput",
        "vhost-vsock",
        "mapper/control",
    )
    rows += [
        Attack(
            f"device-{name.replace('/', '-')}",
            f'return os.open("/dev/{name}", os.O_RDWR)',
            (ENOENT,),
            'return os.open("/dev/null", os.O_RDWR)',
        )
        for name in devices
    ]
    return rows


def _files() -> list[Attack]:
    readonly = (EROFS, EACCES)
    own = 'return os.open("mine", os.O_CREAT | os.O_WRONLY)'
    rows = [
        Attack("write-etc-passwd", 'return open_for_writing("/etc/passwd")', readonly, where="outside"),
        Attack(
            "write-usr-bin", 'return os.open("/usr/bin/guardhouse-attack", os.O_CREAT | os.O_WRONLY)', readonly, own
        ),
        Attack("write-root", 'return os.open("/guardhouse-attack", os.O_CREAT | os.O_WRONLY)', readonly, own),
        Attack("write-dev", 'return os.open("/dev/guardhouse-attack", os.O_CREAT | os.O_WRONLY)', readonly, own),
        Attack("write-run", 'return os.open("/run/guardhouse-attack", os.O_CREAT | os.O_WRONLY)', readonly, own),
        Attack("write-proc-self-exe", 'return os.open("/proc/self/exe", os.O_WRONLY)', (*readonly, "ETXTBSY"), own),
        Attack(
            "write-outside-marker",
            'return os.open("{marker}", os.O_CREAT | os.O_WRONLY)',
            (EROFS, EACCES, ENOENT),
            own,
            profiles=CLOSED,
        ),
        Attack(
            "truncate-host-file", 'return os.truncate("{host_file}", 0)', (EROFS, EACCES, ENOENT), own, profiles=CLOSED
        ),
        Attack(
            "rename-host-file",
            'return os.rename("{host_file}", "{host_file}.moved")',
            (EROFS, EACCES, ENOENT, "EXDEV"),
            own,
            profiles=CLOSED,
        ),
        Attack("unlink-host-file", 'return os.unlink("{host_file}")', (EROFS, EACCES, ENOENT), own, profiles=CLOSED),
        Attack(
            "chmod-host-file",
            'return os.chmod("{host_file}", 0o777)',
            (EROFS, EACCES, ENOENT, EPERM),
            own,
            profiles=CLOSED,
        ),
        Attack(
            "utime-host-file",
            'return os.utime("{host_file}", (0, 0))',
            (EROFS, EACCES, ENOENT, EPERM),
            own,
            profiles=CLOSED,
        ),
        Attack(
            "xattr-host-file",
            'return os.setxattr("{host_file}", "user.x", b"y")',
            (EROFS, EACCES, ENOENT, EPERM),
            own,
            profiles=CLOSED,
        ),
        Attack(
            "hard-link-into-workspace",
            'return os.link("/etc/passwd", "stolen")',
            ("EXDEV", EACCES, EPERM),
            'open("mine", "w").close(); os.path.exists("l") or os.link("mine", "l"); return 0',
        ),
        Attack(
            "hard-link-by-descriptor",
            'return os.link("/proc/self/fd/%d" % os.open("/etc/passwd", os.O_RDONLY), "stolen2", follow_symlinks=True)',
            ("EXDEV", EACCES, EPERM, ENOENT),
            own,
        ),
        Attack(
            "symlink-to-shadow",
            'os.path.lexists("sh") or os.symlink("/etc/shadow", "sh"); return read_start("sh")',
            (EACCES, ENOENT),
            'os.path.lexists("env") or os.symlink("/usr/bin/env", "env"); return read_start("env")',
        ),
        Attack("tmp-of-host", 'return read_start("{secret}")', (ENOENT, EACCES), own),
        Attack(
            "inherited-descriptors",
            'extra = [n for n in os.listdir("/proc/self/fd") if int(n) > 2]\n    extra = [n for n in extra if os.path.exists("/proc/self/fd/" + n)]\n    if not extra: raise FileNotFoundError(errno.ENOENT, "")\n    return [os.readlink("/proc/self/fd/" + n) for n in extra]',
            (ENOENT,),
            'd = os.open("/dev/null", 0); return [n for n in os.listdir("/proc/self/fd") if int(n) > 2][0]',
        ),
        Attack(
            "launcher-environment",
            'extra = set(os.environ) & {"GUARDHOUSE_TOKEN", "GUARDHOUSE_TEST_SECRET"}\n    if not extra: raise FileNotFoundError(errno.ENOENT, "")\n    return extra',
            (ENOENT,),
            'return os.environ["PATH"]',
        ),
    ]
    secrets = {
        "shadow": "/etc/shadow", "gshadow": "/etc/gshadow", "sudoers": "/etc/sudoers", "shadow-backup": "/etc/shadow-",
        "ssh-host-key": "/etc/ssh/ssh_host_ed25519_key", "opasswd": "/etc/security/opasswd",
    }  # fmt: skip
    rows += [
        Attack(f"secret-{n}", f'return read_start("{p}")', (EACCES, ENOENT), 'return read_start("/etc/passwd")')
        for n, p in secrets.items()
    ]
    places = {
        "root-home": "/root",
        "homes": "/home",
        "private-keys": "/etc/ssl/private",
        "docker-data": "/var/lib/docker",
        "cron": "/var/spool/cron",
        "backups": "/var/backups",
    }
    rows += [
        Attack(f"secret-{n}", f'return os.listdir("{p}")', (EACCES, ENOENT), 'return os.listdir("/usr")')
        for n, p in places.items()
    ]
    return rows


def _bombs() -> list[Attack]:
    """Bounded here by the test as well, so that a missing limit costs seconds and not the machine."""
    return [
        Attack(
            "descriptors",
            "held = []\n    while len(held) < 20000: held.append(os.dup(1))\n    return len(held)",
            ("EMFILE",),
            "return len([os.dup(1) for _ in range(200)])",
        ),
        Attack(
            "file-size",
            'import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); f = os.open("big", os.O_CREAT | os.O_WRONLY); return os.ftruncate(f, 1 << 40)',
            ("EFBIG",),
            'f = os.open("small", os.O_CREAT | os.O_WRONLY); return os.ftruncate(f, 1 << 20)',
        ),
        Attack(
            "tmp-inodes",
            'for n in range(80000): os.close(os.open("/tmp/i%d" % n, os.O_CREAT | os.O_WRONLY))\n    return "unbounded"',
            ("ENOSPC",),
            'return os.open("/tmp/one", os.O_CREAT | os.O_WRONLY)',
        ),
        Attack(
            "tmp-space",
            'f = os.open("/tmp/space", os.O_CREAT | os.O_WRONLY); return os.posix_fallocate(f, 0, 1 << 30)',
            ("ENOSPC",),
            'f = os.open("/tmp/space", os.O_CREAT | os.O_WRONLY); return os.posix_fallocate(f, 0, 1 << 20)',
        ),
        Attack(
            "locked-memory",
            'import mmap; m = mmap.mmap(-1, 1 << 26); return LIBC.mlock(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(m))), ctypes.c_size_t(1 << 26)) and (_ for _ in ()).throw(OSError(ctypes.get_errno(), ""))',
            ("ENOMEM", EAGAIN),
            "import mmap; m = mmap.mmap(-1, 1 << 12); return LIBC.mlock(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(m))), ctypes.c_size_t(1 << 12))",
        ),
        Attack("one-process-memory", "return len(bytearray(8 << 30))", ("ENOMEM",), "return len(bytearray(8 << 20))"),
        Attack(
            "timers",
            "timers = 0\n    import ctypes.util\n    t = ctypes.c_void_p()\n    while timers < 20000:\n        if LIBC.timer_create(1, None, ctypes.byref(t)): raise OSError(ctypes.get_errno(), '')\n        timers += 1\n    return timers",
            (EAGAIN,),
            "t = ctypes.c_void_p(); return LIBC.timer_create(1, None, ctypes.byref(t))",
        ),
        Attack(
            "core-file",
            "import resource; h = resource.getrlimit(resource.RLIMIT_CORE)[1]\n    if h <= 1: raise PermissionError(errno.EPERM, '')\n    return h",
            (EPERM,),
            "import resource; return resource.getrlimit(resource.RLIMIT_STACK)",
        ),
    ]


EAGAIN = "EAGAIN"

ATTACKS: tuple[Attack, ...] = (
    *_calls_with_harmless_arguments(),
    *_namespaces(),
    *_mounts(),
    *_proc_and_sys(),
    *_other_processes(),
    *_privileges(),
    *_abis(),
    *_sockets(),
    *_terminals(),
    *_cgroups_and_devices(),
    *_files(),
    *_bombs(),
)

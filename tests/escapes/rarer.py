"""Still more attacks: what works across a namespace's border by its nature, and doors that few programs know.

Same form and placeholders as in `table.py`.
"""

# ruff: noqa: E501 - a row is one line of thought; broken script text reads worse

from .table import CLOSED, EACCES, ENOENT, ENOSYS, EPERM, EROFS, HOST, Attack

EINVAL = "EINVAL"

__all__ = ["RARER"]

_QUESTION = "import fcntl; return fcntl.ioctl(os.pipe()[0], 0x541B, bytes(4)) is not None"
_OWN_FILE = 'open("mine", "w").close(); return os.stat("mine").st_size'
_ALIVE = "return os.getppid() >= 0"


def _number(x86: int, arm: int) -> str:
    return f'({x86} if platform.machine() == "x86_64" else {arm})'


def _account() -> list[Attack]:
    """The kernel counts and sets some things for the whole account, whatever namespaces its processes are in."""
    set_priority = _number(251, 30)
    return [
        Attack(
            "io-priority-of-a-group-of-the-host",
            f"return raw_number({set_priority}, 2, {{victim}}, (3 << 13))",
            ("ESRCH", EPERM),
            f"return raw_number({set_priority}, 2, 0, (2 << 13) | 7)",
        ),
        Attack(
            "lease-on-a-file-of-the-host",
            "import fcntl; return fcntl.fcntl(os.open('{host_file}', os.O_RDONLY), 1024, fcntl.F_RDLCK)",
            (EPERM, ENOENT),
            "import fcntl; open('mine', 'w').close(); return fcntl.fcntl(os.open('mine', os.O_RDONLY), fcntl.F_GETFL) >= 0",
        ),
        Attack(
            "watch-a-directory-of-the-host",
            "import fcntl; return fcntl.fcntl(os.open('/usr', os.O_RDONLY), 1026, 4)",
            (EPERM,),
            "import fcntl; return fcntl.fcntl(os.open('/usr', os.O_RDONLY), fcntl.F_GETFD) >= 0",
        ),
    ]


def _limits() -> list[Attack]:
    """Limits are a process's own matter: pid 1 of the namespace may belong to the same account."""
    set_limit = _number(302, 261)
    own = f"return raw_number({set_limit}, 0, 7, struct.pack('QQ', 512, 512), 0)"
    return [
        Attack("limits-of-pid-one", f"return raw_number({set_limit}, 1, 7, struct.pack('QQ', 1, 1), 0)", (EPERM,), own),
        Attack(
            "processor-time-of-pid-one",
            f"return raw_number({set_limit}, 1, 0, struct.pack('QQ', 1, 1), 0)",
            (EPERM,),
            own,
        ),
        Attack(
            # A pointer whose low half is zero, as no pointer would look to a filter that compares half of it.
            "limits-by-a-round-pointer",
            f"LIBC.mmap.restype = ctypes.c_long; LIBC.mmap.argtypes = [ctypes.c_long] * 6; at = LIBC.mmap(1 << 36, 4096, 3, 0x100032, -1, 0)\n    ctypes.memmove(at, struct.pack('QQ', 1, 1), 16); return raw_number({set_limit}, 1, 7, at, 0)",
            (EPERM,),
            f"return raw_number({set_limit}, os.getppid(), 7, 0, 0)",
        ),
    ]


def _handles() -> list[Attack]:
    """Descriptors that stand for more than a file: mounts, namespaces, processes, sockets."""
    return [
        Attack(
            "open-tree-without-clone",
            'return raw_number(428, -100, b"/", 0)',
            (EPERM,),
            'return os.open("/", os.O_PATH)',
        ),
        Attack(
            "every-filesystem-by-fsopen",
            'got = []\n    for name in ("proc", "sysfs", "tmpfs", "devpts", "cgroup", "cgroup2", "overlay", "mqueue", "debugfs", "ramfs", "fuse", "bpf", "nsfs"):\n        try: got.append((name, raw_number(430, name.encode(), 0)))\n        except OSError as error:\n            if error.errno != errno.EPERM: got.append((name, error.errno))\n    if got: return got\n    raise OSError(errno.EPERM, "")',
            (EPERM,),
            'return os.statvfs("/tmp").f_bsize',
        ),
        Attack(
            "mount-attributes-of-the-workspace",
            'return call("mount_setattr", -100, ".", 0, struct.pack("QQQQ", 0, 1, 0, 0), 32)',
            (EPERM,),
            'return os.statvfs(".").f_flag',
        ),
        Attack(
            "namespace-of-a-socket",
            "import fcntl; return fcntl.ioctl(socket.socket(1, 1), 0x894C, 0)",
            (EPERM,),
            _QUESTION,
        ),
        Attack(
            "mount-namespace-next",
            'import fcntl; return fcntl.ioctl(os.open("/proc/self/ns/mnt", os.O_RDONLY), 0x8010B70B, bytes(16))',
            (EPERM,),
            'return os.readlink("/proc/self/ns/mnt")',
        ),
        Attack(
            "mount-namespace-id",
            'import fcntl; return fcntl.ioctl(os.open("/proc/self/ns/mnt", os.O_RDONLY), 0x8008B705, bytes(8))',
            (EPERM,),
            'return os.readlink("/proc/self/ns/mnt")',
        ),
        Attack(
            "translate-a-process-number",
            'import fcntl; return fcntl.ioctl(os.open("/proc/self/ns/pid", os.O_RDONLY), 0x8004B706, 1)',
            (EPERM,),
            'return os.readlink("/proc/self/ns/pid")',
        ),
        Attack(
            "pidfd-info",
            'import fcntl; return fcntl.ioctl(call("pidfd_open", os.getpid(), 0), 0xC048FF0B, bytes(72))',
            (EPERM,),
            'return call("pidfd_open", os.getpid(), 0)',
        ),
        Attack(
            "pidfd-thread-of-the-victim",
            'return call("pidfd_open", {victim}, 0x80)',
            ("ESRCH", EINVAL, ENOENT),
            'return call("pidfd_open", os.getpid(), 0)',
        ),
        Attack(
            "descriptor-of-the-parent",
            'return call("pidfd_getfd", call("pidfd_open", os.getppid(), 0), 0, 0)',
            (EPERM,),
            'return call("pidfd_open", os.getppid(), 0)',
        ),
        Attack(
            "memory-advice-by-the-own-handle",
            'return call("process_madvise", call("pidfd_open", os.getpid(), 0), 0, 0, 4, 0)',
            (EPERM,),
            'return call("pidfd_open", os.getpid(), 0)',
        ),
        Attack(
            "seccomp-listener-receive",
            "import fcntl; return fcntl.ioctl(os.pipe()[0], 0xC0502100, bytes(80))",
            (EPERM,),
            _QUESTION,
        ),
        Attack(
            "seccomp-listener-add-descriptor",
            "import fcntl; return fcntl.ioctl(os.pipe()[0], 0x40182103, bytes(24))",
            (EPERM,),
            _QUESTION,
        ),
        Attack(
            "descriptors-of-the-launcher-by-credentials",
            'a, b = socket.socketpair(1, 2); return socket.send_fds(a, [b"x"], [os.open("/proc/1", os.O_DIRECTORY)]) and os.listdir("/proc/self/fd/%d/fd" % socket.recv_fds(b, 1, 1)[1][0])',
            (EACCES, EPERM, ENOENT),
            'a, b = socket.socketpair(1, 2); return socket.send_fds(a, [b"x"], [os.open("/proc/self", os.O_DIRECTORY)]) and os.listdir("/proc/self/fd/%d/fd" % socket.recv_fds(b, 1, 1)[1][0]) != []',
        ),
        Attack(
            "path-handle-to-writing",
            'd = os.open(os.path.dirname("{host_file}"), os.O_PATH); return os.open("secret", os.O_WRONLY, dir_fd=d)',
            (EROFS, EACCES, ENOENT),
            'open("mine", "w").close(); d = os.open(".", os.O_PATH); return os.open("mine", os.O_WRONLY, dir_fd=d)',
            profiles=CLOSED,
        ),
    ]


def _files() -> list[Attack]:
    """What Landlock learned late, and names that lead out of the workspace."""
    readonly = (EROFS, EACCES, ENOENT)
    return [
        Attack(
            "truncate-while-reading",
            'return os.open("{host_file}", os.O_RDONLY | os.O_TRUNC)',
            readonly,
            'open("mine", "w").close(); return os.open("mine", os.O_RDONLY | os.O_TRUNC)',
            profiles=CLOSED,
        ),
        Attack(
            "truncate-by-raw-call",
            f'return raw_number({_number(76, 45)}, b"/etc/hosts", 0)',
            readonly,
            f'open("mine", "w").close(); return raw_number({_number(76, 45)}, b"mine", 0)',
        ),
        Attack(
            "link-out-of-the-workspace",
            'open("mine", "w").close(); return os.link("mine", "{marker}")',
            (*readonly, "EXDEV"),
            'open("mine", "w").close(); os.path.exists("l9") or os.link("mine", "l9"); return 0',
            profiles=CLOSED,
        ),
        Attack(
            "link-of-a-nameless-file",
            'f = os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o600); return os.link("/proc/self/fd/%d" % f, "{marker}", follow_symlinks=True)',
            (*readonly, "EXDEV"),
            'f = os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o600); return f',
            profiles=CLOSED,
        ),
        Attack(
            "symlink-outside",
            'return os.symlink("x", "{marker}")',
            readonly,
            'os.path.lexists("s9") or os.symlink("x", "s9"); return 0',
            profiles=CLOSED,
        ),
        Attack(
            "directory-outside",
            'return os.mkdir("{marker}")',
            readonly,
            'return os.makedirs("d9", exist_ok=True)',
            profiles=CLOSED,
        ),
        Attack(
            "fifo-outside",
            'return os.mkfifo("{marker}")',
            readonly,
            'os.path.exists("f9") or os.mkfifo("f9"); return 0',
            profiles=CLOSED,
        ),
        Attack(
            "socket-outside",
            'return socket.socket(1, 1).bind("{marker}")',
            readonly,
            'a = socket.socket(1, 1); a.bind("/tmp/own9"); os.unlink("/tmp/own9"); return 0',
            profiles=CLOSED,
        ),
        Attack(
            "socket-in-run",
            'return socket.socket(1, 1).bind("/run/guardhouse-attack.sock")',
            readonly,
            'a = socket.socket(1, 1); a.bind("/tmp/own9"); os.unlink("/tmp/own9"); return 0',
        ),
        Attack(
            "chmod-through-an-empty-path",
            'return raw_number(452, os.open("/etc/hosts", os.O_PATH), b"", 0o666, 0x1000)',
            (EROFS, EACCES, EPERM),
            'open("mine", "w").close(); return raw_number(452, os.open("mine", os.O_PATH), b"", 0o600, 0x1000)',
        ),
        Attack(
            "setuid-bit-through-an-empty-path",
            'open("mine", "w").close(); return raw_number(452, os.open("mine", os.O_PATH), b"", 0o4755, 0x1000)',
            (EPERM,),
            'open("mine", "w").close(); return raw_number(452, os.open("mine", os.O_PATH), b"", 0o755, 0x1000)',
        ),
        Attack(
            "trusted-attribute",
            'open("mine", "w").close(); return os.setxattr("mine", "trusted.overlay.opaque", b"y")',
            (EPERM, "ENOTSUP"),
            _OWN_FILE,
        ),
        Attack(
            "integrity-attribute",
            'open("mine", "w").close(); return os.setxattr("mine", "security.ima", b"y")',
            (EPERM, "ENOTSUP"),
            _OWN_FILE,
        ),
        Attack(
            "verity",
            'import fcntl; open("mine", "w").close(); return fcntl.ioctl(os.open("mine", os.O_RDONLY), 0x40806685, bytes(128))',
            (EPERM,),
            _QUESTION,
        ),
        Attack(
            "encryption-key",
            'import fcntl; return fcntl.ioctl(os.open(".", os.O_RDONLY), 0xC0506617, bytes(80))',
            (EPERM,),
            _QUESTION,
        ),
        Attack(
            "subvolume",
            'import fcntl; return fcntl.ioctl(os.open(".", os.O_RDONLY), 0x5000940E, bytes(1000))',
            (EPERM,),
            _QUESTION,
        ),
        Attack(
            "block-of-a-file",
            'import fcntl; return fcntl.ioctl(os.open("/etc/hosts", os.O_RDONLY), 1, bytes(4))',
            (EPERM,),
            _QUESTION,
        ),
        Attack("scsi-command", "import fcntl; return fcntl.ioctl(0, 0x2285, bytes(88))", (EPERM,), _QUESTION),
        Attack(
            "owner-of-a-descriptor",
            'import fcntl; a, b = socket.socketpair(); return fcntl.ioctl(a, 0x8901, struct.pack("i", {victim}))',
            ("ESRCH", EPERM),
            _QUESTION,
        ),
        Attack(
            "every-other-device",
            'allowed = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd", "stdin", "stdout", "stderr"}\n    got = [n for n in os.listdir("/dev") if n not in allowed] + [n for n in os.listdir("/dev/shm")]\n    if got: return got\n    raise OSError(errno.ENOENT, "")',
            (ENOENT,),
            'return sorted(os.listdir("/dev"))[0]',
        ),
        Attack(
            "every-own-proc-file-for-writing",
            'got = []\n    for base in ("/proc/self/", "/proc/self/task/%d/" % os.getpid(), "/proc/self/attr/", "/proc/self/attr/apparmor/"):\n        for name in (os.listdir(base) if os.path.isdir(base) else []):\n            try: got.append(open_for_writing(base + name))\n            except OSError: continue\n    if got: return got\n    raise OSError(errno.EROFS, "")',
            (EROFS,),
            'return open_for_writing("/dev/null")',
        ),
        Attack(
            "pressure-trigger",
            'return os.open("/proc/pressure/memory", os.O_RDWR)',
            readonly,
            'return os.open("/dev/null", os.O_RDWR)',
        ),
        Attack(
            "shared-memory-file-of-the-host",
            'return read_start("{shm_file}")',
            (ENOENT, EACCES),
            'open("/dev/shm/o9", "w").close(); return read_start("/dev/shm/o9")',
        ),
        Attack(
            "shared-memory-key-of-the-host",
            f"return raw_number({_number(29, 194)}, {{shm_key}}, 0, 0)",
            (ENOENT,),
            f"return raw_number({_number(29, 194)}, 0, 4096, 0o1600) >= 0",
        ),
        Attack(
            "abstract-datagram",
            'return socket.socket(1, 2).sendto(b"x", "\\0{abstract_datagram}")',
            (EPERM, "ECONNREFUSED"),
            'a = socket.socket(1, 2); a.bind("\\0own-d"); return socket.socket(1, 2).sendto(b"x", "\\0own-d")',
        ),
    ]


def _processes() -> list[Attack]:
    return [
        Attack(
            "tkill-victim",
            f"return raw_number({_number(200, 130)}, {{victim}}, 9)",
            ("ESRCH", EPERM),
            f"return raw_number({_number(200, 130)}, os.getpid(), 0)",
        ),
        Attack(
            "queue-to-a-thread-of-the-victim",
            f'return raw_number({_number(297, 240)}, {{victim}}, {{victim}}, 9, struct.pack("iii", 9, 0, -1) + bytes(116))',
            ("ESRCH", EPERM),
            _ALIVE,
        ),
        Attack(
            "forged-kernel-signal",
            f'return raw_number({_number(129, 138)}, os.getppid(), 10, struct.pack("iii", 10, 0, 0) + bytes(116))',
            (EPERM,),
            "return os.kill(os.getpid(), 0)",
        ),
        Attack(
            "robust-list-of-the-victim",
            f"return raw_number({_number(274, 100)}, {{victim}}, ctypes.create_string_buffer(8), ctypes.create_string_buffer(8))".replace(
                "return raw_number", "p, q = ctypes.c_long(), ctypes.c_long(); return raw_number"
            ).replace(
                "ctypes.create_string_buffer(8), ctypes.create_string_buffer(8)",
                "ctypes.addressof(p), ctypes.addressof(q)",
            ),
            ("ESRCH", EPERM),
            f"p, q = ctypes.c_long(), ctypes.c_long(); return raw_number({_number(274, 100)}, 0, ctypes.addressof(p), ctypes.addressof(q))",
        ),
        Attack(
            "capabilities-of-the-victim",
            f'return raw_number({_number(125, 90)}, struct.pack("II", 0x20080522, {{victim}}), bytes(24))',
            ("ESRCH", EPERM),
            f'return raw_number({_number(125, 90)}, struct.pack("II", 0x20080522, 0), bytes(24))',
        ),
        Attack("session-of-the-victim", "return os.getsid({victim})", ("ESRCH", EPERM), "return os.getsid(0) >= 0"),
        Attack(
            "every-other-prctl",
            'allowed = {1, 2, 3, 4, 7, 8, 15, 16, 21, 23, 25, 27, 29, 30, 36, 37, 38, 39, 40, 41, 42, 47, 52}\n    got = []\n    for option in [*range(1, 90), 0x59616D61, 0x53564D41 + 1]:\n        if option in allowed: continue\n        try: got.append((option, call("prctl", option, 0, 0, 0, 0)))\n        except OSError as error:\n            if error.errno != errno.EPERM: got.append((option, error.errno))\n    if got: return got\n    raise OSError(errno.EPERM, "")',
            (EPERM,),
            'return call("prctl", 3, 0, 0, 0, 0)',
        ),
        Attack(
            "null-page",
            "import mmap; LIBC.mmap.restype = ctypes.c_long; LIBC.mmap.argtypes = [ctypes.c_long] * 6; r = LIBC.mmap(0, 4096, 3, 0x32, -1, 0)\n    if r == -1: raise OSError(ctypes.get_errno(), '')\n    return r",
            (EPERM, EACCES),
            "import mmap; return len(mmap.mmap(-1, 4096))",
        ),
        Attack(
            "huge-page-segment",
            f"return raw_number({_number(29, 194)}, 0, 1 << 21, 0o5600)",
            (EPERM, "ENOMEM", EINVAL, ENOSYS),
            f"return raw_number({_number(29, 194)}, 0, 4096, 0o1600) >= 0",
        ),
        Attack("clear-the-kernel-log", f"return raw_number({_number(103, 116)}, 5, 0, 0)", (EPERM,), _ALIVE),
        Attack("level-of-the-console", f"return raw_number({_number(103, 116)}, 8, 0, 1)", (EPERM,), _ALIVE),
        Attack(
            "drain-the-kernel-log",
            f"return raw_number({_number(103, 116)}, 2, ctypes.addressof(ctypes.create_string_buffer(8)), 8)",
            (EPERM,),
            _ALIVE,
        ),
    ]


def _network() -> list[Attack]:
    rows = [
        Attack(
            f"interface-{name}",
            f'import fcntl; s = socket.socket(2, 2); return fcntl.ioctl(s, {request:#x}, struct.pack("40s", b"lo"))',
            (EPERM,),
            'import fcntl; s = socket.socket(2, 2); return fcntl.ioctl(s, 0x8913, struct.pack("16sh14x", b"lo", 0)) and True',
            profiles=HOST,
        )
        for name, request in {
            "multicast": 0x8931,
            "queue-length": 0x8943,
            "map": 0x8971,
            "mii-write": 0x8949,
            "bond": 0x8990,
            "wireless-name": 0x8B1A,
            "points-to": 0x8918,
            "metric": 0x891E,
        }.items()
    ]
    rows += [
        Attack(
            "ethtool-set-rings",
            'import fcntl; s = socket.socket(2, 2); b = ctypes.create_string_buffer(struct.pack("I", 0x11) + bytes(60)); return fcntl.ioctl(s, 0x8946, struct.pack("16sQ16x", b"lo", ctypes.addressof(b)))',
            (EPERM, "EOPNOTSUPP"),
            "return socket.socket(2, 2).fileno() > 0",
            profiles=HOST,
        ),
        Attack(
            "ethtool-reset",
            'import fcntl; s = socket.socket(2, 2); b = ctypes.create_string_buffer(struct.pack("II", 0x34, 0xffff) + bytes(60)); return fcntl.ioctl(s, 0x8946, struct.pack("16sQ16x", b"lo", ctypes.addressof(b)))',
            (EPERM, "EOPNOTSUPP"),
            "return socket.socket(2, 2).fileno() > 0",
            profiles=HOST,
        ),
        Attack(
            "netlink-of-every-namespace",
            "return socket.socket(16, 3, 0).setsockopt(270, 8, 1)",
            (EPERM,),
            "return socket.socket(16, 3, 0).setsockopt(270, 11, 1)",
            profiles=HOST,
        ),
        Attack(
            "bind-to-a-low-port",
            'return socket.socket(2, 1).bind(("127.0.0.1", 1))',
            (EACCES, EPERM),
            'return socket.socket(2, 1).bind(("127.0.0.1", 0))',
            profiles=HOST,
        ),
        Attack(
            "packets-by-a-ring",
            "return socket.socket(2, 1).setsockopt(263, 5, bytes(28))",
            (EPERM, "ENOPROTOOPT", "EOPNOTSUPP"),
            "return socket.socket(2, 1).setsockopt(6, 1, 1)",
            profiles=HOST,
        ),
        Attack(
            "security-label",
            "return socket.socket(1, 1).setsockopt(1, 31, b'x')",
            ("ENOPROTOOPT", EPERM, EINVAL),
            "return socket.socket(1, 1).setsockopt(1, 2, 1)",
        ),
        Attack(
            "reuseport-program",
            "return socket.socket(1, 1).setsockopt(1, 52, struct.pack('i', 0))",
            (EPERM, EINVAL, "EBADF", "ENOPROTOOPT", "EOPNOTSUPP"),
            "return socket.socket(1, 1).setsockopt(1, 2, 1)",
        ),
    ]
    return rows


def _programs() -> list[Attack]:
    """Programs of the host that make it easy."""
    words = {
        "unshare-as-root": ["unshare", "-Ur", "true"], "nsenter": ["nsenter", "-t", "1", "-m", "true"], "newuidmap": ["newuidmap", "1", "0", "0", "1"],
        "setpriv": ["setpriv", "--reuid=0", "true"], "chroot": ["chroot", "/", "true"], "link-down": ["ip", "link", "set", "lo", "down"], "netns-add": ["ip", "netns", "add", "guardhouse"],
        "date": ["date", "-s", "@0"], "sysctl": ["sysctl", "-w", "kernel.panic=1"], "dmesg-clear": ["dmesg", "-C"], "losetup": ["losetup", "-f", "--show", "/etc/hosts"],
        "mount-shared": ["mount", "--make-rshared", "/"], "umount": ["umount", "-l", "/proc"],
        "prlimit-init": ["prlimit", "--pid", "1", "--nofile=1"], "chsh": ["chsh", "-s", "/bin/true"],
    }  # fmt: skip
    return [
        Attack(
            f"program-{name}",
            f"return program({argv!r})",
            (EACCES, EPERM, ENOENT),
            f"import shutil; return program([{argv[0]!r}, '--version']) if shutil.which({argv[0]!r}) and {argv[0]!r} not in ('newuidmap', 'ip', 'chsh') else 'not asked'",
        )
        for name, argv in words.items()
    ]


RARER: tuple[Attack, ...] = (*_account(), *_limits(), *_handles(), *_files(), *_processes(), *_network(), *_programs())

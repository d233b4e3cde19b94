"""More attacks: calls and options newer or rarer than those of `table.py`, and sweeps over everything of a kind.

Same form and placeholders as there.
"""

# ruff: noqa: E501 - a row is one line of thought; broken script text reads worse

from .table import CLOSED, EACCES, ENOENT, ENOSYS, EPERM, EROFS, HOST, X86, Attack

EINVAL = "EINVAL"

__all__ = ["NEWER"]

UNIX = "return socket.socket(socket.AF_UNIX).close()"
PROCESS = "return os.getppid() >= 0"


def _calls() -> list[Attack]:
    """Calls by number where no library names them; each is refused by the filter before its arguments are read."""
    # name: (number on x86_64, number on aarch64, arguments)
    refused = {
        "landlock-create-ruleset": (444, 444, "0, 0, 1"),
        "landlock-add-rule": (445, 445, "-1, 1, 0, 0"),
        "landlock-restrict-self": (446, 446, "-1, 0"),
        "quotactl-fd": (443, 443, "-1, 0, 0, 0"),
        "process-mrelease": (448, 448, "-1, 0"),
        "cachestat": (451, 451, "-1, 0, 0, 0"),
        "fanotify-mark": (301, 263, "-1, 1, 1, -100, 0"),
        "io-uring-enter": (426, 426, "-1, 1, 0, 0, 0, 0"),
        "io-uring-register": (427, 427, "-1, 0, 0, 0"),
        "fsconfig": (431, 431, "-1, 0, 0, 0, 0"),
        "vm-read-init": (310, 270, "1, 0, 0, 0, 0, 0"),
        "ptrace-seize-init": (101, 117, "0x4206, 1, 0, 0"),
        "ptrace-attach-parent": (101, 117, "16, os.getppid(), 0, 0"),
        "kcmp-init": (312, 272, "os.getpid(), 1, 0, 0, 0"),
        "pidfd-getfd-init": (438, 438, 'call("pidfd_open", 1, 0), 0, 0'),
        "setns-pidfd-init": (308, 268, 'call("pidfd_open", 1, 0), 0x20000'),
        "process-madvise-init": (440, 440, 'call("pidfd_open", 1, 0), 0, 0, 21, 0'),
        "process-mrelease-init": (448, 448, 'call("pidfd_open", 1, 0), 0'),
        "io-submit": (209, 2, "0, 0, 0"),
        "unshare-files-and-newns": (272, 97, "0x20400"),
        "unshare-time": (272, 97, "0x80"),
        "unshare-high-bits": (272, 97, "(1 << 32) | 0x10000000"),
    }
    rows = [
        Attack(
            f"number-{name}",
            f'return raw_number({x86} if platform.machine() == "x86_64" else {arm}, {arguments})',
            (EPERM,),
            PROCESS,
        )
        for name, (x86, arm, arguments) in refused.items()
    ]
    newer = {
        "map-shadow-stack": (453, "0, 4096, 0"),
        "futex-wait": (455, "0, 0, 0, 0, 0, 0"),
        "futex-requeue": (456, "0, 0, 0, 0"),
        "lsm-get-self-attr": (459, "100, 0, 0, 0"),
        "lsm-set-self-attr": (460, "100, 0, 0, 0"),
        "lsm-list-modules": (461, "0, 0, 0"),
        "setxattrat": (463, "-100, 0, 0, 0, 0, 0"),
        "removexattrat": (466, "-100, 0, 0, 0"),
        "open-tree-attr": (467, "-100, 0, 1, 0, 0"),
        "file-getattr": (468, "-100, 0, 0, 0, 0"),
        "file-setattr": (469, "-100, 0, 0, 0, 0"),
        "call-of-tomorrow": (480, "0, 0, 0, 0, 0, 0"),
        "call-with-high-bits": ((1 << 32) | 425, "0, 0"),
    }
    rows += [
        Attack(f"number-{name}", f"return raw_number({number}, {arguments})", (ENOSYS, EPERM), PROCESS)
        for name, (number, arguments) in newer.items()
    ]
    rows += [
        Attack(
            "every-call-above-the-list",
            'got = []\n    for number in range(453, 700):\n        try:\n            raw_number(number, -1, -1, -1, -1, -1)\n            got.append(number)\n        except OSError as error:\n            if error.errno not in (errno.ENOSYS, errno.EPERM): got.append(number)\n    if got: return got\n    raise OSError(errno.ENOSYS, "")',
            (ENOSYS,),
            PROCESS,
        ),
        Attack(
            "every-x32-call",
            'import signal; got = []\n    for number in range(0, 548, 7):\n        pid = os.fork()\n        if pid == 0:\n            raw_number(0x40000000 | number, -1, -1, -1, -1, -1)\n            os._exit(0)\n        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != -signal.SIGSYS: got.append(number)\n    if got: return got\n    raise OSError(errno.EPERM, "")',
            (EPERM,),
            "return raw_number(39)",
            machines=X86,
        ),
        Attack(
            "sysenter",
            'return run_machine_code(bytes.fromhex("b814000000" "0f34" "c3"))',
            ("SIGSYS", "SIGNAL 11", "SIGNAL 4"),
            'return run_machine_code(bytes.fromhex("b827000000" "0f05" "c3"))',
            machines=X86,
        ),
        Attack(
            "unshare-in-a-thread",
            'import threading; seen = []\n    def work():\n        try: seen.append(call("unshare", CLONE["user"]))\n        except OSError as error: seen.append(error)\n    t = threading.Thread(target=work); t.start(); t.join()\n    if isinstance(seen[0], OSError): raise seen[0]\n    return seen',
            (EPERM,),
            "import threading; t = threading.Thread(target=int); t.start(); return t.join()",
        ),
        Attack(
            "seccomp-user-notification",
            'return call("seccomp", 1, 8, struct.pack("HHQ", 0, 0, 0))',
            (EPERM,),
            'return call("prctl", 21, 0, 0, 0, 0)',
        ),
        Attack(
            "seccomp-strict",
            'return in_child(lambda: call("seccomp", 0, 0, 0))',
            (EPERM,),
            'return call("prctl", 21, 0, 0, 0, 0)',
        ),
        Attack(
            "seccomp-get-sizes",
            'return call("seccomp", 3, 0, ctypes.create_string_buffer(8))',
            (EPERM,),
            'return call("prctl", 21, 0, 0, 0, 0)',
        ),
        Attack(
            "pidfd-signal-victim-group",
            'return call("pidfd_send_signal", call("pidfd_open", {victim}, 0), 9, 0, 4)',
            ("ESRCH", EINVAL, EPERM),
            'return call("pidfd_send_signal", call("pidfd_open", os.getpid(), 0), 0, 0, 0)',
        ),
        Attack(
            "sigqueue-victim",
            'return raw_number(129 if platform.machine() == "x86_64" else 138, {victim}, 9, 0)',
            ("ESRCH", EPERM, "EFAULT", EINVAL),
            "return os.kill(os.getpid(), 0)",
        ),
        Attack(
            "prctl-dumpable-of-others",
            'return read_start("/proc/1/mem")',
            (EACCES, EPERM, ENOENT),
            'return call("prctl", 4, 1, 0, 0, 0)',
        ),
        Attack(
            "prctl-mce-kill", 'return call("prctl", 33, 1, 1, 0, 0)', (EPERM,), 'return call("prctl", 3, 0, 0, 0, 0)'
        ),
        Attack(
            "prctl-io-flusher", 'return call("prctl", 57, 1, 0, 0, 0)', (EPERM,), 'return call("prctl", 3, 0, 0, 0, 0)'
        ),
        Attack(
            "prctl-syscall-user-dispatch",
            'return call("prctl", 59, 1, 0, 0, 0)',
            (EPERM,),
            'return call("prctl", 3, 0, 0, 0, 0)',
        ),
        Attack(
            "prctl-sched-core", 'return call("prctl", 62, 1, 0, 0, 0)', (EPERM,), 'return call("prctl", 3, 0, 0, 0, 0)'
        ),
        Attack(
            "prctl-speculation",
            'return call("prctl", 53, 0, 2, 0, 0)',
            (EPERM,),
            'return call("prctl", 52, 0, 0, 0, 0) >= 0',
        ),
        Attack(
            "prctl-tsc",
            'return call("prctl", 26, 2, 0, 0, 0)',
            (EPERM,),
            'return call("prctl", 25, ctypes.create_string_buffer(4), 0, 0, 0)',
        ),
    ]
    rows += [
        Attack(
            f"personality-{name}",
            f'return call("personality", {value})',
            (EPERM,),
            'return call("personality", 0xffffffff)',
        )
        for name, value in {
            "read-implies-exec": 0x400000,
            "addr-no-randomize": 0x40000,
            "compat-layout": 0x200000,
            "svr4": 1,
            "linux32": 8,
        }.items()
    ]
    return rows


def _sockets() -> list[Attack]:
    every = 'import itertools; got = []\n    for family, kind in itertools.product(range(64), (1, 2, 3, 4, 5, 6, 10)):\n        if family in %s: continue\n        try:\n            got.append((family, kind, socket.socket(family, kind, 0).close()))\n        except OSError as error:\n            if error.errno != errno.EPERM: got.append((family, kind, error.errno))\n    if got: return got\n    raise OSError(errno.EPERM, "")'
    rows = [
        Attack("every-other-family", every % "(1, 2, 10, 16)", (EPERM,), UNIX, profiles=HOST),
        Attack("every-other-family-in-isolate", every % "(1,)", (EPERM,), UNIX, profiles=("isolate",)),
        Attack(
            "every-other-netlink",
            'got = []\n    for protocol in range(32):\n        if protocol in (0, 4): continue\n        try:\n            got.append((protocol, socket.socket(16, 3, protocol).close()))\n        except OSError as error:\n            if error.errno != errno.EPERM: got.append((protocol, error.errno))\n    if got: return got\n    raise OSError(errno.EPERM, "")',
            (EPERM,),
            "return socket.socket(16, 3, 0).close()",
            profiles=HOST,
        ),
        Attack(
            "every-other-protocol",
            'got = []\n    for kind, allowed in ((1, (0, 6)), (2, (0, 1, 17, 58))):\n        for protocol in range(264):\n            if protocol in allowed: continue\n            try:\n                got.append((kind, protocol, socket.socket(2, kind, protocol).close()))\n            except OSError as error:\n                if error.errno != errno.EPERM: got.append((kind, protocol, error.errno))\n    if got: return got\n    raise OSError(errno.EPERM, "")',
            (EPERM,),
            "return socket.socket(2, 1, 6).close()",
            profiles=HOST,
        ),
        Attack(
            "socketpair-inet", "return socket.socketpair(2, 1)", (EPERM,), "return socket.socketpair(1, 1) is not None"
        ),
        Attack("ping-in-isolate", "return socket.socket(2, 2, 1).close()", (EPERM,), UNIX, profiles=("isolate",)),
        Attack(
            "destroy-a-socket-of-the-host",
            's = socket.socket(16, 3, 4); s.send(struct.pack("IHHII", 72, 21, 5, 1, 0) + bytes([2, 6, 0, 0]) + struct.pack("I", 0xffffffff) + struct.pack(">HH", {port}, 0) + socket.inet_aton("127.0.0.1").ljust(16, b"\\0") + bytes(16) + struct.pack("III", 0, 0xffffffff, 0xffffffff)); code = struct.unpack_from("i", s.recv(4096), 16)[0]\n    if code: raise OSError(-code, "")\n    return 0',
            (EPERM, EINVAL, "EOPNOTSUPP"),
            "return socket.socket(16, 3, 4).close()",
            profiles=HOST,
        ),
        Attack(
            "send-descriptor-of-outside",
            'a, b = socket.socketpair(); socket.send_fds(a, [b"x"], [os.open("{host_file}", os.O_WRONLY)]); return socket.recv_fds(b, 1, 1)',
            (EROFS, EACCES, ENOENT),
            'a, b = socket.socketpair(); socket.send_fds(a, [b"x"], [1]); return len(socket.recv_fds(b, 1, 1)[1])',
            profiles=CLOSED,
        ),
        Attack(
            "forged-credentials",
            'a, b = socket.socketpair(); b.setsockopt(1, 16, 1); return a.sendmsg([b"x"], [(1, 2, struct.pack("3i", 1, 0, 0))])',
            (EPERM, EINVAL),
            'a, b = socket.socketpair(); b.setsockopt(1, 16, 1); return a.sendmsg([b"x"], [(1, 2, struct.pack("3i", os.getpid(), os.getuid(), os.getgid()))])',
        ),
    ]
    options = {
        "mark": (1, 36, 'struct.pack("i", 1)'),
        "receive-buffer-force": (1, 33, 'struct.pack("i", 1 << 26)'),
        "send-buffer-force": (1, 32, 'struct.pack("i", 1 << 26)'),
        "priority": (1, 12, 'struct.pack("i", 7)'),
        "debug": (1, 1, 'struct.pack("i", 1)'),
        "attach-bpf": (1, 50, 'struct.pack("i", 0)'),
    }
    rows += [
        Attack(
            f"socket-option-{name}",
            f"return socket.socket(1, 1).setsockopt({level}, {number}, {value})",
            (EPERM, EACCES, EINVAL, "EBADF"),
            "return socket.socket(1, 1).setsockopt(1, 2, 1)",
        )
        for name, (level, number, value) in options.items()
    ]
    network = {
        "transparent": (0, 19, "1"),
        "freebind-raw-header": (0, 3, "1"),
        "iptables-replace": (0, 64, "bytes(128)"),
        "arptables-replace": (0, 96, "bytes(128)"),
        "ip6tables-replace": (41, 64, "bytes(128)"),
        "tcp-repair": (6, 19, "1"),
        "congestion-restricted": (6, 13, 'b"guardhouse-none"'),
        "xfrm-policy": (0, 17, "bytes(512)"),
        "upper-layer-smc": (6, 31, 'b"smc"'),
        "upper-layer-espintcp": (6, 31, 'b"espintcp"'),
    }
    rows += [
        Attack(
            f"socket-option-{name}",
            f"return socket.socket({10 if level == 41 else 2}, 1).setsockopt({level}, {number}, {value})",
            (EPERM, "ENOPROTOOPT", ENOENT, "ENOTCONN", EINVAL),
            "return socket.socket(2, 1).setsockopt(6, 1, 1)",
            profiles=HOST,
        )
        for name, (level, number, value) in network.items()
    ]
    for name, request in {
        "address": 0x8916,
        "netmask": 0x891C,
        "mtu": 0x8922,
        "hardware-address": 0x8924,
        "route-add": 0x890B,
        "route-delete": 0x890C,
        "arp-set": 0x8955,
        "rename": 0x8923,
        "bridge": 0x89A0,
        "tunnel": 0x89F1,
        "vlan": 0x8983,
        "timestamps": 0x89B0,
        "private": 0x89F0,
    }.items():
        rows.append(
            Attack(
                f"interface-{name}",
                f'import fcntl; s = socket.socket(2, 2); return fcntl.ioctl(s, {request:#x}, struct.pack("40s", b"lo"))',
                (EPERM,),
                'import fcntl; s = socket.socket(2, 2); return fcntl.ioctl(s, 0x8913, struct.pack("16sh14x", b"lo", 0)) and True',
                profiles=HOST,
            )
        )
    for name, kind in {
        "new-link": 16,
        "delete-link": 17,
        "new-address": 20,
        "new-route": 24,
        "new-neighbour": 28,
        "new-rule": 32,
        "new-qdisc": 36,
        "new-netconf": 80,
        "new-netns-id": 88,
    }.items():
        rows.append(
            Attack(
                f"netlink-{name}",
                f's = socket.socket(16, 3, 0); s.send(struct.pack("IHHII", 48, {kind}, 0x605, 1, 0) + bytes(32)); code = struct.unpack_from("i", s.recv(4096), 16)[0]\n    if code: raise OSError(-code, "")\n    return 0',
                (EPERM, EINVAL, "EOPNOTSUPP") if kind in (80, 88) else (EPERM,),
                's = socket.socket(16, 3, 0); return s.send(struct.pack("IHHIIB", 17, 18, 0x301, 1, 0, 0))',
                profiles=HOST,
            )
        )
    sockets = {
        "podman": "/run/podman/podman.sock", "crio": "/run/crio/crio.sock", "k3s": "/run/k3s/containerd/containerd.sock", "buildkit": "/run/buildkit/buildkitd.sock",
        "libvirt": "/run/libvirt/libvirt-sock", "snapd": "/run/snapd.socket", "lxd": "/var/lib/lxd/unix.socket", "incus": "/var/lib/incus/unix.socket",
        "udev-control": "/run/udev/control", "systemd-manager": "/run/systemd/io.systemd.Manager", "containerd-of-docker": "/run/docker/containerd/containerd.sock",
        "var-run-containerd": "/var/run/containerd/containerd.sock", "own-user-manager": "/run/user/%d/systemd/private", "initctl": "/run/initctl",
    }  # fmt: skip
    for name, path in sockets.items():
        rows.append(
            Attack(
                f"host-socket-{name}",
                f'return socket.socket(1, 1).connect("{path}".replace("%d", str(os.getuid())))',
                (ENOENT, EACCES),
                UNIX,
            )
        )
    rows.append(
        Attack(
            "metadata-ipv6",
            'return socket.create_connection(("fd00:ec2::254", 80), 2).close()',
            (EPERM,),
            UNIX,
            profiles=("isolate",),
        )
    )
    return rows


def _terminals() -> list[Attack]:
    pty = "import fcntl, pty, termios; m, s = pty.openpty(); "
    twin = pty + 'return fcntl.ioctl(s, termios.TIOCGWINSZ, b"\\0" * 8)'
    requests = {
        "tiocpkt": 0x5420, "tiocmset": 0x5418, "tiocsserial": 0x541F, "tiocvhangup": 0x5437, "tiocslcktrmios": 0x5457, "kdsetmode": 0x4B3A, "kdsetled": 0x4B32, "kdskbent": 0x4B47,
        "kdfontop": 0x4B72, "vt-activate": 0x5606, "vt-lockswitch": 0x560B, "gio-scrnmap": 0x4B40, "pppiocnewunit": 0xC004743E, "rndaddentropy": 0x40085203, "rndclearpool": 0x5206,
        "fifreeze": 0xC0045877, "fitrim": 0xC0185879, "fs-ioc-setflags": 0x40086602, "fs-ioc-fssetxattr": 0x401C5820, "blkdiscard": 0x1277, "blkrrpart": 0x125F, "ns-get-userns": 0xB701, "ns-get-parent": 0xB702,
        "kvm-create-vm": 0xAE01, "loop-set-fd": 0x4C00, "tunsetiff": 0x400454CA, "perf-enable": 0x2400, "userfaultfd-api": 0xC018AA3F, "epoll-params": 0x40088A01, "pidfd-get-namespace": 0xFF03,
    }  # fmt: skip
    rows = [
        Attack(f"ioctl-{name}", pty + f"return fcntl.ioctl(s, {request:#x}, bytes(64))", (EPERM,), twin)
        for name, request in requests.items()
    ]
    rows += [
        Attack(
            "tiocsti-on-stdio",
            'import fcntl\n    for n in (0, 1, 2):\n        try:\n            return fcntl.ioctl(n, 0x5412, b"x")\n        except OSError as error: last = error\n    raise last',
            (EPERM,),
            twin,
        ),
        Attack(
            "tiocsti-over-the-controlling-terminal",
            pty
            + 'os.setsid() if os.getpid() != os.getsid(0) else 0; fcntl.ioctl(s, 0x540E, 0); return fcntl.ioctl(os.open("/dev/tty", os.O_RDWR), 0x5412, b"x")',
            (EPERM,),
            twin,
        ),
        Attack(
            "console",
            'return os.open("/dev/console", os.O_WRONLY)',
            (ENOENT,),
            'return os.open("/dev/null", os.O_WRONLY)',
        ),
        Attack(
            "virtual-terminals",
            'got = [n for n in os.listdir("/dev") if n.startswith(("tty", "vcs", "hvc", "console")) and n != "tty"]\n    if not got: raise FileNotFoundError(errno.ENOENT, "")\n    return got',
            (ENOENT,),
            'return os.open("/dev/null", os.O_WRONLY)',
        ),
    ]
    return rows


def _processes() -> list[Attack]:
    mine = 'return read_start("/proc/self/environ")'
    return [
        Attack(
            "sweep-memory-of-everybody",
            'return sweep(("mem", "maps", "smaps", "pagemap", "auxv", "environ"), read_some)',
            (EACCES,),
            mine,
        ),
        Attack("sweep-places-of-everybody", 'return sweep(("root/", "cwd/"), os.listdir)', (EACCES,), mine),
        Attack(
            "sweep-descriptors-of-everybody",
            'return sweep([f"fd/{n}" for n in range(8)], os.readlink)',
            (EACCES,),
            mine,
        ),
        Attack("sweep-programs-of-everybody", 'return sweep(("exe",), read_start)', (EACCES,), mine),
        Attack(
            "sweep-namespaces-of-everybody",
            'return sweep(("ns/mnt", "ns/user", "ns/net"), read_start)',
            (EACCES,),
            'return os.open("/proc/self/ns/mnt", os.O_RDONLY)',
        ),
        Attack(
            "sweep-settings-of-everybody",
            'return sweep(("oom_score_adj", "oom_adj", "coredump_filter", "timerslack_ns", "autogroup", "comm", "clear_refs", "attr/current", "loginuid", "uid_map", "setgroups", "timens_offsets"), open_for_writing)',
            (EACCES,),
            mine,
        ),
        Attack(
            "signal-everybody-by-number",
            'got = []\n    for pid in range(2, 6000):\n        try:\n            os.kill(pid, 0)\n            got.append(pid)\n        except OSError: pass\n    strangers = [p for p in got if p not in (os.getpid(), os.getppid()) and p > 400]\n    if strangers: return strangers\n    raise ProcessLookupError(errno.ESRCH, "")',
            ("ESRCH",),
            "return os.kill(os.getpid(), 0)",
        ),
        Attack(
            "priority-of-the-whole-account",
            'before = open("/proc/{victim}/stat").read().rpartition(")")[2].split()[16]; os.setpriority(os.PRIO_USER, os.getuid(), 19)\n    after = open("/proc/{victim}/stat").read().rpartition(")")[2].split()[16]\n    if before == after: raise PermissionError(errno.EPERM, "")\n    return after',
            (EPERM, ENOENT),
            "return os.setpriority(os.PRIO_PROCESS, 0, 19)",
        ),
        Attack(
            "io-priority-of-victim",
            'return call("ioprio_set", 1, {victim}, (3 << 13) | 0)',
            ("ESRCH", EPERM),
            'return call("ioprio_set", 1, 0, (3 << 13) | 0)',
        ),
        Attack(
            "scheduler-of-victim",
            "return os.sched_setscheduler({victim}, os.SCHED_IDLE, os.sched_param(0))",
            ("ESRCH", EPERM),
            "return os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))",
        ),
        Attack(
            "deadline-scheduling",
            'return raw_number(314 if platform.machine() == "x86_64" else 274, 0, struct.pack("IIQiIQQQ", 48, 6, 0, 0, 0, 10**6, 10**7, 10**7), 0)',
            (EPERM, EINVAL),
            "return os.sched_getscheduler(0) >= 0",
        ),
        Attack(
            "robust-list-of-init",
            'return raw_number(274 if platform.machine() == "x86_64" else 100, 1, bytes(8), bytes(8))',
            (EPERM,),
            'return raw_number(274 if platform.machine() == "x86_64" else 100, 0, bytes(8), bytes(8))',
        ),
        Attack(
            "signal-by-descriptor-owner",
            "import fcntl; r, w = os.pipe(); return fcntl.fcntl(r, fcntl.F_SETOWN, {victim})",
            ("ESRCH", EPERM),
            "import fcntl; r, w = os.pipe(); return fcntl.fcntl(r, fcntl.F_SETOWN, os.getpid())",
        ),
    ]


def _views() -> list[Attack]:
    places = '("/tmp", "/var/tmp", "/dev/shm", "/dev", os.getcwd())'
    return [
        Attack(
            "writable-mount",
            f'got = []\n    for line in open("/proc/self/mountinfo"):\n        words = line.split()\n        if "rw" in words[5].split(",") and not words[4].startswith({places}): got.append(words[4])\n    if got: return got\n    raise OSError(errno.EROFS, "")',
            (EROFS,),
            'return open("/proc/self/mountinfo").readline() != ""',
            profiles=CLOSED,
        ),
        Attack(
            "mount-that-honours-setuid",
            'got = [line.split()[4] for line in open("/proc/self/mountinfo") if "nosuid" not in line.split()[5].split(",")]\n    if not got: raise PermissionError(errno.EPERM, "")\n    return got',
            (EPERM,),
            'return open("/proc/self/mountinfo").readline() != ""',
        ),
        Attack(
            "mount-with-devices",
            'got = [line.split()[4] for line in open("/proc/self/mountinfo") if "nodev" not in line.split()[5].split(",") and not line.split()[4].startswith("/dev")]\n    if not got: raise PermissionError(errno.EPERM, "")\n    return got',
            (EPERM,),
            'return open("/proc/self/mountinfo").readline() != ""',
        ),
        Attack(
            "writable-kernel-setting",
            'got = []\n    for top in ("/proc/sys", "/sys/kernel", "/sys/module", "/sys/fs", "/sys/power"):\n        for path, _, names in os.walk(top):\n            got += [path + "/" + n for n in names if os.access(path + "/" + n, os.W_OK)]\n            if got: return got[:3]\n    raise OSError(errno.EROFS, "")',
            (EROFS,),
            'return os.access("/dev/null", os.W_OK)',
        ),
        Attack(
            "set-user-id-program-keeps-its-bit",
            'import glob, stat, subprocess\n    for p in glob.glob("/usr/bin/*"):\n        try: mode = os.stat(p).st_mode\n        except OSError: continue\n        if mode & stat.S_ISUID and os.path.basename(p) in ("passwd", "su", "mount", "chsh", "newgrp", "gpasswd"):\n            pid = os.fork()\n            if pid == 0:\n                os.dup2(os.open("/dev/null", os.O_RDWR), 1); os.dup2(1, 2); os.dup2(1, 0)\n                os.execv("/usr/bin/python3", ["python3", "-I", "-c", "import os,sys; sys.exit(int(os.geteuid() == 0))"])\n            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]): return p\n    raise PermissionError(errno.EPERM, "")',
            (EPERM,),
            "return os.geteuid() != 0",
        ),
        Attack(
            "reopen-for-writing",
            'return os.open("/proc/self/fd/%d" % os.open("/etc/hosts", os.O_RDONLY), os.O_WRONLY)',
            (EROFS, EACCES),
            'f = os.open("mine2", os.O_CREAT | os.O_RDONLY, 0o600); return os.open("/proc/self/fd/%d" % f, os.O_WRONLY)',
        ),
        Attack(
            "reopen-by-thread-link",
            'return os.open("/proc/thread-self/fd/%d" % os.open("/usr/bin/env", os.O_RDONLY), os.O_RDWR)',
            (EROFS, EACCES, "ETXTBSY"),
            'return os.open("/proc/thread-self/fd/1", os.O_PATH)',
        ),
        Attack(
            "link-by-empty-path",
            'return raw_number(265 if platform.machine() == "x86_64" else 37, os.open("/etc/hosts", os.O_PATH), b"", -100, b"stolen3", 0x1000)',
            (ENOENT, "EXDEV", EPERM, EACCES),
            'open("mine", "w").close(); os.path.exists("l4") or os.link("mine", "l4"); return 0',
        ),
        Attack(
            "rename-out-of-the-workspace",
            'open("out", "w").close(); return os.rename("out", "/usr/lib/guardhouse-attack")',
            ("EXDEV", EROFS, EACCES),
            'open("out", "w").close(); return os.rename("out", "out2")',
        ),
        Attack(
            "exchange-with-the-host",
            'open("out", "w").close(); return raw_number(316 if platform.machine() == "x86_64" else 276, -100, b"out", -100, b"/etc/hosts", 2)',
            ("EXDEV", EROFS, EACCES),
            'open("out", "w").close(); return os.rename("out", "out2")',
        ),
        Attack(
            "whiteout-device",
            'open("white", "w").close(); return raw_number(316 if platform.machine() == "x86_64" else 276, -100, b"white", -100, b"white2", 4)',
            (EPERM, EINVAL),
            'open("out", "w").close(); return os.rename("out", "out2")',
        ),
        Attack(
            "handle-of-the-root",
            'h = ctypes.create_string_buffer(struct.pack("II", 128, 0) + bytes(128)); return call("name_to_handle_at", -100, "/", h, ctypes.create_string_buffer(8), 0)',
            (EPERM,),
            'return os.stat("/").st_ino',
        ),
        Attack(
            "mask-off-by-rename",
            'return os.rename("/etc/shadow", "/etc/shadow.away")',
            ("EBUSY", EROFS, EACCES, ENOENT, EPERM),
            'open("out", "w").close(); return os.rename("out", "out2")',
        ),
        Attack(
            "mask-off-by-unlink",
            'return os.unlink("/etc/shadow")',
            ("EBUSY", EROFS, EACCES, ENOENT, EPERM),
            'open("out", "w").close(); return os.unlink("out")',
        ),
        Attack("own-oom-score", 'return open_for_writing("/proc/self/oom_score_adj")', (EROFS, EACCES), mine_twin()),
        Attack(
            "own-setgroups", 'return open_for_writing("/proc/self/setgroups")', (EROFS, EACCES, ENOENT), mine_twin()
        ),
        Attack("own-attr", 'return open_for_writing("/proc/self/attr/exec")', (EROFS, EACCES, ENOENT), mine_twin()),
        Attack(
            "last-pid", 'return open_for_writing("/proc/sys/kernel/ns_last_pid")', (EROFS, EACCES, ENOENT), mine_twin()
        ),
        Attack("overcommit", 'return open_for_writing("/proc/sys/vm/overcommit_memory")', (EROFS, EACCES), mine_twin()),
        Attack(
            "ptrace-scope",
            'return open_for_writing("/proc/sys/kernel/yama/ptrace_scope")',
            (EROFS, EACCES, ENOENT),
            mine_twin(),
        ),
        Attack(
            "unprivileged-bpf",
            'return open_for_writing("/proc/sys/kernel/unprivileged_bpf_disabled")',
            (EROFS, EACCES, ENOENT),
            mine_twin(),
        ),
        Attack(
            "own-core-pattern-pipe",
            'open("/proc/sys/kernel/core_pattern", "w").write("|/usr/bin/touch /tmp/x")',
            (EROFS, EACCES),
            mine_twin(),
        ),
        Attack(
            "cpu-offline",
            'return open_for_writing("/sys/devices/system/cpu/cpu1/online")',
            (EROFS, EACCES, ENOENT),
            mine_twin(),
        ),
        Attack(
            "memory-kill-by-cgroup",
            'import glob; return open_for_writing((glob.glob("/sys/fs/cgroup/**/cgroup.kill", recursive=True) or ["/sys/fs/cgroup/cgroup.kill"])[0])',
            (EROFS, EACCES, ENOENT),
            mine_twin(),
        ),
        Attack(
            "memory-limit-of-own-group",
            'import glob; return open_for_writing((glob.glob("/sys/fs/cgroup/memory/memory.limit_in_bytes") + glob.glob("/sys/fs/cgroup/memory.max") or ["/sys/fs/cgroup/none"])[0])',
            (EROFS, EACCES, ENOENT),
            mine_twin(),
        ),
    ]


def mine_twin() -> str:
    """The account can write where it should."""
    return 'return open_for_writing("/dev/null")'


def _bombs() -> list[Attack]:
    return [
        Attack(
            "pipe-size",
            "import fcntl; r, w = os.pipe(); return fcntl.fcntl(w, 1031, 1 << 24)",
            (EPERM, "ENOMEM"),
            "import fcntl; r, w = os.pipe(); return fcntl.fcntl(w, 1031, 4096)",
        ),
        Attack(
            "inotify-instances",
            "held = 0\n    while held < 5000:\n        if LIBC.inotify_init1(0) < 0: raise OSError(ctypes.get_errno(), '')\n        held += 1\n    return held",
            ("EMFILE",),
            "return LIBC.inotify_init1(0)",
        ),
        # Landlock lets nobody open one (its mount is outside every tree); without it RLIMIT_MSGQUEUE bounds them.
        Attack(
            "message-queues",
            'held = 0\n    while held < 2000:\n        if LIBC.mq_open(b"/q%d" % held, os.O_CREAT | os.O_RDWR, 0o600, None) < 0: raise OSError(ctypes.get_errno(), "")\n        held += 1\n    return held',
            ("EMFILE", "ENOSPC", "ENOMEM", EACCES),
            "return LIBC.msgget(0, 0o600) >= 0",
        ),
        Attack(
            "pending-signals",
            "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN})\n    for n in range(20000):\n        if LIBC.sigqueue(os.getpid(), signal.SIGRTMIN, 0): raise OSError(ctypes.get_errno(), '')\n    return n",
            ("EAGAIN",),
            "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN}); return LIBC.sigqueue(os.getpid(), signal.SIGRTMIN, 0)",
        ),
        Attack(
            "lock-all-memory",
            "LIBC.mlockall(2); import mmap; m = mmap.mmap(-1, 1 << 26); return len(m)",
            ("EAGAIN", "ENOMEM"),
            "import mmap; return len(mmap.mmap(-1, 1 << 26))",
        ),
        Attack(
            "stack-limit",
            "import resource; return set_limit(resource.RLIMIT_STACK, 1 << 40, 1 << 40)",
            (EPERM,),
            "import resource; return resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, 1 << 20))",
        ),
        Attack(
            "shm-inodes",
            'for n in range(80000): os.close(os.open("/dev/shm/i%d" % n, os.O_CREAT | os.O_WRONLY))\n    return "unbounded"',
            ("ENOSPC",),
            'return os.open("/dev/shm/one", os.O_CREAT | os.O_WRONLY)',
        ),
        Attack(
            "var-tmp-space",
            'f = os.open("/var/tmp/space", os.O_CREAT | os.O_WRONLY); return os.posix_fallocate(f, 0, 1 << 30)',
            ("ENOSPC",),
            'f = os.open("/var/tmp/space", os.O_CREAT | os.O_WRONLY); return os.posix_fallocate(f, 0, 1 << 20)',
            profiles=CLOSED,
        ),
        Attack(
            "raise-pending-signals",
            "import resource; s, h = resource.getrlimit(resource.RLIMIT_SIGPENDING); return set_limit(resource.RLIMIT_SIGPENDING, -1, -1)",
            (EPERM,),
            "import resource; return resource.getrlimit(resource.RLIMIT_SIGPENDING)",
        ),
        Attack(
            "raise-file-size",
            "import resource; return set_limit(resource.RLIMIT_FSIZE, -1, -1)",
            (EPERM,),
            "import resource; return resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 30))",
        ),
    ]


NEWER: tuple[Attack, ...] = (*_calls(), *_sockets(), *_terminals(), *_processes(), *_views(), *_bombs())

"""The latest attacks: what holds on to others by a descriptor, a timer or a shared page, and pipes that no read-only mount stops.

Same form and placeholders as in `table.py`; `{host_fifo}` is a named pipe beside ``{host_file}`` that everybody may write to.
"""

# ruff: noqa: E501 - a row is one line of thought; broken script text reads worse

from .table import CLOSED, EACCES, EINVAL, ENOENT, ENOSYS, EPERM, EROFS, X86, Attack

__all__ = ["LATEST"]

_ALIVE = "return os.getppid() >= 0"


def _number(x86: int, arm: int) -> str:
    return f'({arm} if platform.machine() == "aarch64" else {x86})'


def _calls() -> list[Attack]:
    sweep = 'got = []\n    for number in range(337, 424):\n        try:\n            raw_number(number, -1, -1, -1, -1, -1); got.append(number)\n        except OSError as error:\n            if error.errno not in (errno.ENOSYS, errno.EPERM): got.append((number, error.errno))\n    if got: return got\n    raise OSError(errno.ENOSYS, "")'
    return [
        # Linux 6.14 asks no filter about the return of a probe, and ends whoever calls it without one.
        Attack("every-call-in-the-gap", sweep, (ENOSYS,), _ALIVE, machines=X86),
        Attack("call-of-a-return-probe", "return raw_number(335)", (ENOSYS, EPERM, "SIGNAL 4"), _ALIVE, machines=X86),
    ]  # fmt: skip


def _clocks() -> list[Attack]:
    """Timers that wake the machine, clocks of other processes, and timers that signal their threads."""
    made = "t = ctypes.c_void_p()\n    if LIBC.timer_create({clock}, {event}, ctypes.byref(t)): raise OSError(ctypes.get_errno(), '')\n    return 0"
    # struct sigevent: value, signo, notify, thread. SIGEV_THREAD_ID is 4.
    to_thread = 'struct.pack("QiiI44x", 0, 10, 4, {thread})'
    created = f"return raw_number({_number(283, 85)}, {{clock}}, 0)"
    told = "clock = (~{process} << 3) | 2; s = ctypes.create_string_buffer(16)\n    if LIBC.clock_gettime(ctypes.c_int(clock), s): raise OSError(ctypes.get_errno(), '')\n    return s.raw.hex()"
    return [
        Attack("timer-that-wakes-the-machine", created.format(clock=8), (EPERM,), created.format(clock=0)),
        Attack("alarm-clock-of-the-machine", made.format(clock=9, event="None"), (EPERM, "ENOTSUP", EINVAL), made.format(clock=7, event="None")),
        Attack("timer-to-a-thread-of-pid-one", made.format(clock=1, event=to_thread.format(thread="1")), (EINVAL,), made.format(clock=1, event=to_thread.format(thread="os.getpid()"))),
        Attack("timer-to-a-thread-of-the-victim", made.format(clock=1, event=to_thread.format(thread="{victim}")), (EINVAL,), made.format(clock=1, event=to_thread.format(thread="os.getpid()"))),
        Attack("processor-clock-of-the-victim", told.format(process="{victim}"), (EINVAL, "ESRCH"), told.format(process="os.getpid()")),
        Attack("timer-on-the-clock-of-the-victim", made.format(clock="(~{victim} << 3) | 2", event="None"), (EINVAL, "ESRCH"), made.format(clock="(~os.getpid() << 3) | 2", event="None")),
    ]  # fmt: skip


def _signals_by_descriptors() -> list[Attack]:
    """A descriptor signals its owner, whatever the signal, when something can be read: kill(2) by another name."""
    armed = (
        "import fcntl, signal, time; a, b = socket.socketpair(); pid = %s; fcntl.fcntl(a, 8, pid); fcntl.fcntl(a, 10, 9); "
        "fcntl.fcntl(a, 4, os.O_ASYNC | os.O_NONBLOCK); b.send(b'x'); "
    )
    own = "child = os.fork()\n    if child == 0: time.sleep(20); os._exit(0)\n    "
    return [
        Attack(
            "kill-pid-one-by-a-descriptor",
            armed % "1" + 'os.listdir("/proc/self"); time.sleep(0.2)\n    raise PermissionError(errno.EPERM, "we are still here, so pid 1 is")',
            (EPERM,),
            "import time; " + own + (armed % "child").replace("import fcntl, signal, time; ", "import fcntl; ") + "return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9 or time.sleep(30)",
        ),
        Attack(
            "group-of-the-host-by-a-descriptor",
            'import fcntl; return fcntl.fcntl(socket.socketpair()[0], 15, struct.pack("ii", 2, {victim}))',
            ("ESRCH", EPERM),
            'import fcntl; return fcntl.fcntl(socket.socketpair()[0], 15, struct.pack("ii", 1, os.getpid()))',
        ),
        Attack(
            "priority-of-the-account-for-disks",
            f"before = raw_number({_number(252, 31)}, 1, 1)\n    try: raw_number({_number(251, 30)}, 3, os.getuid(), (3 << 13) | 7)\n    except OSError: pass\n    if raw_number({_number(252, 31)}, 1, 1) == before: raise PermissionError(errno.EPERM, '')",
            (EPERM,),
            f"return raw_number({_number(251, 30)}, 1, 0, (3 << 13) | 7)",
            profiles=("isolate",),
        ),
    ]  # fmt: skip


def _peers() -> list[Attack]:
    """A socket hands out a descriptor of the process at its other end (Linux 6.5), in whatever namespace that is."""
    peer = 's = socket.socket(1, 1); s.connect("{host_socket}"); p = struct.unpack("i", s.getsockopt(1, 77, 4))[0]; '
    own = 's, o = socket.socketpair()\n    try: p = struct.unpack("i", s.getsockopt(1, 77, 4))[0]\n    except OSError: return "no such option before Linux 6.5"\n    '
    refused = (EPERM, EINVAL, "ESRCH", "ENOPROTOOPT")
    return [
        Attack("signal-to-a-peer-by-its-descriptor", peer + 'return call("pidfd_send_signal", p, 0, 0, 0)', refused, own + 'return call("pidfd_send_signal", p, 0, 0, 0)', profiles=("operate",)),
        Attack("signal-to-the-group-of-a-peer", peer + 'return call("pidfd_send_signal", p, 0, 0, 4)', refused, own + 'return call("pidfd_send_signal", p, 0, 0, 0)', profiles=("operate",)),
        Attack("namespace-of-a-peer", peer + "import fcntl; return fcntl.ioctl(p, 0xFF03)", refused, own + "return os.fstat(p).st_mode >= 0", profiles=("operate",)),
        Attack("descriptor-of-a-peer", peer + 'return call("pidfd_getfd", p, 0, 0)', refused, own + "return os.fstat(p).st_mode >= 0", profiles=("operate",)),
        Attack("memory-advice-to-a-peer", peer + 'return call("process_madvise", p, 0, 0, 21, 0)', refused, own + "return os.fstat(p).st_mode >= 0", profiles=("operate",)),
    ]  # fmt: skip


def _files() -> list[Attack]:
    """What a read-only mount lets through by its nature, and calls that change a file through a reader's descriptor."""
    readonly = (EROFS, EACCES, ENOENT, EPERM)
    pipe = 'os.path.exists("/tmp/{0}") or os.mkfifo("/tmp/{0}"); return os.open("/tmp/{0}", os.O_RDWR | os.O_NONBLOCK)'
    # struct file_dedupe_range with one target: {src_offset, src_length, count, …}, {dest_fd, dest_offset, bytes, status}.
    dedupe = 'import fcntl; open("same", "w").write("secret of the host\\n"); d = os.open({target}, {flags}); b = bytearray(struct.pack("QQHHI", 0, 19, 1, 0, 0) + struct.pack("qQQiI", d, 0, 0, 0, 0)); fcntl.ioctl(os.open("same", os.O_RDONLY), 0xC0189436, b); status = struct.unpack_from("i", b, 48)[0]\n    if status < 0: raise OSError(-status, "")\n    return status'
    hint = "import fcntl; return fcntl.fcntl(os.open({target}, os.O_RDONLY), {command}, struct.pack('Q', 5))"
    mine = 'open("mine", "w").close(); '
    return [
        Attack("write-into-a-pipe-of-the-host", 'return os.open("{host_fifo}", os.O_RDWR | os.O_NONBLOCK)', readonly, pipe.format("own10"), profiles=CLOSED),
        Attack("dedupe-into-a-file-of-the-host", dedupe.format(target='"{host_file}"', flags="os.O_RDONLY"), (*readonly, "ENOTSUP", "EXDEV", EINVAL), mine + 'return os.stat("mine").st_size', profiles=CLOSED),
        Attack("write-hint-on-a-file-of-the-host", hint.format(target='"{host_file}"', command=1036), (*readonly, EINVAL), mine + 'return os.open("mine", os.O_RDWR)', profiles=CLOSED),
        Attack("write-hint-on-a-descriptor-of-the-host", hint.format(target='"{host_file}"', command=1038), (*readonly, EINVAL), mine + 'return os.open("mine", os.O_RDWR)', profiles=CLOSED),
        Attack("write-hint-on-a-program", hint.format(target='"/usr/bin/env"', command=1036), (*readonly, EINVAL), mine + 'return os.open("mine", os.O_RDWR)'),
        Attack("times-of-a-file-by-an-empty-path", f'return raw_number({_number(280, 88)}, os.open("{{host_file}}", os.O_RDONLY), 0, bytes(32), 0)', readonly, mine + f'return raw_number({_number(280, 88)}, os.open("mine", os.O_RDONLY), 0, bytes(32), 0)', profiles=CLOSED),
        Attack("mode-of-a-file-by-a-reader", 'return os.fchmod(os.open("{host_file}", os.O_RDONLY), 0o777)', readonly, mine + 'return os.fchmod(os.open("mine", os.O_RDONLY), 0o700)', profiles=CLOSED),
        Attack("attribute-of-a-file-by-a-reader", 'return os.setxattr(os.open("{host_file}", os.O_RDONLY), "user.x", b"y")', (*readonly, "ENOTSUP"), mine + 'return os.fchmod(os.open("mine", os.O_RDONLY), 0o700)', profiles=CLOSED),
        Attack("space-for-a-file-of-the-host", 'return os.posix_fallocate(os.open("{host_file}", os.O_RDONLY), 0, 4096)', (*readonly, "EBADF"), 'f = os.open("mine", os.O_CREAT | os.O_WRONLY, 0o600); return os.posix_fallocate(f, 0, 4096)', profiles=CLOSED),
        Attack("copy-into-a-file-of-the-host", 'return os.copy_file_range(os.open("/usr/bin/env", os.O_RDONLY), os.open("{host_file}", os.O_RDONLY), 16)', (*readonly, "EBADF", "EXDEV"), 'f = os.open("mine", os.O_CREAT | os.O_WRONLY, 0o600); return os.copy_file_range(os.open("/usr/bin/env", os.O_RDONLY), f, 16) >= 0', profiles=CLOSED),
        Attack("advice-on-pages-of-a-file-of-the-host", 'import mmap; m = mmap.mmap(os.open("{host_file}", os.O_RDONLY), 0, prot=mmap.PROT_READ); return m.madvise(9)', (*readonly, EINVAL), 'import mmap; return mmap.mmap(-1, 4096).madvise(9, 0, 4096)', profiles=CLOSED),
        Attack("map-a-file-of-the-host-for-writing", 'import mmap; return len(mmap.mmap(os.open("{host_file}", os.O_RDONLY), 0, prot=mmap.PROT_READ | mmap.PROT_WRITE))', readonly, 'import mmap; f = os.open("page", os.O_CREAT | os.O_RDWR, 0o600); os.ftruncate(f, 4096); return len(mmap.mmap(f, 4096))', profiles=CLOSED),
    ]  # fmt: skip


def _shared_pages() -> list[Attack]:
    """Who may read a file shares its page with whoever waits in it: databases and caches keep their locks in files."""
    moved = (
        "LIBC.mmap.restype = ctypes.c_void_p; LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]; "
        'at = LIBC.mmap(None, 4096, 1, 1, os.open("/usr/bin/env", os.O_RDONLY), 0); own = (ctypes.c_uint32 * 4)(); '
        f"return raw_number({_number(202, 98)}, at, %s, 0, 100, ctypes.addressof(own), %s)"
    )
    private = f"own = (ctypes.c_uint32 * 4)(); return raw_number({_number(202, 98)}, ctypes.addressof(own), %s, 0, 100, ctypes.addressof(own) + 4, 0)"
    return [
        Attack("move-who-waits-in-a-file-of-the-host", moved % (3, 0), (EPERM,), private % (3 | 128), profiles=("observe",)),
        Attack("move-who-waits-if-the-value-is-known", moved % (4, "struct.unpack('I', b'\\x7fELF')[0]"), (EPERM,), private % (4 | 128), profiles=("observe",)),
        Attack("move-who-waits-with-other-flags", moved % (3 | 256, 0), (EPERM,), private % (3 | 128), profiles=("observe",)),
        Attack("move-who-waits-with-high-bits", moved % ((1 << 32) | 3, 0), (EPERM,), private % (3 | 128), profiles=("observe",)),
    ]  # fmt: skip


LATEST: tuple[Attack, ...] = (*_calls(), *_clocks(), *_signals_by_descriptors(), *_peers(), *_files(), *_shared_pages())

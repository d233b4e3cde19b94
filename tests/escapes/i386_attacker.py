"""Attacks by the i386 table, from a process of 64 bits (``int 0x80``); prints one JSON object: name -> what came of it.

Put behind `attacker.py`, as `driver.py` is. Reads i386 numbers by name, and which calls no profile has, from standard
input. Each attack runs in a child of its own, once as it is and once with bits above the 32 that the kernel takes.
"""
# ruff: noqa: F821 - attacker.py stands before this text

import functools
import json
import mmap

# push rbx; push rbp; mov eax, edi; mov rbx, rsi; xchg rcx, rdx; mov rsi, r8; mov rdi, r9; xor ebp, ebp; int 0x80;
# cdqe; pop rbp; pop rbx; ret
CODE = bytes.fromhex("5355 89f8 4889f3 4887ca 4c89c6 4c89cf 31ed cd80 4898 5d5b c3")
MAP_32BIT = 0x40
HIGH = 1 << 32

given = json.load(sys.stdin)
low = mmap.mmap(
    -1,
    65536,
    flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_32BIT,
    prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC,
)
base = ctypes.addressof(ctypes.c_char.from_buffer(low))
low[: len(CODE)] = CODE
enter = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_long] * 6)(base)
above = 0
used = 4096


def text(words):
    """Put bytes where a pointer of 32 bits reaches them; return their address."""
    global used
    at = used
    low[at : at + len(words) + 1] = words + bytes(1)
    used += len(words) + 16
    return base + at


def i386(name, *arguments):
    """Make a call of the i386 table; return its result or raise OSError."""
    number = given["numbers"][name] if isinstance(name, str) else name
    words = [(argument & 0xFFFFFFFF) | above for argument in (*arguments, 0, 0, 0, 0, 0)[:5]]
    result = enter(number, *words)
    if -4096 < result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def i386_clone(flags):
    pid = i386("clone", flags)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "cloned"


def own_file(name):
    path = f"/tmp/{name}-{os.getpid()}"
    open(path, "w").close()
    return path.encode()


def old_mmap():
    """The old call: its six arguments lie in memory, MAP_HUGETLB among the flags."""
    return i386("mmap", text(struct.pack("<6I", 0, 2 << 20, 3, 0x22 | 0x40000, 0xFFFFFFFF, 0)))


def hidden_socket():
    return i386("socketcall", 1, text(struct.pack("<3I", 2, 1, 0)))


def rename(flags):
    old = own_file("renamed")
    return i386("renameat2", -100, text(old), -100, text(old + b"-new"), flags)


def send(flags):
    first, _kept_open = socket.socketpair()
    return i386("sendto", first.fileno(), text(b"x"), 1, flags, 0)


# name -> (attack, the permitted act beside it)
PAIRS = {
    "clone-untraced": (lambda: i386_clone(0x800011), lambda: i386_clone(0x11)),
    "clone-new-user": (lambda: i386_clone(0x10000011), lambda: i386_clone(0x11)),
    "terminal-injection": (
        lambda: i386("ioctl", 0, 0x5412, text(b"x")),
        lambda: i386("ioctl", 1, 0x541B, text(bytes(4))),
    ),
    "setuid-mode": (
        lambda: i386("chmod", text(own_file("a")), 0o4755),
        lambda: i386("chmod", text(own_file("a")), 0o755),
    ),
    "setuid-open": (
        lambda: i386("open", text(b"/tmp/new-%d" % os.getpid()), 0o102, 0o4755),
        lambda: i386("open", text(b"/tmp/new-%d" % os.getpid()), 0o102, 0o755),
    ),
    "device": (
        lambda: i386("mknod", text(b"/tmp/device-%d" % os.getpid()), 0o020600, 0x103),
        lambda: i386("mknod", text(b"/tmp/fifo-%d" % os.getpid()), 0o010600, 0),
    ),
    "read-implies-exec": (lambda: i386("personality", 0x400000), lambda: i386("personality", 0xFFFFFFFF)),
    "own-filter": (lambda: i386("prctl", 22, 1), lambda: i386("prctl", 39)),
    "forged-command-line": (lambda: i386("prctl", 35, 1), lambda: i386("prctl", 16, text(bytes(16)))),
    "huge-pages": (
        lambda: i386("mmap2", 0, 2 << 20, 3, 0x22 | 0x40000, -1),
        lambda: i386("mmap2", 0, 4096, 3, 0x22, -1),
    ),
    "huge-pages-by-memory": (old_mmap, lambda: i386("mmap2", 0, 4096, 3, 0x22, -1)),
    "huge-memory-file": (lambda: i386("memfd_create", text(b"a"), 4), lambda: i386("memfd_create", text(b"a"), 0)),
    "lease": (lambda: i386("fcntl64", 1, 1024, 0), lambda: i386("fcntl64", 1, 3)),
    "notify": (lambda: i386("fcntl", 1, 1026, 0), lambda: i386("fcntl", 1, 3)),
    "internet": (lambda: i386("socket", 2, 1, 0), lambda: i386("socket", 1, 1, 0)),
    "internet-by-memory": (hidden_socket, lambda: i386("socket", 1, 1, 0)),
    "fast-open": (lambda: send(0x20000000), lambda: send(0)),
    "limits-of-another": (
        lambda: i386("prlimit64", 1, 7, text(struct.pack("<2Q", 1, 1)), 0),
        lambda: i386("prlimit64", 0, 7, 0, text(bytes(16))),
    ),
    "whiteout": (lambda: rename(4), lambda: rename(0)),
    "local-descriptors": (lambda: i386("modify_ldt", 0, text(bytes(16)), 16), lambda: i386("getpid")),
    "virtual-8086": (lambda: i386("vm86", 0, 0), lambda: i386("getpid")),
    "virtual-8086-old": (lambda: i386("vm86old", 0), lambda: i386("getpid")),
}


def in_a_child(function):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writing, 1)
        os.closerange(3, 64)
        report(function)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode("utf-8", "replace").strip()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return f"SIGNAL {-status}" if status < 0 else said.splitlines()[-1] if said else f"EXIT {status}"


if __name__ == "__main__":
    found = {}
    for shift in (0, HIGH):
        above = shift
        for name in given["outright"]:
            found[f"{name} {shift}"] = in_a_child(functools.partial(i386, name, *given["arguments"].get(name, [])))
        for name, (attack, twin) in PAIRS.items() if given["pairs"] else ():
            found[f"attack {name} {shift}"] = in_a_child(attack)
            found[f"twin {name} {shift}"] = in_a_child(twin)
    print(json.dumps(found))

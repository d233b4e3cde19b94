"""What a process that was taken over would try: each raises OSError when it is refused, and returns when it is not.

Every one is harmless where it succeeds, since each has a twin that runs it without the wall.
"""

import ctypes
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable

from guardhouse.kernel.syscalls import ARCHITECTURE

_LIBC = ctypes.CDLL(None, use_errno=True)
# (x86_64, aarch64), the kernel's syscall tables.
_NUMBERS = {
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "finit_module": (313, 273),
    "io_uring_setup": (425, 425),
    "kexec_load": (246, 104),
    "mount": (165, 40),
    "open_by_handle_at": (304, 265),
    "perf_event_open": (298, 241),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "setns": (308, 268),
    "swapoff": (168, 225),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}


def call(name: str, *arguments: object) -> int:
    number = _NUMBERS[name][ARCHITECTURE == "aarch64"]
    result = _LIBC.syscall(ctypes.c_long(number), *arguments)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return int(result)


def start_a_program() -> None:
    os.execv("/bin/true", ["true"])


def make_a_process() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def mount_something() -> None:
    call("unshare", ctypes.c_int(0x00020000))
    call("mount", b"none", b"/", None, ctypes.c_ulong((1 << 18) | 0x4000), None)
    call("mount", b"tmpfs", b"/mnt", b"tmpfs", ctypes.c_ulong(0), None)


def trace(pid: int) -> None:
    call("ptrace", ctypes.c_long(0x4206), ctypes.c_long(pid), None, None)  # PTRACE_SEIZE


def trace_oneself() -> None:
    call("ptrace", ctypes.c_long(0), ctypes.c_long(0), None, None)  # PTRACE_TRACEME


def send_a_signal(pid: int) -> None:
    os.kill(pid, signal.SIGCONT)


def open_an_internet_socket() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()


def open_a_raw_socket() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


def open_a_unix_socket() -> None:
    socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).close()


def connect_to_an_abstract_socket(name: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(b"\0" + name)


def read_a_file(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY))


def write_a_file(path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, b"x")
    finally:
        os.close(descriptor)


def open_for_writing(path: str) -> None:
    os.close(os.open(path, os.O_RDWR))


def openat2_for_writing(path: str) -> None:
    how = struct.pack("=QQQ", os.O_WRONLY, 0, 0)
    result = _LIBC.syscall(ctypes.c_long(437), ctypes.c_int(-100), os.fsencode(path), how, ctypes.c_size_t(len(how)))
    if result == -1:
        raise OSError(ctypes.get_errno(), "openat2")


def load_a_bpf_program() -> None:
    # BPF_MAP_CREATE of an array: key 4, value 8, one entry.
    attributes = ctypes.create_string_buffer(struct.pack("=IIII", 2, 4, 8, 1), 128)
    call("bpf", ctypes.c_int(0), attributes, ctypes.c_uint(72))


def set_up_io_uring() -> None:
    parameters = ctypes.create_string_buffer(120)
    call("io_uring_setup", ctypes.c_uint(4), parameters)


def add_a_key() -> None:
    call("add_key", b"user", b"guardhouse-test", b"x", ctypes.c_size_t(1), ctypes.c_int(-1))


def enter_another_namespace() -> None:
    descriptor = os.open("/proc/self/ns/uts", os.O_RDONLY)
    call("setns", ctypes.c_int(descriptor), ctypes.c_int(0))


def write_into_memory() -> None:
    """Zero ranges of one's own: it changes nothing, and is refused all the same."""
    call("process_vm_writev", os.getpid(), None, ctypes.c_ulong(0), None, ctypes.c_ulong(0), ctypes.c_ulong(0))


def read_the_clocks_discipline() -> None:
    """With no modes set clock_adjtime only reads."""
    call("clock_adjtime", ctypes.c_int(0), ctypes.create_string_buffer(256))


def change_root() -> None:
    call("chroot", b"/")


def take_a_userfaultfd() -> None:
    os.close(call("userfaultfd", ctypes.c_int(os.O_CLOEXEC)))


def with_a_thread(attempt: Callable[[], None]) -> None:
    """Try it in a thread that begins now: what a thread of the process can do, the process can do."""
    failures: list[OSError] = []

    def run() -> None:
        try:
            attempt()
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]

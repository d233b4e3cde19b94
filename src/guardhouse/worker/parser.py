"""PROCESS: the parser. Asks tree-sitter-bash and bashlex where commands begin in a text, over one socket.

Both meet hostile text: one is compiled C, the other loops for ever on some. So they run here, where nothing is to be
had: no file, no network, no new process, a bounded memory, and a time limit that the kernel keeps (SIGALRM with its
default action). What a text breaks is this process, and the client starts another. Knows no policy.
"""

import resource
import signal
import socket
import sys
from typing import Final

import seccomp

from guardhouse.errors import PeerError
from guardhouse.kernel import credentials, descriptors
from guardhouse.limits import SHELL_PARSER_TIMEOUT_S
from guardhouse.policy.shell import bashlex_reader, tree_sitter_reader
from guardhouse.worker import parser_protocol as protocol

__all__ = ["confine", "main", "serve"]

_MEMORY_BYTES: Final = 512 * 1024 * 1024
_STANDARD: Final = (0, 1, 2)
# What reading a text and answering takes; everything else kills the process.
_CALLS: Final = {
    "recvfrom": "reads requests",
    "sendto": "writes answers",
    "write": "says on stderr why it ends",
    "close": "lets go of the socket",
    "mmap": "memory of the interpreter",
    "munmap": "memory of the interpreter",
    "mremap": "memory of the interpreter",
    "madvise": "memory of the interpreter",
    "brk": "memory of the allocator",
    "futex": "locks of the interpreter",
    "setitimer": "the time limit of each request",
    "rt_sigaction": "the interpreter at its end",
    "rt_sigprocmask": "the interpreter at its end",
    "rt_sigreturn": "return from a signal",
    "sigaltstack": "the interpreter at its end",
    "getrandom": "seeds of hash tables",
    "clock_gettime": "clocks without the vDSO",
    "exit": "its end",
    "exit_group": "its end",
}


def main(sock_fd: int, *, timeout_s: float = SHELL_PARSER_TIMEOUT_S) -> int:
    """Confine this process, then serve requests until the other side closes the socket.

    Args:
        sock_fd: connected SOCK_STREAM unix socket, which becomes this process's own.
        timeout_s: the longest that one text may take; the process dies of SIGALRM then.

    Returns:
        The exit status: 0 after a regular end, 1 when the client broke the protocol.
    """
    with socket.socket(fileno=sock_fd) as sock:
        # Loads the compiled grammar and whatever the readers import late, before files are out of reach.
        _answer(protocol.Ask("a | b", bashlex=True))
        confine(sock_fd)
        return serve(sock, timeout_s=timeout_s)


def confine(sock_fd: int) -> None:
    """Give up everything but memory and the socket."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    descriptors.close_all_but({*_STANDARD, sock_fd})
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(limit, (0, 0))
    credentials.set_dumpable(dumpable=False)
    credentials.set_no_new_privs()
    allowed = seccomp.SyscallFilter(seccomp.KILL_PROCESS)
    for call in _CALLS:
        allowed.add_rule(seccomp.ALLOW, call)
    allowed.load()


def serve(sock: socket.socket, *, timeout_s: float) -> int:
    """Answer requests until the socket ends; see ``main`` for the result."""
    try:
        while (header := _receive(sock, protocol.HEADER_BYTES)) is not None:
            body = _receive(sock, protocol.parse_length(header))
            if body is None:
                return 1
            signal.setitimer(signal.ITIMER_REAL, timeout_s)
            answer = _answer(protocol.parse_ask(body))
            signal.setitimer(signal.ITIMER_REAL, 0)
            sock.sendall(protocol.render(answer))
    except PeerError as error:
        sys.stderr.write(f"parser: {error}\n")
        return 1
    except ConnectionError:
        return 0
    return 0


def _answer(ask: protocol.Ask) -> protocol.Starts:
    grammar = tree_sitter_reader.command_starts(ask.text)
    lex = bashlex_reader.command_starts(ask.text) if ask.bashlex else None
    return protocol.Starts(
        tree_sitter=None if grammar is None else tuple(sorted(grammar)),
        bashlex=None if lex is None else tuple(sorted(lex)),
    )


def _receive(sock: socket.socket, size: int) -> bytes | None:
    """Exactly ``size`` bytes, or None where the socket ends before."""
    received = bytearray()
    while len(received) < size:
        chunk = sock.recv(min(size - len(received), 65_536))
        if not chunk:
            return None
        received += chunk
    return bytes(received)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))

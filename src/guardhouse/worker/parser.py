"""PROCESS: the parser. Asks tree-sitter-bash and bashlex where commands begin in a text, over one socket.

Both meet hostile text: one is compiled C, the other loops for ever on some. So they run here, where nothing is to be
had: no file, no network, no new process, a bounded memory (`sandbox/profiles/parser_worker.yaml`), and a time limit
that the kernel keeps (SIGALRM with its default action). What a text breaks is this process, and the client starts
another. Knows no policy.
"""

import signal
import socket
import sys
from typing import Final

from guardhouse.errors import PeerError
from guardhouse.limits import SHELL_PARSER_TIMEOUT_S
from guardhouse.policy.shell import bashlex_reader, tree_sitter_reader
from guardhouse.worker import parser_protocol as protocol

__all__ = ["load", "main"]

_BASHLEX_MAX_CHARS: Final = 2_000


def load() -> float:
    """Load the compiled grammar and whatever the readers import late; call it before files are out of reach.

    Returns:
        The longest that one text may take, in seconds.
    """
    _answer(protocol.Ask("a | b", bashlex=True))
    return SHELL_PARSER_TIMEOUT_S


def main(sock_fd: int, timeout_s: float) -> int:
    """Answer requests until the other side closes the socket.

    Args:
        sock_fd: connected SOCK_STREAM unix socket, this process's own.
        timeout_s: the longest that one text may take; the process dies of SIGALRM then.

    Returns:
        The exit status: 0 after a regular end, 1 when the client broke the protocol.
    """
    # The default action ends the process even inside a C extension that never returns to the interpreter.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    # Family and type are said, so that nothing has to be looked up under the filter.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=sock_fd) as sock:
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
            sys.stderr.write(f"parser worker: {error}\n")
            return 1
        except ConnectionError:
            return 0
    return 0


def _answer(ask: protocol.Ask) -> protocol.Starts:
    grammar = tree_sitter_reader.command_starts(ask.text)
    # bashlex takes some 80 µs a character; a long text has no opinion of its rather than none at all.
    asks_bashlex = ask.bashlex and len(ask.text) <= _BASHLEX_MAX_CHARS
    lex = bashlex_reader.command_starts(ask.text) if asks_bashlex else None
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

"""The runner's end of the parser process: a reader of shell text whose second opinion comes from there.

Plain words never leave this process, and neither does a text that the first reader leaves undecided already. Where no
answer comes in time the opinion is "cannot read", which leaves the text undecided. A process that died is replaced.
Blocks: it is called from the thread that judges. Does not know how the process is started: ``start`` is given (the
launcher's client). Runs in the runner.
"""

import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from guardhouse.errors import PeerError, Refusal, SetupError
from guardhouse.limits import SHELL_PARSER_START_TIMEOUT_S, SHELL_PARSER_TIMEOUT_S
from guardhouse.policy.shell import ShellReading, Undecided, compare_with, read_command
from guardhouse.policy.shell.second_reader import join_readers
from guardhouse.worker import parser_protocol as protocol

__all__ = ["ParserClient"]

# The process's own limit comes first; this one is for a process that is stopped or starved.
_MARGIN_S: Final = 1.0
# A process that ends sooner did not end of its time limit, and perhaps not of the text.
_SUDDEN_S: Final = 0.5
_REMEMBERED: Final = 512
# Asked of a new process first: its answer says that interpreter and grammars are loaded.
_FIRST_TEXT: Final = "true"


class _NoAnswerError(Exception):
    """The process gave no answer; the text says why, as the end of "the second reader …"."""


class ParserClient:
    """Asks one parser process, one text at a time, and starts another when it is gone. Any thread may call it."""

    def __init__(
        self,
        start: Callable[[], socket.socket],
        *,
        bashlex: bool = False,
        timeout_s: float = SHELL_PARSER_TIMEOUT_S + _MARGIN_S,
        start_timeout_s: float = SHELL_PARSER_START_TIMEOUT_S,
    ) -> None:
        """Keep how to start the process; it is started at the first question, or by `warm`.

        Args:
            start: starts a parser process and returns the connected socket to it; raises SetupError or Refusal.
            bashlex: ask bashlex as well: about 4 ms for a line of 50 characters.
            timeout_s: the longest wait for one answer.
            start_timeout_s: the longest wait for a new process to be ready; the text's own time begins after it.
        """
        self._start = start
        self._bashlex = bashlex
        self._timeout_s = timeout_s
        self._start_timeout_s = start_timeout_s
        self._sock: socket.socket | None = None
        self._lock = threading.Lock()
        self._known: dict[str, protocol.Starts] = {}
        self._is_closed = False
        self.restarts = 0

    def read(self, text: str) -> ShellReading:
        """Read what ``bash -c text`` runs, as `policy.shell.read_command` does, with the opinion of the process."""
        return read_command(text, second=self._second)

    def warm(self) -> None:
        """Start the process ahead of the first question; a failure is told when the first one is asked."""
        self._second("a | b", ShellReading("a | b"))

    def close(self) -> None:
        """End the process by closing its socket."""
        with self._lock:
            self._is_closed = True
            self._drop()

    def _second(self, text: str, reading: ShellReading) -> tuple[Undecided, ...]:
        try:
            starts = self._ask(text)
        except _NoAnswerError as error:
            return (Undecided((0, len(text)), f"the second reader {error}"),)
        grammar = None if starts.tree_sitter is None else frozenset(starts.tree_sitter)
        readers = [compare_with(lambda _: grammar, name="tree-sitter-bash", must_read=True)]
        if starts.bashlex is not None:
            lex = frozenset(starts.bashlex)
            readers.append(compare_with(lambda _: lex, name="bashlex", must_read=False))
        return join_readers(*readers)(text, reading)

    def _ask(self, text: str) -> protocol.Starts:
        """Return where each reader sees commands begin."""
        with self._lock:
            if (known := self._known.get(text)) is not None:
                return known
            answer = self._ask_twice(text)
            if len(self._known) >= _REMEMBERED:
                self._known.pop(next(iter(self._known)))
            self._known[text] = answer
            return answer

    def _ask_twice(self, text: str) -> protocol.Starts:
        """Ask; where the process dies at once ask a fresh one, since it may have died of something else."""
        for attempt in range(2):
            began_s = time.monotonic()
            try:
                sock = self._connected()
                began_s = time.monotonic()
                return self._exchange(sock, text, deadline_s=began_s + self._timeout_s)
            except (OSError, PeerError) as error:
                self._drop()
                self.restarts += 1
                spent_s = time.monotonic() - began_s
                if attempt or spent_s > _SUDDEN_S:
                    raise _NoAnswerError(f"gave no answer within {spent_s:.1f} s ({error})") from error
        raise AssertionError("two attempts end above")

    def _exchange(self, sock: socket.socket, text: str, *, deadline_s: float) -> protocol.Starts:
        sock.settimeout(max(0.001, deadline_s - time.monotonic()))
        sock.sendall(protocol.render(protocol.Ask(text, bashlex=self._bashlex)))
        header = _receive(sock, protocol.HEADER_BYTES, deadline_s)
        return protocol.parse_starts(_receive(sock, protocol.parse_length(header), deadline_s))

    def _connected(self) -> socket.socket:
        if self._is_closed:
            raise _NoAnswerError("is gone: the policy was replaced")
        if self._sock is None:
            try:
                self._sock = self._start()
            except (SetupError, Refusal) as error:
                raise _NoAnswerError(f"cannot be started: {error}") from error
            self._exchange(self._sock, _FIRST_TEXT, deadline_s=time.monotonic() + self._start_timeout_s)
        return self._sock

    def _drop(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def _receive(sock: socket.socket, size: int, deadline_s: float) -> bytes:
    received = bytearray()
    while len(received) < size:
        sock.settimeout(max(0.001, deadline_s - time.monotonic()))
        chunk = sock.recv(min(size - len(received), 65_536))
        if not chunk:
            raise ConnectionResetError("the parser process ended over it")
        received += chunk
    return bytes(received)

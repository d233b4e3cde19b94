"""The runner's end of the parser process: a text out, a second opinion back, and a new process after a dead one.

Knows trio and the protocol. Does not know how the process is started: ``start`` is given (the launcher's client).
Where no answer comes in time the opinion is "cannot read", which leaves the text undecided. Runs in the runner.
"""

import socket
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

import trio

from guardhouse.errors import PeerError, SetupError
from guardhouse.limits import SHELL_PARSER_TIMEOUT_S
from guardhouse.policy.shell import SecondReader, compare_with, read_command
from guardhouse.policy.shell.second_reader import join_readers
from guardhouse.worker import parser_protocol as protocol

__all__ = ["ParserClient"]

# The process's own limit comes first; this one is for a process that is stopped or starved.
_MARGIN_S: Final = 1.0
_REMEMBERED: Final = 512


class ParserClient:
    """Asks one parser process, one text at a time, and starts another when it is gone."""

    def __init__(
        self,
        start: Callable[[], Awaitable[socket.socket]],
        *,
        bashlex: bool = False,
        timeout_s: float = SHELL_PARSER_TIMEOUT_S + _MARGIN_S,
    ) -> None:
        """Keep how to start the process; it is started at the first question.

        Args:
            start: starts a parser process and returns the connected socket to it.
            bashlex: ask bashlex as well; about 260 short lines a second.
            timeout_s: the longest wait for one answer.
        """
        self._start = start
        self._bashlex = bashlex
        self._timeout_s = timeout_s
        self._stream: trio.SocketStream | None = None
        self._lock = trio.Lock()
        self._known: dict[str, protocol.Starts] = {}
        self.restarts = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the process by closing its socket."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await trio.aclose_forcefully(stream)

    async def second_opinion(self, text: str) -> SecondReader:
        """Return what to hand to ``read_command(text, second=…)``; it answers for this text only."""
        if read_command(text, second=None).undecided:
            # Undecided already: nothing that a second reader says could change it.
            return join_readers()
        starts = await self.ask(text)
        grammar = None if starts.tree_sitter is None else frozenset(starts.tree_sitter)
        readers = [compare_with(lambda _: grammar, name="tree-sitter-bash", must_read=True)]
        if starts.bashlex is not None:
            lex = frozenset(starts.bashlex)
            readers.append(compare_with(lambda _: lex, name="bashlex", must_read=False))
        return join_readers(*readers)

    async def ask(self, text: str) -> protocol.Starts:
        """Return where each reader sees commands begin; nothing where the process gives no answer in time."""
        if (known := self._known.get(text)) is not None:
            return known
        async with self._lock:
            answer = protocol.Starts()
            # A process may have died since its last answer; a fresh one is asked once.
            for _ in range(2):
                fresh = self._stream is None
                received = await self._exchange(text)
                if received is not None:
                    answer = received
                    break
                await self.aclose()
                self.restarts += 1
                if fresh:
                    break
        if len(self._known) >= _REMEMBERED:
            self._known.pop(next(iter(self._known)))
        self._known[text] = answer
        return answer

    async def _exchange(self, text: str) -> protocol.Starts | None:
        with trio.move_on_after(self._timeout_s):
            try:
                stream = await self._connected()
                await stream.send_all(protocol.render(protocol.Ask(text, bashlex=self._bashlex)))
                header = await _receive(stream, protocol.HEADER_BYTES)
                return protocol.parse_starts(await _receive(stream, protocol.parse_length(header)))
            except (trio.BrokenResourceError, trio.ClosedResourceError, PeerError, OSError):
                return None
        return None

    async def _connected(self) -> trio.SocketStream:
        if self._stream is None:
            try:
                sock = await self._start()
            except SetupError as error:
                raise SetupError(f"cannot start the parser process: {error}") from error
            sock.settimeout(0)
            self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        return self._stream


async def _receive(stream: trio.SocketStream, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        chunk = await stream.receive_some(min(size - len(received), 65_536))
        if not chunk:
            raise PeerError("the parser process ended in the middle of an answer")
        received += chunk
    return bytes(received)

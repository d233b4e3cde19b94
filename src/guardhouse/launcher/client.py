"""The runner's side of the launcher: launch a command, wait for its outcome, stop it, start a worker.

One background task reads answers; any number of tasks launch and wait at the same time. Knows the messages and
nothing of namespaces or filters: whatever is not in the launcher's bundle cannot be said. Runs in the runner; no
ctypes, no subprocess (`start.py` starts the process).
"""

import contextlib
import math
import os
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

import trio

from guardhouse.errors import PeerError, SetupError
from guardhouse.launcher import channel
from guardhouse.launcher.messages import (
    AnswerQuestion,
    CommandOutcome,
    Exited,
    Launch,
    LaunchError,
    LaunchRequest,
    Message,
    ProxyListening,
    Question,
    QuestionOver,
    Refused,
    Started,
    StartWorker,
    Stop,
    StopReason,
    WorkerStarted,
    check_launch_request,
    parse_message,
    render_message,
)

if TYPE_CHECKING:
    from guardhouse.launcher.start import LauncherHandle

__all__ = [
    "CommandOutcome",
    "LaunchError",
    "LaunchRequest",
    "LauncherClient",
    "LauncherDiedError",
    "Question",
    "QuestionOver",
    "RunningCommand",
    "StopReason",
]


class LauncherDiedError(SetupError):
    """The launcher's socket closed: every command it had is dead. Start a new launcher."""

    def __init__(self) -> None:
        super().__init__(
            "the launcher is gone and every command with it; its last words are on the runner's stderr, start a new one"
        )


class RunningCommand:
    """One command that was started. It runs until it ends, is stopped or the launcher goes, waited for or not."""

    def __init__(
        self,
        client: "LauncherClient",
        identifier: int,
        pid: int,
        answers: "_Answers",
        proxy_listener: socket.socket | None = None,
    ) -> None:
        """``proxy_listener`` is the egress proxy's door in the command's network namespace, in mode `domains`."""
        self._client = client
        self.proxy_listener = proxy_listener
        self._identifier = identifier
        self._answers = answers
        self._outcome: CommandOutcome | None = None
        self.pid = pid

    async def wait(self) -> CommandOutcome:
        """Return how it ended, once nothing of it is left. May be called again, and by several tasks.

        Cancelling the wait does not stop the command.

        Raises:
            LauncherDiedError: the launcher went first.
        """
        async with self._answers.lock:
            if self._outcome is None:
                message, _ = await self._answers.next()
                if not isinstance(message, Exited):
                    raise PeerError(f"launcher answered {type(message).__name__} to a running command")
                self._outcome = message.outcome
                self._client._forget(self._identifier)  # noqa: SLF001 - same module, one conversation
        return self._outcome

    async def next_question(self) -> Question | QuestionOver | None:
        """Wait for a question of the exec gate, or that one needs no answer any more; None once the command ended."""
        return await self._answers.next_question()

    async def answer(self, number: int, *, allows: bool, why: str) -> None:
        """Answer one question of the exec gate; one that is over meanwhile takes no answer."""
        if self._outcome is None:
            await self._client._send(AnswerQuestion(self._identifier, number, allows, why))  # noqa: SLF001 - as above

    async def abandon(self) -> None:
        """Have it stopped because nobody will wait for it any more; its outcome is dropped. Cannot be cancelled."""
        if self._outcome is None:
            await self._client._abandon(self._identifier, self._answers)  # noqa: SLF001 - as above

    async def stop(self, reason: StopReason = StopReason.CANCEL) -> None:
        """Have the whole tree stopped: TERM, the request's grace, KILL. Returns at once; `wait` tells the end."""
        if self._outcome is None:
            await self._client._send(Stop(self._identifier, reason))  # noqa: SLF001 - as above


class _Answers:
    """What came for one id and nobody has taken yet."""

    def __init__(self) -> None:
        send, receive = trio.open_memory_channel[tuple[Message, list[int]]](math.inf)
        self._send = send
        self._receive = receive
        ask, self._questions = trio.open_memory_channel[Question | QuestionOver](math.inf)
        self._ask = ask
        self.lock = trio.Lock()
        self.abandoned = False

    def put(self, message: Message, descriptors: list[int]) -> None:
        if isinstance(message, Question | QuestionOver):
            self._ask.send_nowait(message)
            return
        if isinstance(message, Exited):
            self._ask.close()
        self._send.send_nowait((message, descriptors))

    async def next(self) -> tuple[Message, list[int]]:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise LauncherDiedError from None

    def drain(self) -> Iterator[tuple[Message, list[int]]]:
        """Take what has come and was not waited for."""
        with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                yield self._receive.receive_nowait()

    async def next_question(self) -> Question | QuestionOver | None:
        try:
            return await self._questions.receive()
        except trio.EndOfChannel:
            return None

    def close(self) -> None:
        self._send.close()
        self._ask.close()


class LauncherClient:
    """``async with LauncherClient(handle) as client``: leaving it closes the socket, which ends every command."""

    def __init__(self, handle: "LauncherHandle") -> None:
        self._handle = handle
        self._socket = handle.sock
        os.set_blocking(self._socket.fileno(), False)
        self._next = 1
        self._answers: dict[int, _Answers] = {}
        self._sending = trio.Lock()
        self._died = trio.Event()
        self._context = self._serve()

    async def __aenter__(self) -> Self:
        await self._context.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._context.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def _serve(self) -> AsyncGenerator[None, None]:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read)
                yield
                nursery.cancel_scope.cancel()
        finally:
            # Whoever still waits to send something must not wait on a closed socket.
            self._died.set()
            trio.lowlevel.notify_closing(self._socket)
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._handle.close)

    async def wait_died(self) -> None:
        """Return when the launcher is gone."""
        await self._died.wait()

    async def launch(
        self, request: LaunchRequest, *, stdin_fd: int | None = None, stdout_fd: int, stderr_fd: int
    ) -> RunningCommand:
        """Start a command with these descriptors, which stay the caller's to close.

        Args:
            stdin_fd: ``/dev/null`` when None.

        Raises:
            PeerError: the request is beyond a limit.
            LaunchError: the launcher refused it; ``layer`` says where.
            LauncherDiedError: the launcher is gone.
        """
        check_launch_request(request)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) if stdin_fd is None else -1
        try:
            identifier, answers = self._new_id()
            stdin = null if stdin_fd is None else stdin_fd
            try:
                await self._send(Launch(identifier, request), (stdin, stdout_fd, stderr_fd))
            except (trio.Cancelled, LauncherDiedError, LaunchError):
                self._forget(identifier)
                raise
        finally:
            if null >= 0:
                os.close(null)
        with contextlib.ExitStack() as unowned:
            proxy: socket.socket | None = None
            try:
                message, descriptors = await answers.next()
                if isinstance(message, ProxyListening) and len(descriptors) == 1:
                    proxy = unowned.enter_context(socket.socket(fileno=descriptors.pop()))
                    message, descriptors = await answers.next()
            except trio.Cancelled:
                await self._abandon(identifier, answers)
                raise
            _close(descriptors)
            match message:
                case Started(_, pid):
                    unowned.pop_all()
                    return RunningCommand(self, identifier, pid, answers, proxy)
                case Exited():
                    # It ended before there was time to say that it started, or could not be executed (126, 127).
                    answers.put(message, [])
                    unowned.pop_all()
                    return RunningCommand(self, identifier, 0, answers, proxy)
                case Refused(_, layer, why):
                    self._forget(identifier)
                    raise LaunchError(layer, why)
                case _:
                    raise PeerError(f"launcher answered {type(message).__name__} to a launch")

    async def start_worker(self, kind: str) -> socket.socket:
        """Start the worker ``kind`` (``files``) and return the stream socket that leads to it.

        Raises:
            LaunchError: the launcher refused it.
            LauncherDiedError: the launcher is gone.
        """
        identifier, answers = self._new_id()
        try:
            await self._send(StartWorker(identifier, kind))
        except (trio.Cancelled, LauncherDiedError):
            self._forget(identifier)
            raise
        with trio.CancelScope(shield=True):
            message, descriptors = await answers.next()
        self._forget(identifier)
        if isinstance(message, Refused):
            raise LaunchError(message.layer, message.why)
        if not isinstance(message, WorkerStarted) or len(descriptors) != 1:
            _close(descriptors)
            raise PeerError(f"launcher answered {type(message).__name__} to a worker start")
        return socket.socket(fileno=descriptors[0])

    def _new_id(self) -> tuple[int, _Answers]:
        if self._died.is_set():
            raise LauncherDiedError
        identifier = self._next
        self._next += 1
        answers = self._answers[identifier] = _Answers()
        return identifier, answers

    def _forget(self, identifier: int) -> None:
        self._answers.pop(identifier, None)

    async def _abandon(self, identifier: int, answers: _Answers) -> None:
        """End a command that nobody owns; drop the answers that came for it, and those that will."""
        answers.abandoned = True
        for message, descriptors in answers.drain():
            _close(descriptors)
            if isinstance(message, Exited | Refused):
                self._forget(identifier)
                return
        with trio.CancelScope(shield=True), contextlib.suppress(LauncherDiedError):
            await self._send(Stop(identifier, StopReason.CANCEL))

    async def _send(self, message: Message, descriptors: tuple[int, ...] = ()) -> None:
        body = render_message(message)
        async with self._sending:
            while True:
                if self._died.is_set():
                    # Its socket may be closed already.
                    raise LauncherDiedError
                try:
                    channel.send(self._socket, body, descriptors)
                except BlockingIOError:
                    with contextlib.suppress(trio.ClosedResourceError):
                        await trio.lowlevel.wait_writable(self._socket)
                except (BrokenPipeError, ConnectionResetError):
                    raise LauncherDiedError from None
                except SetupError as error:
                    layer, _, why = str(error).partition(": ")
                    raise LaunchError(layer, why) from None
                else:
                    return

    async def _read(self) -> None:
        try:
            while True:
                await trio.lowlevel.wait_readable(self._socket)
                try:
                    received = channel.receive(self._socket)
                except BlockingIOError:
                    continue
                except ConnectionResetError:
                    return
                if received is None:
                    return
                self._take(received)
        finally:
            self._died.set()
            for answers in self._answers.values():
                answers.close()

    def _take(self, received: channel.Received) -> None:
        message = parse_message(received.body)
        answers = self._answers.get(message.id)
        if answers is None or answers.abandoned:
            received.close()
            if isinstance(message, Exited | Refused):
                self._forget(message.id)
            return
        answers.put(message, received.descriptors)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)

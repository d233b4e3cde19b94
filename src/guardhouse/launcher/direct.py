"""A small synchronous client of the launcher, for programs without trio: one conversation, one thread.

Used by benchmarks, tests and one-shot commands; the runner uses `client.py`. Knows the same messages.
"""

import os
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Self

from guardhouse.errors import SetupError
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
from guardhouse.launcher.start import LauncherHandle

__all__ = ["DirectClient"]


class DirectClient:
    """Launches commands and waits for them; answers for other ids are kept until somebody asks."""

    def __init__(self, handle: LauncherHandle, *, serve_proxy: Callable[[socket.socket], None] | None = None) -> None:
        """``serve_proxy`` takes over the listening socket of a command's egress proxy; without it nobody answers."""
        self._handle = handle
        self._serve_proxy = serve_proxy
        self._next = 1
        self._kept: dict[int, list[tuple[Message, list[int]]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.close()

    def launch(self, request: LaunchRequest, *, stdout_fd: int, stderr_fd: int, stdin_fd: int | None = None) -> int:
        """Ask for a command; return its id. The descriptors stay the caller's."""
        check_launch_request(request)
        identifier = self._next
        self._next += 1
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) if stdin_fd is None else -1
        try:
            stdin = null if stdin_fd is None else stdin_fd
            body = render_message(Launch(identifier, request))
            channel.send(self._handle.sock, body, (stdin, stdout_fd, stderr_fd))
        finally:
            if null >= 0:
                os.close(null)
        return identifier

    def stop(self, identifier: int, reason: StopReason = StopReason.CANCEL) -> None:
        """Stop a command's whole tree: TERM, grace, KILL."""
        channel.send(self._handle.sock, render_message(Stop(identifier, reason)))

    def wait_started(self, identifier: int) -> int:
        """Return the command's pid once it runs.

        Raises:
            LaunchError: it was refused.
        """
        message, descriptors = self._next_for(identifier)
        if isinstance(message, ProxyListening):
            self._take_listener(descriptors)
            message, _ = self._next_for(identifier)
        if isinstance(message, Started):
            return message.pid
        if isinstance(message, Exited):
            # A program that could not be executed ends without having started.
            self._kept.setdefault(identifier, []).insert(0, (message, []))
            return 0
        raise _refusal(message)

    def wait(self, identifier: int) -> CommandOutcome:
        """Return the outcome once nothing of the command is left.

        Raises:
            LaunchError: it was refused.
        """
        while True:
            message, descriptors = self._next_for(identifier)
            self._take_listener(descriptors)
            if isinstance(message, Exited):
                return message.outcome
            if not isinstance(message, Started | ProxyListening | Question | QuestionOver):
                raise _refusal(message)

    def next_question(self, identifier: int) -> Question | QuestionOver:
        """Return what the exec gate asks about a command, or that a question is over.

        Raises:
            LaunchError: the command ended first.
        """
        while True:
            message, _ = self._next_for(identifier)
            if isinstance(message, Question | QuestionOver):
                return message
            if not isinstance(message, Started):
                self._kept.setdefault(identifier, []).insert(0, (message, []))
                raise LaunchError("launcher", "the command ended without a question")

    def answer(self, identifier: int, number: int, *, allows: bool, why: str = "asked") -> None:
        """Answer a question of the exec gate."""
        channel.send(self._handle.sock, render_message(AnswerQuestion(identifier, number, allows, why)))

    def start_worker(self, kind: str) -> socket.socket:
        """Start a worker and return the socket that leads to it."""
        identifier = self._next
        self._next += 1
        channel.send(self._handle.sock, render_message(StartWorker(identifier, kind)))
        message, descriptors = self._next_for(identifier)
        if not isinstance(message, WorkerStarted):
            raise _refusal(message)
        return socket.socket(fileno=descriptors[0])

    def _take_listener(self, descriptors: list[int]) -> None:
        while descriptors:
            listener = socket.socket(fileno=descriptors.pop())
            if self._serve_proxy is None:
                listener.close()
            else:
                self._serve_proxy(listener)

    def _next_for(self, identifier: int) -> tuple[Message, list[int]]:
        while not self._kept.get(identifier):
            received = channel.receive(self._handle.sock)
            if received is None:
                raise SetupError("the launcher is gone; its messages on stderr say why")
            message = parse_message(received.body)
            self._kept.setdefault(message.id, []).append((message, received.descriptors))
        waiting = self._kept[identifier]
        found = waiting.pop(0)
        if not waiting:
            del self._kept[identifier]
        return found


def _refusal(message: Message) -> LaunchError:
    if isinstance(message, Refused):
        return LaunchError(message.layer, message.why)
    return LaunchError("launcher", f"unexpected answer {type(message).__name__}")

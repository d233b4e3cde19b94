"""What commands are run with: a launcher, a sink for output, an egress server, a signal to stop.

Protocols, so that tests and `guardhouse try` can put their own in. Runs in the runner.
"""

import socket
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import trio

from guardhouse.errors import InvariantError
from guardhouse.launcher.messages import CommandOutcome, LaunchRequest, StopReason
from guardhouse.runner.approvals import (
    RunningWithQuestions,
)
from guardhouse.values import Stream

__all__ = [
    "CommandLauncher",
    "EgressServer",
    "NoEgress",
    "OutputClosedError",
    "OutputSink",
    "Running",
    "ServedEgress",
    "StopSignal",
]


class OutputClosedError(Exception):
    """A sink's reader is gone. The command's pipe is closed too, so that it gets SIGPIPE as it would in a shell."""


class Running(RunningWithQuestions, Protocol):
    """One started command; `launcher.client.RunningCommand` is the real one."""

    proxy_listener: socket.socket | None
    """The egress proxy's door in the command's network namespace, to be served; None in other network modes."""

    async def wait(self) -> CommandOutcome:
        """Return how it ended, once nothing of it is left."""
        ...

    async def stop(self, reason: StopReason) -> None:
        """End its whole tree: TERM, grace, KILL."""
        ...

    async def abandon(self) -> None:
        """End it the same way when nobody will wait for it any more; without effect once it has ended."""
        ...


class CommandLauncher(Protocol):
    """What starts commands; `launcher.client.LauncherClient` is the real one."""

    async def launch(self, request: LaunchRequest, *, stdin_fd: int | None, stdout_fd: int, stderr_fd: int) -> Running:
        """Start one command; the descriptors stay the caller's."""
        ...


class ServedEgress(Protocol):
    """A command's egress proxy; `egress.CommandEgress` is the real one."""

    def as_json(self) -> dict[str, Any]:
        """Return whom the command reached and what was refused."""
        ...


class EgressServer(Protocol):
    """Who serves the commands' egress proxies; `egress.EgressService` is the real one."""

    def serve(self, listener: socket.socket | None, profile: str) -> AbstractAsyncContextManager["ServedEgress | None"]:
        """Serve a command's proxy while the body runs; None where it has none."""
        ...


class NoEgress:
    """Where no profile is in network mode `domains`, which spares such a runner the proxy's code."""

    @asynccontextmanager
    async def serve(self, listener: socket.socket | None, profile: str) -> AsyncGenerator[None, None]:
        """Refuse a listener that nobody can serve.

        Raises:
            InvariantError: there is one.
        """
        if listener is not None:
            listener.close()
            raise InvariantError(f"profile {profile!r} has an egress proxy, and nobody here serves one")
        yield


class OutputSink(Protocol):
    """Where output goes as it comes. Not returning is back-pressure: the command's pipe is not read meanwhile."""

    async def __call__(self, stream: Stream, data: bytes) -> None:
        """Take the next bytes of one stream."""
        ...


class StopSignal:
    """Set once by whoever wants the command to end; the first reason stays."""

    def __init__(self) -> None:
        self._event = trio.Event()
        self.reason = StopReason.CANCEL

    @property
    def is_set(self) -> bool:
        """Whether the command is to end."""
        return self._event.is_set()

    def set(self, reason: StopReason) -> None:
        """Ask for the end."""
        if not self._event.is_set():
            self.reason = reason
            self._event.set()

    async def wait(self) -> StopReason:
        """Return the reason once there is one."""
        await self._event.wait()
        return self.reason

"""Sessions with MCP servers: one for each whole configuration, opened at need, closed when idle, replaced when dead.

A session is one confined MCP worker and, for a local server, one command of its own behind the wall. Connecting holds
up only those who want that very server. Knows no policy: what may be started is asked of ``admit``. Runs in the runner.
"""

import hashlib
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import msgspec
import trio

from guardhouse.errors import PeerError, Refusal, SetupError
from guardhouse.launcher.messages import LaunchRequest, StopReason
from guardhouse.limits import MCP_IDLE_S, MCP_SERVER_WORDS_BYTES, MCP_SESSIONS_MAX
from guardhouse.runner.command_parts import CommandLauncher, EgressServer, NoEgress, Running
from guardhouse.runner.event_loop import leaves
from guardhouse.runner.logs import get_logger
from guardhouse.wire.messages import McpServer
from guardhouse.worker.mcp_client import McpSession, hand_over
from guardhouse.worker.mcp_protocol import ConnectArgs, McpFailure

__all__ = ["Admission", "McpPool"]

_LOOK_EVERY_S: Final = 5.0
# A server may tidy up after its stdin was closed (MCP specification, "stdio", shutdown), then it is stopped.
_GOODBYE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Admission:
    """What the policy lets a server be: how to connect, and for a local one what to launch."""

    connect: ConnectArgs
    launch: LaunchRequest | None


@dataclass(eq=False)
class _Entry:
    """One session from its first user to its end."""

    key: str
    name: str
    ready: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    session: McpSession | None = None
    failure: Refusal | PeerError | SetupError | None = None
    users: int = 0
    last_used: float = 0.0
    words: bytearray = field(default_factory=bytearray)

    @property
    def is_usable(self) -> bool:
        """Whether it is being opened, or open."""
        return not self.ready.is_set() or (self.session is not None and self.session.is_alive)


class McpPool:
    """Sessions by configuration. `run` holds them; nothing works before it runs or after it ended."""

    def __init__(
        self,
        *,
        launcher: CommandLauncher,
        start_worker: Callable[[], Awaitable[socket.socket]],
        egress: EgressServer | None = None,
        idle_s: float = MCP_IDLE_S,
        sessions_max: int = MCP_SESSIONS_MAX,
    ) -> None:
        """``start_worker`` returns the connected socket of a fresh MCP worker; ``egress`` serves local servers."""
        self._launcher = launcher
        self._start_worker = start_worker
        self._egress = egress or NoEgress()
        self._idle_s = idle_s
        self._sessions_max = sessions_max
        self._entries: dict[str, _Entry] = {}
        self._nursery: trio.Nursery | None = None

    @property
    def open_sessions(self) -> int:
        """How many sessions are open or being opened."""
        return len(self._entries)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the sessions until cancelled; each is then closed, a local server's tree included."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            while True:
                await trio.sleep(_LOOK_EVERY_S)
                now = trio.current_time()
                for entry in list(self._entries.values()):
                    if not entry.users and entry.ready.is_set() and now - entry.last_used >= self._idle_s:
                        entry.scope.cancel()

    @asynccontextmanager
    async def use(
        self, server: McpServer, admit: Callable[[], Awaitable[Admission]], *, connect_timeout_s: float
    ) -> AsyncGenerator[McpSession, None]:
        """Yield the session with ``server``, opened now where there is none.

        Args:
            admit: asked before a session is opened: may this server be started, or reached?

        Raises:
            McpFailure: the server cannot be reached or speaks no MCP.
            Refusal: ``admit`` said no, or every session is in use.
        """
        entry = await self._entry(server, admit, connect_timeout_s)
        entry.users += 1
        try:
            await entry.ready.wait()
            if entry.session is None:
                raise entry.failure or McpFailure(f"the session with {server.name!r} was closed", code="session_lost")
            yield entry.session
        finally:
            entry.users -= 1
            entry.last_used = trio.current_time()
            if not entry.users and not entry.is_usable:
                self._forget(entry)

    async def _entry(
        self, server: McpServer, admit: Callable[[], Awaitable[Admission]], connect_timeout_s: float
    ) -> _Entry:
        key = _key(server)
        entry = self._entries.get(key)
        if entry is not None and entry.is_usable:
            return entry
        admission = await admit()
        # Another task may have opened it while the policy was asked.
        entry = self._entries.get(key)
        if entry is not None and entry.is_usable:
            return entry
        if entry is not None:
            self._forget(entry)
        self._make_room()
        if self._nursery is None:
            raise Refusal("mcp is not available: the runner is ending")
        entry = self._entries[key] = _Entry(key, server.name, last_used=trio.current_time())
        self._nursery.start_soon(self._hold, entry, admission, connect_timeout_s)
        return entry

    def _make_room(self) -> None:
        if len(self._entries) < self._sessions_max:
            return
        idle = [entry for entry in self._entries.values() if not entry.users and entry.ready.is_set()]
        if not idle:
            raise Refusal(
                f"mcp is busy: all {self._sessions_max} sessions of this runner are in use; try again when one is free"
            )
        self._forget(min(idle, key=lambda entry: entry.last_used))

    def _forget(self, entry: _Entry) -> None:
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]
        entry.scope.cancel()

    async def _hold(self, entry: _Entry, admission: Admission, connect_timeout_s: float) -> None:
        log = get_logger().bind(mcp_server=entry.name)
        try:
            with entry.scope:
                if admission.launch is None:
                    await self._converse(entry, admission.connect, None, connect_timeout_s)
                else:
                    await self._with_server(entry, admission, admission.launch, connect_timeout_s)
        except* (Refusal, PeerError, SetupError) as group:
            entry.failure = _with_words(leaves(group)[0], entry)
            log.info("mcp session failed", error=str(entry.failure))
        finally:
            entry.ready.set()
            self._forget(entry)
        log.info("mcp session closed")

    async def _with_server(
        self, entry: _Entry, admission: Admission, launch: LaunchRequest, connect_timeout_s: float
    ) -> None:
        """Start a local server and converse with it; its whole tree ends with the conversation."""
        in_read, in_write = os.pipe2(os.O_CLOEXEC)
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        pipes = _Descriptors(out_read, in_write)
        async with trio.lowlevel.FdStream(err_read) as words:
            try:
                try:
                    running = await self._launcher.launch(
                        launch, stdin_fd=in_read, stdout_fd=out_write, stderr_fd=err_write
                    )
                finally:
                    for descriptor in (in_read, out_write, err_write):
                        os.close(descriptor)
                async with self._egress.serve(running.proxy_listener, launch.profile):
                    try:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(_listen, words, entry)
                            nursery.start_soon(_watch, running, entry)
                            await self._converse(entry, admission.connect, pipes, connect_timeout_s)
                            nursery.cancel_scope.cancel()
                    finally:
                        pipes.close()
                        with trio.CancelScope(shield=True):
                            with trio.move_on_after(_GOODBYE_S):
                                await running.wait()
                            await running.stop(StopReason.SHUTDOWN)
                            await running.wait()
            finally:
                pipes.close()

    async def _converse(
        self, entry: _Entry, connect: ConnectArgs, pipes: "_Descriptors | None", connect_timeout_s: float
    ) -> None:
        """Hold the conversation through a worker of its own until it ends."""
        sock = await self._start_worker()
        stream = hand_over(sock, None if pipes is None else pipes.both)
        if pipes is not None:
            pipes.close()
        async with stream, trio.open_nursery() as nursery:
            session = McpSession(stream)
            nursery.start_soon(session.serve)
            await session.connect(connect, timeout_s=connect_timeout_s)
            get_logger().info(
                "mcp session open",
                mcp_server=entry.name,
                protocol_version=session.info.protocol_version,
                answered_by=session.info.server_name,
            )
            entry.session = session
            entry.last_used = trio.current_time()
            entry.ready.set()
            await session.ended.wait()


class _Descriptors:
    """A local server's stdout and stdin at our end, closed once."""

    def __init__(self, stdout_fd: int, stdin_fd: int) -> None:
        self.both = (stdout_fd, stdin_fd)
        self._is_open = True

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            for descriptor in self.both:
                os.close(descriptor)


async def _listen(words: trio.lowlevel.FdStream, entry: _Entry) -> None:
    """Keep the end of what a local server says on stderr, for the text of a failure; log it for the operator."""
    while data := await words.receive_some(4096):
        entry.words += data
        del entry.words[:-MCP_SERVER_WORDS_BYTES]
        get_logger().debug("mcp server says", mcp_server=entry.name, text=bytes(data).decode("utf-8", "replace"))


async def _watch(running: Running, entry: _Entry) -> None:
    """Mark the session dead as soon as its server is: the next call then opens another one."""
    outcome = await running.wait()
    if entry.session is not None:
        entry.session.is_alive = False
    get_logger().info("mcp server ended", mcp_server=entry.name, exit_code=outcome.exit_code, why=outcome.reason or "")


def _with_words(error: BaseException, entry: _Entry) -> Refusal | PeerError | SetupError:
    words = bytes(entry.words).decode("utf-8", "replace").strip()
    if isinstance(error, McpFailure) and words:
        return McpFailure(f"{error}; the server wrote: {words}", code=error.code)
    if isinstance(error, Refusal | PeerError | SetupError):
        return error
    raise TypeError(f"{type(error).__name__} is no error of a session") from error


def _key(server: McpServer) -> str:
    """Return the digest of everything that makes a session what it is; waiting times do not."""
    same = msgspec.structs.replace(server, connect_timeout=None, call_timeout=None)
    return hashlib.sha256(msgspec.json.encode(same, order="deterministic")).hexdigest()

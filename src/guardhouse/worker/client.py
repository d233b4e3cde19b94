"""The runner's end of a worker: typed requests out, typed results back, one at a time, and a dead worker told apart.

Knows the protocol and trio. Knows nothing of how a worker is started or ended: whoever holds the launcher's
client asks it for a new one after `WorkerDied`. Runs in the runner.
"""

import socket
from types import TracebackType
from typing import Any, Final, TypeVar

import msgspec
import trio

from guardhouse.errors import GuardhouseError, PeerError, Refusal
from guardhouse.limits import WORKER_CANCEL_GRACE_S, WORKER_REQUEST_TIMEOUT_S
from guardhouse.wire import operations as wire
from guardhouse.worker import protocol
from guardhouse.workspace.errors import Code, PathEscapesWorkspace, WorkspaceRefusal

__all__ = ["FilesClient", "WorkerDied", "error_of"]

T = TypeVar("T", bound=msgspec.Struct)
_RECEIVE_BYTES: Final = 256 * 1024
# Arguments and results whose bytes travel as the frame's body instead of in its header.
_BODY_OF_ARGS: Final = {"write": "content", "sync_skill": "zip_data"}
_BODY_OF_RESULT: Final = {"read": "content"}


class WorkerDied(GuardhouseError):  # noqa: N818 - the contract's name; what happened, not whose fault
    """The worker is of no more use, and with it the request; start another and decide whether to ask again."""


class FilesClient:
    """A files worker, as the runner sees it. Requests are served in the order in which they are made.

    Cancelling a request asks the worker to stop; one that does not within a second is given up, as is one
    that is late. After that, and after the worker's death, every request raises WorkerDied.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._lock = trio.Lock()
        self._last_id = 0
        self._dead: str | None = None
        self._buffer = bytearray()

    @property
    def is_alive(self) -> bool:
        """Whether the worker may still answer; False is final."""
        return self._dead is None

    async def __aenter__(self) -> "FilesClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the socket, which ends the worker."""
        self._dead = self._dead or "its client was closed"
        await trio.aclose_forcefully(self._stream)

    async def request(
        self, operation: str, args: msgspec.Struct, *, timeout_s: float = WORKER_REQUEST_TIMEOUT_S
    ) -> Any:
        """Do one operation of the wire and return its typed result (`guardhouse.wire.operations.OPERATIONS`).

        Args:
            operation: "read", "write", "list", …
            args: the operation's typed arguments.
            timeout_s: counted from when the worker is free.

        Raises:
            Refusal: the workspace said no (a WorkspaceRefusal with its code; TIMED_OUT when it took too long).
            PeerError: the arguments are of another shape, or the worker answers nonsense (code "malformed").
            WorkerDied: it is gone, or did not even stop in time.
        """
        if operation not in wire.OPERATIONS:
            raise PeerError(f"unknown operation: {operation[:100]}", code=wire.UNKNOWN_OPERATION)
        body: bytes = b""
        field = _BODY_OF_ARGS.get(operation)
        if field is not None:
            body = getattr(args, field)
            args = msgspec.structs.replace(args, **{field: b""})
        result, content = await self.ask(operation, args, wire.OPERATIONS[operation][1], body=body, timeout_s=timeout_s)
        field = _BODY_OF_RESULT.get(operation)
        if field is not None:
            return msgspec.structs.replace(result, **{field: content})
        return result

    async def bound_text(
        self, content: bytes, *, operation: str, command: str = ""
    ) -> tuple[str, protocol.SpillResult]:
        """Return ``content`` as text that fits a message; more than 30,000 characters are saved whole in the workspace.

        Raises:
            Refusal, PeerError, WorkerDied: as `request`.
        """
        args = protocol.SpillArgs(operation=operation, command=command)
        result, text = await self.ask("spill", args, protocol.SpillResult, body=content)
        return text.decode("utf-8"), result

    async def usage(self) -> protocol.UsageResult:
        """Return how much the workspace holds."""
        return (await self.ask("usage", protocol.UsageArgs(), protocol.UsageResult))[0]

    async def clean(self, args: protocol.CleanArgs | None = None) -> protocol.CleanResult:
        """Remove outputs that are too old or too many, stale uploads and left-over temporaries."""
        return (await self.ask("clean", args or protocol.CleanArgs(), protocol.CleanResult))[0]

    async def list_skills(self, path: str = "") -> tuple[protocol.SkillEntry, ...]:
        """Return the skills below ``path``."""
        result, _ = await self.ask("list_skills", protocol.ListSkillsArgs(path=path), protocol.ListSkillsResult)
        return result.skills

    async def remove_skill(self, skill_dir: str) -> None:
        """Remove one skill."""
        await self.ask("remove_skill", protocol.RemoveSkillArgs(skill_dir=skill_dir), wire.SuccessResult)

    async def ask(
        self,
        operation: str,
        args: msgspec.Struct,
        kind: type[T],
        *,
        body: bytes = b"",
        timeout_s: float = WORKER_REQUEST_TIMEOUT_S,
    ) -> tuple[T, bytes]:
        """Do one operation of `guardhouse.worker.protocol`; return its result, of ``kind``, and the body beside it.

        Raises:
            Refusal, PeerError, WorkerDied: as `request`.
        """
        async with self._lock:
            self._check_alive()
            self._last_id += 1
            number = self._last_id
            head = protocol.render(
                protocol.Request(
                    id=number, operation=operation, deadline_s=timeout_s, args=msgspec.Raw(msgspec.json.encode(args))
                ),
                body,
            )
            with trio.move_on_after(timeout_s):
                reply, content = await self._exchange(number, head, body)
                return _result(reply, kind, operation), content
            if self._dead is None:
                raise WorkspaceRefusal(
                    f"{operation} took longer than {timeout_s:g} s and was stopped; ask for less at once",
                    code=Code.TIMED_OUT,
                )
            self._dead = f"it did not answer {operation} within {timeout_s:g} s"
            raise self._died()

    async def _exchange(self, number: int, head: bytes, body: bytes) -> tuple[protocol.Reply, bytes]:
        sent = False
        try:
            await self._stream.send_all(head)
            if body:
                await self._stream.send_all(body)
            sent = True
            return await self._reply(number)
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                if not sent or not await self._cancelled(number):
                    await self._give_up("a request was cancelled and it did not stop")
            raise
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            await self._give_up("it ended in the middle of a request")
            raise self._died() from error
        except PeerError:
            await self._give_up("it answered something that is no reply")
            raise

    async def _cancelled(self, number: int) -> bool:
        """Tell the worker to stop; say whether it has."""
        with trio.move_on_after(WORKER_CANCEL_GRACE_S):
            try:
                await self._stream.send_all(protocol.render(protocol.Request(id=number, operation="cancel")))
                await self._reply(number)
            except (trio.BrokenResourceError, trio.ClosedResourceError, PeerError):
                return False
            return True
        return False

    async def _reply(self, number: int) -> tuple[protocol.Reply, bytes]:
        # What has arrived stays in the buffer until the frame is whole, so that a cancel can go on reading it.
        await self._fill(protocol.LENGTHS.size)
        header_size, body_size = protocol.parse_lengths(self._buffer[: protocol.LENGTHS.size])
        start = protocol.LENGTHS.size
        await self._fill(start + header_size + body_size)
        header = bytes(self._buffer[start : start + header_size])
        body = bytes(self._buffer[start + header_size : start + header_size + body_size])
        del self._buffer[: start + header_size + body_size]
        reply = protocol.parse_reply(header)
        if reply.id != number:
            raise PeerError(f"the worker answered request {reply.id}, asked was {number}", code="out_of_order")
        return reply, body

    async def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            data = await self._stream.receive_some(max(_RECEIVE_BYTES, size - len(self._buffer)))
            if not data:
                raise trio.BrokenResourceError("the worker closed its socket")
            self._buffer += data

    async def _give_up(self, why: str) -> None:
        self._dead = self._dead or why
        await trio.aclose_forcefully(self._stream)

    def _check_alive(self) -> None:
        if self._dead is not None:
            raise self._died()

    def _died(self) -> WorkerDied:
        return WorkerDied(f"the files worker is of no more use: {self._dead}; it needs to be started again")


def _result(reply: protocol.Reply, kind: type[T], operation: str) -> T:
    failure = reply.failure
    if failure is not None:
        raise error_of(failure)
    try:
        return msgspec.json.decode(b"null" if isinstance(reply.result, msgspec.UnsetType) else reply.result, type=kind)
    except msgspec.DecodeError as error:
        raise PeerError(f"invalid {operation} result from the files worker: {error}") from error


def error_of(failure: protocol.Failure) -> GuardhouseError:
    """Return the error that the worker raised, rebuilt."""
    if failure.family == "peer":
        return PeerError(failure.text, code=failure.code)
    if failure.code == Code.ESCAPES:
        return PathEscapesWorkspace(failure.text)
    try:
        return WorkspaceRefusal(failure.text, code=Code(failure.code))
    except ValueError:
        return Refusal(failure.text)

"""The files worker as the runner uses it: started when first needed, started again when it has died.

Knows neither paths nor what an operation means: the worker does. Runs in the runner.
"""

import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import trio

from guardhouse.errors import Refusal
from guardhouse.runner.ripgrep import Ripgrep
from guardhouse.wire.operations import GrepArgs, GrepResult, WriteArgs
from guardhouse.worker.client import FilesClient, WorkerDied
from guardhouse.worker.protocol import ChunkArgs, ChunkResult, SpillArgs, SpillResult, UploadResult

__all__ = ["BoundedText", "FilesService"]

T = TypeVar("T", bound=msgspec.Struct)


class BoundedText(msgspec.Struct, frozen=True, kw_only=True):
    """A text as it goes into a message: whole, or a preview that names the file with the whole."""

    text: str
    truncated: bool = False
    file_path: str | None = None
    total_size: int | None = None


class FilesService:
    """One files worker at a time. ``start`` asks the launcher for a fresh, confined one."""

    def __init__(self, start: Callable[[], Awaitable[socket.socket]]) -> None:
        self._start = start
        self.ripgrep: Ripgrep | None = None  # hints for searches, where there are any
        self._starting = trio.Lock()
        self._client: FilesClient | None = None

    async def request(self, operation: str, args: msgspec.Struct) -> Any:
        """Do one operation of the wire.

        A worker that dies takes its request with it: whether a write happened is then unknown, so nothing is
        asked twice. The next request gets a new worker.

        Raises:
            Refusal: the workspace said no, or the worker died over this request.
            PeerError: the arguments are of another shape.
        """
        if isinstance(args, GrepArgs) and self.ripgrep is not None:
            return await self._search(args, self.ripgrep)
        client = await self._living()
        try:
            return await client.request(operation, args)
        except WorkerDied as death:
            raise Refusal(
                f"{operation} did not finish: {death}; it may or may not have taken effect, look before trying again"
            ) from death

    async def _search(self, args: GrepArgs, ripgrep: Ripgrep) -> GrepResult:
        began_s = trio.current_time()
        candidates = await ripgrep.candidates(args)
        hinted = candidates is not None
        result = (await self._ask("grep_listed" if hinted else "grep", args, GrepResult, candidates or b""))[0]
        ripgrep.took(trio.current_time() - began_s, hinted=hinted)
        return result

    async def read_chunk(self, args: ChunkArgs) -> tuple[ChunkResult, bytes]:
        """Return a piece of a file.

        Raises:
            Refusal: the workspace said no, or the worker died over it.
        """
        return await self._ask("chunk", args, ChunkResult, b"")

    async def upload(self, args: WriteArgs) -> UploadResult:
        """Take a part of an upload; return how far it is.

        Raises:
            Refusal: the workspace said no, or the worker died over it.
        """
        without = msgspec.structs.replace(args, content=b"")
        return (await self._ask("upload", without, UploadResult, args.content))[0]

    async def _ask(self, operation: str, args: msgspec.Struct, kind: type[T], body: bytes) -> tuple[T, bytes]:
        client = await self._living()
        try:
            return await client.ask(operation, args, kind, body=body)
        except WorkerDied as death:
            raise Refusal(f"{operation} did not finish: {death}; ask again") from death

    async def bound(self, text: str, *, operation: str, command: str = "") -> BoundedText:
        """Return ``text`` bounded for a message; a long one is saved whole in the workspace.

        Raises:
            Refusal: the worker died over it.
        """
        client = await self._living()
        try:
            args = SpillArgs(operation=operation, command=command)
            result, body = await client.ask("spill", args, SpillResult, body=text.encode("utf-8"))
        except WorkerDied as death:
            raise Refusal(f"output could not be saved: {death}") from death
        return BoundedText(
            text=body.decode("utf-8"),
            truncated=result.truncated,
            file_path=result.file_path,
            total_size=result.total_size,
        )

    async def aclose(self) -> None:
        """End the worker."""
        if self._client is not None:
            await self._client.aclose()

    async def _living(self) -> FilesClient:
        async with self._starting:
            if self._client is None or not self._client.is_alive:
                if self._client is not None:
                    await self._client.aclose()
                self._client = FilesClient(await self._start())
            return self._client

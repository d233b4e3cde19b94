"""Parts of files that were asked for on one connection and are not answered yet.

Knows neither frames nor files. Runs in the hub.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from guardhouse.errors import Refusal
from guardhouse.limits import FILE_CALL_TIMEOUT_S
from guardhouse.wire.messages_files import FileResult

__all__ = ["ConnectionLost", "FileCalls"]


class ConnectionLost(Refusal):
    """The runner's connection ended before the answer, or none came in time."""


class _OpenCall:
    def __init__(self) -> None:
        self._is_over = trio.Event()
        self._result: FileResult | None = None

    def end(self, result: FileResult | None) -> None:
        self._result = result
        self._is_over.set()

    async def wait(self) -> FileResult:
        with trio.move_on_after(FILE_CALL_TIMEOUT_S):
            await self._is_over.wait()
        if self._result is None:
            why = "ended" if self._is_over.is_set() else f"gave no answer within {FILE_CALL_TIMEOUT_S:g} s"
            raise ConnectionLost(f"the runner's connection {why}; ask again from the same offset")
        return self._result


class FileCalls:
    """The calls of one connection."""

    def __init__(self) -> None:
        self._open: dict[str, _OpenCall] = {}
        self._is_lost = False

    @contextmanager
    def opened(self, call_id: str) -> Iterator[_OpenCall]:
        """Expect an answer to ``call_id`` for as long as the block lasts.

        Raises:
            ConnectionLost: there is no connection any more.
        """
        if self._is_lost:
            raise ConnectionLost("the runner's connection ended; ask again from the same offset")
        call = self._open[call_id] = _OpenCall()
        try:
            yield call
        finally:
            del self._open[call_id]

    def answer(self, result: FileResult) -> None:
        """Hand an answer to whoever waits for it; one that nobody waits for any more is dropped."""
        call = self._open.get(result.call_id)
        if call is not None:
            call.end(result)

    def lose(self) -> None:
        """End every call: the connection is gone."""
        self._is_lost = True
        for call in self._open.values():
            call.end(None)

"""The egress proxy beside a synchronous program: `guardhouse sandbox try` has no event loop of its own.

Knows one command. Runs in a thread of that program.
"""

import socket
import threading
from typing import Any

import trio

from guardhouse.runner.egress import CommandEgress, EgressService

__all__ = ["EgressThread"]


class EgressThread:
    """Serves one command's listener from `serve` until `end`."""

    def __init__(self, service: EgressService, profile: str) -> None:
        self._service = service
        self._profile = profile
        self._thread: threading.Thread | None = None
        self._is_up = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._over: trio.Event | None = None
        self._command: CommandEgress | None = None

    def serve(self, listener: socket.socket) -> None:
        """Begin; the listener is ours from now on."""
        self._thread = threading.Thread(target=trio.run, args=(self._serve, listener), daemon=True)
        self._thread.start()

    def end(self) -> dict[str, Any] | None:
        """Close every connection; return what was written down, None when nothing was served."""
        if self._thread is None:
            return None
        self._is_up.wait()
        if self._token is not None and self._over is not None:
            trio.from_thread.run_sync(self._over.set, trio_token=self._token)
        self._thread.join()
        return None if self._command is None else self._command.as_json()

    async def _serve(self, listener: socket.socket) -> None:
        self._token, self._over = trio.lowlevel.current_trio_token(), trio.Event()
        try:
            async with self._service.serve(listener, self._profile) as self._command:
                self._is_up.set()
                await self._over.wait()
        finally:
            self._is_up.set()

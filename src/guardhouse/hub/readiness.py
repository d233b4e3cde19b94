"""Whether the hub can do its work, for whoever probes it: it goes on, and its store can be read and written.

A full disk still answers reads, so a write that failed is remembered, and until one is stored again each look tries
one. Runs in the hub.
"""

from functools import partial
from typing import Final

import trio
from sqlalchemy import Connection

from guardhouse.hub.clock import now_ms
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.store import audit
from guardhouse.hub.store.tokens import count_api_tokens

__all__ = ["Readiness"]

# Anybody may ask, and each look at a store that fails is work for it.
LOOK_EVERY_S: Final = 1.0


class Readiness:
    """What is wrong with the store, looked at once a second at most while something is."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._looked_s = -LOOK_EVERY_S
        self._reason: str | None = None

    async def reason(self) -> str | None:
        """Return why the store cannot be worked with, or None where it can."""
        if self._database.failed_write is None and self._reason is None:
            return await self._look()
        if trio.current_time() - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = trio.current_time()
            self._reason = await self._look()
        return self._reason or self._database.failed_write

    async def _look(self) -> str | None:
        try:
            await self._database.read(count_api_tokens)
            if self._database.failed_write is not None:
                # A value that was never there: what changes nothing would be stored without a page written.
                await self._database.write(partial(_write_something, at_ms=now_ms()))
                self._database.failed_write = None
        except StoreUnavailable as error:
            return str(error)
        return None


def _write_something(connection: Connection, *, at_ms: int) -> None:
    audit.store_position(connection, "readiness", at_ms)

"""Letting runners in when thousands come at once: their records read together, and "come back later" beyond a bound.

After a restart every runner dials within seconds. One trip to the store for each would cost more than everything else
of an upgrade, so those that wait at the same moment share one. More than `UPGRADES_MAX` that are not in yet means that
the store or the processor cannot keep up: a client gives up after 10 s, and work for it would be for nothing. Further
ones are told when to come back, spread so that they do not come together. Runs in the hub.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

import msgspec
import structlog
import trio

from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.store import environments
from guardhouse.hub.store.environments import EnvironmentRecord

__all__ = ["UPGRADES_MAX", "Admission"]

_log = structlog.get_logger("guardhouse.hub.gateway")

# About what a hub lets in within the 10 s that a runner waits for its upgrade (bench/README.md, "connected").
UPGRADES_MAX: Final = 2_000
# When those that are turned away may come back: later for some than for others, each with the runner's own jitter.
RETRY_AFTER_MIN_S: Final = 5.0
RETRY_AFTER_MAX_S: Final = 20.0
# Records of one read: SQLite takes 32,766 parameters, and nobody is to wait long for the first of them.
BATCH_MAX: Final = 250


class _Waiting:
    """One environment that is asked for, until it is read."""

    __slots__ = ("done", "environment_id", "error", "record")

    def __init__(self, environment_id: str) -> None:
        self.environment_id = environment_id
        self.done = trio.Event()
        self.record: EnvironmentRecord | None = None
        self.error: StoreUnavailable | None = None


class Admission:
    """The runners on their way in. `run` must be running in a nursery."""

    def __init__(self, database: Database, *, jitter: Callable[[], float] = random.random) -> None:
        """``jitter`` returns a number in [0, 1)."""
        self._database = database
        self._jitter = jitter
        self._waiting: list[_Waiting] = []
        self._wake = trio.Event()
        self._upgrading = 0
        self._turned_away = 0

    @contextmanager
    def upgrading(self) -> Iterator[None]:
        """Count one upgrade from its request until the runner is in, or is not.

        Raises:
            ApiError: 503 with ``Retry-After``: too many are on their way in.
        """
        if self._upgrading >= UPGRADES_MAX:
            self._turned_away += 1
            raise ApiError(
                503,
                "too_many_upgrades",
                f"{UPGRADES_MAX} runners are on their way in already",
                hint="come back as Retry-After says",
                retryable=True,
                retry_after_s=self.retry_after_s(),
            )
        self._upgrading += 1
        try:
            yield
        finally:
            self._upgrading -= 1
            if not self._upgrading and self._turned_away:
                _log.warning("runners_turned_away", count=self._turned_away, limit=UPGRADES_MAX)
                self._turned_away = 0

    def retry_after_s(self) -> float:
        """Return when one that cannot come in now may ask again."""
        return RETRY_AFTER_MIN_S + self._jitter() * (RETRY_AFTER_MAX_S - RETRY_AFTER_MIN_S)

    async def read(self, environment_id: str) -> EnvironmentRecord | None:
        """Return who the environment is, without what its heartbeats said; None: there is none.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        waiting = _Waiting(environment_id)
        self._waiting.append(waiting)
        self._wake.set()
        await waiting.done.wait()
        if waiting.error is not None:
            raise StoreUnavailable(str(waiting.error)) from waiting.error
        return waiting.record

    async def run(self) -> None:
        """Read what is asked for, for ever; while one read is on its way the next ones gather."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
                await self._read(batch)

    async def _read(self, batch: list[_Waiting]) -> None:
        ids = sorted({one.environment_id for one in batch})
        try:
            found = await self._database.read(partial(environments.find_environments, ids=ids))
        except StoreUnavailable as error:
            for one in batch:
                one.error = error
                one.done.set()
            return
        for one in batch:
            record = found.get(one.environment_id)
            if record is not None:
                # A connection keeps its record for its whole life; the facts are shown from the store.
                one.record = msgspec.structs.replace(record, machine=None, metrics=None)
            one.done.set()

"""What one connection's heartbeats said, and how that gets into the environment's record.

Of a thousand heartbeats all but the first say nothing new but the time and the load: those wait in the registry and
are written together every few seconds. A runner of the plain protocol repeats its host's facts in each one. Runs in the
hub.
"""

import hashlib
from functools import partial
from typing import Any

import msgspec
import structlog

from guardhouse.hub.clock import Moment, now_ms
from guardhouse.hub.condition import Vitals, decide_conditions
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.gateway.links import Links
from guardhouse.hub.store import heartbeats
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.heartbeats import HeartbeatFacts
from guardhouse.wire.messages import EnvironmentInfo, Heartbeat

__all__ = ["Heartbeats"]

_log = structlog.get_logger("guardhouse.hub.gateway")


class Heartbeats:
    """The heartbeats of one connection."""

    def __init__(
        self, *, environment: EnvironmentRecord, database: Database, links: Links, remote_address: str | None
    ) -> None:
        self._environment = environment
        self._has_name = environment.name is not None
        self._database = database
        self._links = links
        self._remote_address = remote_address
        # What was stored of the host the last time; compared with the next one.
        self._info: EnvironmentInfo | None = None
        self._version: str | None = None
        # What it told last, on this connection or before; None where it never has.
        self._known_version = environment.version
        # None before the first.
        self.last: Moment | None = None
        self.vitals = Vitals()
        # One word for the machine and the workspace that the first one told of.
        self.place: str | None = None

    async def take(self, heartbeat: Heartbeat, *, protocol: str, peer_time_ms: int | None) -> None:
        """Take one heartbeat, and store at once what is new in it.

        Args:
            peer_time_ms: what the runner's clock said when it was sent; None where nothing was promised about that.
        """
        is_first = self.last is None
        self.last, at_ms = Moment(), now_ms()
        before, self.vitals = (
            self.vitals,
            Vitals(
                tasks_waiting=heartbeat.tasks_waiting,
                executor_delay_ms=heartbeat.executor_delay_ms,
                clock_skew_ms=None if peer_time_ms is None else peer_time_ms - at_ms,
            ),
        )
        info, version = heartbeat.environment, heartbeat.version[:128] or None
        is_new = is_first or (info is not None and info != self._info) or version != self._version
        facts = HeartbeatFacts(
            environment_id=self._environment.id,
            at_ms=at_ms,
            version=version if is_new else None,
            protocol=protocol if is_new else None,
            remote_address=self._remote_address if is_new else None,
            hostname=_printable(info.hostname) if is_new and info else None,
            machine=_builtins(info) if is_new else None,
            metrics=_builtins(heartbeat.metrics),
        )
        if not is_new or not await self._store(facts):
            self._links.heartbeat(facts)
        elif info is not None:
            self._info, self._version = info, version
        else:
            self._version = version
        known_version, self._known_version = self._known_version, version
        if known_version not in {None, version}:
            self._links.presence_log.note(
                "runner.version",
                environment=self._environment.id,
                address=self._remote_address,
                before=known_version,
                after=version,
            )
        if is_first:
            self.place = _place(info)
            self._links.note_ready(self._environment.id)
        if is_first or _codes(before) != _codes(self.vitals):
            self._links.note_change(self._environment.id)

    async def _store(self, facts: HeartbeatFacts) -> bool:
        """Store all of it now; False where the store says no, and the next heartbeat will bring it again."""
        try:
            if self._has_name:
                await self._database.write(partial(heartbeats.record_heartbeat, facts=facts), durable=False)
            else:
                name = await self._database.write(
                    partial(heartbeats.record_naming_heartbeat, facts=facts), durable=False
                )
                self._has_name = name is not None
                if name != self._environment.name:
                    self._links.forget_known()
        except StoreUnavailable as error:
            _log.warning("heartbeat_not_written", environment_id=self._environment.id, error=str(error))
            return False
        return True


def _builtins(value: Any) -> dict[str, Any] | None:
    return None if value is None else msgspec.to_builtins(value)


def _codes(vitals: Vitals) -> frozenset[str]:
    return frozenset(one.code for one in decide_conditions(vitals, now_ms=now_ms()))


def _place(info: EnvironmentInfo | None) -> str:
    """Return one word for the machine and the workspace that a heartbeat tells of; of one that tells of none, "?"."""
    if info is None:
        return "?"
    return hashlib.sha256(f"{info.hostname}\0{info.workspace_root}\0{info.home_dir}".encode()).hexdigest()[:32]


def _printable(text: str) -> str | None:
    """Return a hostname as a name may look, or None."""
    return "".join(letter for letter in text if letter.isprintable()).strip()[:128] or None

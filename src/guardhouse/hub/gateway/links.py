"""Which runner is connected to which environment now; at most one each.

Knows nothing of frames. Runs in the hub.
"""

import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import structlog
import trio

from guardhouse.errors import Refusal
from guardhouse.hub.audit.policies import policies_of_report
from guardhouse.hub.authorize import AuthenticationFailed
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.gateway.policies import PolicyCourier
from guardhouse.hub.gateway.presence_log import PresenceLog
from guardhouse.hub.presence import ConnectedInstance
from guardhouse.hub.store import environments, heartbeats
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.heartbeats import HeartbeatFacts
from guardhouse.hub.store.policies import HubPolicyRecord
from guardhouse.hub.tasks.runners import Runner
from guardhouse.hub.timers import Timers
from guardhouse.wire.messages_files import FileRead, FileResult, FileWrite
from guardhouse.wire.messages_v1 import ApprovalDecision, HubDraining, PolicyLayer, PolicyReport

__all__ = ["AlreadyConnected", "Link", "Links"]

_log = structlog.get_logger("guardhouse.hub.gateway")

# How long the runner that is connected may take to answer a ping before a second one takes its place.
TAKEOVER_PROBE_S: Final = 3.0
# Heartbeats are kept in memory and written together: after a crash the last one may be so much older.
HEARTBEAT_FLUSH_S: Final = 10.0
KNOWN_MAX: Final = 20_000
# A third of what one hub lets in (bench/README.md, "connected"): the rest is for the work that waited meanwhile.
RETURNS_PER_S: Final = 100.0
PRESENCE_KEPT: Final = 4_096


class AlreadyConnected(Refusal):
    """Another runner with the token of ``environment_id`` is connected and answers."""

    def __init__(self, message: str, *, environment_id: str) -> None:
        super().__init__(message)
        self.environment_id = environment_id


class Link(Runner, Protocol):
    """A connection as the registry sees it."""

    @property
    def credential(self) -> bytes | None:
        """The digest of the token that opened it; None: the machine's key did."""

    @property
    def instance(self) -> ConnectedInstance:
        """What people are shown of it."""

    async def is_alive(self, *, within_s: float) -> bool:
        """Ping it."""

    def close(self, reason: str, *, reconnect_after_s: float | None = None) -> None:
        """End it; its runner may come back after ``reconnect_after_s`` at the earliest."""

    def tell(self, decision: ApprovalDecision) -> None:
        """Queue what people said to a question of its runner."""

    def send_draining(self, draining: HubDraining) -> None:
        """Tell its runner that an operator drains the environment, or no more."""
        ...

    async def ask_file(self, call: FileRead | FileWrite) -> FileResult:
        """Ask its runner for one part of a file."""
        ...

    @property
    def policies(self) -> PolicyCourier:
        """What its runner says of its policies."""
        ...

    @property
    def place(self) -> str | None:
        """Which machine and workspace its runner is at, as one word; None before its first heartbeat."""
        ...

    def send_policy(self, layer: PolicyLayer, policy: HubPolicyRecord | None) -> None:
        """Tell its runner a layer's policy, or that there is none."""
        ...


class Links:
    """The registry."""

    def __init__(self, database: Database, *, still_opens: Callable[[str, bytes | None], bool]) -> None:
        """``still_opens`` is told an environment's id and a link's ``credential``."""
        self._database = database
        self._still_opens = still_opens
        self.presence_log = PresenceLog(database)
        # Of the connections: when each has to look whether its runner is silent.
        self.timers = Timers()
        self._links: dict[str, Link] = {}
        self._claiming: dict[str, trio.Lock] = {}
        self._heartbeats: dict[str, HeartbeatFacts] = {}
        self._known: dict[str, EnvironmentRecord] = {}
        self._generation = 0
        # Counts runners that come and go; the newest of them, for whoever follows.
        self.presence_number = 0
        self.ended = 0  # connections, since the start
        self._presence: deque[tuple[int, str, bool]] = deque(maxlen=PRESENCE_KEPT)
        # Environments that an operator drains, with what their runners are told.
        self.drained: dict[str, HubDraining] = {}
        self.transfers = 0  # files that are on their way, of all environments
        # Told the id of each environment whose runner takes work now, or works under another policy.
        self.on_ready: list[Callable[[str], None]] = []

    def __len__(self) -> int:
        return len(self._links)

    def all(self) -> list[tuple[str, Link]]:
        """Return every environment's id with its link."""
        return list(self._links.items())

    def find(self, environment_id: str) -> Link | None:
        """Return the environment's link, or None."""
        return self._links.get(environment_id)

    def instance(self, environment_id: str) -> ConnectedInstance | None:
        """Return what people are shown of the environment's link, or None."""
        link = self._links.get(environment_id)
        return link.instance if link is not None else None

    def send_policy(self, environment_id: str, layer: PolicyLayer, policy: HubPolicyRecord | None) -> None:
        """Tell the environment's runner a policy, where one is connected; one that connects later is told then."""
        link = self._links.get(environment_id)
        if link is not None:
            link.send_policy(layer, policy)

    def reported_policy(self, environment_id: str) -> PolicyReport | None:
        """Return what the environment's runner said last of the policies in force; None: not connected, or nothing."""
        link = self._links.get(environment_id)
        return None if link is None else link.policies.report

    async def lookup(self, reference: str) -> EnvironmentRecord | None:
        """Return an environment by id or name as it was last read: who it is, not how it is now.

        Spares the way of every task a trip to the store; `forget_known` follows every change of name.
        """
        found = self._known.get(reference)
        if found is None:
            generation = self._generation
            found = await self._database.read(partial(environments.find_environment, id_or_name=reference))
            if found is not None and generation == self._generation and len(self._known) < KNOWN_MAX:
                self._known[reference] = found
        return found

    def forget_known(self) -> None:
        """Let every environment be read anew: one was made, renamed or deleted."""
        self._known.clear()
        self._generation += 1

    async def check_free(self, environment_id: str, *, address: str | None) -> None:
        """Make room for a new connection, or refuse it.

        A second runner with the same token would take tasks from the first, back and forth without end; so the one
        that answers a ping stays. One that does not (its host crashed, its network was cut) makes room at once.

        Args:
            environment_id: whose runner wants to connect.
            address: where from.

        Raises:
            AlreadyConnected: the connected one answers.
        """
        lock = self._claiming.setdefault(environment_id, trio.Lock())
        try:
            async with lock:
                link = self._links.get(environment_id)
                if link is None:
                    return
                if await link.is_alive(within_s=TAKEOVER_PROBE_S):
                    raise AlreadyConnected(
                        f"a runner at {link.instance.remote_address} is connected with this environment's token and"
                        " answers; stop it first, or create another environment for this host",
                        environment_id=environment_id,
                    )
                self.presence_log.note(
                    "runner.replace",
                    environment=environment_id,
                    address=address,
                    replaced_address=link.instance.remote_address,
                    reason=f"the connected one gave no answer within {TAKEOVER_PROBE_S:g} s",
                    policies=policies_of_report(link.policies.report),
                )
                link.close("it stopped answering and a new connection took its place")
                if self._links.get(environment_id) is link:
                    del self._links[environment_id]
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._claiming.pop(environment_id, None)

    def claim(self, environment_id: str, link: Link) -> None:
        """Enter a link.

        Raises:
            AlreadyConnected: another was quicker.
            AuthenticationFailed: its token was rotated away, or the environment deleted, since it was looked at.
        """
        if not self._still_opens(environment_id, link.credential):
            raise AuthenticationFailed("runner token unknown, expired or revoked")
        if environment_id in self._links:
            raise AlreadyConnected(
                "another runner with this environment's token connected at the same moment",
                environment_id=environment_id,
            )
        self._links[environment_id] = link
        self._note_presence(environment_id, connected=True)

    def release(self, environment_id: str, link: Link) -> bool:
        """Remove a link that ended; return whether it was still the environment's."""
        self.ended += 1
        if self._links.get(environment_id) is not link:
            return False
        del self._links[environment_id]
        self._note_presence(environment_id, connected=False)
        return True

    def _note_presence(self, environment_id: str, *, connected: bool) -> None:
        self.presence_number += 1
        self._presence.append((self.presence_number, environment_id, connected))
        self._database.nudge()

    def note_change(self, environment_id: str) -> None:
        """Wake who follows: the environment's status may be another now, though nobody came or went."""
        self._note_presence(environment_id, connected=environment_id in self._links)

    def set_drained(self, environment_id: str, *, reason: str | None, drained: bool) -> None:
        """Note that an operator drains an environment, or no more, and tell its runner where one listens."""
        word = HubDraining(draining=drained, reason=reason or "")
        if drained:
            self.drained[environment_id] = word
        else:
            self.drained.pop(environment_id, None)
        link = self._links.get(environment_id)
        if link is not None:
            link.send_draining(word)
        self.note_change(environment_id)
        self.note_ready(environment_id)

    def note_ready(self, environment_id: str) -> None:
        """Tell who brings things to runners that this one may take some now."""
        for tell in self.on_ready:
            tell(environment_id)

    def presence_since(self, number: int) -> list[tuple[int, str, bool]]:
        """Return which runners came or changed (True) and went (False) after ``number``: the last thousands at most."""
        if number >= self.presence_number:
            return []
        return [one for one in self._presence if one[0] > number]

    def close(self, environment_id: str, *, reason: str) -> None:
        """End the environment's connection, if any."""
        link = self._links.get(environment_id)
        if link is not None:
            link.close(reason)

    def close_all(self, *, reason: str) -> None:
        """End every connection: the hub stops. Many runners are told to come back one after the other."""
        window_s = len(self._links) / RETURNS_PER_S
        self.presence_log.note_stop(runners=len(self._links))
        for link in list(self._links.values()):
            link.close(reason, reconnect_after_s=random.random() * window_s)  # noqa: S311 - spreads, hides nothing

    # Heartbeats.

    def heartbeat(self, facts: HeartbeatFacts) -> None:
        """Keep a heartbeat for the next flush; of what it says only the time and the load are written."""
        self._heartbeats[facts.environment_id] = facts

    def flush_heartbeats(self) -> None:
        """Put what was kept in line to be written."""
        if self._heartbeats:
            kept, self._heartbeats = list(self._heartbeats.values()), {}
            self._database.write_soon(partial(heartbeats.record_heartbeats, facts=kept))

    def close_expired(self) -> None:
        """End the connections whose token or key has ended since: the overlap of a rotation is over."""
        for environment_id, link in self.all():
            if not self._still_opens(environment_id, link.credential):
                link.close("its token was rotated away, and the time for both is over")

    async def run(self) -> None:
        """Flush heartbeats, and end what its credential opens no more, for ever."""
        while True:
            await trio.sleep(HEARTBEAT_FLUSH_S)
            self.close_expired()
            try:
                self.flush_heartbeats()
            except StoreUnavailable as error:
                _log.warning("heartbeats_not_written", error=str(error))

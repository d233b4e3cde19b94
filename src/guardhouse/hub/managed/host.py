"""Every managed sandbox of this hub: made for a session, woken by its next task, removed with it.

What becomes of one that nobody uses is `guardhouse.hub.managed.upkeep`'s. Runs in the hub.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import trio
from sqlalchemy import Connection

from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.authorize import Credentials, Principal
from guardhouse.hub.clock import now_ms
from guardhouse.hub.clock_steps import ClockWatch
from guardhouse.hub.credentials import RUNNER_TOKEN_PREFIX, Sealer, mint_id, mint_token, token_digest, token_hint
from guardhouse.hub.database import Database
from guardhouse.hub.gateway.links import Links
from guardhouse.hub.managed.decide import Idle, Occupancy, choose_to_freeze, refuse_new, refuse_wake
from guardhouse.hub.managed.directory import SandboxDirectory, prepare_directory
from guardhouse.hub.managed.process import RunnerChild
from guardhouse.hub.managed.records import SandboxRecords
from guardhouse.hub.managed.refusals import unavailable
from guardhouse.hub.managed.runners import SandboxRunners
from guardhouse.hub.managed.settings import Domain, ManagedSettings
from guardhouse.hub.sessions.desk import Standing
from guardhouse.hub.store import audit, tokens
from guardhouse.hub.store import managed as store
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.managed import SandboxRecord
from guardhouse.hub.store.sessions import SessionRecord
from guardhouse.hub.tasks.board import TaskBoard

__all__ = ["ManagedHost"]


class ManagedHost:
    """The sandboxes. `open` first."""

    def __init__(
        self,
        settings: ManagedSettings,
        *,
        database: Database,
        links: Links,
        board: TaskBoard,
        credentials: Credentials,
        sealer: Sealer,
        clock: ClockWatch,
    ) -> None:
        self.records = SandboxRecords(database)
        self.runners = SandboxRunners(settings, links)
        self.domains: tuple[Domain, ...] = ()
        self.database = database
        self.board = board
        self.clock = clock
        self._links = links
        self._credentials = credentials
        self._sealer = sealer
        self._locks: dict[str, trio.Lock] = {}

    @property
    def settings(self) -> ManagedSettings:
        """What the operator set."""
        return self.runners.settings

    @settings.setter
    def settings(self, settings: ManagedSettings) -> None:
        self.runners.settings = settings

    async def open(self, nursery: trio.Nursery, *, url: str) -> None:
        """Take up what an earlier hub left: its runners are ended, its sandboxes are frozen.

        Args:
            url: where runners of sandboxes dial, on loopback.

        Raises:
            SetupError: the directory cannot be used.
        """
        await trio.to_thread.run_sync(prepare_directory, self.settings.directory)
        await self.runners.open(nursery, url=url)
        self.domains = await self.database.read(store.list_domains)
        await self.records.load()
        for record in self.records:
            await self.runners.end_left_over(record.environment_id)
            if record.state == "running":
                await self.records.update(record.environment_id, state="frozen")
        await self.runners.sweep()

    # Looking.

    def find(self, environment_id: str) -> SandboxRecord | None:
        """Return a sandbox, or None."""
        return self.records.find(environment_id)

    def standing(self, environment_id: str) -> Standing | None:
        """Return how a sandbox stands; None for what is none."""
        record = self.records.find(environment_id)
        if record is None:
            return None
        child = self.runners.find(environment_id)
        return Standing(
            is_frozen=record.state != "running",
            is_in_memory=child is not None and child.is_frozen,
            loss=record.loss,
        )

    def occupancy(self) -> Occupancy:
        """Return how many sandboxes there are and what they hold."""
        return Occupancy(sandboxes=len(self.records), running=self.runners.running, size_bytes=self.records.size_bytes)

    def refusal(self, actor: Principal) -> str | None:
        """Return why there can be no new sandbox now, whoever asks; None when there can."""
        del actor
        occupancy = self.occupancy()
        if self._yielding() is not None:
            occupancy = replace(occupancy, running=occupancy.running - 1)
        return refuse_new(occupancy, self.settings)

    @asynccontextmanager
    async def alone(self, environment_id: str) -> AsyncIterator[None]:
        """Nobody else changes the sandbox inside the block."""
        lock = self._locks.setdefault(environment_id, trio.Lock())
        async with lock:
            yield

    # Made, woken, removed.

    async def provide(self, session: SessionRecord, actor: Principal) -> EnvironmentRecord:
        """Return a new sandbox for ``session`` once its runner takes tasks.

        Raises:
            ApiError: there can be no more, or it could not be started; nothing of it is left then.
        """
        await self._make_room()
        refusal = refuse_new(self.occupancy(), self.settings)
        if refusal is not None:
            raise unavailable(refusal)
        at_ms = now_ms()
        record = SandboxRecord(
            environment_id=mint_id("env"), session_id=session.id, state="running", created_ms=at_ms, active_ms=at_ms
        )
        self.records.add(record)
        secret, token = self._mint(record.environment_id)
        try:
            await self.records.insert(record, session, token, actor=actor.id)
            self._credentials.add_runner_token(token)
            self._links.forget_known()
            async with self.alone(record.environment_id):
                await self.runners.start(record.environment_id, secret, domains=self.domains)
        except BaseException:  # cancelled too: a sandbox that nobody hears of is not kept
            with trio.CancelScope(shield=True):
                await self.discard(record.environment_id)
            raise
        found = await self._links.lookup(record.environment_id)
        if found is None:
            raise unavailable("it was deleted while it started")
        return found

    def _mint(self, environment_id: str) -> tuple[str, tokens.RunnerTokenRecord]:
        secret, token_id = mint_token(RUNNER_TOKEN_PREFIX), mint_id("wtk")
        return secret, tokens.RunnerTokenRecord(
            id=token_id,
            environment_id=environment_id,
            digest=token_digest(secret),
            sealed=self._sealer.seal(secret, owner=f"{environment_id}/{token_id}"),
            hint=token_hint(secret),
            created_ms=now_ms(),
            created_by="hub",
            expires_ms=None,
            last_used_ms=None,
        )

    async def wake(self, environment_id: str) -> str | None:
        """Have a sandbox run and return what its session must be told once, such as the loss of its files.

        Raises:
            ApiError: it holds too much, too many run, or its runner could not be started.
        """
        if environment_id not in self.records:
            raise unavailable("it is no more")
        if self.board.load(environment_id) >= self.settings.tasks:
            raise ApiError(
                429,
                "sandbox_quota",
                f"{self.settings.tasks} tasks run or wait in this managed sandbox already",
                hint="wait for some to end",
                retryable=True,
            )
        async with self.alone(environment_id):
            record = self.records.find(environment_id)
            if record is None:
                raise unavailable("it is no more")
            if not self.runners.takes_tasks(environment_id):
                await self.wake_up(record)
            record = self.records.find(environment_id) or record
            notice = record.loss if not record.is_told else None
            await self.records.update(environment_id, active_ms=now_ms(), is_told=True)
            return notice

    async def wake_up(self, record: SandboxRecord) -> None:
        """Have a sandbox's runner take tasks; its caller holds `alone`.

        Raises:
            ApiError: too many run, or it could not be started.
        """
        environment_id = record.environment_id
        child = self.runners.find(environment_id)
        if child is None or child.is_frozen:
            await self._make_room()
        if child is not None and child.is_frozen:
            if await self._thaw(child):
                await self.records.update(environment_id, state="running")
                self.records.tell("sandbox.wake", record, was=record.state, thawed=True)
                return
            await self.runners.end(environment_id)
        elif child is not None and child.is_running:
            # It runs and does not answer: a connection that was cut comes back by itself, or it is started anew.
            if await self.runners.until_ready(child):
                return
            await self.runners.end(environment_id)
        refusal = refuse_wake(self.occupancy(), self.settings)
        if refusal is not None:
            raise unavailable(refusal)
        current = await self.database.read(partial(tokens.current_runner_token, environment_id=environment_id))
        if current is None:
            raise unavailable("its token is gone")
        secret = self._sealer.open(current.sealed, owner=f"{environment_id}/{current.id}")
        await self.runners.start(environment_id, secret, domains=self.domains)
        await self.records.update(environment_id, state="running")
        self.records.tell("sandbox.wake", record, was=record.state)

    def _yielding(self) -> str | None:
        """Return the sandbox that would make room for another; None where there is room, or none can."""
        if self.occupancy().running < self.settings.running:
            return None
        running = [
            Idle(
                environment_id=record.environment_id,
                tasks=self.board.load(record.environment_id),
                active_ms=record.active_ms,
            )
            for record in self.records
            if record.state == "running" and not self._is_changing(record.environment_id)
        ]
        return choose_to_freeze(running, at_ms=now_ms())

    def _is_changing(self, environment_id: str) -> bool:
        lock = self._locks.get(environment_id)
        return lock is not None and lock.locked()

    async def _make_room(self) -> None:
        """Freeze the sandbox that is idle for longest where as many run as may; its next message thaws it."""
        chosen = self._yielding()
        if chosen is None:
            return
        async with self.alone(chosen):
            record = self.records.find(chosen)
            if record is not None and record.state == "running" and not self.board.load(chosen):
                await self.freeze(record)

    async def freeze(self, record: SandboxRecord) -> None:
        """Stop a sandbox's runner, in memory where that can be; its caller holds `alone`."""
        in_memory = await self.runners.freeze(record.environment_id, domains=self.domains)
        await self.records.update(record.environment_id, state="frozen")
        self.records.tell("sandbox.freeze", record, in_memory=in_memory)

    async def _thaw(self, child: RunnerChild) -> bool:
        """Let a frozen runner go on; return False where another must be started, as with another allow-list.

        Raises:
            ApiError: too many run.
        """
        refusal = refuse_wake(self.occupancy(), self.settings)
        if refusal is not None:
            raise unavailable(refusal)
        return child.domains == self.domains and await self.runners.thaw(child)

    async def discard(self, environment_id: str) -> None:
        """Remove a sandbox with all that it holds; its tasks end."""
        async with self.alone(environment_id):
            record = self.records.drop(environment_id)
            if record is None:
                return
            self._credentials.drop_environment(environment_id)
            await self.runners.end(environment_id)
            await self.records.delete(record)
            self._links.forget_known()
            self._links.close(environment_id, reason="its session was deleted")
            await self.board.lose_environment(environment_id, reason="its session was deleted")
            await self.delete_files(environment_id, whole=True)
        self._locks.pop(environment_id, None)

    async def share(self, session: SessionRecord) -> None:
        """Let whoever sees a session see its sandbox."""
        if session.bound_environment_id is not None and session.bound_environment_id in self.records:
            owner = session.owner if session.scope == "personal" else None
            await self.database.write(
                partial(
                    store.share_sandbox,
                    environment_id=session.bound_environment_id,
                    owner=owner,
                    team_id=session.team_id,
                )
            )
            self._links.forget_known()

    async def set_domains(self, domains: tuple[Domain, ...], *, actor: str, address: str | None) -> None:
        """Store what sandboxes may reach; those that run keep what they were started with until they are frozen.

        One that is frozen is started anew when it wakes.
        """
        at_ms = now_ms()

        def change(connection: Connection) -> None:
            store.store_domains(connection, domains, at_ms=at_ms, actor=actor)
            audit.record_audit_event(
                connection,
                at_ms=at_ms,
                actor=actor,
                action="sandbox.domains",
                target=None,
                address=address,
                domains=[f"{one.domain}:{','.join(map(str, one.ports))}" for one in domains],
            )

        await self.database.write(change)
        self.domains = domains

    async def delete_files(self, environment_id: str, *, whole: bool) -> None:
        """Delete a sandbox's workspace, or with ``whole`` all that the host holds of it."""
        directory = SandboxDirectory(self.settings.directory, environment_id)
        await trio.to_thread.run_sync(directory.remove if whole else directory.wipe)

    async def close(self) -> None:
        """End every runner; the hub stops. They are frozen as of now."""
        await self.runners.end_all()

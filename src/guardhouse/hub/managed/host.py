"""Every managed sandbox of this hub: made, woken, frozen, held to its quota, reclaimed and removed.

What is to be done is decided in `guardhouse.hub.managed.decide`; this module does it. Frozen means that the runner's
whole tree is stopped in the kernel's freezer. Where there is none, or too many are frozen already, the runner is ended:
commands never outlive their task, so nothing but the files is there to keep. Runs in the hub.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import msgspec
import structlog
import trio
from sqlalchemy import Connection

from guardhouse.errors import SetupError
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.authorize import Credentials, Principal
from guardhouse.hub.clock import now_ms
from guardhouse.hub.credentials import RUNNER_TOKEN_PREFIX, Sealer, mint_id, mint_token, token_digest, token_hint
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.gateway.links import Links
from guardhouse.hub.managed.decide import Occupancy, Step, Use, decide_step, explain_loss, refuse_new, refuse_wake
from guardhouse.hub.managed.directory import SandboxDirectory, prepare_directory
from guardhouse.hub.managed.freezer import Freezer, find_freezer
from guardhouse.hub.managed.process import RunnerChild, end_leftover
from guardhouse.hub.managed.profile import policy_text, profile_text
from guardhouse.hub.managed.settings import Domain, ManagedSettings
from guardhouse.hub.sessions.desk import Standing
from guardhouse.hub.store import audit, tokens
from guardhouse.hub.store import managed as store
from guardhouse.hub.store import sessions as session_store
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.managed import SandboxRecord
from guardhouse.hub.store.sessions import SessionRecord
from guardhouse.hub.tasks.board import TaskBoard

__all__ = ["ManagedHost"]

_log = structlog.get_logger("guardhouse.hub.managed")

LOOK_EVERY_S: Final = 2.0
# A runner that ends by itself while tasks wait for it is started again after this, doubling up to the most.
BACK_OFF_S: Final = 1.0
BACK_OFF_MAX_S: Final = 60.0
# The connection of a runner that was frozen is given up at once; it makes another when it is thawed.
LET_GO_S: Final = 10.0


class ManagedHost:
    """The sandboxes. `open` first, then `run` in a nursery."""

    def __init__(
        self,
        settings: ManagedSettings,
        *,
        database: Database,
        links: Links,
        board: TaskBoard,
        credentials: Credentials,
        sealer: Sealer,
    ) -> None:
        self.settings = settings
        self.url = ""
        self.domains: tuple[Domain, ...] = ()
        self._database = database
        self._links = links
        self._board = board
        self._credentials = credentials
        self._sealer = sealer
        self._nursery: trio.Nursery | None = None
        self._records: dict[str, SandboxRecord] = {}
        self._children: dict[str, RunnerChild] = {}
        self._locks: dict[str, trio.Lock] = {}
        self._starting = 0
        self._starts = 0
        self._freezer: Freezer | None = None
        self.no_freezer = "the hub is starting"
        self._restarts: dict[str, tuple[int, float]] = {}

    async def open(self, nursery: trio.Nursery, *, url: str) -> None:
        """Take up what an earlier hub left: its runners are ended, its sandboxes are frozen.

        Args:
            url: where runners of sandboxes dial, on loopback.

        Raises:
            SetupError: the directory cannot be used.
        """
        await trio.to_thread.run_sync(prepare_directory, self.settings.directory)
        self._nursery, self.url = nursery, url
        find = partial(find_freezer, self.settings.directory)
        self._freezer, self.no_freezer = await trio.to_thread.run_sync(find)
        if self._freezer is None:
            _log.info("managed_sandboxes_without_freezer", reason=self.no_freezer)
        self.domains = await self._database.read(store.list_domains)
        for record in await self._database.read(store.list_sandboxes):
            if await trio.to_thread.run_sync(end_leftover, self._directory(record.environment_id)):
                _log.warning("managed_runner_left_over", environment_id=record.environment_id)
            self._records[record.environment_id] = record
            if record.state == "running":
                await self._store(record.environment_id, state="frozen")
        if self._freezer is not None:
            await trio.to_thread.run_sync(self._freezer.sweep)

    # Looking.

    def find(self, environment_id: str) -> SandboxRecord | None:
        """Return a sandbox, or None."""
        return self._records.get(environment_id)

    def standing(self, environment_id: str) -> Standing | None:
        """Return how a sandbox stands; None for what is none."""
        record = self._records.get(environment_id)
        return None if record is None else Standing(is_frozen=record.state != "running", loss=record.loss)

    def occupancy(self) -> Occupancy:
        """Return how many sandboxes there are and what they hold."""
        return Occupancy(
            sandboxes=len(self._records),
            running=sum(not child.is_frozen for child in self._children.values()) + self._starting,
            size_bytes=sum(record.size_bytes for record in self._records.values()),
        )

    @property
    def frozen(self) -> int:
        """How many sandboxes are frozen in memory."""
        return sum(child.is_frozen for child in self._children.values())

    @property
    def freezer(self) -> str | None:
        """What sandboxes are frozen with; None where their runners are ended instead, and `no_freezer` says why."""
        return None if self._freezer is None else f"cgroup v{self._freezer.version}"

    def refusal(self, actor: Principal) -> str | None:
        """Return why there can be no new sandbox now, whoever asks; None when there can."""
        del actor
        return refuse_new(self.occupancy(), self.settings)

    def _directory(self, environment_id: str) -> SandboxDirectory:
        return SandboxDirectory(self.settings.directory, environment_id)

    @asynccontextmanager
    async def _alone(self, environment_id: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault(environment_id, trio.Lock())
        async with lock:
            yield

    # Made, woken, removed.

    async def provide(self, session: SessionRecord, actor: Principal) -> EnvironmentRecord:
        """Return a new sandbox for ``session`` once its runner takes tasks.

        Raises:
            ApiError: there can be no more, or it could not be started; nothing of it is left then.
        """
        refusal = refuse_new(self.occupancy(), self.settings)
        if refusal is not None:
            raise _unavailable(refusal)
        at_ms = now_ms()
        record = SandboxRecord(
            environment_id=mint_id("env"), session_id=session.id, state="running", created_ms=at_ms, active_ms=at_ms
        )
        self._records[record.environment_id] = record
        name = f"sandbox-{record.environment_id[-8:]}"
        token = self._mint(record.environment_id)

        def insert(connection: Connection) -> None:
            store.insert_sandbox(
                connection,
                record,
                name=name,
                owner=session.owner if session.scope == "personal" else None,
                team_id=session.team_id,
                created_by="hub",
            )
            tokens.insert_runner_token(connection, token[1])
            audit.record_audit_event(
                connection,
                at_ms=at_ms,
                actor=actor.id,
                action="sandbox.create",
                target=record.environment_id,
                address=None,
                environment=record.environment_id,
                session=session.id,
            )

        try:
            await self._database.write(insert)
            self._credentials.add_runner_token(token[1])
            self._links.forget_known()
            async with self._alone(record.environment_id):
                await self._start(record.environment_id, token[0])
        except BaseException:  # cancelled too: a sandbox that nobody hears of is not kept
            with trio.CancelScope(shield=True):
                await self.discard(record.environment_id)
            raise
        found = await self._links.lookup(record.environment_id)
        if found is None:
            raise _unavailable("it was deleted while it started")
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
        if environment_id not in self._records:
            raise _unavailable("it is no more")
        if self._board.load(environment_id) >= self.settings.tasks:
            raise ApiError(
                429,
                "sandbox_quota",
                f"{self.settings.tasks} tasks run or wait in this managed sandbox already",
                hint="wait for some to end",
                retryable=True,
            )
        async with self._alone(environment_id):
            record = self._records.get(environment_id)
            if record is None:
                raise _unavailable("it is no more")
            if not self._takes_tasks(environment_id):
                await self._wake_up(record)
            record = self._records[environment_id]
            notice = record.loss if not record.is_told else None
            await self._store(environment_id, active_ms=now_ms(), is_told=True)
            return notice

    async def _wake_up(self, record: SandboxRecord) -> None:
        environment_id = record.environment_id
        child = self._children.get(environment_id)
        if child is not None and child.is_frozen:
            if await self._thaw(child):
                await self._store(environment_id, state="running")
                self._tell("sandbox.wake", record, was=record.state, thawed=True)
                return
            await self._end_child(environment_id)
        elif child is not None and child.is_running:
            # It runs and does not answer: a connection that was cut comes back by itself, or it is started anew.
            if await self._until_ready(child):
                return
            await self._end_child(environment_id)
        refusal = refuse_wake(self.occupancy(), self.settings)
        if refusal is not None:
            raise _unavailable(refusal)
        current = await self._database.read(partial(tokens.current_runner_token, environment_id=environment_id))
        if current is None:
            raise _unavailable("its token is gone")
        secret = self._sealer.open(current.sealed, owner=f"{environment_id}/{current.id}")
        await self._start(environment_id, secret)
        await self._store(environment_id, state="running")
        self._tell("sandbox.wake", record, was=record.state)

    async def _thaw(self, child: RunnerChild) -> bool:
        """Let a frozen runner go on; return False where another must be started, as with another allow-list.

        Raises:
            ApiError: too many run.
        """
        refusal = refuse_wake(self.occupancy(), self.settings)
        if refusal is not None:
            raise _unavailable(refusal)
        if child.domains != self.domains:
            return False
        try:
            await child.thaw()
        except OSError as error:
            _log.warning("managed_sandbox_not_thawed", environment_id=child.environment_id, error=str(error))
            return False
        return await self._until_ready(child)

    async def _freeze(self, environment_id: str) -> bool:
        """Stop a runner where it is; return False where it was ended instead."""
        child = self._children[environment_id]
        frozen = [one for one in self._children.values() if one.is_frozen]
        if child.can_freeze and child.domains == self.domains and self.settings.frozen:
            for one in frozen[: max(0, len(frozen) + 1 - self.settings.frozen)]:
                await self._end_child(one.environment_id)
            try:
                await child.freeze()
            except OSError as error:
                _log.warning("managed_sandbox_not_frozen", environment_id=environment_id, error=str(error))
            else:
                # The last in the order of being frozen.
                self._children[environment_id] = self._children.pop(environment_id)
                await self._let_go(environment_id)
                return True
        await self._end_child(environment_id)
        return False

    async def _let_go(self, environment_id: str) -> None:
        """Give up the connection of a frozen runner, which answers nothing."""
        self._links.close(environment_id, reason="its sandbox is frozen")
        with trio.move_on_after(LET_GO_S):
            # Of a link's end nothing tells.
            while self._links.find(environment_id) is not None:  # noqa: ASYNC110 - no event for it
                await trio.sleep(0.02)

    def _takes_tasks(self, environment_id: str) -> bool:
        link = self._links.find(environment_id)
        return link is not None and link.is_ready and link.instance.last_heartbeat_ms is not None

    async def _start(self, environment_id: str, secret: str) -> None:
        """Start a runner and wait until it takes tasks.

        Raises:
            ApiError: it did not come.
        """
        directory = self._directory(environment_id)
        nursery = self._nursery
        if nursery is None:
            raise _unavailable("the hub is starting")
        self._starting += 1
        self._starts += 1
        domains = self.domains
        group = self._freezer.group(f"{environment_id}.{self._starts}") if self._freezer is not None else None
        try:
            await trio.to_thread.run_sync(
                partial(
                    directory.lay_out,
                    policy=policy_text(domains),
                    profile=profile_text(domains),
                    token=secret,
                )
            )
            child = await RunnerChild.start(
                environment_id, directory, self.settings, url=self.url, domains=domains, group=group
            )
        except (OSError, SetupError) as error:
            directory.forget_token()
            raise _unavailable(f"its runner cannot be started: {error}") from error
        finally:
            self._starting -= 1
        self._children[environment_id] = child
        nursery.start_soon(self._watch, child)
        is_ready = await self._until_ready(child)
        directory.forget_token()
        if not is_ready:
            await self._end_child(environment_id)
            _log.error("managed_runner_not_started", environment_id=environment_id, last_words=child.last_words)
            raise _unavailable(f"its runner did not start: {child.last_words}")

    async def _until_ready(self, child: RunnerChild) -> bool:
        """Wait until a runner takes tasks; return False when it ended or did not come in time."""
        with trio.move_on_after(self.settings.start_s):
            # Of a runner's first heartbeat nothing tells.
            while child.is_running and not self._takes_tasks(child.environment_id):  # noqa: ASYNC110 - two owners, no event
                await trio.sleep(0.05)
        return child.is_running and self._takes_tasks(child.environment_id)

    async def _watch(self, child: RunnerChild) -> None:
        try:
            await child.watch()
        finally:
            if self._children.get(child.environment_id) is child:
                del self._children[child.environment_id]

    async def _end_child(self, environment_id: str) -> None:
        child = self._children.get(environment_id)
        if child is not None:
            await child.end()
            if self._children.get(environment_id) is child:
                del self._children[environment_id]

    async def discard(self, environment_id: str) -> None:
        """Remove a sandbox with all that it holds; its tasks end."""
        async with self._alone(environment_id):
            record = self._records.pop(environment_id, None)
            if record is None:
                return
            self._credentials.drop_environment(environment_id)
            await self._end_child(environment_id)
            at_ms = now_ms()

            def remove(connection: Connection) -> None:
                store.delete_sandbox(connection, environment_id)
                audit.record_audit_event(
                    connection,
                    at_ms=at_ms,
                    actor="hub",
                    action="sandbox.delete",
                    target=environment_id,
                    address=None,
                    environment=environment_id,
                    session=record.session_id,
                )

            await self._database.write(remove)
            self._links.forget_known()
            self._links.close(environment_id, reason="its session was deleted")
            await self._board.lose_environment(environment_id, reason="its session was deleted")
            await self._delete_files(environment_id, whole=True)
        self._locks.pop(environment_id, None)

    async def share(self, session: SessionRecord) -> None:
        """Let whoever sees a session see its sandbox."""
        if session.bound_environment_id in self._records:
            owner = session.owner if session.scope == "personal" else None
            await self._database.write(
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

        await self._database.write(change)
        self.domains = domains

    # Looked after.

    async def run(self) -> None:
        """Look at every sandbox again and again, for ever."""
        while True:
            await trio.sleep(LOOK_EVERY_S)
            for environment_id in list(self._records):
                try:
                    await self.look(environment_id)
                except (StoreUnavailable, OSError, SetupError) as error:
                    _log.warning("managed_sandbox_not_looked_after", environment_id=environment_id, error=str(error))

    async def look(self, environment_id: str) -> Step:
        """Do what is to be done with one sandbox now, and return what it was."""
        async with self._alone(environment_id):
            record = self._records.get(environment_id)
            if record is None:
                return Step.KEEP
            if not self._board.load(environment_id) and await self._is_orphan(record):
                pass
            else:
                return await self._look(record)
        await self.discard(environment_id)
        return Step.RECLAIM

    async def _is_orphan(self, record: SandboxRecord) -> bool:
        """Whether the session of a sandbox that is not being made just now is gone, or bound elsewhere."""
        if now_ms() - record.created_ms < 2 * self.settings.start_s * 1000:
            return False
        session = await self._database.read(partial(session_store.find_session, session_id=record.session_id))
        return session is None or session.bound_environment_id != record.environment_id

    async def _look(self, record: SandboxRecord) -> Step:
        environment_id = record.environment_id
        tasks = self._board.load(environment_id)
        child = self._children.get(environment_id)
        if child is not None and child.is_frozen:
            child = None
        if child is not None:
            measure = partial(self._directory(environment_id).measure, files_max=2 * self.settings.files + 1)
            size, files = await trio.to_thread.run_sync(measure)
            changes: dict[str, Any] = {}
            if (size, files) != (record.size_bytes, record.files):
                changes = {"size_bytes": size, "files": files}
            if tasks:
                changes["active_ms"] = now_ms()
            if changes:
                record = await self._store(environment_id, durable=False, **changes)
        at_ms = now_ms()
        use = Use(
            is_running=child is not None,
            tasks=tasks,
            idle_s=(at_ms - record.active_ms) / 1000,
            has_files=record.state != "reclaimed",
            size_bytes=record.size_bytes,
            files=record.files,
        )
        step = decide_step(use, self.settings)
        match step:
            case Step.FREEZE:
                in_memory = await self._freeze(environment_id)
                await self._store(environment_id, state="frozen")
                self._tell("sandbox.freeze", record, in_memory=in_memory)
            case Step.STOP_TASKS:
                await self._stop_tasks(environment_id, record)
            case Step.WIPE | Step.RECLAIM:
                await self._stop_tasks(environment_id, record)
                await self._end_child(environment_id)
                await self._delete_files(environment_id, whole=False)
                loss = explain_loss(step, use, self.settings, at_ms=at_ms)
                await self._store(environment_id, state="reclaimed", size_bytes=0, files=0, loss=loss, is_told=False)
                self._tell("sandbox.reclaim", record, loss=loss)
            case Step.KEEP:
                if child is None and tasks:
                    await self._restart(record)
        return step

    async def _restart(self, record: SandboxRecord) -> None:
        """Start a runner again that ended by itself while tasks wait for it, less and less often."""
        count, not_before_s = self._restarts.get(record.environment_id, (0, 0.0))
        if trio.current_time() < not_before_s:
            return
        back_off_s = min(BACK_OFF_MAX_S, BACK_OFF_S * 2**count)
        self._restarts[record.environment_id] = (count + 1, trio.current_time() + back_off_s)
        _log.warning("managed_runner_restarted", environment_id=record.environment_id, attempt=count + 1)
        try:
            await self._wake_up(record)
        except ApiError as error:
            _log.warning("managed_runner_not_restarted", environment_id=record.environment_id, error=str(error))
        else:
            self._restarts.pop(record.environment_id, None)

    async def _stop_tasks(self, environment_id: str, record: SandboxRecord) -> None:
        reason = (
            f"the sandbox holds {record.size_bytes} bytes in {record.files} files; it may hold"
            f" {self.settings.size_bytes} bytes and {self.settings.files} files"
        )
        for live in self._board:
            if live.record.environment_id == environment_id:
                await self._board.cancel(live.id, actor="hub", address=None, reason=reason)

    async def _delete_files(self, environment_id: str, *, whole: bool) -> None:
        directory = self._directory(environment_id)
        await trio.to_thread.run_sync(directory.remove if whole else directory.wipe)

    async def _store(self, environment_id: str, *, durable: bool = True, **values: Any) -> SandboxRecord:
        record = msgspec.structs.replace(self._records[environment_id], **values)
        self._records[environment_id] = record
        update = partial(store.update_sandbox, environment_id=environment_id, **values)
        await self._database.write(update, durable=durable)
        return record

    def _tell(self, action: str, record: SandboxRecord, **detail: Any) -> None:
        at_ms = now_ms()

        def tell(connection: Connection) -> None:
            audit.record_audit_event(
                connection,
                at_ms=at_ms,
                actor="hub",
                action=action,
                target=record.environment_id,
                address=None,
                environment=record.environment_id,
                session=record.session_id,
                **detail,
            )

        self._database.write_soon(tell)

    async def close(self) -> None:
        """End every runner; the hub stops. They are frozen as of now."""
        async with trio.open_nursery() as nursery:
            for environment_id in list(self._children):
                nursery.start_soon(self._end_child, environment_id)

    async def tidy(self) -> None:
        """Remove the groups of runners that have ended, after `close` and everything that it waited for."""
        if self._freezer is not None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._freezer.close)


def _unavailable(why: str) -> ApiError:
    return ApiError(
        409,
        "environment_unavailable",
        f"the managed sandbox cannot be had: {why}",
        hint="the hub's log has more; choose a self-hosted environment, or try again",
        retryable=True,
    )

"""What becomes of managed sandboxes that nobody uses, or that hold too much: frozen, reclaimed, removed.

What is to be done is decided in `guardhouse.hub.managed.decide`; this module does it. Frozen means that the runner's
whole tree is stopped in the kernel's freezer. Where there is none, or too many are frozen already, the runner is ended:
commands never outlive their task, so nothing but the files is there to keep. Runs in the hub.
"""

from functools import partial
from typing import Any, Final

import structlog
import trio

from guardhouse.errors import SetupError
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.clock import now_ms
from guardhouse.hub.database import StoreUnavailable
from guardhouse.hub.managed.decide import Step, Use, decide_step, explain_loss
from guardhouse.hub.managed.directory import SandboxDirectory
from guardhouse.hub.managed.host import ManagedHost
from guardhouse.hub.store import sessions as session_store
from guardhouse.hub.store.managed import SandboxRecord

__all__ = ["SandboxUpkeep"]

_log = structlog.get_logger("guardhouse.hub.managed")

LOOK_EVERY_S: Final = 2.0
# A runner that ends by itself while tasks wait for it is started again after this, doubling up to the most.
BACK_OFF_S: Final = 1.0
BACK_OFF_MAX_S: Final = 60.0


class SandboxUpkeep:
    """Looks after the sandboxes of one host. `run` in a nursery."""

    def __init__(self, host: ManagedHost) -> None:
        self._host = host
        self._restarts: dict[str, tuple[int, float]] = {}

    async def run(self) -> None:
        """Look at every sandbox again and again, for ever."""
        while True:
            await trio.sleep(LOOK_EVERY_S)
            for environment_id in [record.environment_id for record in self._host.records]:
                try:
                    await self.look(environment_id)
                except (StoreUnavailable, OSError, SetupError) as error:
                    _log.warning("managed_sandbox_not_looked_after", environment_id=environment_id, error=str(error))

    async def look(self, environment_id: str) -> Step:
        """Do what is to be done with one sandbox now, and return what it was."""
        async with self._host.alone(environment_id):
            record = self._host.records.find(environment_id)
            if record is None:
                return Step.KEEP
            if not self._host.board.load(environment_id) and await self._is_orphan(record):
                pass
            else:
                return await self._look(record)
        await self._host.discard(environment_id)
        return Step.RECLAIM

    async def _is_orphan(self, record: SandboxRecord) -> bool:
        """Whether the session of a sandbox that is not being made just now is gone, or bound elsewhere."""
        if now_ms() - record.created_ms < 2 * self._host.settings.start_s * 1000:
            return False
        session = await self._host.database.read(partial(session_store.find_session, session_id=record.session_id))
        return session is None or session.bound_environment_id != record.environment_id

    async def _look(self, record: SandboxRecord) -> Step:
        environment_id = record.environment_id
        tasks = self._host.board.load(environment_id)
        child = self._host.runners.find(environment_id)
        if child is not None and child.is_frozen:
            child = None
        if child is not None:
            measure = partial(
                SandboxDirectory(self._host.settings.directory, environment_id).measure,
                files_max=2 * self._host.settings.files + 1,
            )
            size, files = await trio.to_thread.run_sync(measure)
            changes: dict[str, Any] = {}
            if (size, files) != (record.size_bytes, record.files):
                changes = {"size_bytes": size, "files": files}
            if tasks:
                changes["active_ms"] = now_ms()
            if changes:
                record = await self._host.records.update(environment_id, durable=False, **changes)
        at_ms = now_ms()
        use = Use(
            is_running=child is not None,
            tasks=tasks,
            idle_s=(at_ms - record.active_ms) / 1000,
            is_clock_sure=self._host.clock.held_until_ms() is None,
            has_files=record.state != "reclaimed",
            size_bytes=record.size_bytes,
            files=record.files,
        )
        step = decide_step(use, self._host.settings)
        match step:
            case Step.FREEZE:
                await self._host.freeze(record)
            case Step.STOP_TASKS:
                await self._stop_tasks(environment_id, record)
            case Step.WIPE | Step.RECLAIM:
                await self._stop_tasks(environment_id, record)
                await self._host.runners.end(environment_id)
                await self._host.delete_files(environment_id, whole=False)
                loss = explain_loss(step, use, self._host.settings, at_ms=at_ms)
                await self._host.records.update(
                    environment_id, state="reclaimed", size_bytes=0, files=0, loss=loss, is_told=False
                )
                self._host.records.tell("sandbox.reclaim", record, loss=loss)
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
            await self._host.wake_up(record)
        except ApiError as error:
            _log.warning("managed_runner_not_restarted", environment_id=record.environment_id, error=str(error))
        else:
            self._restarts.pop(record.environment_id, None)

    async def _stop_tasks(self, environment_id: str, record: SandboxRecord) -> None:
        reason = (
            f"the sandbox holds {record.size_bytes} bytes in {record.files} files; it may hold"
            f" {self._host.settings.size_bytes} bytes and {self._host.settings.files} files"
        )
        for live in self._host.board:
            if live.record.environment_id == environment_id:
                await self._host.board.cancel(live.id, actor="hub", address=None, reason=reason)

"""Fan-outs that run: one request over many environments, so many at a time, until it ends or too many fail.

Each child is a task of its own under an idempotency key that names fan-out and position, so a hub that was restarted
in the middle starts none twice. Who asked must still be allowed to at every start. Runs in the hub.
"""

from functools import partial
from typing import Any, Final

import msgspec
import structlog
import trio
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from guardhouse.errors import PeerError, Refusal
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.authorize import Credentials
from guardhouse.hub.clock import now_ms
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.gateway.links import Links
from guardhouse.hub.store import audit
from guardhouse.hub.store import fanouts as store
from guardhouse.hub.store.fanouts import ChildRecord, FanoutRecord
from guardhouse.hub.store.tasks import TaskRecord, TaskState
from guardhouse.hub.tasks.asked import check_still_may
from guardhouse.hub.tasks.board import TaskBoard
from guardhouse.hub.tasks.fanout_plan import ChildState, FanoutState, decide_next
from guardhouse.hub.tasks.request import TaskRequested

__all__ = ["FANOUTS_RUNNING_MAX", "Fanouts", "LiveFanout"]

_log = structlog.get_logger("guardhouse.hub.fanouts")

FANOUTS_RUNNING_MAX: Final = 100
# A fan-out that an earlier hub began waits so long for runners that have not come back yet.
RETURN_GRACE_S: Final = 60.0
STORE_RETRY_S: Final = 5.0
ERROR_MAX_CHARS: Final = 1_024


class LiveFanout:
    """One fan-out that has not ended, with its children in their order."""

    def __init__(self, record: FanoutRecord, children: list[ChildRecord]) -> None:
        self.record = record
        self.children = children
        # Counts changes of children; those behind a number are asked for by whoever follows.
        self.version = 0
        self._versions = [0] * len(children)
        self._changed = trio.Event()
        self._wake = trio.Event()
        self._tasks_ended: set[int] = set()

    @property
    def changed(self) -> trio.Event:
        """An event that the next change sets; take it before looking."""
        return self._changed

    def changes_since(self, version: int) -> list[ChildRecord]:
        """Return the children that changed after ``version``, in their order."""
        return [child for child, at in zip(self.children, self._versions, strict=True) if at > version]

    def put(self, child: ChildRecord) -> None:
        """Note how a child stands now and tell who follows."""
        self.version += 1
        self.children[child.position] = child
        self._versions[child.position] = self.version
        self.tell()

    def tell(self) -> None:
        """Wake who follows."""
        self._changed.set()
        self._changed = trio.Event()

    def nudge(self) -> None:
        """Wake its keeper."""
        self._wake.set()

    async def until_nudged(self) -> None:
        """Wait for the keeper's next turn."""
        await self._wake.wait()
        self._wake = trio.Event()

    def task_ended(self, position: int) -> None:
        """Note that a child's task has its end, and wake the keeper."""
        self._tasks_ended.add(position)
        self.nudge()

    def take_ended(self) -> set[int]:
        """Return the positions whose tasks ended since this was asked last."""
        found, self._tasks_ended = self._tasks_ended, set()
        return found


class Fanouts:
    """The fan-outs of one hub that have not ended."""

    def __init__(self, database: Database, board: TaskBoard, links: Links, credentials: Credentials) -> None:
        self._database = database
        self._board = board
        self._links = links
        self._credentials = credentials
        self._live: dict[str, LiveFanout] = {}
        self._of_task: dict[str, tuple[LiveFanout, int]] = {}
        self._nursery: trio.Nursery | None = None
        self._started_s = trio.current_time()

    def __len__(self) -> int:
        return len(self._live)

    async def start(self, nursery: trio.Nursery) -> None:
        """Take up what an earlier hub left; must be awaited after the board has started."""
        self._nursery = nursery
        self._board.on_end.append(self._task_ended)
        for record in await self._database.read(store.list_running_fanouts):
            children = await self._database.read(partial(store.list_children, fanout_id=record.id))
            self._enter(LiveFanout(record, children))
        if self._live:
            _log.info("fanouts_taken_up", count=len(self._live))

    def find(self, fanout_id: str) -> LiveFanout | None:
        """Return a fan-out that has not ended, or None."""
        return self._live.get(fanout_id)

    async def record(self, fanout_id: str) -> FanoutRecord | None:
        """Return a fan-out, live or stored."""
        live = self._live.get(fanout_id)
        if live is not None:
            return live.record
        return await self._database.read(partial(store.find_fanout, fanout_id=fanout_id))

    async def create(self, record: FanoutRecord, children: list[ChildRecord]) -> FanoutRecord:
        """Store a fan-out and begin with it; under a known idempotency key, return the one that is there.

        Raises:
            ApiError: 409 the key was used for another request; 429 too many run.
        """
        known = await self._known(record)
        if known is not None:
            return known
        if len(self._live) >= FANOUTS_RUNNING_MAX:
            raise ApiError(
                429, "too_many_fanouts", f"{FANOUTS_RUNNING_MAX} fan-outs run", hint="wait for one", retryable=True
            )

        def insert(connection: Connection) -> None:
            store.insert_fanout(connection, record, children)
            audit.record_audit_event(
                connection,
                at_ms=record.created_ms,
                actor=record.created_by,
                action="fanout.create",
                target=record.id,
                address=record.address,
                command=record.command,
                operation=record.operation,
                profile=record.profile,
                tags=msgspec.json.decode(record.tags),
                environments=[child.environment_id for child in children],
                parallel=record.parallel,
                stop_after=record.stop_after,
            )

        try:
            await self._database.write(insert)
        except IntegrityError:
            known = await self._known(record)
            if known is None:
                raise
            return known
        self._enter(LiveFanout(record, children))
        return record

    async def _known(self, record: FanoutRecord) -> FanoutRecord | None:
        if record.idempotency_key is None:
            return None
        known = await self._database.read(
            partial(store.find_idempotent_fanout, created_by=record.created_by, key=record.idempotency_key)
        )
        if known is not None and known.request_digest != record.request_digest:
            raise ApiError(
                409,
                "idempotency_conflict",
                f"idempotency key {record.idempotency_key!r} was used for another request (fan-out {known.id})",
                hint="use a new key for a new request",
            )
        return known

    async def cancel(self, fanout_id: str, *, actor: str, address: str | None, reason: str) -> None:
        """Let nothing start any more and cancel what runs; nothing happens to one that has ended."""
        live = self._live.get(fanout_id)
        if live is None or live.record.cancel_ms is not None:
            return
        at_ms = now_ms()
        live.record = msgspec.structs.replace(live.record, cancel_ms=at_ms, reason=reason)

        def note(connection: Connection) -> None:
            store.update_fanout(connection, fanout_id, cancel_ms=at_ms, reason=reason)
            audit.record_audit_event(
                connection,
                at_ms=at_ms,
                actor=actor,
                action="fanout.cancel",
                target=fanout_id,
                address=address,
                command=live.record.command,
                reason=reason,
            )

        await self._database.write(note)
        live.nudge()
        for child in list(live.children):
            if child.state == ChildState.RUNNING and child.task_id is not None:
                await self._board.cancel(child.task_id, actor=actor, address=address, reason=reason)

    # One fan-out's life.

    def _enter(self, live: LiveFanout) -> None:
        self._live[live.record.id] = live
        for child in live.children:
            if child.state == ChildState.RUNNING and child.task_id is not None:
                self._attend(live, child.position, child.task_id)
        if self._nursery is not None:
            self._nursery.start_soon(self._keep, live)

    def _attend(self, live: LiveFanout, position: int, task_id: str) -> None:
        """Hear of a task's end, or note it where it is over already."""
        self._of_task[task_id] = (live, position)
        if self._board.find(task_id) is None:
            self._task_ended(task_id)

    def _task_ended(self, task_id: str) -> None:
        found = self._of_task.pop(task_id, None)
        if found is not None:
            live, position = found
            live.task_ended(position)

    async def _keep(self, live: LiveFanout) -> None:
        """Carry one fan-out to its end."""
        while True:
            try:
                if await self._turn(live):
                    return
            except StoreUnavailable as error:
                _log.warning("fanout_not_stored", fanout=live.record.id, error=str(error))
                await trio.sleep(STORE_RETRY_S)
                continue
            await live.until_nudged()

    async def _turn(self, live: LiveFanout) -> bool:
        """Note what ended, start what may start; return whether all is done."""
        for position in live.take_ended():
            try:
                await self._note_end(live, position)
            except StoreUnavailable:
                live.task_ended(position)
                raise
        record = live.record
        step = decide_next(
            [ChildState(child.state) for child in live.children],
            parallel=record.parallel,
            stop_after=record.stop_after,
            is_cancelled=record.cancel_ms is not None,
        )
        await self._change(live, [_replace(live, position, state=ChildState.SKIPPED.value) for position in step.skip])
        if step.ends_as is not None:
            await self._end(live, step.ends_as)
            return True
        async with trio.open_nursery() as starting:
            for position in step.start:
                starting.start_soon(self._start_child, live, position)
        return False

    async def _start_child(self, live: LiveFanout, position: int) -> None:
        child = live.children[position]
        live.put(msgspec.structs.replace(child, state=ChildState.RUNNING.value, started_ms=now_ms()))
        try:
            task = await self._ask(live.record, child)
        except StoreUnavailable as error:
            # Nothing was stored: it waits again, and the next turn asks under the same key.
            _log.warning("fanout_child_not_started", fanout=live.record.id, error=str(error))
            live.put(child)
            await trio.sleep(STORE_RETRY_S)
            live.nudge()
            return
        except (ApiError, Refusal, PeerError) as error:
            failed = _replace(live, position, state=ChildState.FAILED.value, error=str(error)[:ERROR_MAX_CHARS])
            await self._change_soon(live, msgspec.structs.replace(failed, finished_ms=now_ms()))
            live.nudge()
            return
        await self._change_soon(live, _replace(live, position, task_id=task.id, task_state=task.state))
        self._attend(live, position, task.id)
        if live.record.cancel_ms is not None:
            # Cancelled while it was being started.
            await self._board.cancel(
                task.id, actor="hub", address=None, reason=live.record.reason or "its fan-out was cancelled"
            )

    async def _ask(self, record: FanoutRecord, child: ChildRecord) -> TaskRecord:
        environment = await self._links.lookup(child.environment_id)
        if environment is None:
            raise ApiError(404, "environment_not_found", f"environment {child.environment_name!r} is deleted")
        check_still_may(self._credentials, record.created_by, environment, now_ms=now_ms())
        queue_s = record.queue_ms / 1000
        if record.created_ms < now_ms() - (trio.current_time() - self._started_s) * 1000:
            # Of an earlier hub: its runners may be on their way back.
            queue_s = max(queue_s, RETURN_GRACE_S - (trio.current_time() - self._started_s))
        return await self._board.create(
            TaskRequested(
                environment=environment,
                operation=record.operation,
                args=msgspec.json.decode(record.args, type=dict[str, Any]),
                idempotency_key=f"{record.id}/{child.position}",
                queue_s=queue_s,
                profile=record.profile,
                created_by=record.created_by,
                requested_by=record.requested_by,
                address=record.address,
                session_id=record.session_id,
                origin=record.id,
            )
        )

    async def _note_end(self, live: LiveFanout, position: int) -> None:
        child = live.children[position]
        task = await self._board.record(child.task_id) if child.task_id is not None else None
        if task is None:
            values: dict[str, Any] = {"state": ChildState.FAILED.value, "error": "its task was deleted"}
        else:
            is_good = task.state == TaskState.SUCCEEDED and task.exit_code in (None, 0)
            values = {
                "state": (ChildState.SUCCEEDED if is_good else ChildState.FAILED).value,
                "task_state": task.state,
                "exit_code": task.exit_code,
                "error": task.error[:ERROR_MAX_CHARS] if task.error else None,
            }
        await self._change(live, [_replace(live, position, finished_ms=now_ms(), **values)])

    async def _change(self, live: LiveFanout, children: list[ChildRecord]) -> None:
        """Store children, then show them."""
        if not children:
            return

        def write(connection: Connection) -> None:
            for child in children:
                store.update_child(connection, child)

        await self._database.write(write, durable=False)
        for child in children:
            live.put(child)

    async def _change_soon(self, live: LiveFanout, child: ChildRecord) -> None:
        """Show a child; where the store fails a restart finds its task again by the idempotency key."""
        live.put(child)
        try:
            await self._database.write(partial(store.update_child, child=child), durable=False)
        except StoreUnavailable as error:
            _log.warning("fanout_child_not_stored", fanout=child.fanout_id, error=str(error))

    async def _end(self, live: LiveFanout, state: FanoutState) -> None:
        at_ms = now_ms()
        counts: dict[str, int] = {}
        for child in live.children:
            counts[child.state] = counts.get(child.state, 0) + 1
        reason = live.record.reason
        if state is FanoutState.STOPPED:
            reason = f"stopped after {counts.get(ChildState.FAILED, 0)} errors"
        ended = msgspec.structs.replace(live.record, state=state.value, finished_ms=at_ms, reason=reason)

        def write(connection: Connection) -> None:
            if store.update_fanout(connection, ended.id, state=state.value, finished_ms=at_ms, reason=reason):
                audit.record_audit_event(
                    connection,
                    at_ms=at_ms,
                    actor="hub",
                    action="fanout.end",
                    target=ended.id,
                    address=None,
                    command=ended.command,
                    state=state.value,
                    reason=reason,
                    children=counts,
                )

        await self._database.write(write)
        live.record = ended
        self._live.pop(ended.id, None)
        live.tell()


def _replace(live: LiveFanout, position: int, **values: Any) -> ChildRecord:
    return msgspec.structs.replace(live.children[position], **values)

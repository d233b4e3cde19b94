"""Every task without a result, from the request to the one stored end.

The order is always: the store first, then memory, then the runner or whoever waits. ``sent`` is stored before the
request leaves, so a crash at any point leaves at most one start; a result is acknowledged after its commit, so a
crash leaves exactly one. Knows connections only as `Runner`. Runs in the hub.
"""

import hashlib
import secrets
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import msgspec
import structlog
import trio
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from guardhouse import limits
from guardhouse.errors import Refusal, SetupError
from guardhouse.hub.api.errors import ApiError
from guardhouse.hub.clock import now_ms
from guardhouse.hub.condition import TimeoutStreaks
from guardhouse.hub.credentials import mint_id
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.store import approvals, audit
from guardhouse.hub.store import tasks as store
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.tasks import TaskEnd, TaskRecord, TaskState
from guardhouse.hub.tasks.ends import finish_and_record, hub_end
from guardhouse.hub.tasks.live import LiveTask
from guardhouse.hub.tasks.sweep import IN_DOUBT, decide_overdue, is_in_doubt
from guardhouse.hub.trace_context import TraceContext, derived_trace_id, task_span_id
from guardhouse.wire import parse_args
from guardhouse.wire.messages import TaskRequest
from guardhouse.wire.messages_v1 import RejectCode, TaskAccepted, TaskRejected
from guardhouse.wire.messages_v1 import TaskState as RunnerTaskState
from guardhouse.wire.session import StoredState, StoredTask

__all__ = ["ENVELOPE_BYTES", "Runner", "Runners", "TaskBoard", "TaskRequested", "command_summary"]

_log = structlog.get_logger("guardhouse.hub.tasks")

# A runner that says "busy" is asked again after this, doubling, at most `BUSY_RETRIES` times.
BUSY_RETRY_S: Final = 0.2
BUSY_RETRIES: Final = 8
SWEEP_S: Final = 5.0
# What an envelope adds to the arguments that it carries.
ENVELOPE_BYTES: Final = 4_096
COMMAND_MAX_CHARS: Final = 8_192
_GIVEN: Final = frozenset({TaskState.SENT, TaskState.ACCEPTED, TaskState.RUNNING})

# Ends that count from when a task began: time in which people were asked is taken off.
_BY_ITS_OWN_LIMIT: Final = ("overdue", "lost")


class Runner(Protocol):
    """A connected runner, as the board sees it."""

    @property
    def is_ready(self) -> bool:
        """Whether it takes tasks now."""

    @property
    def protocol(self) -> str:
        """``guardhouse.v1`` or ``plain``."""

    @property
    def memory_id(self) -> str | None:
        """The name of its memory, under v1."""

    @property
    def policies_in_force(self) -> dict[str, Any] | None:
        """Which policies it said last are in force (`audit.policies`); None: it has said nothing."""

    def holds(self, task_id: str) -> bool:
        """Whether it was given the task on this connection, or goes on with it."""

    def request(self, request: TaskRequest) -> None:
        """Queue a request."""

    def cancel(self, task_id: str, *, reason: str | None) -> None:
        """Queue a cancel."""


class Runners(Protocol):
    """Who is connected."""

    @property
    def drained(self) -> Mapping[str, object]:
        """Environments, by id, that get no new tasks at the moment."""

    def find(self, environment_id: str) -> Runner | None:
        """Return the environment's runner, connected now, or None."""


@dataclass(frozen=True, kw_only=True)
class TaskRequested:
    """One checked request for a task. ``on_insert`` stores what belongs to it, in the transaction that stores it."""

    environment: EnvironmentRecord
    operation: str
    args: dict[str, Any]
    idempotency_key: str | None
    queue_s: float
    profile: str | None
    created_by: str
    requested_by: str
    address: str | None
    session_id: str | None = None
    # The fan-out or schedule that it is a part of, or the skill's version that it brings.
    origin: str | None = None
    trace: TraceContext | None = None
    on_insert: Callable[[Connection], None] | None = None
    # The record of an MCP server that is filled in when a runner is given the task.
    mcp_server_id: str | None = None


class TaskBoard:
    """The tasks in flight of one hub."""

    def __init__(self, database: Database, runners: Runners, *, queue_limit: int, in_flight_limit: int) -> None:
        self._database = database
        self._runners = runners
        self._queue_limit = queue_limit
        self._in_flight_limit = in_flight_limit
        self._live: dict[str, LiveTask] = {}
        self._by_environment: dict[str, dict[str, LiveTask]] = defaultdict(dict)
        self._queues: dict[str, deque[LiveTask]] = defaultdict(deque)
        self._dispatching: set[str] = set()
        self._away_since_s: dict[str, float] = {}
        self._nursery: trio.Nursery | None = None
        self.instance_id = mint_id("hub")
        self.timeouts = TimeoutStreaks()
        # Told the id of each task that has got its end.
        self.on_end: list[Callable[[str], None]] = []
        # The same, with the whole of it; before the others.
        self.on_finished: list[Callable[[LiveTask], None]] = []
        # Whether runners are asked how long each part of a task took.
        self.is_traced = False
        # Returns a task's arguments with what is not stored: an MCP server's configuration, a skill's archive.
        self.complete_args: Callable[[TaskRecord], bytes] = _args_as_stored

    async def start(self, nursery: trio.Nursery) -> None:
        """Take up what an earlier hub left; must be awaited before anything is served."""
        self._nursery = nursery
        for record in await self._database.read(store.list_live_tasks):
            live = LiveTask(record, is_stored=True)
            self._add(live)
            if not live.was_sent:
                self._queues[record.environment_id].append(live)
            self._doubt(live)
        if self._live:
            _log.info("tasks_taken_up", count=len(self._live))

    # Looking.

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Any:
        return iter(list(self._live.values()))

    def find(self, task_id: str) -> LiveTask | None:
        """Return a task without a result, or None."""
        return self._live.get(task_id)

    def in_flight(self, environment_id: str) -> int:
        """Return how many tasks the environment's runner has been given and not answered."""
        tasks = self._by_environment.get(environment_id)
        return sum(task.was_sent for task in tasks.values()) if tasks else 0

    def load(self, environment_id: str) -> int:
        """Return how many tasks run or wait for the environment."""
        return len(self._by_environment.get(environment_id, ()))

    def session_loads(self) -> Counter[str]:
        """Return how many tasks of each session run or wait."""
        return Counter(live.record.session_id for live in self._live.values() if live.record.session_id is not None)

    async def record(self, task_id: str) -> TaskRecord | None:
        """Return a task as it stands, live or stored."""
        live = self._live.get(task_id)
        if live is not None and live.is_stored:
            return live.record
        return await self._database.read(partial(store.find_task, task_id=task_id))

    # Asking.

    async def create(self, asked: TaskRequested) -> TaskRecord:
        """Store a task and give it to the runner, or put it in line.

        Raises:
            PeerError: operation or args are wrong.
            ApiError: 409 offline, conflict; 413; 429 the line is full.
        """
        typed = parse_args(asked.operation, asked.args)
        args = msgspec.json.encode(asked.args)
        if len(args) > limits.MESSAGE_MAX_BYTES - ENVELOPE_BYTES:
            raise ApiError(413, "oversized", f"args of {len(args)} bytes do not fit a message", hint="send less")
        digest = hashlib.sha256(
            msgspec.json.encode(
                [
                    asked.environment.id,
                    asked.operation,
                    asked.profile,
                    asked.args,
                    *([asked.session_id] if asked.session_id is not None else []),
                    *([{"mcp_server": asked.mcp_server_id}] if asked.mcp_server_id is not None else []),
                ],
                order="sorted",
            )
        ).digest()
        at_ms = now_ms()
        runner = self._runners.find(asked.environment.id)
        sent = self._can_send(asked.environment.id, runner)
        if not sent:
            # A repeated request is answered with its task even where a new one would be refused. Where it would be
            # sent at once, the store's own constraint finds the repetition.
            known = await self._known(asked)
            if known is not None:
                return self._same(known, digest)
            self._check_may_queue(asked, runner)
        live = LiveTask(
            TaskRecord(
                id=mint_id("tsk"),
                environment_id=asked.environment.id,
                environment_name=asked.environment.name,
                operation=asked.operation,
                profile=asked.profile,
                session_id=asked.session_id,
                requested_by=asked.requested_by,
                args=args,
                command=command_summary(asked.operation, asked.args),
                state=TaskState.SENT if sent else TaskState.QUEUED,
                idempotency_key=asked.idempotency_key,
                request_digest=digest,
                trace_id=_trace_id(asked),
                created_by=asked.created_by,
                protocol=runner.protocol if sent and runner else None,
                memory_id=runner.memory_id if sent and runner else None,
                timeout_ms=int(getattr(typed, "timeout_s", limits.BASH_TIMEOUT_DEFAULT_S) * 1000),
                created_ms=at_ms,
                queue_until_ms=at_ms + int(asked.queue_s * 1000) if asked.queue_s > 0 else None,
                sent_ms=at_ms if sent else None,
                origin=asked.origin,
                mcp_server_id=asked.mcp_server_id,
            ),
            is_stored=False,
        )
        live.parent_span_id = asked.trace.span_id if asked.trace is not None else None
        self._add(live)

        def insert(connection: Connection) -> None:
            store.insert_task(connection, live.record)
            if asked.on_insert is not None:
                asked.on_insert(connection)
            audit.record_audit_event(
                connection,
                at_ms=at_ms,
                actor=asked.created_by,
                action="task.create",
                target=live.id,
                address=asked.address,
                environment=asked.environment.id,
                task=live.id,
                command=_command(asked.operation, asked.args),
                operation=asked.operation,
                profile=asked.profile,
                environment_name=asked.environment.name,
                requested_by=asked.requested_by,
                origin=asked.origin,
                mcp_server=asked.mcp_server_id,
                policies=None if runner is None else runner.policies_in_force,
            )

        try:
            await self._database.write(insert)
        except IntegrityError:
            self._drop(live)
            known = await self._known(asked)
            if known is None:
                raise
            return self._same(known, digest)
        except BaseException:  # cancelled too: what was not stored is not live
            self._drop(live)
            raise
        live.is_stored = True
        if not sent:
            self._queues[asked.environment.id].append(live)
            self.dispatch(asked.environment.id)
        else:
            self._send(live)
        return live.record

    async def _known(self, asked: TaskRequested) -> TaskRecord | None:
        if asked.idempotency_key is None:
            return None
        return await self._database.read(
            partial(store.find_idempotent_task, created_by=asked.created_by, key=asked.idempotency_key)
        )

    def _same(self, known: TaskRecord, digest: bytes) -> TaskRecord:
        if known.request_digest != digest:
            raise ApiError(
                409,
                "idempotency_conflict",
                f"idempotency key {known.idempotency_key!r} was used for another request (task {known.id})",
                hint="use a new key for a new request",
            )
        live = self._live.get(known.id)
        return live.record if live is not None else known

    def _can_send(self, environment_id: str, runner: Runner | None) -> bool:
        return (
            runner is not None
            and runner.is_ready
            and environment_id not in self._runners.drained
            and not self._queues[environment_id]
            and self.in_flight(environment_id) < self._in_flight_limit
        )

    def _check_may_queue(self, asked: TaskRequested, runner: Runner | None) -> None:
        is_drained = asked.environment.id in self._runners.drained
        if (runner is None or not runner.is_ready or is_drained) and asked.queue_s <= 0:
            why = "takes no tasks now (starting or draining)"
            if is_drained:
                why = "is drained by an operator and takes no new tasks"
            elif runner is None:
                why = "is not connected"
            raise ApiError(
                409,
                "environment_unavailable",
                f"environment {asked.environment.shown_name!r} {why}; the task was not started",
                hint="'guardhouse env show' says since when and why; queue_s lets a task wait for it",
                retryable=True,
            )
        if len(self._queues[asked.environment.id]) >= self._queue_limit:
            raise ApiError(
                429,
                "queue_full",
                f"{self._queue_limit} tasks wait for environment {asked.environment.shown_name!r} already",
                hint="wait for some to end",
                retryable=True,
            )

    def _send(self, live: LiveTask) -> None:
        """Give a stored, ``sent`` task to the runner that is connected now, unless that one has it already."""
        runner = self._runners.find(live.record.environment_id)
        if runner is None or not runner.is_ready or runner.holds(live.id):
            if runner is None and live.record.protocol != "guardhouse.v1":
                # Nothing was written to a socket, so this is known; over v1 the next hello tells the same.
                self._end_soon(
                    live, TaskState.FAILED, "environment_unavailable", "the connection ended before the task was sent"
                )
            return
        if live.record.cancel_ms is not None:
            self._end_soon(live, TaskState.CANCELLED, "cancelled", "cancelled before it was sent")
            return
        try:
            args = self.complete_args(live.record)
        except (Refusal, SetupError) as error:
            code = "skill_not_at_hand" if live.record.mcp_server_id is None else "mcp_server_unusable"
            self._end_soon(live, TaskState.FAILED, code, str(error))
            return
        live.handed_over = True
        runner.request(
            TaskRequest(
                task_id=live.id,
                operation=live.record.operation,
                args=msgspec.Raw(args),
                trace_id=live.record.trace_id,
                source_instance_id=self.instance_id,
                session_id=live.record.session_id,
                requested_by=live.record.requested_by,
                profile=live.record.profile,
                parent_span_id=task_span_id(live.id) if self.is_traced else None,
            )
        )

    # The line of tasks that wait.

    def dispatch(self, environment_id: str) -> None:
        """Give waiting tasks to the environment's runner as far as it takes them."""
        if self._nursery is not None and self._queues.get(environment_id) and environment_id not in self._dispatching:
            self._dispatching.add(environment_id)
            self._nursery.start_soon(self._dispatch, environment_id)

    async def _dispatch(self, environment_id: str) -> None:
        queue = self._queues[environment_id]
        try:
            while queue:
                runner = self._runners.find(environment_id)
                if runner is None or not runner.is_ready or self.in_flight(environment_id) >= self._in_flight_limit:
                    return
                if environment_id in self._runners.drained:
                    return
                live = queue.popleft()
                if live.record.is_finished:
                    continue
                values: dict[str, Any] = {
                    "sent_ms": now_ms(),
                    "protocol": runner.protocol,
                    "memory_id": runner.memory_id,
                }
                if not await self._give(live, values):
                    return
        finally:
            self._dispatching.discard(environment_id)

    async def _give(self, live: LiveTask, values: dict[str, Any]) -> bool:
        """Store that a waiting task is sent, then send it; False, and back in line, where the store says no."""
        live.is_stored = False
        live.update(state=TaskState.SENT, **values)
        since = frozenset({TaskState.QUEUED})
        try:
            moved = await self._database.write(
                partial(store.advance_task, task_id=live.id, to=TaskState.SENT, since=since, **values)
            )
        except StoreUnavailable as error:
            _log.warning("dispatch_not_stored", task_id=live.id, error=str(error))
            live.is_stored = True
            live.update(state=TaskState.QUEUED, sent_ms=None)
            self._queues[live.record.environment_id].appendleft(live)
            return False
        live.is_stored = True
        if moved and not live.record.is_finished:
            self._send(live)
        return True

    def connection_ended(self, environment_id: str) -> None:
        """Note of what was sent over it, and was never heard of, that nobody knows whether it arrived."""
        for live in self._by_environment.get(environment_id, {}).values():
            self._doubt(live)

    def _doubt(self, live: LiveTask) -> None:
        if live.handed_over and live.is_stored and not live.in_doubt and is_in_doubt(live.record):
            live.in_doubt = True
            live.update(state_reason=IN_DOUBT)
            sent = TaskState.SENT
            note = partial(store.advance_task, task_id=live.id, to=sent, since=frozenset({sent}), state_reason=IN_DOUBT)
            # A hub that is closing stores nothing; the next one says the same at its start.
            with suppress(StoreUnavailable):
                self._database.write_soon(note)

    # What runners say.

    def unfinished(self, environment_id: str) -> dict[str, StoredTask]:
        """Return the tasks that the environment's runner was given and that have no result."""
        tasks = self._by_environment.get(environment_id, {})
        return {task.id: task.as_stored() for task in tasks.values() if task.was_sent and task.is_stored}

    async def stored(self, environment_id: str, named: list[str]) -> dict[str, StoredTask]:
        """Return what the hub knows of the tasks in a hello, and of all unfinished ones of the environment."""
        found = self.unfinished(environment_id)
        asked = [task_id for task_id in named if task_id not in found]
        if asked:
            finished = await self._database.read(
                partial(store.finished_task_ids, environment_id=environment_id, task_ids=asked)
            )
            found.update({task_id: StoredTask(state=StoredState.FINISHED) for task_id in finished})
            # A task may have been sent, or have ended, while the store was read.
            found.update(self.unfinished(environment_id))
        return found

    def accepted(self, message: TaskAccepted) -> None:
        """Note that a request arrived."""
        live = self._live.get(message.task_id)
        if live is None or live.record.state not in {TaskState.SENT, TaskState.ACCEPTED}:
            return
        at_ms = now_ms()
        running = message.state is RunnerTaskState.RUNNING
        state = TaskState.RUNNING if running else TaskState.ACCEPTED
        values: dict[str, Any] = {"started_ms": at_ms} if running else {"accepted_ms": at_ms}
        live.update(state=state, **values)
        since = frozenset({TaskState.SENT, TaskState.ACCEPTED})
        self._database.write_soon(partial(store.advance_task, task_id=live.id, to=state, since=since, **values))

    async def rejected(self, message: TaskRejected) -> None:
        """Put a task that a runner did not start back in line, or end it."""
        live = self._live.get(message.task_id)
        if live is None:
            return
        if message.code is RejectCode.FORGOTTEN:
            await self.end(
                live, TaskState.LOST, "result_lost", "the runner ran this task before and its result is gone"
            )
            return
        live.rejections += 1
        may_wait = live.record.queue_until_ms is not None and now_ms() < live.record.queue_until_ms
        if message.code is RejectCode.BUSY and live.rejections <= BUSY_RETRIES:
            delay_s = BUSY_RETRY_S * 2 ** (live.rejections - 1)
        elif may_wait:
            delay_s = BUSY_RETRY_S * 2**BUSY_RETRIES
        else:
            await self.end(
                live,
                TaskState.FAILED,
                f"runner_{message.code.value}",
                message.error or f"runner is {message.code.value}",
            )
            return
        live.update(state=TaskState.QUEUED, sent_ms=None)
        await self._database.write(
            partial(store.advance_task, task_id=live.id, to=TaskState.QUEUED, since=_GIVEN, sent_ms=None)
        )
        if self._nursery is not None:
            self._nursery.start_soon(self._requeue, live, delay_s)

    async def _requeue(self, live: LiveTask, delay_s: float) -> None:
        await trio.sleep(delay_s)
        if not live.record.is_finished:
            self._queues[live.record.environment_id].append(live)
            self.dispatch(live.record.environment_id)

    async def not_arrived(self, task_id: str) -> None:
        """Send a request again that the runner certainly never saw; end it when it was cancelled meanwhile."""
        live = self._live.get(task_id)
        if live is None:
            return
        if live.record.cancel_ms is not None:
            await self.end(
                live, TaskState.CANCELLED, "cancelled", live.record.cancel_reason or "cancelled before it started"
            )
            return
        self._send(live)

    async def resume(self, environment_id: str) -> None:
        """Hand over what a runner that is gone was about to be given, and then what waits in line."""
        for live in list(self._by_environment.get(environment_id, {}).values()):
            if live.was_sent and live.is_stored and not live.handed_over:
                self._send(live)
        self.dispatch(environment_id)

    async def lost(self, task_id: str, *, reason: str) -> None:
        """End a task that nobody can tell anything of."""
        live = self._live.get(task_id)
        if live is not None and live.handed_over:
            await self.end(live, TaskState.LOST, "lost", reason)

    async def lose_environment(self, environment_id: str, *, reason: str) -> None:
        """End every task of an environment that is gone."""
        for live in list(self._by_environment.get(environment_id, {}).values()):
            await self.end(live, TaskState.LOST, "environment_deleted", reason)

    # Cancelling and ending.

    async def cancel(self, task_id: str, *, actor: str, address: str | None, reason: str) -> TaskRecord | None:
        """Ask for a stop and return the task as it stands; None when there is no such task."""
        live = self._live.get(task_id)
        if live is None:
            return await self.record(task_id)
        if live.record.cancel_ms is not None:
            return live.record
        at_ms = now_ms()
        live.update(cancel_ms=at_ms, cancel_reason=reason)

        def note(connection: Connection) -> None:
            store.record_cancel(connection, task_id, at_ms=at_ms, reason=reason)
            audit.record_audit_event(
                connection,
                at_ms=at_ms,
                actor=actor,
                action="task.cancel",
                target=task_id,
                address=address,
                environment=live.record.environment_id,
                task=task_id,
                command=live.record.command,
                reason=reason,
                policies=self._policies(live.record.environment_id),
            )

        if not live.was_sent:
            await self._database.write(note)
            if not live.was_sent:
                await self.end(live, TaskState.CANCELLED, "cancelled", reason)
        else:
            self.send_cancel(live)
            await self._database.write(note)
        return live.record

    def send_cancel(self, live: LiveTask) -> None:
        """Pass a stored cancel on to the runner; a runner that is away hears it when it resumes."""
        runner = self._runners.find(live.record.environment_id)
        if runner is not None and runner.is_ready and runner.holds(live.id):
            live.cancel_sent_s = trio.current_time()
            runner.cancel(live.id, reason=live.record.cancel_reason)

    async def run(self) -> None:
        """End, for ever, what nothing else would end."""
        while True:
            await trio.sleep(SWEEP_S)
            try:
                await self.sweep()
            except StoreUnavailable as error:
                _log.warning("sweep_not_stored", error=str(error))

    async def sweep(self) -> None:
        """Look once at every live task for a deadline that has passed, and at every line for what can go."""
        for environment_id, queue in list(self._queues.items()):
            if queue:
                self.dispatch(environment_id)
            elif environment_id not in self._dispatching:
                del self._queues[environment_id]
        now_s, at_ms = trio.current_time(), now_ms()
        for environment_id in list(self._by_environment):
            if self._runners.find(environment_id) is not None:
                self._away_since_s.pop(environment_id, None)
            else:
                self._away_since_s.setdefault(environment_id, now_s)
        for environment_id in self._away_since_s.keys() - self._by_environment.keys():
            del self._away_since_s[environment_id]
        for live in list(self._live.values()):
            away_since_s = self._away_since_s.get(live.record.environment_id)
            decide = partial(
                decide_overdue,
                live.record,
                now_ms=at_ms,
                away_s=None if away_since_s is None else now_s - away_since_s,
                cancel_sent_s_ago=None if live.cancel_sent_s is None else now_s - live.cancel_sent_s,
                in_doubt=live.in_doubt and is_in_doubt(live.record),
            )
            verdict = decide()
            if verdict is not None and verdict.code in _BY_ITS_OWN_LIMIT:
                # Only now is it worth asking how much of that was waiting for people.
                waited_ms = await self._database.read(partial(approvals.waited_ms, task_id=live.id, now_ms=at_ms))
                verdict = decide(waited_s=waited_ms / 1000)
            if verdict is None or not live.is_stored:
                continue
            if verdict.state is not None:
                await self.end(live, verdict.state, verdict.code, verdict.reason)
            else:
                _log.warning("task_overdue", task_id=live.id, reason=verdict.reason)
                self.send_cancel(live)

    async def end(self, live: LiveTask, state: TaskState, code: str, reason: str) -> None:
        """Store an end that the hub itself gives."""
        end = hub_end(state, at_ms=now_ms(), code=code, reason=reason, notes=live.notes)
        if await self._database.write(
            partial(
                finish_and_record,
                record=live.record,
                end=end,
                actor="hub",
                policies=self._policies(live.record.environment_id),
            )
        ):
            _log.info("task_ended_by_hub", task_id=live.id, state=state.value, reason=reason)
            self.ended(live.id, end)

    def _policies(self, environment_id: str) -> dict[str, Any] | None:
        runner = self._runners.find(environment_id)
        return None if runner is None else runner.policies_in_force

    def _end_soon(self, live: LiveTask, state: TaskState, code: str, reason: str) -> None:
        async def end() -> None:
            try:
                await self.end(live, state, code, reason)
            except StoreUnavailable as error:
                _log.warning("end_not_stored", task_id=live.id, error=str(error))

        if self._nursery is not None:
            self._nursery.start_soon(end)

    def ended(self, task_id: str, end: TaskEnd) -> None:
        """Note that an end was stored: wake who waits, and make room for the next."""
        live = self._live.get(task_id)
        if live is None:
            return
        values = msgspec.structs.asdict(end)
        live.record = msgspec.structs.replace(
            live.record,
            state=values.pop("state"),
            state_reason=values.pop("reason"),
            finished_ms=values.pop("at_ms"),
            **values,
        )
        self._drop(live)
        if end.state in {TaskState.TIMED_OUT, TaskState.SUCCEEDED}:
            self.timeouts.note(
                live.record.environment_id,
                timed_out=end.state is TaskState.TIMED_OUT,
                limit_ms=live.record.timeout_ms,
                at_ms=end.at_ms,
            )
        live.end()
        for tell_all in self.on_finished:
            tell_all(live)
        for tell in self.on_end:
            tell(task_id)
        self.dispatch(live.record.environment_id)

    def _add(self, live: LiveTask) -> None:
        self._live[live.id] = live
        self._by_environment[live.record.environment_id][live.id] = live

    def _drop(self, live: LiveTask) -> None:
        self._live.pop(live.id, None)
        queue = self._queues.get(live.record.environment_id)
        if queue and live in queue:
            queue.remove(live)
        tasks = self._by_environment.get(live.record.environment_id)
        if tasks is not None:
            tasks.pop(live.id, None)
            if not tasks:
                del self._by_environment[live.record.environment_id]


def _args_as_stored(record: TaskRecord) -> bytes:
    return record.args


def _trace_id(asked: TaskRequested) -> str:
    if asked.trace is not None:
        return asked.trace.trace_id
    return derived_trace_id(asked.origin) if asked.origin is not None else secrets.token_hex(16)


def _command(operation: str, args: dict[str, Any]) -> str:
    """Return the whole of what `command_summary` shortens: what the audit log keeps."""
    command = args.get("command")
    return command if operation == "bash" and isinstance(command, str) else command_summary(operation, args)


def command_summary(operation: str, args: dict[str, Any]) -> str:
    """Return what lists show and search finds: the command, path, pattern or address that the operation is about."""
    for key in ("command", "path", "pattern", "url", "skill_name", "tool_name"):
        value = args.get(key)
        if isinstance(value, str):
            return value[:COMMAND_MAX_CHARS]
    return operation

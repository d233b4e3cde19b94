"""What a runner sends of its tasks on its way into the store: output in rows, results as ends, then the receipts.

A receipt comes after the commit. Whoever reads the socket waits when the store falls behind, so a slow disk slows the
runner's command instead of filling the hub's memory. Runs in the hub.
"""

from collections.abc import Callable
from typing import Any, Final

import trio
from sqlalchemy import Connection

from guardhouse import limits
from guardhouse.hub.clock import now_ms
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.store import tasks as store
from guardhouse.hub.store.tasks import TaskEnd, TaskRecord, TaskState
from guardhouse.hub.tasks.board import TaskBoard
from guardhouse.hub.tasks.ends import decide_end, finish_and_record
from guardhouse.hub.tasks.live import LiveTask
from guardhouse.values import Stream
from guardhouse.wire.session import HubSession, OutputGap, OutputReceived, ResultReceived

__all__ = ["Intake"]

# What may wait for the store before the receiver stops reading.
UNSTORED_MAX_BYTES: Final = 4 * 1024 * 1024
# Neighbouring pieces of one stream become one row of at most this.
ROW_MAX_BYTES: Final = 256 * 1024
# What the hub keeps of one stream of one task, whatever a runner sends (runners cap at the same figure).
STREAM_MAX_BYTES: Final = limits.CAPTURE_LIMIT_BYTES + 64 * 1024


class Intake:
    """What has arrived on one connection and is not stored yet. `run` in a nursery."""

    def __init__(
        self,
        session: HubSession,
        *,
        database: Database,
        board: TaskBoard,
        held: set[str],
        log: Any,
        policies_in_force: Callable[[], dict[str, Any] | None],
        answered: Callable[[], None],
        refuse: Callable[[int, str], None],
    ) -> None:
        """Make it.

        Args:
            held: the tasks that the runner has; those with a stored result leave it.
            log: the connection's.
            policies_in_force: returns which policies the runner said last are in force.
            answered: told when the session has receipts to send.
            refuse: ends the connection with a close code and a reason, where the store takes nothing.
        """
        self._session = session
        self._database = database
        self._board = board
        self._held = held
        self._policies_in_force = policies_in_force
        self._answered = answered
        self._refuse = refuse
        self._events: list[OutputReceived | OutputGap | ResultReceived] = []
        self._waiting_bytes = 0
        self._storing = trio.Lock()
        self._room = trio.Event()
        self._to_store = trio.Event()
        self._log = log

    def take(self, event: OutputReceived | OutputGap | ResultReceived) -> None:
        """Queue what arrived."""
        self._events.append(event)
        if isinstance(event, OutputReceived):
            self._waiting_bytes += len(event.data)
        self._to_store.set()

    async def wait_for_room(self) -> None:
        """Wait while too much has arrived that is not stored."""
        while self._waiting_bytes > UNSTORED_MAX_BYTES:
            self._room = trio.Event()
            await self._room.wait()

    async def run(self) -> None:
        """Store, for ever, what arrives."""
        while True:
            await self._to_store.wait()
            self._to_store = trio.Event()
            await self.store()

    async def store(self) -> None:
        """Store what has arrived, in its order and in one transaction, then acknowledge it."""
        # Shielded: a commit that memory does not hear of would leave a finished task waiting for its result.
        with trio.CancelScope(shield=True):
            async with self._storing:
                await self._store_batch()

    async def _store_batch(self) -> None:
        batch, self._events = self._events, []
        if not batch:
            return
        at_ms = now_ms()
        rows: dict[str, list[tuple[Stream, int, bytes]]] = {}
        ends: dict[str, TaskEnd] = {}
        records: dict[str, TaskRecord] = {}
        started: list[str] = []
        received = 0
        for event in batch:
            task_id = event.result.task_id if isinstance(event, ResultReceived) else event.task_id
            live = self._board.find(task_id)
            if isinstance(event, OutputReceived):
                received += len(event.data)
                if live is not None:
                    if live.record.state in {TaskState.SENT, TaskState.ACCEPTED}:
                        live.update(state=TaskState.RUNNING, started_ms=at_ms, state_reason=None)
                        started.append(task_id)
                    _add_row(rows.setdefault(task_id, []), live, event)
            elif isinstance(event, OutputGap):
                if live is not None:
                    live.notes.append(f"bytes {event.start} to {event.end} of {event.stream} are lost")
            elif live is not None:
                live.runner_spans = event.result.spans
                ends[task_id] = _end(live, event, at_ms)
                records[task_id] = live.record

        policies = self._policies_in_force()

        def store_all(connection: Connection) -> list[str]:
            for task_id in started:
                store.advance_task(
                    connection,
                    task_id,
                    to=TaskState.RUNNING,
                    since=frozenset({TaskState.SENT, TaskState.ACCEPTED}),
                    started_ms=at_ms,
                    state_reason=None,
                )
            for task_id, chunks in rows.items():
                store.store_output(connection, task_id, chunks)
            return [
                task_id
                for task_id, end in ends.items()
                if finish_and_record(connection, records[task_id], end, actor="runner", policies=policies)
            ]

        try:
            finished = await self._database.write(store_all, durable=bool(ends))
        except StoreUnavailable as error:
            # Nothing is acknowledged: a v1 runner keeps it and sends it again on its next connection.
            self._log.error("output_not_stored", error=str(error))
            self._refuse(1013, "the hub cannot store output now; come back later")
            return
        self._waiting_bytes -= received
        self._room.set()
        for task_id, chunks in rows.items():
            live = self._board.find(task_id)
            if live is not None:
                sizes = {f"{stream.value}_bytes": offset + len(data) for stream, offset, data in chunks}
                live.update(**sizes)
        for event in batch:
            if isinstance(event, OutputReceived):
                self._session.output_stored(event.task_id, event.stream, event.end)
            elif isinstance(event, ResultReceived):
                task_id = event.result.task_id
                self._held.discard(task_id)
                self._session.result_stored(task_id)
        for task_id in finished:
            self._board.ended(task_id, ends[task_id])
        self._answered()


def _end(live: LiveTask, event: ResultReceived, at_ms: int) -> TaskEnd:
    notes = list(live.notes)
    for stream, dropped in live.dropped.items():
        if dropped:
            notes.append(f"the hub keeps {STREAM_MAX_BYTES} bytes of {stream}; {dropped} more were dropped")
    if not event.complete:
        notes.append("the runner sent more output than arrived")
    return decide_end(event.result, at_ms=at_ms, cancel_asked=live.record.cancel_ms is not None, notes=notes)


def _add_row(rows: list[tuple[Stream, int, bytes]], live: LiveTask, event: OutputReceived) -> None:
    """Add a piece to a task's rows: joined to the one before where it goes on, cut at the cap."""
    offset, data = event.offset - live.dropped[event.stream], event.data
    fits = max(0, STREAM_MAX_BYTES - offset)
    if len(data) > fits:
        live.dropped[event.stream] += len(data) - fits
        data = data[:fits]
        if not data:
            return
    if rows:
        stream, start, before = rows[-1]
        if stream is event.stream and start + len(before) == offset and len(before) + len(data) <= ROW_MAX_BYTES:
            rows[-1] = (stream, start, before + data)
            return
    rows.append((event.stream, offset, data))

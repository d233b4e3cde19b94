"""One runner's connection: frames in and out around a `HubSession`.

Three tasks share it: the receiver hands frames to the session, the `Intake` stores what arrived and acknowledges after
the commit, the sender writes what the session queued. Runs in the hub.
"""

from dataclasses import replace
from functools import partial
from typing import Any, Final, Literal, cast

import structlog
import trio
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from guardhouse import limits
from guardhouse.errors import PeerError
from guardhouse.hub.approvals.desk import ApprovalDesk
from guardhouse.hub.audit.policies import policies_of_report
from guardhouse.hub.clock import Moment, now_ms
from guardhouse.hub.condition import Vitals
from guardhouse.hub.credentials import mint_id
from guardhouse.hub.database import Database, StoreUnavailable
from guardhouse.hub.gateway.file_calls import FileCalls
from guardhouse.hub.gateway.heartbeats import Heartbeats
from guardhouse.hub.gateway.intake import Intake
from guardhouse.hub.gateway.links import Links
from guardhouse.hub.gateway.pace import FramePace
from guardhouse.hub.gateway.policies import PolicyCourier
from guardhouse.hub.presence import ConnectedInstance
from guardhouse.hub.store import heartbeats
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.hub.store.policies import HubPolicyRecord
from guardhouse.hub.store.tasks import TaskState
from guardhouse.hub.tasks.board import TaskBoard
from guardhouse.hub.transport import Probe
from guardhouse.wire import FrameTooLarge, UnsendableMessage, render_frame
from guardhouse.wire.messages import Message as WireMessage
from guardhouse.wire.messages import TaskRequest
from guardhouse.wire.messages_files import FileRead, FileResult, FileWrite
from guardhouse.wire.messages_v1 import (
    ApprovalDecision,
    ApprovalRequest,
    ApprovalWithdrawn,
    HubDraining,
    PolicyAnswer,
    PolicyLayer,
    PolicyReport,
    RunnerDraining,
    RunnerGoodbye,
    RunnerHello,
    TaskAccepted,
    TaskRejected,
)
from guardhouse.wire.session import (
    GOING_AWAY,
    Event,
    HeartbeatReceived,
    HubSession,
    OutputGap,
    OutputReceived,
    ResultReceived,
    TaskLost,
    TaskNotArrived,
    Warned,
    close_code,
    close_reason,
)

__all__ = ["RunnerLink"]

_log = structlog.get_logger("guardhouse.hub.gateway")

CLOSE_WAIT_S: Final = 2.0
WARNINGS_LOGGED: Final = 20


class RunnerLink:
    """A connection after its upgrade, until it ends."""

    def __init__(
        self,
        *,
        websocket: WebSocket,
        probe: Probe,
        session: HubSession,
        environment: EnvironmentRecord,
        database: Database,
        board: TaskBoard,
        desk: ApprovalDesk,
        links: Links,
        remote_address: str | None,
        credential: bytes | None,
    ) -> None:
        self.credential = credential
        self._websocket = websocket
        self._probe = probe
        self._session = session
        self._environment = environment
        self._database = database
        self._board = board
        self._desk = desk
        self._links = links
        self._remote_address = remote_address
        self._log = _log.bind(environment_id=environment.id, remote_address=remote_address)
        self._connected = Moment()
        self._heartbeats = Heartbeats(
            environment=environment, database=database, links=links, remote_address=remote_address
        )
        self._held: set[str] = set()
        self._to_send = trio.Event()
        self._scope = trio.CancelScope()
        self._close: tuple[int, str] | None = None
        self._end_reason = "the connection was cut"
        self._warnings = 0
        self._file_calls = FileCalls()
        self.policies = PolicyCourier(session, database, environment=environment)
        self._intake = Intake(
            session,
            database=database,
            board=board,
            held=self._held,
            log=self._log,
            policies_in_force=lambda: self.policies_in_force,
            answered=lambda: self._to_send.set(),
            refuse=self._end_with,
        )

    # What the board and the registry see.

    @property
    def is_ready(self) -> bool:
        """Whether it takes tasks now."""
        session = self._session
        return session.is_ready and not session.is_draining and not session.is_offline and self._close is None

    @property
    def protocol(self) -> str:
        """``guardhouse.v1`` or ``plain``."""
        return "guardhouse.v1" if self._session.is_v1 else "plain"

    @property
    def memory_id(self) -> str | None:
        """The name of the runner's memory."""
        return self._session.hello.memory_id if self._session.hello is not None else None

    @property
    def place(self) -> str | None:
        """One word for the machine and the workspace that the runner told of first; None: it has not yet."""
        return self._heartbeats.place

    @property
    def instance(self) -> ConnectedInstance:
        """What people are shown of this connection."""
        beat = self._heartbeats.last
        return ConnectedInstance(
            connected_ms=self._connected.seen_now_ms(),
            remote_address=self._remote_address,
            protocol=cast(Literal["guardhouse.v1", "plain"], self.protocol),
            last_heartbeat_ms=None if beat is None else beat.seen_now_ms(),
            tasks_in_flight=self._board.in_flight(self._environment.id),
            draining=self._session.is_draining,
            vitals=self._vitals_now(),
        )

    def _vitals_now(self) -> Vitals:
        report, (timeouts, timed_out_ms) = self.policies.report, self._board.timeouts.of(self._environment.id)
        missing = report.missing_layers if report is not None else ()
        return replace(self._heartbeats.vitals, missing_layers=missing, timeouts=timeouts, timed_out_ms=timed_out_ms)

    @property
    def policies_in_force(self) -> dict[str, Any] | None:
        """Which policies the runner said last are in force."""
        return policies_of_report(self.policies.report)

    def holds(self, task_id: str) -> bool:
        """Whether the runner was given the task on this connection, or goes on with it."""
        return task_id in self._held

    def request(self, request: TaskRequest) -> None:
        """Queue a request."""
        self._held.add(request.task_id)
        self._session.request(request)
        self._to_send.set()

    def cancel(self, task_id: str, *, reason: str | None) -> None:
        """Queue a cancel."""
        self._session.cancel(task_id, reason=reason)
        self._to_send.set()

    async def ask_file(self, call: FileRead | FileWrite) -> FileResult:
        """Ask the runner for one part of a file.

        Raises:
            Refusal: it speaks the plain protocol, or is not ready.
            ConnectionLost: the connection ended, or no answer came in time; ask again on the next one.
        """
        with self._file_calls.opened(call.call_id) as opened:
            self._session.ask_file(call)
            self._to_send.set()
            return await opened.wait()

    def send_policy(self, layer: PolicyLayer, policy: HubPolicyRecord | None) -> None:
        """Queue a layer's policy, or its withdrawal; a runner that cannot be told now is told after its report."""
        self.policies.send(layer, policy)
        self._to_send.set()

    def send_draining(self, draining: HubDraining) -> None:
        """Queue the word that an operator drains the environment, or no more; a plain runner knows none."""
        if self._session.say_draining(draining):
            self._to_send.set()

    async def is_alive(self, *, within_s: float) -> bool:
        """Ping the runner."""
        return await self._probe.is_alive(within_s=within_s)

    def close(self, reason: str, *, reconnect_after_s: float | None = None) -> None:
        """End the connection; said to the runner when it listens."""
        if self._close is None:
            self._session.say_goodbye(reason=reason, reconnect_after_s=reconnect_after_s)
            self._end_with(GOING_AWAY, reason)

    # The connection's life.

    async def run(self) -> None:
        """Serve the connection until it ends, and write down how it did."""
        self._log.info("runner_connected", protocol=self.protocol)
        self._note("runner.connect", protocol=self.protocol)
        watching = self._links.timers.add(self._watch, due_s=self._session.deadline_s)
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._intake.run)
                    nursery.start_soon(self._send)
                    await self._begin()
                    await self._receive()
                    # Nothing more is read; what came before is stored all the same.
                    await self._intake.store()
                    if self._close is not None:
                        await trio.sleep_forever()  # until the sender has said so
                    nursery.cancel_scope.cancel()
        finally:
            watching.cancel()
            with trio.CancelScope(shield=True):
                await self._finish()

    def _note(self, action: str, **detail: Any) -> None:
        """Put what became of the connection into the audit log, within the bounds of that."""
        self._links.presence_log.note(action, environment=self._environment.id, address=self._remote_address, **detail)

    async def _begin(self) -> None:
        if not self._session.is_v1:
            stored = self._board.reports.unfinished(self._environment.id)
            self._session.adopt(stored)
            self._held.update(stored)
            await self._board.reports.resume(self._environment.id)
        self._to_send.set()

    async def _receive(self) -> None:
        pace = FramePace()
        try:
            while self._close is None:
                message = await self._websocket.receive()
                if message["type"] == "websocket.disconnect":
                    self._note_end(message)
                    return
                now_s = trio.current_time()
                await pace.take(now_s)
                data = message.get("text")
                for event in self._session.received(message["bytes"] if data is None else data, now_s):
                    await self._take(event)
                if self._session.backlog:
                    self._to_send.set()
                await self._intake.wait_for_room()
        except PeerError as error:
            self._log.warning("runner_broke_protocol", code=error.code, error=str(error))
            self._end_with(close_code(error), close_reason(error))

    def _note_end(self, message: Message) -> None:
        code, reason = message.get("code"), message.get("reason")
        if self._end_reason == "the connection was cut" and code != 1006:
            self._end_reason = f"the runner closed the connection ({code}{f': {reason}' if reason else ''})"

    async def _take(self, event: Event) -> None:
        match event:
            case HeartbeatReceived():
                # A plain runner's frames say when they were sent, too, but nothing of ours was promised about that.
                peer_time_ms = self._session.peer_time_ms if self._session.is_v1 else None
                await self._heartbeats.take(event.heartbeat, protocol=self.protocol, peer_time_ms=peer_time_ms)
            case OutputReceived() | OutputGap() | ResultReceived():
                self._intake.take(event)
            case TaskAccepted():
                self._board.reports.accepted(event)
            case TaskRejected():
                self._held.discard(event.task_id)
                await self._board.reports.rejected(event)
            case RunnerHello():
                await self._on_hello(event)
            case RunnerDraining():
                self._log.info("runner_draining", reason=event.reason, deadline_s=event.deadline_s)
                self._links.note_change(self._environment.id)
            case RunnerGoodbye():
                self._end_reason = f"the runner said goodbye: {event.reason or 'no reason given'}"
            case PolicyReport():
                await self.policies.on_report(event)
                self._to_send.set()
                self._links.note_ready(self._environment.id)
            case PolicyAnswer():
                await self.policies.on_answer(event)
            case ApprovalRequest():
                await self._on_question(event)
            case ApprovalWithdrawn():
                await self._desk.withdrawn(event.approval_id, environment_id=self._environment.id, reason=event.reason)
            case FileResult():
                self._file_calls.answer(event)
            case Warned():
                self._warn(event.error)
            case _:
                self._log.debug("message_unused", type=type(event).__name__)

    def _warn(self, error: PeerError) -> None:
        self._warnings += 1
        if self._warnings <= WARNINGS_LOGGED:
            self._log.warning("runner_message_ignored", code=error.code, error=str(error))
        elif self._warnings == WARNINGS_LOGGED + 1:
            self._log.warning("runner_messages_ignored", note="further ones of this connection are not logged")

    async def _on_question(self, question: ApprovalRequest) -> None:
        task = await self._board.record(question.task_id)
        if task is None or task.environment_id != self._environment.id or task.is_finished:
            # The session lets no other task's question through; this one ended while it was on its way.
            return
        await self._desk.asked(
            question, environment=self._environment, task=task, peer_time_ms=self._session.peer_time_ms
        )

    def tell(self, decision: ApprovalDecision) -> None:
        """Queue what people said to a question of this runner."""
        if self._session.is_v1 and self._session.is_ready:
            self._session.decide(decision)
            self._to_send.set()

    async def _on_hello(self, hello: RunnerHello) -> None:
        stored = await self._board.reports.stored(self._environment.id, [task.task_id for task in hello.tasks])
        events = self._session.resume(stored)
        missing = {event.task_id for event in events if isinstance(event, (TaskLost, TaskNotArrived))}
        self._held.update(
            task_id for task_id in self._board.reports.unfinished(self._environment.id) if task_id not in missing
        )
        for event in events:
            match event:
                case TaskNotArrived():
                    await self._board.reports.not_arrived(event.task_id)
                case TaskLost():
                    await self._board.reports.lost(
                        event.task_id,
                        reason="the runner lost its memory of this task (it was restarted without its journal);"
                        " whether it ran is not known",
                    )
                case _:
                    await self._take(event)
        await self._board.reports.resume(self._environment.id)
        draining = self._links.drained.get(self._environment.id)
        if draining is not None:
            self.send_draining(draining)

    # Sending and watching.

    async def _send(self) -> None:
        while True:
            for message in self._session.take_messages():
                try:
                    frame = render_frame(message, message_id=mint_id("msg"), timestamp_ms=now_ms())
                except UnsendableMessage as error:
                    await self._on_unsendable(message, error)
                    continue
                try:
                    await self._websocket.send({"type": "websocket.send", "text": frame})
                except WebSocketDisconnect:
                    return
            if self._close is not None:
                await self._say_close(*self._close)
                return
            await self._to_send.wait()
            self._to_send = trio.Event()

    async def _on_unsendable(self, message: WireMessage, error: UnsendableMessage) -> None:
        """End the task whose request cannot be sent; without any other message the runner carries on."""
        self._log.error("message_not_sent", type=message.TYPE, error=str(error))
        live = self._board.find(message.task_id) if isinstance(message, TaskRequest) else None
        if live is not None:
            code = "oversized" if isinstance(error, FrameTooLarge) else "unsendable"
            await self._board.end(live, TaskState.FAILED, code, str(error))

    async def _say_close(self, code: int, reason: str) -> None:
        with trio.move_on_after(CLOSE_WAIT_S, shield=True):
            await self._websocket.send({"type": "websocket.close", "code": code, "reason": reason[:100]})
        self._scope.cancel()

    def _end_with(self, code: int, reason: str) -> None:
        if self._close is None:
            self._close = (code, reason)
            self._end_reason = reason
            self._to_send.set()

    def _watch(self, now_s: float) -> float:
        """Hand the session the time and return when it wants it next; a silent runner is closed by it."""
        self._session.traffic(self._probe.last_heard_s)
        if now_s < self._session.deadline_s:
            return self._session.deadline_s
        try:
            if self._session.tick(now_s):
                self._went_offline()
        except PeerError as error:
            self._end_with(close_code(error), close_reason(error))
            return now_s + limits.IDLE_TIMEOUT_S  # long over by then
        return self._session.deadline_s

    def _went_offline(self) -> None:
        self._log.warning("runner_silent", seconds=limits.OFFLINE_AFTER_S)
        self._note("runner.offline", silent_s=limits.OFFLINE_AFTER_S, policies=self.policies_in_force)
        self._links.note_change(self._environment.id)

    async def _finish(self) -> None:
        mine = self._links.release(self._environment.id, self)
        self._file_calls.lose()
        self._log.info("runner_disconnected", reason=self._end_reason)
        if not mine:
            return
        self._board.reports.connection_ended(self._environment.id)
        self._note(
            "runner.disconnect",
            reason=self._end_reason[:512],
            connected_s=(now_ms() - self._connected.seen_now_ms()) // 1000,
            policies=self.policies_in_force,
        )
        self._links.flush_heartbeats()
        try:
            await self._database.write(
                partial(
                    heartbeats.record_disconnect,
                    environment_id=self._environment.id,
                    at_ms=now_ms(),
                    reason=self._end_reason,
                ),
                durable=False,
            )
        except StoreUnavailable as error:
            self._log.warning("disconnect_not_written", error=str(error))

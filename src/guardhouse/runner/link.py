"""The runner's one conversation over any number of connections: what the session wants said is said, in time.

Owns the `RunnerSession` and is the only one to call it, so that every change wakes the writer. Knows no task: it
hands events to its handler and takes output and results. Runs in the runner.
"""

import secrets
import time
from collections.abc import Callable
from typing import Final, Protocol

import trio

from guardhouse.errors import PeerError
from guardhouse.runner.event_loop import leaves
from guardhouse.runner.logs import get_logger
from guardhouse.values import Stream, Verdict
from guardhouse.wire.close_codes import NORMAL, close_code, close_reason
from guardhouse.wire.envelope import FrameTooLarge, UnsendableMessage, render_frame
from guardhouse.wire.events import Event, HeartbeatDue, OutputRoom, Resumed, Warned, WelcomeMissing
from guardhouse.wire.messages import EnvironmentInfo, McpResult, Message, Metrics, TaskOutput, TaskResult, Welcome
from guardhouse.wire.messages_files import FileResult
from guardhouse.wire.messages_v1 import (
    ApprovalDecision,
    ApprovalRequest,
    HubDraining,
    HubGoodbye,
    PolicyAnswer,
    PolicyReport,
    RejectCode,
)
from guardhouse.wire.runner_session import RunnerSession

__all__ = ["HostReport", "Link", "MessageStream"]

# A dead path is noticed within the sum: 15 s until the ping, 25 s for its answer (FIGURES: half-open within 45 s).
PING_INTERVAL_S: Final = 15.0
PING_TIMEOUT_S: Final = 25.0
# Frames taken in while nothing could be written; beyond it the platform has to wait as well.
_UNANSWERED_FRAMES_MAX: Final = 256
# Results that already stand in the place of one that could not be sent.
_REPLACED_CODES: Final = frozenset({"oversized", "unsendable"})


class MessageStream(Protocol):
    """One upgraded connection; `dial.Connection` is the real one."""

    @property
    def subprotocol(self) -> str | None:
        """What the platform chose."""
        ...

    @property
    def last_heard_s(self) -> float:
        """When any byte last arrived, on trio's clock."""
        ...

    async def receive(self) -> str | bytes:
        """Return the next message."""
        ...

    async def send(self, text: str) -> None:
        """Send one message."""
        ...

    async def ping(self) -> None:
        """Wait until the platform has answered a ping."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """End the connection."""
        ...


class HostReport(Protocol):
    """What a heartbeat says of the host; None where the host does not answer in time."""

    async def environment(self) -> EnvironmentInfo | None:
        """Return what this host is."""
        ...

    async def metrics(self) -> Metrics | None:
        """Return this host's load."""
        ...


class Link:
    """The conversation. Tasks call `send_output`, `finish` and the rest whether there is a connection or not."""

    def __init__(
        self,
        session: RunnerSession,
        *,
        facts: HostReport,
        handle: Callable[[Event], None],
        tasks_waiting: Callable[[], int] = lambda: 0,
        start_delay_ms: Callable[[], int] = lambda: 0,
    ) -> None:
        """``handle`` gets every event that is not the link's own; it must not block."""
        self._session = session
        self._facts = facts
        self._handle = handle
        self._tasks_waiting = tasks_waiting
        self._start_delay_ms = start_delay_ms
        self._wake = trio.Event()
        self._written = trio.Event()
        self._rooms: dict[str, trio.Event] = {}
        self._unanswered_frames = 0
        self._wants_end: str | None = None
        self.was_welcomed = False
        self.reconnect_after_s: float | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the platform can be spoken to now."""
        return self._session.is_ready

    @property
    def is_v1(self) -> bool:
        """Whether the present or last connection speaks guardhouse.v1."""
        return self._session.is_v1

    @property
    def unsent(self) -> int:
        """How many tasks still run or have a result that the platform does not have yet."""
        return self._session.unsent

    # What tasks say.

    async def send_output(self, task_id: str, stream: Stream, data: bytes) -> None:
        """Send ``data``, waiting for as long as the platform has no room for it."""
        view = memoryview(data)
        while view:
            room = self._session.output_room(task_id, stream)
            if room == 0:
                await self._rooms.setdefault(task_id, trio.Event()).wait()
                continue
            self._session.output(task_id, stream, bytes(view[:room]))
            view = view[room:]
            self._wake.set()
        await trio.lowlevel.checkpoint()

    def accept(self, task_id: str) -> None:
        """Say that the task is recorded and starts now."""
        self._session.accept(task_id)
        self._wake.set()

    def reject(self, task_id: str, code: RejectCode, error: str) -> None:
        """Say that the task will not be started."""
        self._session.reject(task_id, code, error)
        self._wake.set()

    def finish(self, result: TaskResult) -> None:
        """Take a task's one result; it is sent now or when there is a connection again."""
        self._dispatch(self._session.finish(result))
        self._forget_room(result.task_id)
        self._wake.set()

    def answer_call(self, result: McpResult) -> None:
        """Answer one `mcp.call`."""
        self._session.answer_call(result)
        self._wake.set()

    def answer_file(self, result: FileResult) -> None:
        """Answer one part of a file, if the connection that asked for it is still there."""
        self._session.answer_file(result)
        self._wake.set()

    def report_policy(self, report: PolicyReport) -> None:
        """Say which policy is in force, now and on every later connection."""
        self._session.report_policy(report)
        self._wake.set()

    def answer_policy(self, answer: PolicyAnswer) -> None:
        """Say whether the hub's policy was taken."""
        self._session.answer_policy(answer)
        self._wake.set()

    @property
    def can_ask(self) -> bool:
        """Whether the hub of the present connection, or of the last one, understands questions."""
        return self._session.is_v1

    def ask_approval(self, request: ApprovalRequest) -> bool:
        """Put a question to the people; the answer comes as an `ApprovalDecision` event. False: nobody can be asked."""
        asked = self._session.ask_approval(request)
        self._wake.set()
        return asked

    def withdraw_approval(self, approval_id: str, *, reason: str) -> None:
        """Take a question back that nobody need answer any more."""
        self._session.withdraw_approval(approval_id, reason)
        self._wake.set()

    def start_drain(self, *, reason: str, deadline_s: float) -> None:
        """Refuse new tasks from now on and say so."""
        self._session.start_drain(reason=reason, deadline_s=deadline_s)
        self._wake.set()

    def end(self, reason: str) -> None:
        """Say goodbye, send what is queued, close, and let `converse` return."""
        self._wants_end = reason
        self._session.say_goodbye(reason)
        self._wake.set()

    # The connection.

    async def converse(self, connection: MessageStream) -> None:
        """Speak over one connection until it ends.

        Raises:
            PeerError: it ended otherwise than by `end` or the platform's own goodbye.
        """
        self.was_welcomed = False
        self.reconnect_after_s = None
        self._unanswered_frames = 0
        failure: PeerError | None = None
        try:
            self._dispatch(self._session.connected(trio.current_time(), subprotocol=connection.subprotocol))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, connection, nursery)
                nursery.start_soon(self._keep_time, nursery)
                nursery.start_soon(self._keep_alive, connection)
                await self._write(connection)
                nursery.cancel_scope.cancel()
        except* PeerError as group:
            failure = leaves(group)[0]
        finally:
            self._session.disconnected()
            # What waited for this connection's credit looks again at what it may do without one.
            for task_id in list(self._rooms):
                self._forget_room(task_id)
        code, reason = (NORMAL, self._wants_end or "") if failure is None else _closing(failure)
        await connection.close(code, reason)
        if failure is not None and self.reconnect_after_s is None:
            raise failure

    async def _read(self, connection: MessageStream, nursery: trio.Nursery) -> None:
        while True:
            frame = await connection.receive()
            self._unanswered_frames += 1
            self._dispatch(self._session.received(frame, trio.current_time()), nursery)
            # The writer counts anew when it is woken and has nothing to write.
            if self._session.backlog or self._unanswered_frames > _UNANSWERED_FRAMES_MAX:
                self._wake.set()
            while self._unanswered_frames > _UNANSWERED_FRAMES_MAX:
                await self._written.wait()

    async def _write(self, connection: MessageStream) -> None:
        while True:
            messages = self._session.take_messages()
            if not messages:
                self._unanswered_frames = 0
                self._written.set()
                self._written = trio.Event()
                if self._wants_end is not None:
                    return
                await self._wake.wait()
                self._wake = trio.Event()
                continue
            is_replaced = False
            for message in messages:
                try:
                    text = _render(message)
                except UnsendableMessage as error:
                    is_replaced = self._replace(message, error) or is_replaced
                    continue
                await connection.send(text)
            if is_replaced:
                # The session is told that all was written only when what stands in its place was, too.
                continue
            if not self._session.is_v1 and any(isinstance(m, TaskOutput | TaskResult | McpResult) for m in messages):
                # The plain protocol acknowledges nothing, but the answer to a ping proves that all before it arrived.
                await connection.ping()
            self._dispatch(self._session.flushed())

    def _replace(self, message: Message, error: UnsendableMessage) -> bool:
        """Put something that can be sent in the place of ``message``; return whether there is such a thing.

        What the other side refuses would end the connection, be sent again on the next one and end that too.
        """
        get_logger().error("a message could not be sent", type=message.TYPE, error=str(error))
        match message:
            case TaskResult() if message.error_code not in _REPLACED_CODES:
                code = "oversized" if isinstance(error, FrameTooLarge) else "unsendable"
                self._session.replace_result(
                    TaskResult(
                        task_id=message.task_id,
                        success=False,
                        error=f"the task ended, and its result cannot be sent: {error}",
                        exit_code=message.exit_code,
                        error_code=code,
                    )
                )
                return True
            case McpResult(success=True):
                self._session.answer_call(McpResult(call_id=message.call_id, success=False, error=str(error)))
                return True
            case ApprovalRequest():
                self._session.withdraw_approval(message.approval_id, reason=str(error))
                self._handle(
                    ApprovalDecision(
                        approval_id=message.approval_id,
                        verdict=Verdict.DENY,
                        decided_by="runner",
                        note=f"nobody could be asked: {error}",
                    )
                )
                return True
            case _:
                return False

    async def _keep_time(self, nursery: trio.Nursery) -> None:
        while True:
            await trio.sleep_until(self._session.deadline_s)
            self._dispatch(self._session.tick(trio.current_time()), nursery)
            self._wake.set()

    async def _keep_alive(self, connection: MessageStream) -> None:
        while True:
            await trio.sleep(PING_INTERVAL_S)
            asked_s = trio.current_time()
            with trio.move_on_after(PING_TIMEOUT_S):
                await connection.ping()
                self._session.traffic(trio.current_time())
                continue
            if connection.last_heard_s <= asked_s:
                raise PeerError(f"no answer to a ping within {PING_TIMEOUT_S:g} s: the connection is dead", code="idle")
            self._session.traffic(connection.last_heard_s)

    def _dispatch(self, events: list[Event], nursery: trio.Nursery | None = None) -> None:
        log = get_logger()
        for event in events:
            match event:
                case Welcome():
                    self.was_welcomed = True
                    log.info("welcomed", name=event.name, worknode_id=event.worknode_id, protocol=self._protocol)
                case WelcomeMissing():
                    self.was_welcomed = True
                    log.warning("the platform sent no welcome; carrying on without a name", protocol=self._protocol)
                case Resumed():
                    log.info("connection ready", protocol=self._protocol)
                case Warned():
                    log.warning("ignored what the platform sent", error=str(event.error), code=event.error.code)
                case OutputRoom():
                    self._forget_room(event.task_id)
                case HeartbeatDue():
                    if nursery is not None:
                        nursery.start_soon(self._beat, event.first)
                case HubDraining():
                    log.info("the hub drains this environment, or no more", drains=event.draining, reason=event.reason)
                case HubGoodbye():
                    log.info("the hub says goodbye", reason=event.reason)
                    self.reconnect_after_s = event.reconnect_after_s or 0.0
                case _:
                    self._handle(event)

    async def _beat(self, first: bool) -> None:  # noqa: FBT001 - a nursery passes positional arguments only
        environment = await self._facts.environment() if first else None
        metrics = await self._facts.metrics()
        self._session.heartbeat(
            metrics=metrics,
            environment=environment,
            tasks_waiting=self._tasks_waiting(),
            executor_delay_ms=self._start_delay_ms(),
        )
        self._wake.set()

    def _forget_room(self, task_id: str) -> None:
        event = self._rooms.pop(task_id, None)
        if event is not None:
            event.set()

    @property
    def _protocol(self) -> str:
        return "guardhouse.v1" if self._session.is_v1 else "plain"


def _render(message: Message) -> str:
    return render_frame(message, message_id=f"msg_{secrets.token_hex(8)}", timestamp_ms=time.time_ns() // 1_000_000)


def _closing(failure: PeerError) -> tuple[int, str]:
    """Return what to close with; a connection that is closed already ignores it."""
    return close_code(failure), close_reason(failure)

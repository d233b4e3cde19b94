"""Tasks from request to result: recorded before they start, started at most once, answered exactly once.

Knows which service does which operation and how many run side by side. Knows no connection: the link carries
output and results whenever there is one. Runs in the runner.
"""

import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec
import structlog
import trio

from guardhouse.errors import InvariantError, PeerError, Refusal
from guardhouse.launcher.messages import StopReason
from guardhouse.limits import APPROVAL_TIMEOUT_DEFAULT_S, BASH_TIMEOUT_MAX_S
from guardhouse.runner.approvals import Approvals, TaskApprover
from guardhouse.runner.bash_result import make_bash_result
from guardhouse.runner.command_parts import StopSignal
from guardhouse.runner.command_run import CommandRequest
from guardhouse.runner.enforcement import Enforcement
from guardhouse.runner.journal import AcceptedTask
from guardhouse.runner.journal_writer import JournalWriter
from guardhouse.runner.link import Link
from guardhouse.runner.logs import get_logger
from guardhouse.runner.operation_preview import READ_BEFORE_BYTES, preview_operation, summarise_operation
from guardhouse.runner.passage import NeedsApproval, Passage, ProgramNeedsApproval
from guardhouse.runner.redaction import RedactedOutput, Redaction
from guardhouse.runner.spans import TaskSpans
from guardhouse.runner.task_results import encode_result, failed_result, succeeded_result
from guardhouse.runner.transfers import TransferService
from guardhouse.values import Stream
from guardhouse.wire.events import DuplicateRequest, Event, ResultAcknowledged
from guardhouse.wire.messages import McpCall, McpResult, TaskCancel, TaskRequest, TaskResult
from guardhouse.wire.messages_files import FileRead, FileWrite
from guardhouse.wire.messages_v1 import ApprovalDecision, RejectCode
from guardhouse.wire.operations import (
    Args,
    BashArgs,
    BashResult,
    GrepResult,
    McpCallArgs,
    McpListToolsArgs,
    McpListToolsResult,
    McpOutcome,
    WebfetchArgs,
    WebfetchResult,
    WriteArgs,
    parse_args,
)
from guardhouse.wire.paths import path_as_text
from guardhouse.worker.fetch_client import FetchRefused
from guardhouse.worker.mcp_protocol import McpFailure
from guardhouse.worker.protocol import ChunkArgs

__all__ = ["FILE_OPERATIONS", "Dispatcher"]

FILE_OPERATIONS: Final = frozenset(
    {"read", "write", "edit", "list", "glob", "grep", "stat", "move", "remove", "sync_skill"}
)
# Waiting tasks for each one that may run; more are refused at once, so that another runner can take them.
_QUEUE_PER_SLOT: Final = 8
# File operations are served one after the other by one worker; these many may wait for it.
_FILE_SLOTS: Final = 16

T = TypeVar("T")
_STOPPED_WHILE_HELD: Final = (
    "the runner was stopped while this waited for a person's answer: what a rule asks about was not done;"
    " send it again once the runner is back"
)
# What a file operation returns whose turn came under another policy than the one it was judged by.
_REPLACED: Final = object()


@dataclass(slots=True)
class _Task:
    """One task between request and result."""

    request: TaskRequest
    stop: StopSignal = field(default_factory=StopSignal)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    is_command_running: bool = False
    why_cancelled: str = "task cancelled before it finished"
    spans: TaskSpans = field(init=False)

    def __post_init__(self) -> None:
        self.spans = TaskSpans(is_wanted=self.request.parent_span_id is not None)

    def cancel(self, reason: StopReason) -> None:
        """End it: a running command by its signal, so that its result is whole; anything else at once."""
        self.stop.set(reason)
        if not self.is_command_running:
            self.scope.cancel()


class Dispatcher:
    """Takes the link's events, runs tasks in ``nursery``, hands results back to the link.

    ``enforcement`` is the one in force; when it is replaced, what has not begun is judged anew.
    """

    def __init__(
        self,
        *,
        nursery: trio.Nursery,
        enforcement: Enforcement,
        redaction: Redaction,
        journal: JournalWriter,
        max_tasks: int,
        approval_timeout_s: float = APPROVAL_TIMEOUT_DEFAULT_S,
    ) -> None:
        self._nursery = nursery
        self.enforcement = enforcement
        self._redaction = redaction
        self._journal = journal
        self._approvals = Approvals(redaction.data, timeout_s=approval_timeout_s)
        self._tasks: dict[str, _Task] = {}
        self._calls = 0
        self._command_slots = trio.CapacityLimiter(max_tasks)
        self._file_slots = trio.CapacityLimiter(_FILE_SLOTS)
        self._transfers = TransferService(redaction=redaction, enforcement=lambda: self.enforcement)
        self._queue_limit = max_tasks * (1 + _QUEUE_PER_SLOT)
        self._link: Link | None = None

    @property
    def link(self) -> Link:
        """The link that results go to; set once, before the first event."""
        if self._link is None:
            raise RuntimeError("the dispatcher has no link yet")
        return self._link

    @link.setter
    def link(self, link: Link) -> None:
        self._link = link

    @property
    def active(self) -> int:
        """Tasks between request and result."""
        return len(self._tasks)

    @property
    def waiting(self) -> int:
        """Commands that wait for a slot."""
        return self._command_slots.statistics().tasks_waiting

    def take_start_delay_ms(self) -> int:
        """Return how long the slowest start of a command took since this was asked last; 0 where none was started."""
        return self.enforcement.commands.take_start_delay_ms()

    def handle(self, event: Event) -> None:
        """Take one event; what takes time is started in the nursery."""
        match event:
            case TaskRequest():
                self._take(event)
            case TaskCancel():
                task = self._tasks.get(event.task_id)
                if task is not None:
                    get_logger().info("cancelling", task_id=event.task_id, reason=event.reason or "")
                    task.cancel(StopReason.CANCEL)
            case ApprovalDecision():
                self._approvals.decide(event)
            case ResultAcknowledged():
                self._nursery.start_soon(self._journal.record_acknowledged, event.task_id)
            case FileRead() | FileWrite():
                self._nursery.start_soon(self._carry_part, event)
            case DuplicateRequest():
                get_logger().info("request came again and starts nothing", task_id=event.task_id, state=event.state)
            case McpCall():
                self._take_call(event)
            case _:
                get_logger().debug("event without a rule", kind=type(event).__name__)

    def cancel_all(self, reason: StopReason) -> None:
        """End every task; each still gets its result."""
        for task in list(self._tasks.values()):
            task.cancel(reason)

    def end_held(self) -> None:
        """End what waits for people and has not begun: no stop waits for an answer that may never come."""
        for task_id in self._approvals.held_before_start():
            task = self._tasks[task_id]
            task.why_cancelled = _STOPPED_WHILE_HELD
            task.cancel(StopReason.SHUTDOWN)

    async def _carry_part(self, call: FileRead | FileWrite) -> None:
        self.link.answer_file(await self._transfers.answer(call))

    def _take(self, request: TaskRequest) -> None:
        if len(self._tasks) >= self._queue_limit:
            self.link.reject(
                request.task_id,
                RejectCode.BUSY,
                f"runner is busy: {len(self._tasks)} tasks run or wait, its limit is {self._queue_limit};"
                " send it to another runner or later",
            )
            return
        task = _Task(request)
        self._tasks[request.task_id] = task
        self._nursery.start_soon(self._carry_out, task)

    async def _carry_out(self, task: _Task) -> None:
        request = task.request
        with structlog.contextvars.bound_contextvars(
            task_id=request.task_id,
            trace_id=request.trace_id or "",
            operation=request.operation,
            **({"parent_span_id": request.parent_span_id} if request.parent_span_id else {}),
        ):
            result = await self._redacted(await self._result_of(task))
            result = msgspec.structs.replace(result, spans=task.spans.finish())
            encoded = encode_result(result)
            if isinstance(encoded, TaskResult):
                result = encoded
                encoded = msgspec.json.encode(result)
            # Sent while it is recorded: until either is done a crash loses it, whichever comes first.
            self.link.finish(result)
            await self._journal.record_result(request.task_id, encoded)
            del self._tasks[request.task_id]
            get_logger().info("task done", success=result.success, error=result.error or "")

    async def _redacted(self, result: TaskResult) -> TaskResult:
        """Return ``result`` as it may leave; one that may be large is looked through off the event loop."""
        if result.result is None or isinstance(result.result, BashResult):
            return self._redaction.result(result)
        return await trio.to_thread.run_sync(self._redaction.result, result)

    async def _result_of(self, task: _Task) -> TaskResult:
        request = task.request
        try:
            args = parse_args(request.operation, request.args)
            await self._journal.record_accepted(_accepted(request))
        except (Refusal, PeerError) as error:
            self.link.accept(request.task_id)
            return failed_result(request, error)
        self.link.accept(request.task_id)
        get_logger().info("task accepted")
        passage = self._passage(request, args)
        try:
            with task.scope:
                if isinstance(args, BashArgs):
                    return await self._run_command(task, args)
                with task.spans.measure(request.operation):
                    return succeeded_result(request, await self._do_other(request.operation, args, passage), passage)
        except (FetchRefused, McpFailure) as error:
            return failed_result(request, error, code=error.code, passage=passage)
        except (Refusal, PeerError) as error:
            return failed_result(request, error, passage=passage)
        return failed_result(request, Refusal(task.why_cancelled), code="cancelled", passage=passage)

    async def _do_other(self, operation: str, args: Args, passage: Passage) -> Any:
        """Do what is no command."""
        if operation in FILE_OPERATIONS:
            return await self._do_file_operation(operation, args, passage)
        if isinstance(args, WebfetchArgs):
            return await self._fetch(args, passage)
        if isinstance(args, McpCallArgs):
            return await self._call_tool(args, passage)
        if isinstance(args, McpListToolsArgs):
            return await self._list_tools(args, passage)
        raise InvariantError(f"operation {operation!r} is known to the wire and to nobody here")

    def _passage(self, request: TaskRequest, args: Args) -> Passage:
        """Return the way past the policy of a task that is no command, with its people to ask."""
        return Passage(
            approver=TaskApprover(
                self._approvals, self.link, task_id=request.task_id, requested_by=request.requested_by or ""
            ),
            requester=request.requested_by,
            summary=summarise_operation(request.operation, args),
            preview=lambda: preview_operation(args, lambda: self._read_before(args, request.requested_by)),
        )

    async def _read_before(self, args: Args, requester: str | None) -> bytes | None:
        """Return what a file that is to be written holds now, for whoever is asked about that.

        None where nobody may read it unasked, or it is too large to compare.

        Raises:
            Refusal: there is no such file.
        """
        if not isinstance(args, WriteArgs) or not self.enforcement.file_gate.is_allowed(
            "read", args.path, requester=requester
        ):
            return None
        asked = ChunkArgs(path=args.path_bytes, offset=0, limit=READ_BEFORE_BYTES, identity="")
        found, content = await self.enforcement.files.read_chunk(asked)
        return content if found.ended else None

    async def _do_file_operation(self, operation: str, args: Args, passage: Passage) -> Any:
        async def do(enforcement: Enforcement) -> Any:
            # A no needs no slot, and people may take their time: what asks leaves here before one is taken.
            passage.check(enforcement.file_gate.decide(operation, args, requester=passage.requester))
            async with self._file_slots:
                if enforcement is not self.enforcement:
                    return _REPLACED
                passage.check(enforcement.file_gate.decide(operation, args, requester=passage.requester))
                value = await enforcement.files.request(operation, args)
            if isinstance(value, GrepResult):
                return enforcement.file_gate.only_readable(value, requester=passage.requester)
            return value

        while (value := await self._asking(passage, do)) is _REPLACED:
            continue
        return value

    async def _asking(self, passage: Passage, do: Callable[[Enforcement], Awaitable[T]]) -> T:
        """Do something under the policy in force, and again after people have said yes to what a rule asks about."""
        while True:
            enforcement = self.enforcement
            try:
                with enforcement.held():
                    return await do(enforcement)
            except (NeedsApproval, ProgramNeedsApproval) as needed:
                await passage.ask(needed)

    async def _fetch(self, args: WebfetchArgs, passage: Passage) -> WebfetchResult:
        return await self._asking(passage, lambda enforcement: enforcement.web.fetch(args, passage))

    async def _call_tool(self, args: McpCallArgs, passage: Passage) -> McpOutcome:
        return await self._asking(passage, lambda enforcement: enforcement.mcp.call(args, passage))

    async def _list_tools(self, args: McpListToolsArgs, passage: Passage) -> McpListToolsResult:
        return await self._asking(passage, lambda enforcement: enforcement.mcp.list_tools(args, passage))

    def _take_call(self, call: McpCall) -> None:
        """Carry out a call of the plain protocol; it belongs to its connection and cannot be cancelled."""
        if self._calls >= self._queue_limit:
            error = f"runner is busy: {self._calls} mcp calls run, its limit is {self._queue_limit}; try again later"
            self.link.answer_call(McpResult(call_id=call.call_id, success=False, error=error))
            return
        self._calls += 1
        self._nursery.start_soon(self._answer_call, call)

    async def _answer_call(self, call: McpCall) -> None:
        try:
            args = McpCallArgs(server=call.server, tool_name=call.tool_name, args=call.arguments)
            outcome = TaskResult(task_id=call.call_id, success=True, result=await self._call_tool(args, Passage()))
        except (Refusal, PeerError) as error:
            outcome = TaskResult(task_id=call.call_id, success=False, error=str(error))
        finally:
            self._calls -= 1
        outcome = await self._redacted(outcome)
        self.link.answer_call(
            McpResult(call_id=call.call_id, success=outcome.success, result=outcome.result, error=outcome.error)
        )

    async def _run_command(self, task: _Task, args: BashArgs) -> TaskResult:
        request = task.request
        _check_grants(args)
        command = CommandRequest(
            text=args.command,
            workdir=self.enforcement.file_gate.relative(path_as_text(args.workdir_bytes)),
            timeout_s=min(args.timeout_s, BASH_TIMEOUT_MAX_S),
            requester=request.requested_by,
        )
        approver = TaskApprover(
            self._approvals, self.link, task_id=request.task_id, requested_by=request.requested_by or ""
        )

        async def sink(stream: Stream, data: bytes) -> None:
            await self.link.send_output(request.task_id, stream, data)

        output = RedactedOutput(self._redaction, sink)
        # A denied command needs no slot: the answer comes at once however busy the runner is.
        enforcement = self.enforcement
        with task.spans.measure("gate"):
            admitted = await enforcement.commands.admit(command, approver)
        asked_s = trio.current_time()
        async with self._command_slots:
            task.spans.note("slot", began_s=asked_s, ended_s=trio.current_time())
            while enforcement is not self.enforcement:
                enforcement = self.enforcement
                admitted = await enforcement.commands.admit(command, approver)
            with enforcement.held():
                task.is_command_running = True
                try:
                    run = await enforcement.commands.run(
                        admitted, output.take, stop=task.stop, capture_limit_bytes=None
                    )
                    await output.finish()
                    times = run.times
                    task.spans.note("launch", began_s=times.asked_s, ended_s=times.started_s)
                    task.spans.note("exec", began_s=times.started_s, ended_s=times.ended_s)
                    run = dataclasses.replace(
                        run, stdout=output.captures[Stream.STDOUT], stderr=output.captures[Stream.STDERR]
                    )
                    value = await make_bash_result(run, command=args.command, files=enforcement.files)
                finally:
                    task.is_command_running = False
        return succeeded_result(request, value)


def _check_grants(args: BashArgs) -> None:
    """Refuse what a request may ask for and this runner grants nobody yet, rather than leave it out silently."""
    asked = [
        name
        for name, value in (("stdin", args.stdin), ("environment", args.environment), ("profile", args.profile))
        if value
    ]
    if asked:
        raise Refusal(f"invalid bash args: {', '.join(asked)} cannot be granted by this runner; leave it out")


def _accepted(request: TaskRequest) -> AcceptedTask:
    return AcceptedTask(
        task_id=request.task_id,
        operation=request.operation,
        source_instance_id=request.source_instance_id,
        accepted_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )

"""The messages that only the subprotocol ``guardhouse.v1`` has: acknowledgement, resumption, drain, approvals.

docs/wire_protocol.md says who sends what when. Knows nothing of sockets, clocks or tasks. Runs in the runner and
in the hub.
"""

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from msgspec import Meta, Struct, field

from guardhouse import limits
from guardhouse.values import Verdict
from guardhouse.wire.messages import Message
from guardhouse.wire.scalars import Count, Identifier, Name, Seconds, Text, empty

__all__ = [
    "ApprovalDecision",
    "ApprovalGate",
    "ApprovalRequest",
    "ApprovalScope",
    "ApprovalWithdrawn",
    "Disposition",
    "HeldTask",
    "HubDraining",
    "HubGoodbye",
    "HubPolicyHeld",
    "OutputAck",
    "PolicyAnswer",
    "PolicyLayer",
    "PolicyReport",
    "PolicySet",
    "RejectCode",
    "ResultAck",
    "ResumedTask",
    "RunnerDraining",
    "RunnerGoodbye",
    "RunnerHello",
    "RunnerResume",
    "TaskAccepted",
    "TaskCancelAck",
    "TaskRejected",
    "TaskState",
]


class TaskState(StrEnum):
    """What a runner knows of a task. ``forgotten``: finished, acknowledged, only the id is remembered."""

    RUNNING = "running"
    FINISHED = "finished"
    FORGOTTEN = "forgotten"
    UNKNOWN = "unknown"


class Disposition(StrEnum):
    """What the hub wants done with a task that the runner still holds.

    ``stored``: the result is safe, forget it. ``cancel``: stop it and send what there is. ``unknown``: the hub
    never asked for it or has deleted it; stop it and forget it.
    """

    CONTINUE = "continue"
    STORED = "stored"
    CANCEL = "cancel"
    UNKNOWN = "unknown"


class RejectCode(StrEnum):
    """Why a task was not started. ``forgotten`` means that it ran before and its result was acknowledged."""

    DRAINING = "draining"
    BUSY = "busy"
    FORGOTTEN = "forgotten"


class HeldTask(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One task that a runner holds, in its hello.

    ``*_first`` is the offset of the oldest byte that it can send again, ``*_next`` that of the next new byte.
    """

    task_id: Identifier
    state: TaskState
    stdout_first: Count = 0
    stdout_next: Count = 0
    stderr_first: Count = 0
    stderr_next: Count = 0


class RunnerHello(Message, frozen=True, kw_only=True):
    """Runner to hub, right after ``welcome``: what it remembers.

    ``memory_id`` names the runner's memory of tasks and changes when that memory is lost. A hub that sent a request
    under the same id and does not find the task in ``tasks`` knows that it never arrived and may send it again;
    under another id it must report the task lost instead.
    """

    TYPE: ClassVar[str] = "runner.hello"

    memory_id: Identifier
    version: Name = ""
    draining: bool = False
    tasks: Annotated[tuple[HeldTask, ...], Meta(max_length=limits.HELD_TASKS_MAX)] = field(default_factory=empty)


class ResumedTask(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The hub's answer for one held task; the offsets are the bytes of each stream that it has stored."""

    task_id: Identifier
    disposition: Disposition
    stdout_offset: Count = 0
    stderr_offset: Count = 0


class RunnerResume(Message, frozen=True, kw_only=True):
    """Hub to runner, the answer to `RunnerHello`: one entry for each held task, in any order."""

    TYPE: ClassVar[str] = "runner.resume"

    tasks: Annotated[tuple[ResumedTask, ...], Meta(max_length=limits.HELD_TASKS_MAX)] = field(default_factory=empty)


class TaskAccepted(Message, frozen=True, kw_only=True):
    """Runner to hub: the request is in the runner's memory, the task will start once or has already.

    ``state`` is there in the answer to a request that came again.
    """

    TYPE: ClassVar[str] = "task.accepted"

    task_id: Identifier
    state: TaskState | None = None


class TaskRejected(Message, frozen=True, kw_only=True):
    """Runner to hub: this request starts nothing. No result follows; another runner may take the task."""

    TYPE: ClassVar[str] = "task.rejected"

    task_id: Identifier
    code: RejectCode
    error: Text = ""


class OutputAck(Message, frozen=True, kw_only=True):
    """Hub to runner: so many bytes of each stream are stored. Cumulative; the runner may send a window beyond."""

    TYPE: ClassVar[str] = "task.output.ack"

    task_id: Identifier
    stdout_offset: Count = 0
    stderr_offset: Count = 0


class ResultAck(Message, frozen=True, kw_only=True):
    """Hub to runner: the result is stored, the runner may forget it."""

    TYPE: ClassVar[str] = "task.result.ack"

    task_id: Identifier


class TaskCancelAck(Message, frozen=True, kw_only=True):
    """Runner to hub: the cancel arrived, and what the task was doing then. A running task still sends its result."""

    TYPE: ClassVar[str] = "task.cancel.ack"

    task_id: Identifier
    state: TaskState


class RunnerDraining(Message, frozen=True, kw_only=True):
    """Runner to hub: no new task from now on. ``deadline_s`` is how long running ones may still take."""

    TYPE: ClassVar[str] = "runner.draining"

    reason: Text = ""
    deadline_s: Seconds | None = None


class RunnerGoodbye(Message, frozen=True, kw_only=True):
    """Runner to hub, the last message before a wanted close."""

    TYPE: ClassVar[str] = "runner.goodbye"

    reason: Text = ""


class HubGoodbye(Message, frozen=True, kw_only=True):
    """Hub to runner, the last message before a wanted close; come back after about ``reconnect_after_s``."""

    TYPE: ClassVar[str] = "hub.goodbye"

    reason: Text = ""
    reconnect_after_s: Seconds | None = None


class HubDraining(Message, frozen=True, kw_only=True):
    """Hub to runner: an operator takes the environment out of use, or puts it back. Running tasks end normally.

    For the runner's own record: the hub sends no new task, so there is nothing to refuse.
    """

    TYPE: ClassVar[str] = "hub.draining"

    draining: bool
    reason: Text = ""


class ApprovalGate(StrEnum):
    """Who asks: gate one about a whole command text before it starts, the exec gate about one program of it, or the
    rules of another operation (read, write, webfetch, mcp, …) before it begins.
    """

    SHELL = "shell"
    EXEC = "exec"
    OPERATION = "operation"


class ApprovalScope(StrEnum):
    """How far an answer reaches. To the runner each answers this one question; the hub remembers the rest."""

    ONCE = "once"
    SESSION = "session"
    RULE = "rule"


class ApprovalRequest(Message, frozen=True, kw_only=True):
    """Runner to hub: a rule said ``ask``, and something waits. Sent again after a cut until decided or withdrawn.

    ``argv``, ``path`` and ``started_by`` are what really is about to run where the exec gate asks, and absent where
    gate one does. ``explanation`` is gate one's decision as JSON. Of an operation ``command`` says in one line what
    is to be done, ``path`` names the path, address or tool, and ``explanation`` holds a bounded ``preview`` beside
    the decision. Texts are redacted as results are. The runner denies by itself at ``expires_at_ms`` (Unix milliseconds
    by its own clock).
    """

    TYPE: ClassVar[str] = "approval.request"

    approval_id: Identifier
    task_id: Identifier
    command: Annotated[str, Meta(max_length=limits.COMMAND_TEXT_MAX_BYTES)]
    gate: ApprovalGate = ApprovalGate.SHELL
    argv: Annotated[tuple[str, ...], Meta(max_length=limits.APPROVAL_ARGV_MAX_WORDS)] | None = None
    path: Text = ""
    started_by: Text = ""
    rule: Text = ""
    because: Text = ""
    place: Text = ""
    profile: Name = ""
    workdir: Text = ""
    requested_by: Name = ""
    explanation: Any = None
    expires_at_ms: Count | None = None


class ApprovalDecision(Message, frozen=True, kw_only=True):
    """Hub to runner: what the people said. ``verdict`` is ``allow`` or ``deny``; anything else counts as deny.

    ``valid_until_ms`` (Unix milliseconds by the hub's clock) is how long the hub answers alike by itself, for the
    runner's record only.
    """

    TYPE: ClassVar[str] = "approval.decision"

    approval_id: Identifier
    verdict: Verdict
    scope: ApprovalScope = ApprovalScope.ONCE
    valid_until_ms: Count | None = None
    decided_by: Name = ""
    note: Text = ""


class ApprovalWithdrawn(Message, frozen=True, kw_only=True):
    """Runner to hub: nobody need decide any more (the task ended, was cancelled, or time ran out)."""

    TYPE: ClassVar[str] = "approval.withdrawn"

    approval_id: Identifier
    reason: Text = ""


class PolicyLayer(StrEnum):
    """Whom a hub's policy is for, from the widest; a runner holds at most one of each, and all must allow."""

    ACCOUNT = "account"
    TEAM = "team"
    ENVIRONMENT = "environment"


class PolicySet(Message, frozen=True, kw_only=True):
    """Hub to runner: hold this policy in force next to your own; without ``policy`` withdraw the one in force.

    ``policy`` is JSON text, what `guardhouse.policy.dump_policy` writes, and ``digest`` its digest. It takes the place
    of the one of the same ``layer``; another layer than ``environment`` goes only to a runner whose report has
    ``hub_policies``. `PolicyAnswer` answers.
    """

    TYPE: ClassVar[str] = "policy.set"

    policy_id: Identifier
    policy: Annotated[str, Meta(max_length=limits.POLICY_DOCUMENT_MAX_CHARS)] | None = None
    digest: Name = ""
    layer: PolicyLayer = PolicyLayer.ENVIRONMENT


class PolicyAnswer(Message, frozen=True, kw_only=True):
    """Runner to hub: whether the policy of a `PolicySet` is in force now (or gone), and why not otherwise.

    A refused one changes nothing. ``error`` names a command that it would permit beyond the runner's own policy.
    """

    TYPE: ClassVar[str] = "policy.answer"

    policy_id: Identifier
    accepted: bool
    error: Text = ""
    layer: PolicyLayer = PolicyLayer.ENVIRONMENT


class HubPolicyHeld(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A hub's policy that a runner holds in force next to its own.

    ``unproved`` is empty while it is proved to permit nothing beyond the runner's own policy, and otherwise says what
    it would: the runner's policy has changed since. It still holds: what is allowed, both must allow.
    """

    layer: PolicyLayer
    policy_id: Identifier
    digest: Name
    unproved: Text = ""


class PolicyReport(Message, frozen=True, kw_only=True):
    """Runner to hub, after the hello and whenever it changes: which policy and protection hold here.

    ``narrowing_id`` and ``narrowing_digest`` are of the hub's policies in force next to the runner's own, as one
    (`policy.in_force`); ``hub_policies`` has each of them, None where the runner knows no layers. ``shadow_digest`` is
    of one that is judged and decides nothing.
    """

    TYPE: ClassVar[str] = "policy.report"

    policy_name: Name = ""
    policy_digest: Name = ""
    narrowing_id: Name = ""
    narrowing_digest: Name = ""
    hub_policies: Annotated[tuple[HubPolicyHeld, ...], Meta(max_length=len(PolicyLayer))] | None = None
    shadow_digest: Name = ""
    profiles: tuple[Name, ...] = ()
    layers: tuple[Name, ...] = ()
    missing_layers: tuple[Name, ...] = ()

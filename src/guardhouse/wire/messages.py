"""Every message of the plain protocol as a typed value: WIRE_PROTOCOL "Envelope".

A known field has one type and one bound; a field that is not known is ignored, because a newer platform may send
more; a known field that is ``null`` counts as absent, because Go writes ``null`` for an empty list. Fields that only
``guardhouse.v1`` has are optional and are left out towards a plain peer. The messages that only ``guardhouse.v1``
has are in `messages_v1`. Knows nothing of sockets, clocks or tasks. Runs in the runner and in the hub.
"""

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from msgspec import Meta, Struct, field

from guardhouse import limits
from guardhouse.values import Stream
from guardhouse.wire.scalars import (
    Count,
    ExitCode,
    Identifier,
    Labels,
    Name,
    Percent,
    Text,
    empty,
)

__all__ = [
    "Direction",
    "EnvironmentInfo",
    "Heartbeat",
    "McpCall",
    "McpResult",
    "McpServer",
    "Message",
    "Metrics",
    "Span",
    "TaskCancel",
    "TaskOutput",
    "TaskRequest",
    "TaskResult",
    "Unknown",
    "Welcome",
]


class Direction(StrEnum):
    """Who a message is for. A type that only the other side may send is unknown in this direction."""

    TO_RUNNER = "to_runner"
    TO_HUB = "to_hub"


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of every payload. ``TYPE`` is the envelope's ``type``."""

    TYPE: ClassVar[str] = ""


class Unknown(Message, frozen=True, kw_only=True):
    """A well-formed envelope of a type that this version does not know: a warning, never an error."""

    type: str


class Welcome(Message, frozen=True, kw_only=True):
    """The platform's first message: who the runner is.

    ``output_window_bytes`` is of ``guardhouse.v1``: the unacknowledged output allowed for each stream of each task.
    """

    TYPE: ClassVar[str] = "welcome"

    worknode_id: Name = field(default_factory=str)
    name: Name = field(default_factory=str)
    labels: Labels = field(default_factory=empty)
    output_window_bytes: Annotated[int, Meta(ge=1, le=limits.OUTPUT_WINDOW_MAX_BYTES)] | None = None
    hub_version: Name | None = None


class EnvironmentInfo(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Facts of the runner's host; on the first heartbeat of a connection only.

    ``arch`` is ``amd64`` or ``arm64``, ``current_time`` RFC 3339, ``utc_offset`` like ``+08:00``.
    ``layers`` and ``profile`` are extras of ours: the protection that this host gives.
    """

    os: Name = ""
    os_version: Name = ""
    arch: Name = ""
    hostname: Name = ""
    shell: Text = ""
    home_dir: Text = ""
    workspace_root: Text = ""
    username: Name = ""
    num_cpu: Count = 0
    total_memory_mb: Count = 0
    current_time: Name = ""
    timezone: Name = ""
    utc_offset: Name = ""
    profile: Name | None = None
    layers: Labels | None = None


class Metrics(Struct, frozen=True, kw_only=True):
    """Load of the runner's host, each in percent of the whole."""

    cpu_percent: Percent = 0.0
    memory_percent: Percent = 0.0
    disk_percent: Percent = 0.0


class Heartbeat(Message, frozen=True, kw_only=True):
    """Sent at once after the connection stands and every 30 s.

    The last six are of ``guardhouse.v1``: the load from which a hub computes "degraded", and the digests of the
    policies in force. ``executor_delay_ms`` is how long the slowest start of a command since the last one took.
    """

    TYPE: ClassVar[str] = "heartbeat"

    worknode_id: Name = field(default_factory=str)
    name: Name = field(default_factory=str)
    labels: Labels = field(default_factory=empty)
    version: Name = field(default_factory=str)
    environment: EnvironmentInfo | None = None
    metrics: Metrics | None = None
    tasks_running: Count | None = None
    tasks_waiting: Count | None = None
    executor_delay_ms: Count | None = None
    draining: bool | None = None
    policy_digest: Name | None = None
    narrowing_digest: Name | None = None


class TaskRequest(Message, frozen=True, kw_only=True):
    """Start one operation. ``args`` is checked by `operations.parse_args`, so that a bad one fails its task only.

    The fields from ``session_id`` on are of ``guardhouse.v1``. ``requested_by`` is for the runner's audit log. With
    ``parent_span_id`` the hub traces this task: the runner logs it beside ``trace_id`` and sends `TaskResult.spans`.
    """

    TYPE: ClassVar[str] = "task.request"

    task_id: Identifier
    operation: Name
    args: Any = None
    trace_id: Name | None = None
    source_instance_id: Name | None = None
    session_id: Name | None = None
    requested_by: Name | None = None
    profile: Name | None = None
    parent_span_id: Name | None = None

    def __repr__(self) -> str:
        # Arguments hold file contents and the secrets of MCP servers: never in a log by accident.
        return f"TaskRequest(task_id={self.task_id!r}, operation={self.operation!r}, …)"


class TaskCancel(Message, frozen=True, kw_only=True):
    """Stop one task. A plain runner ignores an id that it does not know; ``guardhouse.v1`` answers it."""

    TYPE: ClassVar[str] = "task.cancel"

    task_id: Identifier
    reason: Text | None = None


class TaskOutput(Message, frozen=True, kw_only=True):
    """A piece of a running command's output.

    Plain: ``data`` is text, bytes that are no UTF-8 have become U+FFFD. ``guardhouse.v1``: ``offset`` is the place
    of the first byte in its stream, ``seq`` numbers the pieces of a task over both streams from 0, and a piece
    that is not valid UTF-8 by itself is in ``data_b64`` with ``data`` empty, so the bytes are exact: see ``raw``.
    """

    TYPE: ClassVar[str] = "task.output"

    task_id: Identifier
    stream: Stream
    data: str = field(default_factory=str)
    data_b64: bytes | None = None
    seq: Count | None = None
    offset: Count | None = None

    @property
    def raw(self) -> bytes:
        """The bytes of this piece."""
        return self.data.encode() if self.data_b64 is None else self.data_b64


class Span(Struct, frozen=True, kw_only=True):
    """One part of what a runner did for a task: Unix microseconds by the runner's clock, and how long it took."""

    name: Name
    start_us: Count
    duration_us: Count


class TaskResult(Message, frozen=True, kw_only=True):
    """The end of a task; exactly one for each.

    ``result`` is the operation's result object (`operations.parse_result` types it). ``stdout_bytes`` and
    ``stderr_bytes`` are of ``guardhouse.v1``: the length of each stream as sent, so that a gap is noticed.
    ``error_code`` is a stable word for programs where ``error`` is for people. ``decision`` (``guardhouse.v1``) is what
    the policy said of an operation other than a command, whose own result holds it. ``spans`` (of ``guardhouse.v1``) is
    how long each part took, the whole first, where the request asked for it.
    """

    TYPE: ClassVar[str] = "task.result"

    task_id: Identifier
    success: bool
    source_instance_id: Name | None = None
    result: Any = None
    error: str | None = None
    exit_code: ExitCode | None = None
    error_code: Name | None = None
    stdout_bytes: Count | None = None
    stderr_bytes: Count | None = None
    decision: Any = None
    spans: Annotated[tuple[Span, ...], Meta(max_length=limits.SPANS_MAX)] | None = None


class McpServer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How to reach one MCP server: a local program (``stdio``) or an address. Holds secrets, so its repr is short."""

    name: Name
    transport: Name
    command: Text = ""
    args: tuple[Text, ...] = ()
    env: dict[Name, Text] = {}
    url: Text = ""
    headers: dict[Name, Text] = {}
    dynamic_headers: dict[Name, Text] = {}
    connect_timeout: Annotated[float, Meta(ge=0, le=3600)] | None = None
    call_timeout: Annotated[float, Meta(ge=0, le=86_400)] | None = None

    def __repr__(self) -> str:
        return f"McpServer(name={self.name!r}, transport={self.transport!r}, …)"


class McpCall(Message, frozen=True, kw_only=True):
    """Call a tool of an MCP server from the runner's place in the network."""

    TYPE: ClassVar[str] = "mcp.call"

    call_id: Identifier
    server: McpServer
    tool_name: Annotated[str, Meta(min_length=1, max_length=limits.WIRE_NAME_MAX_CHARS)]
    arguments: dict[str, Any] = {}


class McpResult(Message, frozen=True, kw_only=True):
    """The answer to one `McpCall`."""

    TYPE: ClassVar[str] = "mcp.result"

    call_id: Identifier
    success: bool
    result: Any = None
    error: str | None = None

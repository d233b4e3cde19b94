"""The arguments and results of every operation that a task can ask for: WIRE_PROTOCOL "Operations".

Strict like the messages: a known field has one type and bound, unknown fields are ignored, ``null`` is absent. What
the table of WIRE_PROTOCOL does not have is optional and of ours; a plain platform neither sends nor needs it.
Knows nothing of how an operation is done. Runs in the runner, its workers and the hub.
"""

from typing import Annotated, Any, Final

from msgspec import Meta, Struct, field

from guardhouse import limits
from guardhouse.errors import PeerError
from guardhouse.wire.messages import McpServer
from guardhouse.wire.paths import path_as_bytes
from guardhouse.wire.scalars import Count, ExitCode, Name, Path, Seconds, Text, WholeNumber, empty
from guardhouse.wire.typed import parse_typed, printable

__all__ = [
    "INVALID_ARGS",
    "OPERATIONS",
    "UNKNOWN_OPERATION",
    "Args",
    "BashArgs",
    "BashResult",
    "EditArgs",
    "EditResult",
    "GlobArgs",
    "GlobResult",
    "GrepArgs",
    "GrepMatch",
    "GrepResult",
    "ListArgs",
    "ListEntry",
    "ListResult",
    "McpCallArgs",
    "McpListToolsArgs",
    "McpListToolsResult",
    "McpOutcome",
    "McpTool",
    "MoveArgs",
    "ReadArgs",
    "ReadResult",
    "RemoveArgs",
    "Result",
    "StatArgs",
    "StatResult",
    "SuccessResult",
    "SyncSkillArgs",
    "SyncSkillResult",
    "WalkProblem",
    "WebfetchArgs",
    "WebfetchResult",
    "WriteArgs",
    "parse_args",
    "parse_result",
]

UNKNOWN_OPERATION: Final = "unknown_operation"
INVALID_ARGS: Final = "invalid_args"

_Pattern = Annotated[str, Meta(min_length=1, max_length=8_192, pattern=r"\A[^\x00]*\Z")]
_Patterns = Annotated[tuple[_Pattern, ...], Meta(max_length=1_024)]
# Seconds; 0 means the default, as an absent number does in Go.
_Timeout = Annotated[float, Meta(ge=0, le=limits.BASH_TIMEOUT_MAX_S)]
_Digest = Annotated[str, Meta(max_length=256, pattern=r"\A[0-9A-Za-z:+/=_.-]*\Z")]
_Notes = Annotated[tuple[Text, ...], Meta(max_length=1_024)]

WEBFETCH_TIMEOUT_DEFAULT_S: Final = 30.0
WEBFETCH_TIMEOUT_MAX_S: Final = 120.0
MCP_CALL_TIMEOUT_DEFAULT_S: Final = 60.0


class Args(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of every operation's arguments."""


class Result(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of every operation's result."""


class BashArgs(Args, frozen=True, kw_only=True):
    """Run a command text with bash.

    ``workdir`` is relative to the workspace; ``timeout`` is in seconds, absent or 0 for the default. ``stdin``,
    ``environment`` and ``profile`` are of ours; the runner's own files decide whether it grants them.
    """

    command: Annotated[str, Meta(max_length=limits.COMMAND_TEXT_MAX_BYTES, pattern=r"\A[^\x00]*\Z")]
    workdir: Path = ""
    workdir_b64: bytes | None = None
    timeout: _Timeout | None = None
    stdin: bytes | None = None
    environment: dict[Name, Text] = {}
    profile: Name | None = None

    @property
    def timeout_s(self) -> float:
        """The time limit in seconds, the default filled in."""
        return self.timeout or limits.BASH_TIMEOUT_DEFAULT_S

    @property
    def workdir_bytes(self) -> bytes:
        """The directory as the file system names it."""
        return path_as_bytes(self.workdir, self.workdir_b64)


class BashResult(Result, frozen=True, kw_only=True):
    """How a command ended. Output that is not valid UTF-8 has U+FFFD here; the streamed output is exact.

    After ``total_size`` come extras of ours. ``stdout_dropped`` and ``stderr_dropped`` count the bytes beyond the
    capture limit, ``decision`` is the policy's summary, ``reason`` says why the command was stopped, ``execs`` is every
    program that ran or was refused as the exec gate saw it, ``egress`` every connection that the command's egress proxy
    made or refused (docs/egress.md), ``denials`` what the wall refused, each with layer, subject, whether that is
    certain or only likely, a sentence, and what a profile would have to say to permit it (docs/sandbox.md).
    """

    stdout: str = field(default_factory=str)
    stderr: str = field(default_factory=str)
    exit_code: ExitCode
    truncated: bool = False
    file_path: Text | None = None
    total_size: Count | None = None
    stderr_truncated: bool = False
    stderr_file_path: Text | None = None
    stderr_total_size: Count | None = None
    stdout_dropped: Count = 0
    stderr_dropped: Count = 0
    timed_out: bool = False
    cancelled: bool = False
    signal: Count | None = None
    duration_s: Seconds | None = None
    cpu_user_s: Seconds | None = None
    cpu_system_s: Seconds | None = None
    peak_memory_bytes: Count | None = None
    oom_killed: bool = False
    denied_syscalls: dict[Name, Count] = {}
    killed_descendants: Count = 0
    notes: _Notes = ()
    reason: Text | None = None
    decision: dict[str, Any] | None = None
    execs: dict[str, Any] | None = None
    egress: dict[str, Any] | None = None
    denials: tuple[dict[str, Any], ...] = ()


class ReadArgs(Args, frozen=True, kw_only=True):
    """Read a file; ``offset`` and ``limit`` in bytes, a limit of 0 or less means the rest."""

    path: Path
    path_b64: bytes | None = None
    offset: Count = 0
    limit: WholeNumber = 0

    @property
    def path_bytes(self) -> bytes:
        """The path as the file system names it."""
        return path_as_bytes(self.path, self.path_b64)


class ReadResult(Result, frozen=True, kw_only=True):
    """``content`` travels as base64. ``checksum`` (of ours) is ``sha256:<hex>`` of the whole file.

    It is absent where the file changed while it was read, is over 16 MiB and not answered whole, or holds secrets.
    """

    content: bytes = field(default_factory=bytes)
    total_size: Count = field(default_factory=int)
    checksum: _Digest | None = None
    notes: _Notes = ()


class WriteArgs(Args, frozen=True, kw_only=True):
    """Write a file; ``content`` travels as base64.

    Of ours: ``if_checksum`` writes only over a file with that checksum (empty: only where none is). A large file
    comes in parts: the same ``upload_id``, each at its ``offset``, the last with ``last`` and the whole's
    ``checksum``; nothing is seen under ``path`` before that one.
    """

    path: Path
    path_b64: bytes | None = None
    content: bytes
    if_checksum: _Digest | None = None
    upload_id: Name | None = None
    offset: Count = 0
    last: bool = True
    checksum: _Digest | None = None

    @property
    def path_bytes(self) -> bytes:
        """The path as the file system names it."""
        return path_as_bytes(self.path, self.path_b64)


class SuccessResult(Result, frozen=True, kw_only=True):
    """The result of what either happens or fails: ``{"success": true}``."""

    success: bool = field(default_factory=lambda: True)
    checksum: _Digest | None = None
    notes: _Notes = ()


class ListArgs(Args, frozen=True, kw_only=True):
    """List a directory; ``ignore`` are globs on the base name."""

    path: Path = field(default_factory=str)
    path_b64: bytes | None = None
    recursive: bool = False
    ignore: _Patterns = ()

    @property
    def path_bytes(self) -> bytes:
        """The path as the file system names it; the workspace itself when it is empty."""
        return path_as_bytes(self.path, self.path_b64)


class ListEntry(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One file: ``path`` relative to the workspace, ``size`` in bytes. From ``kind`` on of ours.

    ``kind`` is ``file``, ``directory``, ``symlink``, ``fifo``, ``socket``, ``block_device`` or ``character_device``.
    """

    path: str
    is_dir: bool
    size: Count
    path_b64: bytes | None = None
    kind: Name | None = None
    target: str | None = None


class WalkProblem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A place that could not be read in the middle of a walk, and why."""

    path: str
    error: Text
    path_b64: bytes | None = None


class ListResult(Result, frozen=True, kw_only=True):
    """The entries; of ours: how many a cap left out, and what could not be read."""

    entries: tuple[ListEntry, ...] = field(default_factory=empty)
    truncated: bool = False
    left_out: Count = 0
    problems: tuple[WalkProblem, ...] = ()


class GlobArgs(Args, frozen=True, kw_only=True):
    """Find files by pattern; ``**`` crosses directories."""

    pattern: _Pattern
    pattern_b64: bytes | None = None

    @property
    def pattern_bytes(self) -> bytes:
        """The pattern as bytes."""
        return path_as_bytes(self.pattern, self.pattern_b64)


class GlobResult(Result, frozen=True, kw_only=True):
    """The sorted paths. ``matches_b64`` (of ours) has the exact bytes of those that are not valid UTF-8, by index."""

    matches: tuple[str, ...] = field(default_factory=empty)
    matches_b64: dict[str, bytes] = {}
    truncated: bool = False
    left_out: Count = 0
    problems: tuple[WalkProblem, ...] = ()


class GrepArgs(Args, frozen=True, kw_only=True):
    """Search file contents; ``include`` are globs on the base name. From ``path`` on of ours.

    ``case`` is ``smart`` (the default), ``sensitive`` or ``insensitive``; ``context`` is lines around each match.
    """

    pattern: _Pattern
    include: _Patterns = ()
    path: Path = ""
    path_b64: bytes | None = None
    context: Annotated[int, Meta(ge=0, le=1_000)] = 0
    case: Name = "smart"
    max_matches: Count | None = None

    @property
    def path_bytes(self) -> bytes:
        """Where to search, as the file system names it; the workspace itself when it is empty."""
        return path_as_bytes(self.path, self.path_b64)


class GrepMatch(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One matching line, counted from 1. ``is_context`` (of ours) marks a line that only surrounds a match."""

    path: str
    line_number: Count
    content: str
    path_b64: bytes | None = None
    is_context: bool = False


class GrepResult(Result, frozen=True, kw_only=True):
    """The matches, and the same as ``path:line:text`` lines in ``content``."""

    matches: tuple[GrepMatch, ...] = field(default_factory=empty)
    content: str = field(default_factory=str)
    truncated: bool = False
    file_path: Text | None = None
    total_size: Count | None = None
    left_out: Count = 0
    binary_skipped: Count = 0
    problems: tuple[WalkProblem, ...] = ()


class EditArgs(Args, frozen=True, kw_only=True):
    """Replace exact text in a file (of ours); ``old`` must occur exactly once unless ``replace_all``."""

    path: Path
    path_b64: bytes | None = None
    old: str
    new: str
    replace_all: bool = False
    if_checksum: _Digest | None = None

    @property
    def path_bytes(self) -> bytes:
        """The path as the file system names it."""
        return path_as_bytes(self.path, self.path_b64)


class EditResult(Result, frozen=True, kw_only=True):
    """How often the text was replaced, the new checksum, and what of the old file could not be kept."""

    replacements: Count
    checksum: _Digest | None = None
    notes: _Notes = ()


class StatArgs(Args, frozen=True, kw_only=True):
    """Describe one file (of ours); with ``checksum`` also by the SHA-256 of what it holds."""

    path: Path
    path_b64: bytes | None = None
    checksum: bool = False

    @property
    def path_bytes(self) -> bytes:
        """The path as the file system names it."""
        return path_as_bytes(self.path, self.path_b64)


class StatResult(Result, frozen=True, kw_only=True):
    """What a file is; ``mode`` is the permission bits, ``modified_s`` Unix seconds.

    ``checksum`` is ``sha256:<hex>``, where it was asked for; where there is none, ``notes`` say why.
    """

    path: str
    path_b64: bytes | None = None
    kind: Name
    size: Count
    mode: Count = 0
    modified_s: float = 0.0
    target: str | None = None
    checksum: _Digest | None = None
    notes: _Notes = ()


class MoveArgs(Args, frozen=True, kw_only=True):
    """Rename a file or directory inside the workspace (of ours); an existing target needs ``overwrite``."""

    path: Path
    path_b64: bytes | None = None
    target: Path
    target_b64: bytes | None = None
    overwrite: bool = False

    @property
    def path_bytes(self) -> bytes:
        """The old path as the file system names it."""
        return path_as_bytes(self.path, self.path_b64)

    @property
    def target_bytes(self) -> bytes:
        """The new path as the file system names it."""
        return path_as_bytes(self.target, self.target_b64)


class RemoveArgs(Args, frozen=True, kw_only=True):
    """Remove a file, or with ``recursive`` a directory (of ours)."""

    path: Path
    path_b64: bytes | None = None
    recursive: bool = False

    @property
    def path_bytes(self) -> bytes:
        """The path as the file system names it."""
        return path_as_bytes(self.path, self.path_b64)


class WebfetchArgs(Args, frozen=True, kw_only=True):
    """Fetch a page; ``format`` is ``markdown`` (also when absent or empty), ``text`` or ``html``."""

    url: Annotated[str, Meta(min_length=1, max_length=limits.WIRE_TEXT_MAX_CHARS)]
    format: Annotated[str, Meta(pattern=r"\A(|markdown|text|html)\Z")] = ""
    timeout: _Timeout | None = None

    @property
    def output_format(self) -> str:
        """The format, the default filled in."""
        return self.format or "markdown"

    @property
    def timeout_s(self) -> float:
        """The time limit in seconds: the default filled in, and 120 at most (WIRE_PROTOCOL "Operations")."""
        return min(self.timeout or WEBFETCH_TIMEOUT_DEFAULT_S, WEBFETCH_TIMEOUT_MAX_S)


class WebfetchResult(Result, frozen=True, kw_only=True):
    """The page and the address where it was found after redirects. ``status`` is of ours."""

    content: str = field(default_factory=str)
    url: Text = field(default_factory=str)
    truncated: bool = False
    file_path: Text | None = None
    total_size: Count | None = None
    status: Count | None = None
    notes: _Notes = ()


class McpCallArgs(Args, frozen=True, kw_only=True):
    """Call a tool of an MCP server; ``args`` is the tool's own object."""

    server: McpServer
    tool_name: Annotated[str, Meta(min_length=1, max_length=limits.WIRE_NAME_MAX_CHARS)]
    args: dict[str, Any] | None = None
    timeout: _Timeout | None = None

    @property
    def timeout_s(self) -> float:
        """The time limit in seconds: the call's, else the server's, else the default."""
        return self.timeout or self.server.call_timeout or MCP_CALL_TIMEOUT_DEFAULT_S


class McpOutcome(Result, frozen=True, kw_only=True):
    """What the tool answered, as text. ``structured`` and ``parts`` (of ours) keep what text cannot.

    ``structured`` is the tool's structured content, any JSON value; ``parts`` are the content blocks that are no text,
    as the server wrote them.
    """

    content: str = field(default_factory=str)
    is_error: bool = False
    truncated: bool = False
    file_path: Text | None = None
    total_size: Count | None = None
    structured: Any = None
    parts: tuple[dict[str, Any], ...] = ()
    notes: _Notes = ()


class McpListToolsArgs(Args, frozen=True, kw_only=True):
    """List the tools of an MCP server."""

    server: McpServer


class McpTool(Struct, frozen=True, kw_only=True):
    """One tool as its server describes it."""

    name: str
    description: str = ""
    input_schema: Any = None


class McpListToolsResult(Result, frozen=True, kw_only=True):
    """Every tool, over all pages of the server's answer."""

    tools: tuple[McpTool, ...] = field(default_factory=empty)
    notes: _Notes = ()


class SyncSkillArgs(Args, frozen=True, kw_only=True):
    """Put a skill's archive into the workspace; ``zip_data`` travels as base64, ``checksum`` is its SHA-256."""

    skill_name: Annotated[str, Meta(min_length=1, max_length=limits.WIRE_NAME_MAX_CHARS)]
    skill_dir: Path
    zip_data: bytes
    checksum: _Digest = ""


class SyncSkillResult(Result, frozen=True, kw_only=True):
    """Where the skill is now, relative to the workspace."""

    success: bool
    path: Text
    notes: _Notes = ()


OPERATIONS: Final[dict[str, tuple[type[Args], type[Result]]]] = {
    "bash": (BashArgs, BashResult),
    "read": (ReadArgs, ReadResult),
    "write": (WriteArgs, SuccessResult),
    "list": (ListArgs, ListResult),
    "glob": (GlobArgs, GlobResult),
    "grep": (GrepArgs, GrepResult),
    "webfetch": (WebfetchArgs, WebfetchResult),
    "mcp_call": (McpCallArgs, McpOutcome),
    "mcp_list_tools": (McpListToolsArgs, McpListToolsResult),
    "sync_skill": (SyncSkillArgs, SyncSkillResult),
    "edit": (EditArgs, EditResult),
    "stat": (StatArgs, StatResult),
    "move": (MoveArgs, SuccessResult),
    "remove": (RemoveArgs, SuccessResult),
}


def parse_args(operation: str, args: Any) -> Args:
    """Return the typed arguments of ``operation``.

    Args:
        operation: as `TaskRequest.operation` has it.
        args: the plain JSON value of `TaskRequest.args`; None stands for no arguments.

    Raises:
        PeerError: ``unknown_operation`` ("unknown operation: …") or ``invalid_args`` ("invalid read args: …").
    """
    if operation not in OPERATIONS:
        raise PeerError(f"unknown operation: {printable(operation)}", code=UNKNOWN_OPERATION)
    kind = OPERATIONS[operation][0]
    parsed = parse_typed(args, kind, what=f"{operation} args", code=INVALID_ARGS)
    _check_encodings(operation, parsed)
    return parsed


def parse_result(operation: str, result: Any) -> Result:
    """Return the typed result of ``operation``, as the hub reads it.

    Raises:
        PeerError: ``unknown_operation``, or ``invalid_result`` ("invalid read result: …").
    """
    if operation not in OPERATIONS:
        raise PeerError(f"unknown operation: {printable(operation)}", code=UNKNOWN_OPERATION)
    return parse_typed(result, OPERATIONS[operation][1], what=f"{operation} result", code="invalid_result")


def _check_encodings(operation: str, args: Args) -> None:
    """Refuse paths whose text and bytes disagree, at the door rather than where the file is opened."""
    for name in ("path", "target", "pattern", "workdir"):
        text = getattr(args, name, None)
        if isinstance(text, str):
            try:
                path_as_bytes(text, getattr(args, f"{name}_b64", None))
            except PeerError as error:
                raise PeerError(f"invalid {operation} args: {error}", code=INVALID_ARGS) from error

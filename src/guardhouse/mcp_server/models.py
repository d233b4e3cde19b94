"""What the tools answer, as typed values: each becomes a tool's output schema. Knows no protocol and no HTTP."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "CommandAnswer",
    "EditAnswer",
    "EnvironmentAnswer",
    "EnvironmentList",
    "FileContent",
    "FileList",
    "GrepAnswer",
    "MatchList",
    "McpToolAnswer",
    "OutputAnswer",
    "SessionAnswer",
    "TaskAnswer",
    "Where",
    "WriteAnswer",
]


# Said in full, since clients warn of a schema that constrains nothing.
_ANY_JSON_TYPES: Final = ["object", "array", "string", "number", "boolean", "null"]
_AnyJson = Annotated[Any, Field(json_schema_extra={"anyOf": [{"type": each} for each in _ANY_JSON_TYPES]})]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Where(_Model):
    """Where something ran."""

    environment_id: str
    environment_name: str
    host: str | None = Field(default=None, description="host name of the machine")
    user: str | None = Field(default=None, description="account that commands run as")
    workspace: str | None = Field(default=None, description="directory on the machine that paths are relative to")


class EnvironmentAnswer(_Model):
    """One environment: a machine on which commands run."""

    id: str
    name: str
    status: Literal["pending", "online", "offline", "degraded", "draining"]
    status_reason: str
    usable: bool = Field(description="whether a task can be sent to it now")
    tags: list[str]
    scope: str = Field(description="'account', or the name of the team")
    last_heartbeat: str = Field(description="as people say it: '2 minutes ago'")
    runner_version: str | None
    machine: dict[str, Any] | None = Field(description="what its runner told of the host")


class EnvironmentList(_Model):
    """One page of environments."""

    environments: list[EnvironmentAnswer]
    next_cursor: str | None = Field(description="pass it back for the next page; null on the last")


class SessionAnswer(_Model):
    """A session: work that stays in one environment."""

    session_id: str = Field(description="pass it with the calls that belong to it")
    title: str
    state: Literal["new", "ready", "running", "frozen", "unavailable"]
    state_reason: str
    environment_id: str | None = Field(description="null until its first call")
    environment_name: str | None
    warning: str | None = Field(default=None, description="why it is not where it was wanted")
    notice: str | None = Field(default=None, description="what was lost")


class CommandAnswer(_Model):
    """A command: finished, or still running under its task_id."""

    status: Literal["finished", "running", "approval_required"]
    task_id: str
    where: Where
    workdir: str
    exit_code: int | None = Field(default=None, description="null while it runs")
    stdout: str = Field(description="head and tail where it is long")
    stderr: str = Field(description="head and tail where it is long")
    stdout_bytes: int = Field(description="of the whole")
    stderr_bytes: int = Field(description="of the whole")
    stdout_left_out_bytes: int = Field(description="between head and tail; read_output reads them")
    stderr_left_out_bytes: int
    duration_s: float | None = None
    notes: list[str] = Field(default=[], description="what the wall or the policy had to say")
    next_step: str | None = None
    approval_id: str | None = None
    approval_url: str | None = None


class TaskAnswer(_Model):
    """A task that is not shown as a command."""

    status: Literal["finished", "running", "cancelling"]
    task_id: str
    where: Where
    operation: str
    state: str
    next_step: str | None = None


class OutputAnswer(_Model):
    """A part of a task's output."""

    task_id: str
    where: Where
    stream: Literal["stdout", "stderr"]
    offset: int = Field(description="in bytes, where this part begins")
    next_offset: int = Field(description="where the next part begins")
    total_bytes: int = Field(description="that have come so far")
    is_end: bool = Field(description="the task has ended and nothing comes after this part")
    text: str


class FileContent(_Model):
    """A part of a file."""

    path: str
    where: Where
    text: str | None = Field(description="null for a file that is not UTF-8 text")
    base64: str | None = Field(default=None, description="the bytes, when they are no text")
    offset: int
    next_offset: int | None = Field(description="null at the end of the file")
    total_bytes: int
    checksum: str | None = Field(description="sha256:<hex> of the whole file; pass it as if_checksum to write safely")


class FileEntry(_Model):
    """One file of a listing."""

    path: str
    kind: str
    size: int
    target: str | None = None


class FileList(_Model):
    """A directory."""

    path: str
    where: Where
    entries: list[FileEntry]
    left_out: int = Field(description="entries that are not shown")
    problems: list[str]


class MatchList(_Model):
    """Paths that match a pattern."""

    where: Where
    matches: list[str]
    left_out: int
    problems: list[str]


class GrepAnswer(_Model):
    """Lines that match."""

    where: Where
    text: str = Field(description="path:line:text, one match a line")
    matches: int
    left_out: int
    binary_files_skipped: int
    problems: list[str]


class WriteAnswer(_Model):
    """A file that was written."""

    path: str
    where: Where
    bytes: int
    checksum: str | None


class EditAnswer(_Model):
    """A file that was edited."""

    path: str
    where: Where
    replacements: int
    checksum: str | None


class McpToolAnswer(_Model):
    """What a tool of the machine's own MCP server answered."""

    where: Where
    server: str
    tool: str
    is_error: bool
    text: str
    structured: _AnyJson = None
    left_out_bytes: int

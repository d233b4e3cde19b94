"""The arguments and the result of `bash`: a command text and how it ended. Runs wherever `wire` does."""

from typing import Annotated, Any

from msgspec import Meta, field

from guardhouse import limits
from guardhouse.wire.operations.base import Args, Notes, Result, Timeout
from guardhouse.wire.paths import path_as_bytes
from guardhouse.wire.scalars import Count, ExitCode, Name, Path, Seconds, Text

__all__ = ["BashArgs", "BashResult"]


class BashArgs(Args, frozen=True, kw_only=True):
    """Run a command text with bash.

    ``workdir`` is relative to the workspace; ``timeout`` is in seconds, absent or 0 for the default. ``stdin``,
    ``environment`` and ``profile`` are of ours; the runner's own files decide whether it grants them.
    """

    command: Annotated[str, Meta(max_length=limits.COMMAND_TEXT_MAX_BYTES, pattern=r"\A[^\x00]*\Z")]
    workdir: Path = ""
    workdir_b64: bytes | None = None
    timeout: Timeout | None = None
    stdin: bytes | None = None
    environment: dict[Name, Text] = field(default_factory=dict)
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
    denied_syscalls: dict[Name, Count] = field(default_factory=dict)
    killed_descendants: Count = 0
    notes: Notes = ()
    reason: Text | None = None
    decision: dict[str, Any] | None = None
    execs: dict[str, Any] | None = None
    egress: dict[str, Any] | None = None
    denials: tuple[dict[str, Any], ...] = ()

"""The arguments and results of what is done to files: read, write, list, search, edit, move, remove.

Knows nothing of how a file is opened. Runs wherever `wire` does.
"""

from typing import Annotated

from msgspec import Meta, Struct, field

from guardhouse.wire.operations.base import Args, Digest, Notes, Pattern, Patterns, Result
from guardhouse.wire.paths import path_as_bytes
from guardhouse.wire.scalars import Count, Name, Path, Text, WholeNumber, empty

__all__ = [
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
    "MoveArgs",
    "ReadArgs",
    "ReadResult",
    "RemoveArgs",
    "StatArgs",
    "StatResult",
    "SuccessResult",
    "WalkProblem",
    "WriteArgs",
]


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
    checksum: Digest | None = None
    notes: Notes = ()


class WriteArgs(Args, frozen=True, kw_only=True):
    """Write a file; ``content`` travels as base64.

    Of ours: ``if_checksum`` writes only over a file with that checksum (empty: only where none is). A large file
    comes in parts: the same ``upload_id``, each at its ``offset``, the last with ``last`` and the whole's
    ``checksum``; nothing is seen under ``path`` before that one.
    """

    path: Path
    path_b64: bytes | None = None
    content: bytes
    if_checksum: Digest | None = None
    upload_id: Name | None = None
    offset: Count = 0
    last: bool = True
    checksum: Digest | None = None

    @property
    def path_bytes(self) -> bytes:
        """The path as the file system names it."""
        return path_as_bytes(self.path, self.path_b64)


class SuccessResult(Result, frozen=True, kw_only=True):
    """The result of what either happens or fails: ``{"success": true}``."""

    success: bool = field(default_factory=lambda: True)
    checksum: Digest | None = None
    notes: Notes = ()


class ListArgs(Args, frozen=True, kw_only=True):
    """List a directory; ``ignore`` are globs on the base name."""

    path: Path = field(default_factory=str)
    path_b64: bytes | None = None
    recursive: bool = False
    ignore: Patterns = ()

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

    pattern: Pattern
    pattern_b64: bytes | None = None

    @property
    def pattern_bytes(self) -> bytes:
        """The pattern as bytes."""
        return path_as_bytes(self.pattern, self.pattern_b64)


class GlobResult(Result, frozen=True, kw_only=True):
    """The sorted paths. ``matches_b64`` (of ours) has the exact bytes of those that are not valid UTF-8, by index."""

    matches: tuple[str, ...] = field(default_factory=empty)
    matches_b64: dict[str, bytes] = field(default_factory=dict)
    truncated: bool = False
    left_out: Count = 0
    problems: tuple[WalkProblem, ...] = ()


class GrepArgs(Args, frozen=True, kw_only=True):
    """Search file contents; ``include`` are globs on the base name. From ``path`` on of ours.

    ``case`` is ``smart`` (the default), ``sensitive`` or ``insensitive``; ``context`` is lines around each match.
    """

    pattern: Pattern
    include: Patterns = ()
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
    if_checksum: Digest | None = None

    @property
    def path_bytes(self) -> bytes:
        """The path as the file system names it."""
        return path_as_bytes(self.path, self.path_b64)


class EditResult(Result, frozen=True, kw_only=True):
    """How often the text was replaced, the new checksum, and what of the old file could not be kept."""

    replacements: Count
    checksum: Digest | None = None
    notes: Notes = ()


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
    checksum: Digest | None = None
    notes: Notes = ()


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

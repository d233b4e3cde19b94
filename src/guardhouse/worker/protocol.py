"""What the runner and a worker say to each other: frames of a JSON header and a raw body, one request at a time.

A frame is two big-endian 32-bit lengths, the header (one JSON object) and the body (bytes as they are, never
base64). A worker serves one request after the other; the only frame that may come in between is a cancel of
the request being served. Knows no operation. Runs in the runner and in the workers.
"""

import struct
from typing import Final, Literal

import msgspec

from guardhouse.errors import PeerError
from guardhouse.limits import WORKER_FRAME_MAX_BYTES

__all__ = [
    "LENGTHS",
    "ChunkArgs",
    "ChunkResult",
    "CleanArgs",
    "CleanResult",
    "Failure",
    "ListSkillsArgs",
    "ListSkillsResult",
    "RemoveSkillArgs",
    "Reply",
    "Request",
    "SkillEntry",
    "SpillArgs",
    "SpillResult",
    "UploadResult",
    "UsageArgs",
    "UsageResult",
    "parse_lengths",
    "parse_reply",
    "parse_request",
    "render",
]

LENGTHS: Final = struct.Struct(">II")
"""Header length, body length; in bytes."""


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Ask for one operation, or cancel (``operation`` "cancel") the request ``id``.

    ``deadline_s`` is how long it may take; the kernel ends a worker that is still at it a little later.
    """

    id: int
    operation: str
    deadline_s: float = 0.0
    args: msgspec.Raw = msgspec.Raw(b"{}")


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no result: the family of the error, its code, its text."""

    family: Literal["refusal", "peer"]
    code: str
    text: str


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to the request ``id``: a result or a failure."""

    id: int
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    failure: Failure | None = None


class SpillArgs(msgspec.Struct, frozen=True, kw_only=True):
    """Bound one text for a message, saving it whole when it is too long; the text is the body, UTF-8.

    ``operation`` names the file. ``command`` is the command that printed it, if any: one that reads below
    `.work/` is answered whole.
    """

    operation: str
    command: str = ""


class SpillResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The text to answer is the body. ``file_path`` names the whole text, of ``total_size`` bytes."""

    truncated: bool = False
    file_path: str | None = None
    total_size: int | None = None


class ChunkArgs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Read a piece of a file; ``identity`` is the one that the piece before it came with."""

    path: bytes
    offset: int
    limit: int
    identity: str = ""


class ChunkResult(msgspec.Struct, frozen=True, kw_only=True):
    """The piece is the body; ``ended`` when the file has no more at this moment."""

    total_size: int
    identity: str
    ended: bool


class UploadResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How many bytes of an upload have arrived; ``checksum`` and ``notes`` are of the file once it is in place."""

    size: int
    checksum: str | None = None
    notes: tuple[str, ...] = ()


class UsageArgs(msgspec.Struct, frozen=True, kw_only=True):
    """Ask how much the workspace holds."""


class UsageResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the workspace and its `.work/` hold, and the quota (0: none)."""

    size_bytes: int
    files: int
    work_size_bytes: int
    work_files: int
    upload_size_bytes: int
    quota_bytes: int
    quota_files: int
    problems: int


class CleanArgs(msgspec.Struct, frozen=True, kw_only=True):
    """Remove outputs older than ``max_age_s`` or beyond ``max_bytes`` (oldest first), and left-over temporaries."""

    max_age_s: float | None = None
    max_bytes: int | None = None
    temporaries: bool = True


class CleanResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed."""

    files: int
    size_bytes: int


class ListSkillsArgs(msgspec.Struct, frozen=True, kw_only=True):
    """List the skills below a directory; the workspace when it is empty."""

    path: str = ""


class SkillEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One installed skill."""

    name: str
    path: str
    description: str = ""
    version: str = ""
    checksum: str = ""
    problem: str = ""


class ListSkillsResult(msgspec.Struct, frozen=True, kw_only=True):
    """Every directory with a `SKILL.md`, by path."""

    skills: tuple[SkillEntry, ...] = ()


class RemoveSkillArgs(msgspec.Struct, frozen=True, kw_only=True):
    """Remove an installed skill's directory."""

    skill_dir: str


_requests: Final = msgspec.json.Decoder(Request)
_replies: Final = msgspec.json.Decoder(Reply)
_encoder: Final = msgspec.json.Encoder()


def render(message: Request | Reply, body: bytes | memoryview = b"") -> bytes:
    """Return lengths and header as bytes to send before ``body``.

    Raises:
        PeerError: ``oversized``: header or body is over the bound, named in the text.
    """
    header = _encoder.encode(message)
    for what, size in (("header", len(header)), ("body", len(body))):
        if size > WORKER_FRAME_MAX_BYTES:
            raise PeerError(
                f"{what} of {size} bytes is over the {WORKER_FRAME_MAX_BYTES} that one frame holds", code="oversized"
            )
    return LENGTHS.pack(len(header), len(body)) + header


def parse_lengths(data: bytes | bytearray) -> tuple[int, int]:
    """Return header and body length of the frame that starts with ``data``.

    Raises:
        PeerError: ``oversized``; ``malformed`` for an empty header.
    """
    header, body = LENGTHS.unpack(data)
    if max(header, body) > WORKER_FRAME_MAX_BYTES:
        raise PeerError(
            f"frame of {header} + {body} bytes is over the {WORKER_FRAME_MAX_BYTES} that one may hold", code="oversized"
        )
    if not header:
        raise PeerError("frame without a header")
    return header, body


def parse_request(header: bytes | bytearray) -> Request:
    """Return the request in a frame's header.

    Raises:
        PeerError: ``malformed``.
    """
    try:
        return _requests.decode(header)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise PeerError(f"invalid worker request: {error}") from error


def parse_reply(header: bytes | bytearray) -> Reply:
    """Return the reply in a frame's header; exactly one of result and failure is there.

    Raises:
        PeerError: ``malformed``.
    """
    try:
        reply = _replies.decode(header)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise PeerError(f"invalid worker reply: {error}") from error
    if (reply.result is msgspec.UNSET) == (reply.failure is None):
        raise PeerError("invalid worker reply: it needs either a result or a failure")
    return reply

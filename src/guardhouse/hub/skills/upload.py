"""An uploaded skill, read whole and judged before anything of it is stored.

The hub unpacks nothing: it lists, checks every name, size and checksum, and keeps one zip archive. A few uploads are
in memory at a time. Runs in the hub, the check in a thread of its own.
"""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import trio

from guardhouse.hub.api.errors import ApiError
from guardhouse.limits import FILE_BODY_IDLE_S, SKILL_ARCHIVE_MAX_BYTES
from guardhouse.skills import Manifest, as_zip, read_archive, read_content
from guardhouse.wire.operations import OPERATIONS

__all__ = ["CheckedSkill", "SkillUploads", "check_skill"]

# Each holds up to 23 MiB; one that is written anew from tar up to 64 MiB more, and those are checked one at a time.
UPLOADS_MAX: Final = 4
# What is read on and dropped of a body that is too large, since its sender looks for an answer only afterwards.
_DROP_MAX_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True)
class CheckedSkill:
    """An archive that a runner will take. ``notes`` are what its author should look at, though nothing is refused."""

    archive: bytes
    checksum: str
    uploaded_checksum: str
    manifest: Manifest
    files: int
    unpacked_bytes: int
    notes: tuple[str, ...]


def check_skill(data: bytes) -> CheckedSkill:
    """Return what was uploaded as it will be kept: a zip archive as it is, a tar archive written anew as zip.

    Raises:
        SkillRefused: no runner would, or should, take it.
    """
    archive = as_zip(data)
    listed = read_archive(archive)
    for entry in listed.entries:
        for _ in read_content(archive, entry):
            pass  # damage shows in what is unpacked: sizes and CRC are held to what the headers promise
    return CheckedSkill(
        archive=archive,
        checksum=hashlib.sha256(archive).hexdigest(),
        uploaded_checksum=hashlib.sha256(data).hexdigest(),
        manifest=listed.manifest,
        files=sum(not entry.is_directory for entry in listed.entries),
        unpacked_bytes=listed.total_size,
        notes=tuple(_notes(listed.manifest)),
    )


def _notes(manifest: Manifest) -> list[str]:
    """Return what is said of tools that no runner has under that name."""
    found = []
    for tool in manifest.allowed_tools:
        server, slash, name = tool.removeprefix("mcp:").partition("/")
        is_mcp = tool.startswith("mcp:") and slash == "/" and server and name
        if not is_mcp and tool not in OPERATIONS:
            found.append(
                f"allowed-tools names {tool[:80]!r}, which is neither an operation of runners nor mcp:server/tool"
            )
    return found


class SkillUploads:
    """Reads and checks uploads, a few at a time."""

    def __init__(self) -> None:
        self._reading = 0
        self._checking = trio.CapacityLimiter(1)

    async def take(self, chunks: AsyncIterator[bytes]) -> CheckedSkill:
        """Return the body of an upload, checked.

        Raises:
            ApiError: 408, 413; 429 when several are read already.
            SkillRefused: it is no acceptable skill.
        """
        if self._reading >= UPLOADS_MAX:
            raise ApiError(
                429, "too_many_uploads", f"{self._reading} skills are uploaded already", hint="wait", retryable=True
            )
        self._reading += 1
        try:
            data = await _read_body(chunks)
            return await trio.to_thread.run_sync(check_skill, data, limiter=self._checking)
        finally:
            self._reading -= 1


async def _read_body(chunks: AsyncIterator[bytes]) -> bytes:
    gathered, size = bytearray(), 0
    while True:
        with trio.move_on_after(FILE_BODY_IDLE_S) as deadline:
            chunk = await anext(chunks, None)
        if deadline.cancelled_caught:
            raise ApiError(408, "body_timeout", f"nothing arrived for {FILE_BODY_IDLE_S:g} s", retryable=True)
        if chunk is None:
            break
        size += len(chunk)
        if size <= SKILL_ARCHIVE_MAX_BYTES:
            gathered += chunk
        elif size > SKILL_ARCHIVE_MAX_BYTES + _DROP_MAX_BYTES:
            break
    if size > SKILL_ARCHIVE_MAX_BYTES:
        raise ApiError(
            413,
            "oversized",
            f"the archive is over {SKILL_ARCHIVE_MAX_BYTES} bytes, which is what one message to a runner carries",
            hint="leave out what the skill does not need, or let it fetch it",
        )
    return bytes(gathered)

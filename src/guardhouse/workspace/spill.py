"""Texts too long for a message: saved whole in `.work/outputs/`, answered as their beginning and where the rest is.

Bounds every text that an operation answers, so that no result is larger than one message may be. Runs in the
files worker.
"""

import os
import re
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import re2

from guardhouse.limits import INLINE_LIMIT_CHARS, PREVIEW_CHARS, PREVIEW_LINES
from guardhouse.workspace.errors import WorkspaceRefusal, refusal_of
from guardhouse.workspace.handle import Workspace, open_beneath
from guardhouse.workspace.place import open_directory

__all__ = ["OUTPUTS", "Bounded", "bound_text", "expire_outputs", "preview", "reads_work_directory"]

OUTPUTS: Final = b".work/outputs"
_NAME: Final = re.compile(rb"\A[a-z_]{1,32}_[a-z2-7]{8}_[0-9]{1,20}\.txt\Z")
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_NOTE_LINES: Final = 4
_DAMAGE: Final = "�"
# The seed's loop guard (S137), its readers and their kin: what an agent runs to read on in a saved output.
_READERS: Final = (
    "awk|bat|batcat|cat|cut|egrep|fgrep|grep|head|hexdump|jq|less|more|nl|od|rg|sed|sort|strings|tac|tail|wc|xxd"
)
_READS_WORK: Final = re2.compile(
    rf"(?:^|[\s;&|(`])(?:[\w./-]*/)?(?:{_READERS})\s(?:[^;&|\n]*[\s'\"=/<])?\.work/|<\s*['\"]?(?:[^\s;&|]*/)?\.work/"
)


@dataclass(frozen=True, slots=True)
class Bounded:
    """A text that fits a message.

    Attributes:
        text: the whole, or its beginning and a note that names the file.
        truncated: whether something is missing from ``text``.
        file_path: where the whole text is, relative to the workspace; None when nothing is missing or saving failed.
        total_size: bytes of the whole text; None when nothing is missing.
    """

    text: str
    truncated: bool = False
    file_path: str | None = None
    total_size: int | None = None


def preview(text: str, *, max_lines: int = PREVIEW_LINES, max_chars: int = PREVIEW_CHARS) -> str:
    r"""Return the beginning of ``text``: at most so many lines, ended by ``\n`` only, and characters.

    Raises:
        ValueError: a bound is below 1.
    """
    if max_lines < 1 or max_chars < 1:
        raise ValueError(f"bounds must be at least 1, got {max_lines=} {max_chars=}")
    end = 0
    for _ in range(max_lines):
        found = text.find("\n", end, max_chars)
        if found < 0:
            return text[:max_chars]
        end = found + 1
    return text[:end]


def reads_work_directory(command: str) -> bool:
    """Say whether ``command`` reads a file below `.work/`: its output is answered whole, or reading on would
    never end.
    """
    # Bytes: a command that is not Unicode is matched all the same.
    return _READS_WORK.search(command.encode("utf-8", "replace")) is not None


def bound_text(
    workspace: Workspace,
    content: bytes,
    *,
    operation: str,
    now_s: float,
    command: str = "",
    make_room: Callable[[int], None] = lambda _size: None,
) -> Bounded:
    """Return ``content`` as text for a message; save it whole first when it has more than 30,000 characters.

    Args:
        workspace: the handle.
        content: output as it is; bytes that are not UTF-8 become U+FFFD in the text and stay as they are in the file.
        operation: "bash", "grep", …; the first part of the file's name.
        now_s: Unix time; the last part of the file's name.
        command: what printed it, if anything did.
        make_room: asked with the bytes before they are saved; raises to refuse, and then the answer says what is lost.

    Source: WIRE_PROTOCOL.md, "Large output".
    """
    text = content.decode("utf-8", "replace")
    if len(text) <= INLINE_LIMIT_CHARS or reads_work_directory(command):
        return Bounded(text)
    lines = content.count(b"\n") + (not content.endswith(b"\n"))
    size = f"{len(content)} bytes, {lines} lines"
    try:
        make_room(len(content))
        path = _save(workspace, content, operation, now_s)
    except WorkspaceRefusal as refusal:
        lost = f"{size}. The whole could not be saved ({refusal}); what is not above is lost."
        note = f"<output_truncated>\n{lost}\n</output_truncated>"
        kept = preview(text, max_lines=PREVIEW_LINES - _NOTE_LINES, max_chars=PREVIEW_CHARS - len(note) - 1)
        return Bounded(_joined(kept, note), truncated=True, total_size=len(content))
    room = PREVIEW_CHARS - 400 - 2 * len(path)
    kept = preview(text, max_lines=PREVIEW_LINES - _NOTE_LINES, max_chars=room)
    offset = _byte_length(content, kept)
    note = (
        f"<output_truncated>\n{size}; the whole is in {path}, its first {offset} bytes are above.\n"
        f"Read on with read: path {path}, offset {offset} (bytes), limit 20000 (bytes).\n</output_truncated>"
    )
    return Bounded(_joined(kept, note), truncated=True, file_path=path, total_size=len(content))


def expire_outputs(workspace: Workspace, *, max_age_s: float, max_bytes: int, now_s: float) -> tuple[int, int]:
    """Remove saved outputs that are too old, then the oldest until the rest fits; return files and bytes removed.

    Args:
        workspace: the handle.
        max_age_s: 0 keeps them whatever their age.
        max_bytes: 0 keeps them whatever their size.
        now_s: Unix time.
    """
    try:
        dir_fd = open_beneath(workspace, OUTPUTS, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK, reading=False)
    except WorkspaceRefusal:
        return 0, 0
    try:
        outputs = sorted(_outputs(dir_fd))
        total = sum(size for _, size, _ in outputs)
        files = size_removed = 0
        for modified_s, size, name in outputs:
            too_old = max_age_s > 0 and modified_s < now_s - max_age_s
            too_much = max_bytes > 0 and total - size_removed > max_bytes
            if not (too_old or too_much):
                break
            try:
                os.unlink(name, dir_fd=dir_fd)
            except FileNotFoundError:
                continue
            files += 1
            size_removed += size
        return files, size_removed
    except OSError as error:
        raise refusal_of(error, OUTPUTS) from error
    finally:
        os.close(dir_fd)


def _outputs(dir_fd: int) -> list[tuple[float, int, bytes]]:
    found: list[tuple[float, int, bytes]] = []
    for text in os.listdir(dir_fd):
        name = os.fsencode(text)
        if not _NAME.match(name):
            continue  # somebody else's file
        try:
            status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode):
            found.append((status.st_mtime, status.st_size, name))
    return found


def _save(workspace: Workspace, content: bytes, operation: str, now_s: float) -> str:
    kind = re.sub(r"[^a-z_]", "_", operation.lower())[:32] or "output"
    dir_fd = open_directory(workspace, OUTPUTS)
    try:
        while True:
            name = f"{kind}_{''.join(secrets.choice(_ALPHABET) for _ in range(8))}_{int(now_s)}.txt"
            try:
                # O_EXCL: an output never replaces another, nor writes through a link that waits for it.
                fd = os.open(
                    name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=dir_fd
                )
            except FileExistsError:
                continue
            break
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(fd, rest) :]
        except OSError:
            os.unlink(name, dir_fd=dir_fd)
            raise
        finally:
            os.close(fd)
        return f"{OUTPUTS.decode()}/{name}"
    except OSError as error:
        raise refusal_of(error, OUTPUTS) from error
    finally:
        os.close(dir_fd)


def _joined(kept: str, note: str) -> str:
    return kept + note if kept.endswith("\n") else f"{kept}\n{note}"


def _byte_length(content: bytes, kept: str) -> int:
    """Return how many bytes of ``content`` the decoded beginning ``kept`` stands for."""
    if _DAMAGE not in kept:
        return len(kept.encode())
    # Replaced bytes have no fixed length; the bytes whose decoding is just long enough are found by halving.
    low, high = 0, min(len(content), 4 * len(kept))
    while low < high:
        middle = (low + high) // 2
        if len(content[:middle].decode("utf-8", "replace")) < len(kept):
            low = middle + 1
        else:
            high = middle
    while low < len(content) and content[:low].decode("utf-8", "replace") != kept:
        low += 1  # the last character's remaining bytes, three at most
    return low

"""Lines of one open file that match a regular expression, in blocks, with the lines around them.

Linear in the size of the file whatever the pattern is, and flat in memory: a line longer than
`LINE_MAX_BYTES` is searched in pieces. Knows nothing of paths. Runs in the files worker.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import re2

from guardhouse.limits import PATTERN_MAX_BYTES
from guardhouse.workspace.errors import Code, WorkspaceRefusal

__all__ = ["LINE_MAX_BYTES", "BinaryFile", "Line", "compile_pattern", "matching_lines"]

LINE_MAX_BYTES: Final = 8 * 1024 * 1024
# \\S, \\pL, \\p{Greek}, \\x{1F600}, \\x4A, (?P<Name>: capitals that stand for no letter of the text.
_ESCAPES: Final = re.compile(r"\\(?:[pP](?:\{[^}]*\}|.)|x(?:\{[^}]*\}|..)|.)|\(\?P?<[^>]*>", re.DOTALL)
_SMALL_BYTES: Final = 4_096
_UNCOUNTED_MAX_BYTES: Final = 16 * 1024 * 1024
_BLOCK_BYTES: Final = 1024 * 1024
# Where ripgrep and git look for the NUL byte that tells a binary file.
_BINARY_HEAD_BYTES: Final = 8_192


class BinaryFile(Exception):  # noqa: N818 - an outcome of looking at a file, always caught
    """The file holds a NUL byte."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line, counted from 1, without its line end; ``is_context`` when it only surrounds a match."""

    number: int
    content: bytes
    is_context: bool


def compile_pattern(pattern: str, *, case: str = "smart") -> Any:
    """Return the compiled expression (RE2 syntax; a match never crosses a line).

    Args:
        pattern: from outside.
        case: "sensitive", "insensitive", or "smart": insensitive unless the pattern has a capital letter.

    Raises:
        WorkspaceRefusal: INVALID: too long, not RE2, or an unknown ``case``.
    """
    if case not in ("smart", "sensitive", "insensitive"):
        raise WorkspaceRefusal(f"case is {case!r}; it is smart, sensitive or insensitive", code=Code.INVALID)
    if len(pattern.encode("utf-8", "replace")) > PATTERN_MAX_BYTES:
        raise WorkspaceRefusal(
            f"pattern of {len(pattern)} characters is too long: at most {PATTERN_MAX_BYTES} bytes", code=Code.INVALID
        )
    options = re2.Options()
    options.log_errors = False
    options.never_nl = True
    options.never_capture = True
    options.max_mem = 64 << 20
    options.case_sensitive = case == "sensitive" or (case == "smart" and _has_capital(pattern))
    try:
        re2.compile(pattern, options)  # by itself first, so that the flag in front cannot complete a broken one
        return re2.compile("(?m)" + pattern, options)
    except (re2.error, UnicodeEncodeError) as error:
        said = error.args[0] if error.args else ""
        reason = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(error)
        raise WorkspaceRefusal(
            f"invalid pattern {pattern[:200]!r}: {reason} (RE2 syntax: no look-around, no back-references)",
            code=Code.INVALID,
        ) from error


def _has_capital(pattern: str) -> bool:
    r"""Say whether a capital letter stands for itself in ``pattern``: not in an escape such as \\S or \\p{Lu}."""
    return any(character.isupper() for character in _ESCAPES.sub("", pattern))


def matching_lines(
    fd: int, regex: Any, *, size: int, context: int = 0, tick: Callable[[], None] = lambda: None
) -> Iterator[Line]:
    """Yield the matching lines of the open file ``fd``, of ``size`` bytes as it says, in order, each line once.

    Raises:
        BinaryFile: a NUL byte: near the start, before anything is yielded; further on, after the lines before it, so
            that the holes of a sparse file end the search instead of making it last for ever.
        OSError: reading failed.
    """
    search = _Search(regex, context, tick)
    # A buffer of the file's own size: most files are small, and a megabyte for each costs more than reading it.
    room = min(_BLOCK_BYTES, max(size + 1, _SMALL_BYTES))
    tail = b""
    first = True
    while True:
        tick()
        block = os.read(fd, room)
        nul = block.find(b"\0")
        if nul >= 0 and (nul >= _BINARY_HEAD_BYTES or not first):
            before = tail + block[:nul]
            yield from search.lines_of(before[: before.rfind(b"\n") + 1])
        if nul >= 0:
            raise BinaryFile
        whole = first and 0 < size == len(block)  # the end is known without asking for it
        first = False
        if whole and not block.endswith(b"\n"):
            yield from search.lines_of(block)
            return
        if not block:
            if tail:
                yield from search.lines_of(tail)
            return
        cut = block.rfind(b"\n") + 1
        if cut:
            yield from search.lines_of(tail + block[:cut] if tail else block[:cut] if cut < len(block) else block)
            tail = block[cut:]
            if whole:
                return
        else:
            tail += block
            if len(tail) >= LINE_MAX_BYTES:
                yield from search.lines_of(tail)
                tail = b""


class _Search:
    """The state of a search between blocks: the line number, the lines kept for context, what is still to follow."""

    def __init__(self, regex: Any, context: int, tick: Callable[[], None]) -> None:
        self._regex = regex
        self._tick = tick
        self._context = context
        self._number = 1  # of the first line of the blocks that are not counted yet
        self._uncounted: list[bytes] = []  # without a match, so that nobody has asked for their lines' numbers
        self._uncounted_bytes = 0
        self._kept = b""  # the last lines of the blocks before, at most `context`
        self._kept_shown = 0  # how much of them has been yielded
        self._after = 0  # context lines still to yield after the last match

    def lines_of(self, block: bytes) -> Iterator[Line]:
        """Yield what ``block``, whole lines that follow the last block, adds."""
        looked = None
        if not self._context:
            looked = self._regex.search(block)
            if looked is None:
                self._put_off(block)
                return
        self._count()
        data = self._kept + block if self._kept else block
        at = len(self._kept)
        shown = self._kept_shown
        number = self._number - self._kept.count(b"\n")  # of the line that begins at `counted`
        counted = 0
        while True:
            self._tick()
            found, looked = looked, None
            if found is None and at < len(data):
                found = self._regex.search(data, at)
            if found is not None and found.start() == len(data) and data.endswith(b"\n"):
                found = None  # behind the last line end there is no line
            start = len(data) if found is None else data.rfind(b"\n", at, found.start()) + 1 or at
            while self._after and shown < start:
                number, counted = number + data.count(b"\n", counted, shown), shown
                line, shown = _line_at(data, shown)
                self._after -= 1
                yield Line(number, line, is_context=True)
            if found is None:
                break
            for before in _starts_before(data, shown, start, self._context):
                number, counted = number + data.count(b"\n", counted, before), before
                yield Line(number, _line_at(data, before)[0], is_context=True)
            number, counted = number + data.count(b"\n", counted, start), start
            line, shown = _line_at(data, start)
            yield Line(number, line, is_context=False)
            at = shown
            self._after = self._context
        self._number = number + data.count(b"\n", counted)
        if self._context:
            kept = next(iter(_starts_before(data, 0, len(data), self._context)), len(data))
            self._kept = data[kept:]
            self._kept_shown = min(max(shown - kept, 0), len(self._kept))

    def _put_off(self, block: bytes) -> None:
        """Leave the lines of ``block`` uncounted for as long as no later line needs its number."""
        self._uncounted.append(block)
        self._uncounted_bytes += len(block)
        if self._uncounted_bytes > _UNCOUNTED_MAX_BYTES:
            self._count()

    def _count(self) -> None:
        self._number += sum(block.count(b"\n") for block in self._uncounted)
        self._uncounted, self._uncounted_bytes = [], 0


def _line_at(data: bytes, start: int) -> tuple[bytes, int]:
    """Return the line that begins at ``start``, without its end, and where the next one begins."""
    end = data.find(b"\n", start)
    end = len(data) if end < 0 else end
    return data[start:end].removesuffix(b"\r"), end + 1


def _starts_before(data: bytes, bound: int, end: int, count: int) -> list[int]:
    """Return where the last ``count`` lines that lie between ``bound`` and ``end`` begin, in order."""
    starts: list[int] = []
    at = end
    while len(starts) < count and at > bound:
        at = max(data.rfind(b"\n", 0, at - 1) + 1, bound)
        starts.append(at)
    starts.reverse()
    return starts

"""Lines of one open file that match a regular expression, in blocks, with the lines around them.

Linear in the size of the file whatever the pattern is, and flat in memory: a line longer than
`LINE_MAX_BYTES` is searched in pieces. Knows nothing of paths. Runs in the files worker.
"""

import io
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import re2

from guardhouse.limits import PATTERN_MAX_BYTES
from guardhouse.workspace.errors import Code, WorkspaceRefusal
from guardhouse.workspace.line_count import count_line_ends

__all__ = ["LINE_MAX_BYTES", "BinaryFile", "Line", "LinePattern", "compile_pattern", "matching_lines", "read_small"]

LINE_MAX_BYTES: Final = 8 * 1024 * 1024
_NEWLINE: Final = 0x0A
# \\S, \\pL, \\p{Greek}, \\x{1F600}, \\x4A, (?P<Name>: capitals that stand for no letter of the text.
_ESCAPES: Final = re.compile(r"\\(?:[pP](?:\{[^}]*\}|.)|x(?:\{[^}]*\}|..)|.)|\(\?P?<[^>]*>", re.DOTALL)
_BLOCK_BYTES: Final = 256 * 1024
_COUNTED_BYTES: Final = 1024 * 1024
_EAGER_BYTES: Final = 2 * 1024 * 1024
# From so many matches in a block on, a plain text is looked for without RE2, whose every call costs 3 µs.
_MANY: Final = 16
# Of lines that may yet be shown before a match in the next block: a thousand of 1,000 characters.
_KEPT_BYTES: Final = 1024 * 1024
# Where ripgrep and git look for the NUL byte that tells a binary file.
_BINARY_HEAD_BYTES: Final = 8_192
# A text that means only itself to RE2; up to this much text is cheaper to look through for it than to hand to RE2.
_PLAIN: Final = re.compile(r"[A-Za-z0-9 _,:;/=@#%!\"'<>-]+")
_GLANCED_BYTES: Final = 64 * 1024
# What a pattern may become with its repeats and classes written out, in RE2's own reckoning (13,600 instructions): the
# time to compile grows with it, for some patterns with its square, and is under 1.5 s for the worst that was found.
# `\pL{1,64}` fits. The search itself may remember more, or it would fall back to RE2's slowest engine.
_PROGRAM_BYTES: Final = 1280 * 1024
_SEARCH_BYTES: Final = 64 * 1024 * 1024


class BinaryFile(Exception):  # noqa: N818 - an outcome of looking at a file, always caught
    """The file holds a NUL byte."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line, counted from 1, without its line end; ``is_context`` when it only surrounds a match."""

    number: int
    content: bytes
    is_context: bool


# Where the next match begins at or behind an offset; -1 where there is none.
Finder = Callable[[int], int]


@dataclass(frozen=True, slots=True)
class LinePattern:
    """A compiled expression; ``plain`` is the one text that it stands for, if any, in lower case where it ``folds``."""

    regex: Any
    plain: bytes | None
    folds: bool

    def finder(self, block: bytes | bytearray, end: int) -> "Finder":
        """Return what finds the next match in the first ``end`` bytes of ``block``, of which one was found already."""
        if self.plain is None:
            return _by_regex(self.regex, block, end)
        if self.folds:
            head = bytes(block[:end])
            if not head.isascii():
                return _by_regex(self.regex, block, end)
            block = head.lower()
        plain = self.plain
        return lambda at: block.find(plain, at, end)

    def is_absent(self, block: bytes) -> bool:
        """Say that ``block`` is a text in which nothing can match, as far as a glance tells; False is no answer."""
        if self.plain is None or len(block) > _GLANCED_BYTES or b"\0" in block:
            return False
        if not self.folds:
            return self.plain not in block
        # Beyond ASCII a letter has other forms than two: the Kelvin sign is a k.
        return block.isascii() and self.plain not in block.lower()


def compile_pattern(pattern: str, *, case: str = "smart") -> LinePattern:
    """Return the compiled expression (RE2 syntax; a match never crosses a line).

    Args:
        pattern: from outside.
        case: "sensitive", "insensitive", or "smart": insensitive unless the pattern has a capital letter.

    Raises:
        WorkspaceRefusal: INVALID: too long, too large with its repeats written out, not RE2, or an unknown ``case``.
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
    options.max_mem = _PROGRAM_BYTES
    options.case_sensitive = case == "sensitive" or (case == "smart" and _has_capital(pattern))
    try:
        re2.compile(pattern, options)  # by itself first, so that the flag in front cannot complete a broken one
        options.max_mem = _SEARCH_BYTES
        regex = re2.compile("(?m)" + pattern, options)
    except (re2.error, UnicodeEncodeError) as error:
        said = error.args[0] if error.args else ""
        reason = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(error)
        if reason.startswith("pattern too large"):
            raise WorkspaceRefusal(
                f"pattern {pattern[:200]!r} is too large with its repeats and character classes written out; repeat"
                " less, or use narrower classes",
                code=Code.INVALID,
            ) from error
        raise WorkspaceRefusal(
            f"invalid pattern {pattern[:200]!r}: {reason} (RE2 syntax: no look-around, no back-references)",
            code=Code.INVALID,
        ) from error
    folds = not options.case_sensitive
    plain = (pattern.lower() if folds else pattern).encode() if _PLAIN.fullmatch(pattern) else None
    return LinePattern(regex, plain, folds)


def _has_capital(pattern: str) -> bool:
    r"""Say whether a capital letter stands for itself in ``pattern``: not in an escape such as \\S or \\p{Lu}."""
    return any(character.isupper() for character in _ESCAPES.sub("", pattern))


def read_small(fd: int, size: int) -> bytes:
    """Return the beginning of the open file ``fd``, for `matching_lines`: all of it where it is small, as most are."""
    return os.read(fd, size + 1) if size < _BLOCK_BYTES else b""


def matching_lines(
    fd: int,
    pattern: LinePattern,
    *,
    size: int,
    head: bytes,
    context: int = 0,
    wants_context: Callable[[], bool] = lambda: True,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[Line]:
    """Yield the matching lines of the open regular file ``fd``, of ``size`` bytes as it says, in order, each line once.

    Args:
        fd: read up to behind ``head``.
        pattern: of `compile_pattern`.
        size: in bytes; a file that lies, or grows, is read to its end all the same.
        head: of `read_small`.
        context: lines shown before and after each match. Before a match they reach back over a block of the file and,
            where it began in the last one, 1 MiB.
        wants_context: asked before each line; once it says no, matches alone follow.
        tick: called now and then; may raise to stop.

    Raises:
        BinaryFile: a NUL byte: near the start, before anything is yielded; further on, after the lines before it, so
            that the holes of a sparse file end the search instead of making it last for ever.
        OSError: reading failed.
    """
    if not head and size < _BLOCK_BYTES:
        return  # there was nothing to read
    lines = _WithContext(pattern.regex, context, wants_context, tick) if context else _Plain(pattern, fd, tick)
    if not head or len(head) != size:
        yield from _in_blocks(fd, head, lines, tick)
        return
    nul = head.find(b"\0")
    if nul < 0:
        yield from lines.of(head, len(head))
        return
    if nul >= _BINARY_HEAD_BYTES:
        yield from lines.of(head, head.rfind(b"\n", 0, nul) + 1)
    raise BinaryFile


def _in_blocks(fd: int, head: bytes, lines: "_Plain | _WithContext", tick: Callable[[], None]) -> Iterator[Line]:
    """Do `matching_lines` block by block; ``head`` is what was read already."""
    buffer = bytearray(max(_BLOCK_BYTES, len(head)))
    buffer[: len(head)] = head
    filled, came, passed = 0, len(head), 0  # in the buffer before the last read; of the last read; of the file before
    with io.FileIO(fd, closefd=False) as file:
        while True:
            if not came:
                tick()
                with memoryview(buffer) as whole, whole[filled:] as room:
                    came = file.readinto(room) or 0
            nul = buffer.find(b"\0", filled, filled + came)
            if nul >= 0:
                if passed or nul >= _BINARY_HEAD_BYTES:
                    yield from lines.of(buffer, buffer.rfind(b"\n", 0, nul) + 1)
                raise BinaryFile
            if not came:
                yield from lines.of(bytes(buffer[:filled]), filled)  # by itself: '$' looks at what follows
                return
            newline = buffer.rfind(b"\n", filled, filled + came)
            passed += came
            filled, came = filled + came, 0
            if newline >= 0:
                yield from lines.of(buffer, newline + 1)
                buffer[: filled - newline - 1] = buffer[newline + 1 : filled]
                filled -= newline + 1
            elif filled >= LINE_MAX_BYTES:
                yield from lines.of(bytes(buffer[:filled]), filled)
                filled = 0
            elif filled == len(buffer):
                buffer.extend(bytes(filled))


def _by_regex(regex: Any, block: bytes | bytearray, end: int) -> Finder:
    def find(at: int) -> int:
        found = regex.search(block, at, end)
        return -1 if found is None else int(found.start())

    return find


class _Plain:
    """A search without context: lines are counted up to a match, and only when there is one."""

    def __init__(self, pattern: LinePattern, fd: int, tick: Callable[[], None]) -> None:
        self._pattern = pattern
        self._fd = fd
        self._tick = tick
        self._offset = 0  # of the block in the file
        self._number = 1  # of the line at `_counted`
        self._counted = 0  # in the file
        self._eager_until = 0  # in the file: blocks that begin before are counted as they pass

    def of(self, block: bytes | bytearray, end: int) -> Iterator[Line]:
        """Yield what the first ``end`` bytes of ``block`` add: whole lines that follow the last ones."""
        at = 0
        find = _by_regex(self._pattern.regex, block, end)
        found = find(0) if end else -1
        matches = 0
        while found >= 0:
            if found == end and block[end - 1] == _NEWLINE:
                break  # behind the last line end there is no line
            start = block.rfind(b"\n", at, found) + 1 or at
            line, at = _line_at(block, start, end)
            self._count_to(block, start)
            yield Line(self._number, line, is_context=False)
            self._tick()
            self._eager_until = self._offset + at + _EAGER_BYTES
            matches += 1
            if matches == _MANY:
                find = self._pattern.finder(block, end)
            found = find(at) if at < end else -1
        if self._offset < self._eager_until:
            self._count_to(block, end)  # while it is at hand: the next match is likely near
        self._offset += end

    def _count_to(self, block: bytes | bytearray, at: int) -> None:
        """Count the lines up to ``at`` in the block; blocks that went by uncounted are read again for it."""
        while self._counted < self._offset:
            self._tick()
            passed = os.pread(self._fd, min(_COUNTED_BYTES, self._offset - self._counted), self._counted)
            if not passed:  # cut off meanwhile: nobody can count what is gone
                self._counted = self._offset
            self._number += count_line_ends(passed, 0, len(passed))
            self._counted += len(passed)
        self._number += count_line_ends(block, self._counted - self._offset, at)
        self._counted = self._offset + at


class _WithContext:
    """A search that shows lines around a match: the last lines of a block are kept for the next."""

    def __init__(self, regex: Any, context: int, wants_context: Callable[[], bool], tick: Callable[[], None]) -> None:
        self._regex = regex
        self._wants_context = wants_context
        self._tick = tick
        self._context = context
        self._number = 1  # of the block's first line
        self._kept = b""  # the last lines of the blocks before, at most `context`
        self._kept_shown = 0  # how much of them has been yielded
        self._after = 0  # context lines still to yield after the last match

    def of(self, block: bytes | bytearray, end: int) -> Iterator[Line]:
        """Yield what the first ``end`` bytes of ``block`` add: whole lines that follow the last ones."""
        data = self._kept + bytes(memoryview(block)[:end])
        at = len(self._kept)
        shown = self._kept_shown
        number = self._number - count_line_ends(self._kept, 0, len(self._kept))  # of the line that begins at `counted`
        counted = 0
        while True:
            self._tick()
            found = self._regex.search(data, at) if at < len(data) else None
            if found is not None and found.start() == len(data) and data.endswith(b"\n"):
                found = None  # behind the last line end there is no line
            start = len(data) if found is None else data.rfind(b"\n", at, found.start()) + 1 or at
            while self._after and shown < start:
                number, counted = number + count_line_ends(data, counted, shown), shown
                line, shown = _line_at(data, shown, len(data))
                self._after = self._after - 1 if self._wants_context() else 0
                yield Line(number, line, is_context=True)
            if found is None:
                break
            if not self._wants_context():
                self._context = 0
            for before in _starts_before(data, shown, start, self._context):
                number, counted = number + count_line_ends(data, counted, before), before
                yield Line(number, _line_at(data, before, len(data))[0], is_context=True)
            number, counted = number + count_line_ends(data, counted, start), start
            line, shown = _line_at(data, start, len(data))
            yield Line(number, line, is_context=False)
            at = shown
            self._after = self._context
        self._number = number + count_line_ends(data, counted, len(data))
        kept = self._kept_from(data)
        self._kept = data[kept:]
        self._kept_shown = min(max(shown - kept, 0), len(self._kept))

    def _kept_from(self, data: bytes) -> int:
        """Return where the last lines begin that the next block may show: whole ones, in `_KEPT_BYTES` at most."""
        start = len(data)
        for at in reversed(_starts_before(data, 0, len(data), self._context)):
            if len(data) - at > _KEPT_BYTES:
                break
            start = at
        return start


def _line_at(data: bytes | bytearray, start: int, end: int) -> tuple[bytes, int]:
    """Return the line of ``data`` that begins at ``start``, without its end, and where the next one begins."""
    stop = data.find(b"\n", start, end)
    stop = end if stop < 0 else stop
    return bytes(data[start:stop]).removesuffix(b"\r"), stop + 1


def _starts_before(data: bytes, bound: int, end: int, count: int) -> list[int]:
    """Return where the last ``count`` lines that lie between ``bound`` and ``end`` begin, in order."""
    starts: list[int] = []
    at = end
    while len(starts) < count and at > bound:
        at = max(data.rfind(b"\n", 0, at - 1) + 1, bound)
        starts.append(at)
    starts.reverse()
    return starts

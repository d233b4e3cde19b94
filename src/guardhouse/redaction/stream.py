"""Secrets out of bytes: `Redactor` for a whole, `RedactionStream` for what comes in chunks. Pure.

What comes out is a function of what went in, however it was cut. Offsets and counts of whoever keeps the output are
those of the redacted bytes: they are the only ones that leave the host. At most `Redactor.hold_back_bytes` are
held back, and only behind something that may become a secret; `flush` gives them out at the end.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from guardhouse.limits import REDACTION_WINDOW_BYTES
from guardhouse.redaction.entries import MORE, Entry, Literal, Pattern, Window, longest_reach, marker
from guardhouse.redaction.errors import RedactionError
from guardhouse.redaction.index import PatternIndex
from guardhouse.redaction.literal_index import LiteralIndex

__all__ = ["RedactionStream", "Redactor"]

_CHUNK_BYTES: Final = 256 * 1024
_NEAR_MAX: Final = 64


class _Index(NamedTuple):
    """Where entries could begin; numbers are positions in ``entries``."""

    entries: tuple[Entry, ...]
    patterns: PatternIndex
    literals: LiteralIndex
    patterns_reach: int


class Redactor:
    """Knows what is secret. Made once; every stream of output gets a `RedactionStream` of its own.

    Raises:
        RedactionError: a named value is a part of a marker, so that taking it out would bring it back.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        for kind in {entry.kind for entry in entries}:
            for entry in entries:
                if isinstance(entry, Literal) and entry.value in marker(kind):
                    raise RedactionError(
                        f"a part of the marker {marker(kind).decode()!r} itself; use a better value", place=entry.kind
                    )
        patterns = {number: entry for number, entry in enumerate(entries) if isinstance(entry, Pattern)}
        literals = {number: entry for number, entry in enumerate(entries) if isinstance(entry, Literal)}
        self._index = _Index(
            tuple(entries), PatternIndex(patterns), LiteralIndex(literals), longest_reach(tuple(patterns.values()))
        )
        self.hold_back_bytes = longest_reach(entries)

    def stream(self) -> "RedactionStream":
        """Return the state for one stream of bytes."""
        return RedactionStream(self._index)

    def redact(self, data: bytes) -> bytes:
        """Return ``data`` with a marker in place of each secret; ``data`` itself when there is none."""
        return self.redact_counted(data)[0]

    def redact_counted(self, data: bytes) -> tuple[bytes, Mapping[str, int]]:
        """As `redact`, with how many of each kind were taken out."""
        stream = self.stream()
        if len(data) <= _CHUNK_BYTES:
            return stream.feed(data, is_final=True), stream.counts
        parts = [stream.feed(data[at : at + _CHUNK_BYTES]) for at in range(0, len(data), _CHUNK_BYTES)]
        parts.append(stream.flush())
        return b"".join(parts), stream.counts

    def redact_text(self, text: str) -> str:
        """As `redact`, for text; lone surrogates (undecodable bytes) come through as they are."""
        data = text.encode("utf-8", "surrogatepass")
        redacted = self.redact(data)
        if redacted is data:
            return text
        try:
            return redacted.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            # A secret ended inside a character.
            return redacted.decode("utf-8", "replace")


@dataclass(slots=True)
class _Span:
    """A secret in the stream, in offsets from its beginning. ``number`` is the entry that found it."""

    start: int
    end: int
    number: int


class RedactionStream:
    """One stream of bytes. `feed` returns what may leave now, `flush` the rest."""

    def __init__(self, index: _Index) -> None:
        self._index = index
        self._data = b""  # one byte of context in front, then what is not decided
        self._base = 0  # the offset of _data[0]
        self._next = 0  # the offset from which on anchors are not decided
        self._out = 0  # the offset up to which everything has left or been replaced
        self._spans: list[_Span] = []  # found, not yet left
        self._open: list[_Span] = []  # found, and going on
        self._near: list[_Span] = []  # found, and perhaps right in front of the next anchor
        self._own_end: dict[int, int] = {}  # by entry: where its last secret ends, or how far it is known to go
        self._wait_for: bytes | None = None
        self._wait_until = 0
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self.counts: Counter[str] = Counter()

    def feed(self, chunk: bytes, *, is_final: bool = False) -> bytes:
        """Take the next bytes, return those that may leave."""
        if not is_final and self._must_wait(chunk):
            return b""
        if self._waiting:
            chunk = b"".join((*self._waiting, chunk))
            self._waiting, self._waiting_bytes = [], 0
        if not chunk and not is_final:
            return b""
        data = self._data + chunk if self._data else chunk
        first = self._next - self._base
        stop = self._extend_open(data, is_final=is_final)
        events, unfinished = self._events(data, first, is_final=is_final)
        stop = min(stop, self._decide(data, events, stop, is_final=is_final), unfinished)
        written = self._write(data, stop)
        kept_from = max(0, stop - 1)
        self._data = data[kept_from:]
        self._base += kept_from
        self._next = self._base + stop - kept_from
        return written

    def flush(self) -> bytes:
        """Return what was held back; the stream is over."""
        return self.feed(b"", is_final=True)

    def _must_wait(self, chunk: bytes) -> bool:
        """Whether ``chunk`` cannot decide the anchor that the stream waits for; then it is only put aside.

        This keeps a writer of single bytes from making us look at the same window again for each of them.
        """
        if self._wait_for is None:
            return False
        total = self._base + len(self._data) + self._waiting_bytes + len(chunk)
        if total >= self._wait_until or any(byte in chunk for byte in self._wait_for):
            self._wait_for = None
            return False
        self._waiting.append(chunk)
        self._waiting_bytes += len(chunk)
        return True

    def _extend_open(self, data: bytes, *, is_final: bool) -> int:
        stop = len(data)
        still_open = []
        for span in self._open:
            entry = self._index.entries[span.number]
            end, is_done = entry.extend(data, span.end - self._base, is_final=is_final)
            self._reach(span, self._base + end)
            if span.start < self._out:
                self._out = max(self._out, span.end)
            if is_done is MORE:
                stop = min(stop, end)
            if is_done is not True:
                still_open.append(span)
        self._open = still_open
        return stop

    def _events(self, data: bytes, first: int, *, is_final: bool) -> tuple[list[tuple[int, int]], int]:
        """Return the anchors to look at, in order, and where an anchor begins that is not whole yet."""
        patterns, literals = self._index.patterns, self._index.literals
        events = set(patterns.places(patterns.candidates(data), data, first))
        events.update(literals.places(data, first))
        if is_final:
            return sorted(events), len(data)
        text_start = max(first, len(data) - self._index.patterns_reach)
        line_start = max(first, len(data) - REDACTION_WINDOW_BYTES, data.rfind(b"\n") + 1)
        events.update(patterns.open_places(data, line_start=line_start, text_start=text_start))
        return sorted(events), max(first, min(patterns.unfinished(data), literals.unfinished(data)))

    def _decide(self, data: bytes, events: list[tuple[int, int]], stop: int, *, is_final: bool) -> int:
        """Look at each anchor in front of ``stop``; return where the first stands that cannot be decided yet."""
        for at, number in events:
            if at >= stop:
                break
            entry = self._index.entries[number]
            if isinstance(entry, Pattern) and self._is_out_of_place(entry, data, at, number):
                continue
            found = entry.look(data, at, is_final=is_final)
            if found is MORE:
                self._wait(entry, at)
                return at
            if found is None:
                continue
            end, is_done = entry.extend(data, found.end, is_final=is_final)
            span = _Span(self._base + found.start, self._base + end, number)
            self._spans.append(span)
            self._near.append(span)
            if len(self._near) > _NEAR_MAX:
                self._forget_far(self._base + at)
            self._reach(span, span.end)
            if is_done is not True:
                self._open.append(span)
            if is_done is MORE:
                stop = min(stop, end)
        return stop

    def _is_out_of_place(self, entry: Pattern, data: bytes, at: int, number: int) -> bool:
        offset = self._base + at
        if offset < self._own_end.get(number, 0):
            # Inside a secret of the same kind: it ends where that one ends, and nothing is looked at twice.
            return True
        if not entry.is_in_word(data[at - 1] if at else None):
            return False
        # Right behind a secret is no middle of a word: with the marker there, it would be none either.
        self._forget_far(offset)
        return not any(span.start < offset <= span.end for span in self._near)

    def _forget_far(self, offset: int) -> None:
        self._near = [span for span in self._near if span.end >= offset or span in self._open]

    def _wait(self, entry: Entry, at: int) -> None:
        if isinstance(entry, Literal) or entry.window is Window.TEXT:
            return
        self._wait_for = b"\n" if entry.window is Window.LINE else b" \t\r\n\f\v"
        self._wait_until = self._base + at + entry.reach

    def _reach(self, span: _Span, end: int) -> None:
        span.end = end
        self._own_end[span.number] = max(end, self._own_end.get(span.number, 0))

    def _write(self, data: bytes, stop: int) -> bytes:
        """Give out everything in front of ``stop``, with one marker for each run of overlapping secrets."""
        limit = self._base + stop
        pieces = []
        later = []
        for span in sorted(self._spans, key=lambda span: (span.start, span.number)):
            if span.start >= limit:
                later.append(span)
                continue
            if span.start >= self._out:
                kind = self._index.entries[span.number].kind
                pieces += [data[self._out - self._base : span.start - self._base], marker(kind)]
                self.counts[kind] += 1
            self._out = max(self._out, span.end)
        self._spans = later
        if self._out < limit:
            pieces.append(data[self._out - self._base : stop])
            self._out = limit
        return b"".join(pieces)

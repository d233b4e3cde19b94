"""Where named values could begin in some bytes: one RE2 automaton over the beginnings of all of them. Pure.

It looks at the bytes without their line ends, in which a value that a program broke into lines begins as one that it
did not. So every place where a value may stand is found in one pass, however many values there are, and each place
costs a look of its own. Knows nothing of patterns.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Final

import re2

from guardhouse.redaction.entries import Literal, WrappedLiteral, latin1_options

__all__ = ["LiteralIndex"]

_LINE_ENDS: Final = b"\r\n"
# Of a value's beginning: values that begin alike up to here are all looked at where one of them may stand.
_KEY_BYTES: Final = 32


class LiteralIndex:
    """The beginnings of values, by the number of each."""

    def __init__(self, literals: Mapping[int, Literal]) -> None:
        self._by_key: dict[bytes, list[int]] = {}
        exact: set[bytes] = set()
        wrapped: set[bytes] = set()
        for number, literal in literals.items():
            key = _without_line_ends(literal.value)[:_KEY_BYTES]
            self._by_key.setdefault(key, []).append(number)
            if isinstance(literal, WrappedLiteral):
                wrapped.add(key)
            else:
                exact.add(_up_to_key(literal.value))
        self._sizes = sorted({len(key) for key in self._by_key})
        self._exact, self._wrapped = sorted(exact), sorted(wrapped)
        self._longest_exact = max(map(len, exact), default=0)
        options = latin1_options()
        options.never_capture = True
        quoted = b"|".join(map(re2.escape, sorted(self._by_key)))
        self._search = re2.compile(quoted, options) if quoted else None

    def places(self, data: bytes, start: int) -> Iterator[tuple[int, int]]:
        """Yield (offset, number) from ``start`` on, in order of the offsets, for every value whose beginning stands
        there, line ends left out.
        """
        if self._search is None:
            return
        text = _without_line_ends(data[start:])
        offsets: _Offsets | None = None
        found = self._search.search(text)
        while found is not None:
            at = found.start()
            offsets = offsets or _Offsets(data, start)
            offset = offsets.of(at)
            for size in self._sizes:
                for number in self._by_key.get(text[at : at + size], ()):
                    yield offset, number
            # Beginnings may overlap, so the next search starts one byte on.
            found = self._search.search(text, at + 1)

    def unfinished(self, data: bytes) -> int:
        """Return where the longest beginning of a beginning starts with which ``data`` ends; its length for none."""
        least = len(data)
        for size in range(min(self._longest_exact - 1, len(data)), 0, -1):
            if _begins_one(data[-size:], self._exact):
                least = len(data) - size
                break
        if not self._wrapped:
            return least
        # Back over the characters with which a key may begin, each with one line end behind it at most.
        at, tail = len(data), b""
        while len(tail) < _KEY_BYTES - 1:
            end = at
            if data[max(0, end - 1) : end] == b"\n":
                end -= 1
            if data[max(0, end - 1) : end] == b"\r":
                end -= 1
            if not end or data[end - 1] in _LINE_ENDS:
                break
            at = end - 1
            tail = data[at:end] + tail
            if at < least and _begins_one(tail, self._wrapped):
                least = at
        return least


class _Offsets:
    """From offsets without line ends to those of the data, asked for in rising order."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self._at = start  # in the data; the bytes from `start` to here are counted
        self._passed = 0  # those of them that end no line

    def of(self, place: int) -> int:
        """Return where byte ``place`` of the text without line ends stands in the data."""
        data, at = self._data, self._at
        while True:
            step = place - self._passed
            piece = data[at : at + step + 1]
            kept = len(_without_line_ends(piece))
            if kept > step:
                # As many as were asked for, so no line end is among them.
                self._at = at + step
                self._passed = place
                return self._at
            at += len(piece)
            self._passed += kept


def _without_line_ends(data: bytes) -> bytes:
    return data.translate(None, _LINE_ENDS)


def _up_to_key(value: bytes) -> bytes:
    """Return the beginning of ``value`` that holds the bytes of its key."""
    kept = 0
    for size, byte in enumerate(value, start=1):
        kept += byte not in _LINE_ENDS
        if kept == _KEY_BYTES:
            return value[:size]
    return value


def _begins_one(tail: bytes, keys: list[bytes]) -> bool:
    """Whether one of the sorted ``keys`` begins with ``tail`` and is longer."""
    at = bisect_left(keys, tail)
    if at < len(keys) and keys[at] == tail:
        at += 1
    return at < len(keys) and keys[at].startswith(tail)

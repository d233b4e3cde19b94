"""Where patterns could begin in some bytes: one RE2 expression and one set for all of them at once, and their anchors.

The expression is the fast way for the ordinary case, in which nothing matches: one pass whatever the number of
patterns. The set, three times slower, says which patterns to ask in earnest; one that it does not name has no whole
match in those bytes. Pure.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import re2

from guardhouse.redaction.entries import Pattern, Window, latin1_options

__all__ = ["PatternIndex"]

_ANCHOR_KEY_BYTES: Final = 2
_GROUP_NAME: Final = re.compile(rb"\(\?P<[A-Za-z_]+>")


class PatternIndex:
    """The patterns of one redactor, by what they look like and by the number of each."""

    def __init__(self, patterns: Mapping[int, Pattern]) -> None:
        self._patterns = patterns
        self._numbers = tuple(patterns)
        # RE2 takes no group name twice, and here nobody asks for groups.
        nameless = [_GROUP_NAME.sub(b"(?:", pattern.search_expression) for pattern in patterns.values()]
        options = latin1_options()
        options.never_capture = True
        self._any = re2.compile(b"|".join(b"(?:" + one + b")" for one in nameless), options) if nameless else None
        self._set = re2.Set.SearchSet(latin1_options())
        for one in nameless:
            self._set.Add(one)
        # RE2 gives up when its automaton outgrows its memory, which must not look like "nothing matches": the empty
        # expression always does.
        self._sentinel = self._set.Add(b"")
        self._set.Compile()
        self._on_line = _anchor_search(one for one in patterns.values() if one.window is not Window.TEXT)
        self._over_lines = _anchor_search(one for one in patterns.values() if one.window is Window.TEXT)
        self._by_key: dict[bytes, list[tuple[bytes, bool, int]]] = {}
        self._prefixes: set[bytes] = set()
        self._folded_prefixes: set[bytes] = set()
        self._longest_anchor = 0
        for number, pattern in patterns.items():
            for anchor in pattern.anchors:
                self._add_anchor(anchor, number, ignores_case=pattern.ignores_case)

    def _add_anchor(self, anchor: bytes, number: int, *, ignores_case: bool) -> None:
        text = anchor.lower() if ignores_case else anchor
        self._by_key.setdefault(anchor[:_ANCHOR_KEY_BYTES].lower(), []).append((text, ignores_case, number))
        into = self._folded_prefixes if ignores_case else self._prefixes
        into.update(text[:size] for size in range(1, len(text)))
        self._longest_anchor = max(self._longest_anchor, len(text))

    def candidates(self, data: bytes) -> list[int]:
        """Return every pattern that may have a whole match in ``data``."""
        if self._any is None or self._any.search(data) is None:
            return []
        found = self._set.Match(data)
        if not found or self._sentinel not in found:
            return list(self._numbers)
        return [self._numbers[at] for at in found if at != self._sentinel]

    def places(self, numbers: Iterable[int], data: bytes, start: int) -> Iterator[tuple[int, int]]:
        """Yield (offset, number) for every anchor of the patterns ``numbers`` from ``start`` on, in no order."""
        folded: bytes | None = None
        for number in numbers:
            pattern = self._patterns[number]
            where = data
            if pattern.ignores_case:
                where = folded = data.lower() if folded is None else folded
            for anchor in pattern.anchors:
                text = anchor.lower() if pattern.ignores_case else anchor
                at = where.find(text, start)
                while at >= 0:
                    yield at, number
                    at = where.find(text, at + 1)

    def open_places(self, data: bytes, *, line_start: int, text_start: int) -> Iterator[tuple[int, int]]:
        """Yield (offset, number) for the anchors that stand near the end, in order of the offsets.

        Args:
            data: what has come.
            line_start: from where anchors matter whose pattern looks no further than its line.
            text_start: the same for patterns that look over lines.
        """
        seen: set[int] = set()
        for search, start in ((self._over_lines, text_start), (self._on_line, line_start)):
            seen.update(_each(search, data, start))
        for at in sorted(seen):
            for text, ignores_case, number in self._by_key.get(data[at : at + _ANCHOR_KEY_BYTES].lower(), ()):
                here = data[at : at + len(text)]
                if (here.lower() if ignores_case else here) == text:
                    yield at, number

    def unfinished(self, data: bytes) -> int:
        """Return where the longest beginning of an anchor at the end of ``data`` starts; its length for none."""
        for size in range(min(self._longest_anchor - 1, len(data)), 0, -1):
            tail = data[-size:]
            if tail in self._prefixes or tail.lower() in self._folded_prefixes:
                return len(data) - size
        return len(data)


def _anchor_search(patterns: Iterable[Pattern]) -> re2._Regexp | None:
    parts = []
    for pattern in patterns:
        for anchor in pattern.anchors:
            quoted = re2.escape(anchor)
            parts.append(b"(?i:" + quoted + b")" if pattern.ignores_case else quoted)
    return re2.compile(b"|".join(parts), latin1_options()) if parts else None


def _each(search: re2._Regexp | None, data: bytes, start: int) -> Iterator[int]:
    while search is not None:
        found = search.search(data, start)
        if found is None:
            return
        at = found.start()
        yield at
        # Anchors may overlap, so the next search begins one byte on.
        start = at + 1

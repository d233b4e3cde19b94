"""Which rules match a subject, in time linear in its length however many rules there are.

All rules of a section are one RE2 set: one pass over the text gives every rule that matches. RE2 builds its automaton
as it goes and gives up when that outgrows its memory; a set that gave up must not look like a set in which nothing
matched, so every set carries one pattern that always matches, and where that is missing each rule is asked by
itself (linear as well, only slower).

Knows nothing of actions or commands. Pure.
"""

from collections.abc import Sequence
from typing import Final

import re2

from guardhouse.limits import POLICY_MATCHER_MAX_BYTES
from guardhouse.policy.language import Language, render_re2

__all__ = ["Matcher", "searchable"]

_SENTINEL: Final = ".*"
# Stands for the characters that UTF-8 cannot carry; no pattern can hold it (patterns.REFUSED_CHARS).
_UNCODABLE: Final = "\U0010ffff"


def searchable(subject: str) -> str:
    """Return the subject with every lone surrogate (an undecodable byte) as one character that no pattern can name."""
    try:
        subject.encode("utf-8")
    except UnicodeEncodeError:
        return "".join(_UNCODABLE if "\ud800" <= char <= "\udfff" else char for char in subject)
    return subject


class _Block:
    """A run of consecutive rules in one RE2 set."""

    def __init__(self, first: int, expressions: Sequence[str], options: re2.Options) -> None:
        self._first = first
        self._expressions = expressions
        self._options = options
        self._set = re2.Set.FullMatchSet(options)
        for expression in expressions:
            self._set.Add(expression)
        self._sentinel = self._set.Add(_SENTINEL)
        self._set.Compile()
        self._single: list[re2._Regexp] | None = None

    def matches(self, subject: str) -> list[int]:
        found = self._set.Match(subject)
        if found and self._sentinel in found:
            return sorted(self._first + index for index in found if index != self._sentinel)
        if self._single is None:
            self._single = [re2.compile(expression, self._options) for expression in self._expressions]
        return [
            self._first + index for index, single in enumerate(self._single) if single.fullmatch(subject) is not None
        ]


class Matcher:
    """The compiled languages of a section's rules; indices are positions in the sequence handed in."""

    def __init__(self, languages: Sequence[Language]) -> None:
        options = re2.Options()
        options.dot_nl = True
        options.log_errors = False
        options.never_capture = True
        options.max_mem = POLICY_MATCHER_MAX_BYTES
        self._blocks: list[_Block] = []
        expressions = [render_re2(language) for language in languages]
        self._compile(0, expressions, options)

    def _compile(self, first: int, expressions: list[str], options: re2.Options) -> None:
        if not expressions:
            return
        try:
            self._blocks.append(_Block(first, expressions, options))
        except re2.error:
            if len(expressions) == 1:
                raise
            middle = len(expressions) // 2
            self._compile(first, expressions[:middle], options)
            self._compile(first + middle, expressions[middle:], options)

    def matches(self, subject: str) -> list[int]:
        """Return the index of every language that holds the whole subject, ascending."""
        text = searchable(subject)
        found: list[int] = []
        for block in self._blocks:
            found += block.matches(text)
        return found

"""Regular languages over the matching form: what every pattern of a policy compiles to.

The *matching form* of a command is its words, as bash would hand them to the program, with `SEPARATOR` (NUL)
between them. A word never holds NUL (execve(2) ends a word there), so one word that contains blanks and two words
can never look alike. Patterns, argument rules and commands with unknown words are all values of `Language`; one
matcher (RE2) and one automaton (automaton.py) serve them all.

Knows nothing of rules, actions or shells. Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = [
    "ANY",
    "ANYTHING",
    "EMPTY",
    "SEPARATOR",
    "SEPARATOR_CHARS",
    "WORD_CHAR",
    "Chars",
    "Choice",
    "Concat",
    "Language",
    "Repeat",
    "choice",
    "concat",
    "is_anything",
    "literal_prefix",
    "literal_text",
    "optional",
    "render_re2",
]

# Between the words of a command in its matching form. No argument of execve(2) can hold it.
SEPARATOR: Final = "\0"


@dataclass(frozen=True, slots=True)
class Chars:
    """One character: one of ``members``, or, when ``negated``, any character that is none of them."""

    members: frozenset[str]
    negated: bool = False

    def admits(self, char: str) -> bool:
        """Whether the character is one of these."""
        return (char in self.members) is not self.negated


@dataclass(frozen=True, slots=True)
class Concat:
    """One part after the other; no parts at all is the empty text."""

    parts: "tuple[Language, ...]"


@dataclass(frozen=True, slots=True)
class Choice:
    """Any one of the options; no options at all is the empty language."""

    options: "tuple[Language, ...]"


@dataclass(frozen=True, slots=True)
class Repeat:
    """``inner``, ``minimum`` (0 or 1) or more times."""

    inner: "Language"
    minimum: int = 0


Language = Chars | Concat | Choice | Repeat | str
"""A plain ``str`` is that exact text."""

ANY: Final = Chars(frozenset(), negated=True)
ANYTHING: Final = Repeat(ANY)
WORD_CHAR: Final = Chars(frozenset({SEPARATOR}), negated=True)
SEPARATOR_CHARS: Final = Chars(frozenset({SEPARATOR}))
EMPTY: Final = ""


def concat(parts: Iterable[Language]) -> Language:
    """Join the parts, merging neighbouring texts, so that equal languages tend to look equal."""
    joined: list[Language] = []
    for part in parts:
        pieces = part.parts if isinstance(part, Concat) else (part,)
        for piece in pieces:
            if piece == EMPTY:
                continue
            if isinstance(piece, str) and joined and isinstance(joined[-1], str):
                joined[-1] += piece
            elif piece == ANYTHING and joined and joined[-1] == ANYTHING:
                continue
            else:
                joined.append(piece)
    if not joined:
        return EMPTY
    return joined[0] if len(joined) == 1 else Concat(tuple(joined))


def choice(options: Iterable[Language]) -> Language:
    """Any one of the options, each kept once."""
    kept = tuple(dict.fromkeys(options))
    return kept[0] if len(kept) == 1 else Choice(kept)


def optional(inner: Language) -> Language:
    """``inner``, or nothing."""
    return Choice((inner, EMPTY))


def is_anything(language: Language) -> bool:
    """Whether the language plainly holds every text."""
    return language == ANYTHING


def literal_text(language: Language) -> str | None:
    """Return the one text that the language holds, or None when it is not plainly one text."""
    return language if isinstance(language, str) else None


def literal_prefix(language: Language) -> tuple[str, Language | None]:
    """Split off the text with which every member begins; the second part is None when nothing follows it."""
    if isinstance(language, str):
        return language, None
    if isinstance(language, Concat) and isinstance(language.parts[0], str):
        return language.parts[0], concat(language.parts[1:])
    return "", language


def render_re2(language: Language) -> str:
    r"""Write the language as an RE2 expression; needs the option ``dot_nl``.

    Every character outside ASCII letters, digits and blank-free safe punctuation is written as ``\x{…}``, so no
    character of a pattern is ever read as syntax.
    """
    if isinstance(language, str):
        return "".join(_escape(char) for char in language)
    if isinstance(language, Chars):
        return _render_chars(language)
    if isinstance(language, Concat):
        return "".join(render_re2(part) for part in language.parts)
    if isinstance(language, Choice):
        # An empty set of options is the empty language: RE2 writes it as a class that admits nothing.
        if not language.options:
            return r"[^\x00-\x{10FFFF}]"
        return "(?:" + "|".join(render_re2(option) for option in language.options) + ")"
    mark = "+" if language.minimum else "*"
    if isinstance(language.inner, Chars):
        return _render_chars(language.inner) + mark
    return f"(?:{render_re2(language.inner)}){mark}"


def _render_chars(chars: Chars) -> str:
    if not chars.members:
        return "." if chars.negated else r"[^\x00-\x{10FFFF}]"
    inner = "".join(_escape(char) for char in sorted(chars.members))
    return f"[{'^' if chars.negated else ''}{inner}]"


def _escape(char: str) -> str:
    if char.isascii() and char.isalnum():
        return char
    return f"\\x{{{ord(char):X}}}"

r"""Globs for commands: the text of a pattern to the language of command lines that it matches.

    *      any characters: blanks, slashes, newlines and the boundary between two words included
    ?      exactly one character, or one boundary between two words
    blank  (any run of blanks, tabs or newlines) the boundary between two words, never a blank inside a word
    \c      the character c itself: ``\*`` a star, ``\ `` a blank inside a word

A pattern that ends in a blank and ``*`` also matches the command without any argument. Every other character is
itself; upper and lower case differ; ``[`` is no class. A pattern matches the whole command, not a part of it.

The first word of a pattern names a program. A plain name and that name below a directory of the trusted path are
the same program: ``kubectl`` also matches ``/usr/bin/kubectl``, and a pattern ``/usr/bin/kubectl`` also matches
``kubectl``. A relative path is never a plain name.

Knows nothing of rules or shells. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from guardhouse.limits import POLICY_PATTERN_MAX_CHARS
from guardhouse.policy.language import (
    ANY,
    ANYTHING,
    SEPARATOR,
    Language,
    choice,
    concat,
    optional,
)

__all__ = ["OPTIONAL_ARGUMENTS", "Glob", "GlobPiece", "PatternError", "parse_glob", "program_language", "word_language"]

BLANKS: Final = frozenset(" \t\n\r")

# No pattern may hold these: NUL is the word boundary, and U+10FFFF stands for characters that UTF-8 cannot carry.
REFUSED_CHARS: Final = frozenset({SEPARATOR, "\U0010ffff"})


# What a trailing ` *` stands for: no argument at all, or a boundary and anything.
OPTIONAL_ARGUMENTS: Final = optional(concat([SEPARATOR, ANYTHING]))


class PatternError(ValueError):
    """A pattern says something that no command can be or that would be read in two ways."""


@dataclass(frozen=True, slots=True)
class GlobPiece:
    """One piece of a parsed glob: ``kind`` is "text", "star", "one" or "blank"; ``value`` is the text's characters."""

    kind: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class Glob:
    """A parsed command pattern.

    ``words`` are the pattern's words as pieces without "blank"; a "star" or "one" inside a word may still cross
    boundaries. ``language`` is what it matches. ``program`` is the first word when it is plain text, else None.
    """

    source: str
    words: tuple[tuple[GlobPiece, ...], ...]
    program: str | None
    language: Language


def parse_glob(source: str, *, trusted_path: Sequence[str] = (), with_paths: bool = False) -> Glob:
    """Read a command pattern.

    Args:
        source: the pattern as written.
        trusted_path: absolute directories without a trailing slash whose programs are known by their plain name.
        with_paths: let the language also hold a plain name's trusted paths. A matcher asks about a command under
            each of its names instead (judge.py) and keeps its automaton small; a comparison of policies needs them.

    Raises:
        PatternError: the pattern is empty, or holds NUL or U+10FFFF, or ends in a lone backslash.
    """
    if len(source) > POLICY_PATTERN_MAX_CHARS:
        raise PatternError(f"the pattern has {len(source)} characters; at most {POLICY_PATTERN_MAX_CHARS} are read")
    words = _split_words(source)
    if not words:
        raise PatternError("the pattern is empty; write '*' to match every command")
    program = _plain_text(words[0])
    optional_tail = len(words) > 1 and words[-1] == (GlobPiece("star"),)
    required = words[:-1] if optional_tail else words
    parts: list[Language] = [
        program_language(program, trusted_path, with_paths=with_paths) if program else word_language(words[0])
    ]
    if program is None and with_paths and trusted_path and not _may_name_a_path(words[0]):
        parts.insert(0, optional(_directories(trusted_path)))
    for word in required[1:]:
        parts += [SEPARATOR, word_language(word)]
    if optional_tail:
        parts.append(OPTIONAL_ARGUMENTS)
    return Glob(source=source, words=words, program=program, language=concat(parts))


def program_language(program: str, trusted_path: Sequence[str], *, with_paths: bool) -> Language:
    """Return the ways to write one program: its name, and with ``with_paths`` its paths in trusted directories.

    A program written as a path in a trusted directory is also that name.
    """
    if "/" not in program:
        if not with_paths:
            return program
        return choice([program, *(f"{directory}/{program}" for directory in trusted_path)])
    directory, _, name = program.rpartition("/")
    if directory in trusted_path and name:
        return choice([program, name])
    return program


def _directories(trusted_path: Sequence[str]) -> Language:
    return choice(f"{directory}/" for directory in trusted_path)


def _may_name_a_path(word: tuple[GlobPiece, ...]) -> bool:
    return word[0].kind == "star" or any("/" in piece.value for piece in word)


def _split_words(source: str) -> tuple[tuple[GlobPiece, ...], ...]:
    words: list[tuple[GlobPiece, ...]] = []
    current: list[GlobPiece] = []
    position = 0
    while position < len(source):
        char = source[position]
        position += 1
        if char in REFUSED_CHARS:
            raise PatternError(f"a pattern cannot hold U+{ord(char):04X}")
        if char in BLANKS:
            if current:
                words.append(tuple(current))
                current = []
        elif char == "*":
            if not current or current[-1].kind != "star":
                current.append(GlobPiece("star"))
        elif char == "?":
            current.append(GlobPiece("one"))
        else:
            if char == "\\":
                if position == len(source):
                    raise PatternError(r"the pattern ends in a lone backslash; write '\\' for a backslash itself")
                char = source[position]
                position += 1
                if char in REFUSED_CHARS:
                    raise PatternError(f"a pattern cannot hold U+{ord(char):04X}")
            if current and current[-1].kind == "text":
                current[-1] = GlobPiece("text", current[-1].value + char)
            else:
                current.append(GlobPiece("text", char))
    if current:
        words.append(tuple(current))
    return tuple(words)


def _plain_text(word: tuple[GlobPiece, ...]) -> str | None:
    return word[0].value if len(word) == 1 and word[0].kind == "text" else None


def word_language(word: tuple[GlobPiece, ...]) -> Language:
    """Return what one word of a pattern matches."""
    return concat(_piece_language(piece) for piece in word)


def _piece_language(piece: GlobPiece) -> Language:
    match piece.kind:
        case "text":
            return piece.value
        case "star":
            return ANYTHING
        case _:
            return ANY

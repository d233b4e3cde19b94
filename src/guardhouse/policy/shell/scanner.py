"""The characters of a text, one position, and words as they grow: the ground the reader stands on.

Knows blanks, comments and line continuations. Knows no expansion and no grammar. Pure.
"""

import re
from typing import Final

from guardhouse import limits
from guardhouse.policy.shell.findings import CannotRead, Findings, Source
from guardhouse.policy.shell.reading import Span, Word

__all__ = ["CONTINUATION", "Scanner", "WordBuilder"]

CONTINUATION: Final = "\\\n"
_BLANKS: Final = re.compile(r"(?:[ \t]|\\\n)*+")
_COMMENT: Final = re.compile(r"#[^\n]*")
_INTEGER: Final = re.compile(r"-?[0-9]{0,18}")


class WordBuilder:
    """Collects the pieces of one word's value."""

    __slots__ = ("glob", "may_split", "number", "pieces", "quoted", "reason")

    def __init__(self) -> None:
        self.pieces: list[str | None] = []
        self.reason: str | None = None
        self.may_split = False
        self.quoted = False
        self.glob = False
        # Whether every unknown piece is a number (a length, a status, an arithmetic result).
        self.number = True

    def literal(self, text: str) -> None:
        """Add text that stands for itself."""
        if self.pieces and (last := self.pieces[-1]) is not None:
            self.pieces[-1] = last + text
        else:
            self.pieces.append(text)

    def unknown(self, reason: str, *, may_split: bool = False, number: bool = False) -> None:
        """Add a run of characters that text does not give."""
        if not self.pieces or self.pieces[-1] is not None:
            self.pieces.append(None)
        if self.reason is None:
            self.reason = reason
        self.may_split |= may_split
        self.number &= number

    def is_number(self) -> bool:
        """Whether the value is certainly an integer or empty, so that evaluating it as arithmetic runs nothing."""
        if not self.number:
            return False
        literal = "".join(piece for piece in self.pieces if piece is not None)
        return _INTEGER.fullmatch(literal) is not None

    def word(self, text: str, span: Span) -> Word:
        """Return the finished word."""
        if self.reason is None:
            value = "".join(piece for piece in self.pieces if piece is not None)
            return Word(text, span, value, (value,))
        pattern = tuple(piece for piece in self.pieces if piece != "")
        return Word(text, span, None, pattern, self.reason, self.may_split)


class Scanner:
    """One position in one source."""

    def __init__(self, source: Source, findings: Findings, *, via: tuple[str, ...], depth: int) -> None:
        self.source = source
        self.text = source.text
        self.end = len(source.text)
        self.pos = 0
        self.findings = findings
        self.via = via
        self.depth = depth
        self.posix = source.dialect == "posix"
        # How many substitutions of this same source are open here.
        self.in_substitution = 0

    def fail(self, because: str, start: int | None = None, end: int | None = None) -> CannotRead:
        """Return the error that ends reading here; the caller raises it."""
        first = self.pos if start is None else start
        last = min(self.end, first + 1) if end is None else end
        return CannotRead(because, self.source.span(min(first, self.end), max(last, min(first, self.end))))

    def bash_only(self, what: str) -> None:
        """End reading where another shell than bash would read the text differently."""
        if self.posix:
            raise self.fail(f"{what} is read differently by shells other than bash")

    def peek(self, offset: int = 0) -> str:
        """Return the character at an offset from the position, or an empty string at the end."""
        at = self.pos + offset
        return self.text[at] if at < self.end else ""

    def skip_blanks(self) -> None:
        """Step over blanks and line continuations."""
        match = _BLANKS.match(self.text, self.pos)
        if match is not None:
            self.pos = match.end()

    def skip_comment(self) -> bool:
        """Step over a comment that begins here, up to its newline; say whether there was one."""
        if self.peek() != "#":
            return False
        match = _COMMENT.match(self.text, self.pos)
        if match is not None:
            self.pos = match.end()
        return True

    def check_continuation_after_operator(self) -> None:
        r"""Refuse a line continuation that joins an operator with what follows: ``&\\<newline>&``."""
        if not self.text.startswith(CONTINUATION, self.pos):
            return
        at = self.pos
        while self.text.startswith(CONTINUATION, at):
            at += 2
        if at < self.end and self.text[at] in "&|;<>()-":
            raise self.fail("a line continuation inside an operator", self.pos, at + 1)

    def waits_for_heredoc(self) -> bool:
        """Whether the next newline begins a here-document's body."""
        return False

    def deeper(self) -> None:
        """Count one level of nesting; the caller counts it back."""
        if self.depth >= limits.SHELL_DEPTH_MAX:
            raise self.fail(f"nested deeper than {limits.SHELL_DEPTH_MAX} levels")
        self.depth += 1

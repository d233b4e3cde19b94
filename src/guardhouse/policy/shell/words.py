"""Words: where one ends, what each piece of it is worth, and whether it is an assignment.

Knows quoting, tilde, braces and globs. Knows no grammar beyond the characters that end a word. Pure.
"""

import re
from dataclasses import dataclass
from typing import Final

from guardhouse.policy.shell.expansions import NAME, ExpansionScanner
from guardhouse.policy.shell.reading import Assignment, Word
from guardhouse.policy.shell.scanner import CONTINUATION, WordBuilder

__all__ = ["METACHARACTERS", "RESERVED", "RawWord", "WordScanner"]

METACHARACTERS: Final = frozenset(" \t\n;&|<>()")
RESERVED: Final = frozenset(
    [
        "!",
        "{",
        "}",
        "[[",
        "]]",
        "if",
        "then",
        "elif",
        "else",
        "fi",
        "for",
        "in",
        "do",
        "done",
        "while",
        "until",
        "case",
        "esac",
        "select",
        "function",
        "time",
        "coproc",
    ]
)
_PLAIN: Final = re.compile(r"[^ \t\n;&|<>()'\"\\$`*?\[{~\x00\x01\x7f]+")
_PLAIN_IN_BRACES: Final = re.compile(r"[^ \t\n;&|<>()'\"\\$`*?\[{},.~\x00\x01\x7f]+")
_ASSIGNMENT: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\+?=|\[)")
_LOOKS_ASSIGNED: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\+?=|\[)")
_TILDE: Final = re.compile(r"~[A-Za-z0-9._+-]*")
_SEQUENCE: Final = re.compile(r"\{-?[0-9]{1,9}\.\.-?[0-9]{1,9}(?:\.\.-?[0-9]{1,9})?\}")
_PLAIN_SUBSCRIPT: Final = re.compile(r"\[([A-Za-z0-9_]+)\]")

GLOB: Final = "a glob becomes the names of files that exist when it runs"
TILDE: Final = "a home directory is known only when it runs"
BRACES: Final = "braces become several words"
PROCESS: Final = "the name of a process substitution is known only when it runs"


@dataclass(frozen=True, slots=True)
class RawWord:
    """A word, and what the grammar must know of how it was written."""

    word: Word
    start: int
    end: int
    plain: bool
    continued: bool
    number: bool


class WordScanner(ExpansionScanner):
    """Reads whole words and assignments."""

    def read_word(self, *, regex: bool = False, globs: bool = True) -> RawWord:
        """Read one word at the position, which must not be a blank or an operator.

        Args:
            regex: the word stands right of ``=~``, where parentheses and bars belong to it.
            globs: whether globs and braces become other words here; else they are pattern text.
        """
        start = self.pos
        builder = WordBuilder()
        continued = self._read_word_pieces(builder, start, regex=regex, globs=globs)
        end = self.pos
        if end == start:
            raise self.fail("a word was expected")
        span = self.source.span(start, end)
        self.findings.count_word(span)
        text = self.text[start:end]
        if "\n" in text and self.waits_for_heredoc():
            raise self.fail("a newline in a word while a here-document waits", start, end)
        word = builder.word(text, span)
        plain = not builder.quoted and word.value is not None
        if (
            continued
            and word.value is not None
            and (word.value in RESERVED or word.value.isdigit() or _LOOKS_ASSIGNED.match(word.value))
        ):
            raise self.fail("a line continuation inside a reserved word, a number or an assignment", start, end)
        return RawWord(word, start, end, plain, continued, builder.is_number())

    def _read_word_pieces(self, builder: WordBuilder, start: int, *, regex: bool, globs: bool) -> bool:
        """Read until a metacharacter; return whether a line continuation stood inside."""
        braces = _Braces()
        bracket: int | None = None
        continued = False
        depth = 0
        while self.pos < self.end:
            match = (_PLAIN if braces.mark is None else _PLAIN_IN_BRACES).match(self.text, self.pos)
            if match is not None:
                builder.literal(match[0])
                self.pos = match.end()
                continue
            char = self.text[self.pos]
            if char in METACHARACTERS:
                if char in "<>" and self.peek(1) == "(":
                    self._read_process_substitution(builder)
                    continue
                if not regex or (depth == 0 and char not in "(|"):
                    break
                depth = self._read_regex_metacharacter(builder, char, depth)
            elif char == "'":
                self.read_single_quoted(builder)
            elif char == '"':
                self.read_double_quoted(builder)
            elif char == "\\":
                continued |= self._read_backslash(builder)
            elif char == "$":
                self.read_dollar(builder, quoted=False)
            elif char == "`":
                self.read_backquoted(builder, quoted=False)
            elif char in "*?" and globs:
                builder.unknown(GLOB, may_split=True)
                self.pos += 1
            elif char == "~" and self._tilde_expands(start):
                self._read_tilde(builder)
            elif char in "{},." and globs:
                self._read_brace(builder, braces, char)
            elif char in "\x00\x01\x7f":
                raise self.fail("a control character that bash treats specially")
            else:
                if char == "[" and bracket is None:
                    bracket = self.pos
                builder.literal(char)
                self.pos += 1
        if depth:
            raise self.fail("a parenthesis in a regular expression without its end", start)
        if globs:
            self._close_globs(builder, braces, bracket)
        return continued

    def _read_backslash(self, builder: WordBuilder) -> bool:
        following = self.peek(1)
        if not following:
            raise self.fail("a backslash at the end")
        if following in "\x00\x01\x7f":
            raise self.fail("a control character that bash treats specially")
        self.pos += 2
        if following == "\n":
            return True
        builder.literal(following)
        builder.quoted = True
        return False

    def _read_regex_metacharacter(self, builder: WordBuilder, char: str, depth: int) -> int:
        if char in "<>;&\n":
            raise self.fail("a character in a regular expression that shells read differently")
        builder.literal(char)
        self.pos += 1
        if char == "(":
            return depth + 1
        if char == ")":
            return depth - 1
        return depth

    def _read_process_substitution(self, builder: WordBuilder) -> None:
        self.bash_only("a process substitution")
        self.pos += 2
        self.read_substitution("process substitution")
        builder.literal("/dev/fd/")
        builder.unknown(PROCESS)

    def _tilde_expands(self, start: int) -> bool:
        # After ``=`` and ``:`` bash expands in assignments, and in arguments that look like one.
        return self.pos == start or self.text[self.pos - 1] in "=:"

    def _read_tilde(self, builder: WordBuilder) -> None:
        match = _TILDE.match(self.text, self.pos)
        if match is not None:
            self.pos = match.end()
        builder.unknown(TILDE)

    def _read_brace(self, builder: WordBuilder, braces: "_Braces", char: str) -> None:
        if char == "{" and (match := _SEQUENCE.match(self.text, self.pos)) is not None:
            builder.unknown(BRACES, may_split=True, number=True)
            self.pos = match.end()
            return
        braces.see(char, doubled=self.peek(1) == "." or self.text[self.pos - 1 : self.pos] == ".")
        if char == "{" and braces.mark is None:
            braces.mark = (len(builder.pieces), len(builder.pieces[-1] or "") if builder.pieces else 0)
        builder.literal(char)
        self.pos += 1

    def _close_globs(self, builder: WordBuilder, braces: "_Braces", bracket: int | None) -> None:
        """Take back what was kept as literal and turns out to be a pattern or braces."""
        if bracket is not None and self.text.find("]", bracket, self.pos) != -1:
            builder.pieces = _before_bracket(builder.pieces)
            builder.unknown(GLOB, may_split=True)
            builder.number = False
        if braces.expand and braces.mark is not None:
            pieces, chars = braces.mark
            kept = builder.pieces[:pieces]
            if kept and isinstance(kept[-1], str):
                kept[-1] = kept[-1][:chars]
            builder.pieces = kept
            builder.unknown(BRACES, may_split=True)
            builder.number = False

    # Assignments.

    def read_assignment(self) -> Assignment | None:
        """Read ``name=value``, ``name+=…``, ``name[…]=…`` or ``name=(…)`` when one stands here; else None."""
        match = _ASSIGNMENT.match(self.text, self.pos)
        if match is None:
            return None
        start = self.pos
        name, operator = match[1], match[2]
        subscript = None
        if operator == "[":
            subscript = self._read_assigned_subscript(name, match.end())
            if subscript is None:
                return None
            operator = "+=" if self.text.startswith("+=", self.pos) else "="
            self.pos += len(operator)
        else:
            self.pos = match.end()
        if self.text.startswith(CONTINUATION, self.pos):
            raise self.fail("a line continuation inside an assignment")
        if operator == "+=" or subscript is not None:
            self.bash_only("this form of assignment")
        if self.peek() == "(" and subscript is None:
            return self._read_array(name, start, appends=operator == "+=")
        value, number = self._read_value()
        assignment = Assignment(
            name, value, self.source.span(start, self.pos), appends=operator == "+=", subscript=subscript
        )
        self.note_assignment(assignment, number=number)
        return assignment

    def _read_assigned_subscript(self, name: str, after_bracket: int) -> str | None:
        """Read ``[…]`` when it is followed by ``=`` or ``+=``; else step back and return None."""
        plain = _PLAIN_SUBSCRIPT.match(self.text, after_bracket - 1)
        if plain is not None:
            following = self.text[plain.end() : plain.end() + 2]
            if not following.startswith("=") and following != "+=":
                return None
            self.pos = plain.end()
            self._note_plain_subscript(plain)
            return plain[1]
        self.pos = after_bracket - 1
        self._read_subscript(name)
        subscript = self.text[after_bracket : self.pos - 1]
        following = self.text[self.pos : self.pos + 2]
        if not following.startswith("=") and following != "+=":
            raise self.fail("a subscript that is no assignment")
        return subscript

    def _note_plain_subscript(self, match: re.Match[str]) -> None:
        if NAME.fullmatch(match[1]) is not None:
            self.findings.use_in_arithmetic(match[1], self.source.span(match.start(1), match.end(1)))

    def _read_value(self) -> tuple[Word, bool]:
        start = self.pos
        builder = WordBuilder()
        if (start < self.end and self.text[start] not in METACHARACTERS) or self.text[start : start + 2] in (
            "<(",
            ">(",
        ):
            self._read_word_pieces(builder, start, regex=False, globs=False)
        span = self.source.span(start, self.pos)
        self.findings.count_word(span)
        builder.may_split = False
        return builder.word(self.text[start : self.pos], span), builder.is_number()

    def _read_array(self, name: str, start: int, *, appends: bool) -> Assignment:
        self.bash_only("an array")
        self.pos += 1
        words: list[Word] = []
        number = True
        while True:
            self.skip_blanks()
            if self.skip_comment():
                continue
            char = self.peek()
            if char == "\n":
                self.pos += 1
            elif char == ")":
                self.pos += 1
                break
            elif char == "[":
                keyed = _PLAIN_SUBSCRIPT.match(self.text, self.pos)
                if keyed is None or not self.text.startswith("=", keyed.end()):
                    raise self.fail("a subscript inside an array's word list")
                self._note_plain_subscript(keyed)
                self.pos = keyed.end() + 1
                word, is_number = self._read_value()
                number = number and is_number
                words.append(word)
            elif not char or (char in METACHARACTERS and self.text[self.pos : self.pos + 2] not in ("<(", ">(")):
                raise self.fail("an array's word list without its end")
            else:
                raw = self.read_word()
                number = number and raw.number
                words.append(raw.word)
        following = self.peek()
        if following and following not in METACHARACTERS:
            raise self.fail("text joined to an array's word list")
        if self.in_substitution and "\\" in self.text[start : self.pos]:
            # bash 5.2 writes the list anew there, loses the backslash, and reads `;`, `"` or `)` as syntax.
            raise self.fail("a backslash in an array's word list inside a substitution", start, self.pos)
        assignment = Assignment(name, None, self.source.span(start, self.pos), appends=appends, words=tuple(words))
        self.note_assignment(assignment, number=number)
        return assignment

    def note_assignment(self, assignment: Assignment, *, number: bool) -> None:
        """Keep what the assignment means for arithmetic and for later declarations."""
        if assignment.words or assignment.subscript is not None or assignment.value is None:
            self.findings.arrays.add(assignment.name)
        self.findings.assign(assignment.name, assignment.span, number=number)


def _before_bracket(pieces: list[str | None]) -> list[str | None]:
    """The pieces before the first literal ``[``; a quoted one may be taken for it, which only loses precision."""
    for index, piece in enumerate(pieces):
        if piece is not None and "[" in piece:
            return [*pieces[:index], piece[: piece.index("[")]]
    return []


class _Braces:
    """Watches unquoted braces: ``{``, later a comma or two dots, later ``}`` may be a brace expansion."""

    __slots__ = ("expand", "mark", "separated")

    def __init__(self) -> None:
        self.mark: tuple[int, int] | None = None
        self.separated = False
        self.expand = False

    def see(self, char: str, *, doubled: bool) -> None:
        if self.mark is None:
            return
        if char == "," or (char == "." and doubled):
            self.separated = True
        elif char == "}" and self.separated:
            self.expand = True

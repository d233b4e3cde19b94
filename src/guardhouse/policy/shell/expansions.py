"""Everything that begins with ``$`` or a backquote, and double quotes, where most of it stands.

Finds every command inside and says which pieces of a word's value are known. Anything beyond the forms written
here ends reading. Knows no grammar: ``read_substitution`` is given by the class that does. Pure.

Source for every rule: bash 5.2, parse.y (``read_token_word``, ``parse_matched_pair``, ``parse_comsub``) and subst.c.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

from guardhouse.policy.shell.ansi_c import decode_ansi_c
from guardhouse.policy.shell.findings import Source
from guardhouse.policy.shell.scanner import CONTINUATION, Scanner, WordBuilder
from guardhouse.policy.shell.variables import why_assignment_matters

__all__ = ["NAME", "ExpansionScanner"]

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DIGITS: Final = re.compile(r"[0-9]+")
_DOUBLE_QUOTED: Final = re.compile(r'[^"\\$`\x00\x01\x7f]+')
_SINGLE_QUOTED: Final = re.compile(r"[^'\x00\x01\x7f]*+'")
_ANSI_QUOTED: Final = re.compile(r"(?:[^'\\\x00\x01\x7f]++|\\[^\x00\x01\x7f])*+'", re.DOTALL)
_BACKQUOTED: Final = re.compile(r"(?:[^`\\\x00]++|\\[^\x00])*+`", re.DOTALL)
_BRACED_TEXT: Final = re.compile(r"[^}'\"\\$`<>\x00\x01\x7f]+")
_OPERATOR: Final = re.compile(r":?[-=?+]|##?|%%?|//|/[#%]?|\^\^?|,,?|@|:")
_NUMBER_WORD: Final = re.compile(r"-?[0-9]{1,18}")
_ARITHMETIC_SAFE: Final = re.compile(r"[ \t\n]+|[-+*/%<>=!&|^~?:,]+")
_ARITHMETIC_NUMBER: Final = re.compile(
    r"[0-9]+(?:#[0-9A-Za-z@_]+|[xX][0-9A-Fa-f]+)?(?![0-9A-Za-z_#@])|0[xX][0-9A-Fa-f]+(?![0-9A-Za-z_#@])"
)
_POSIX_OPERATORS: Final = frozenset(["#", "##", "%", "%%", "-", "=", "?", "+", ":-", ":=", ":?", ":+"])

VARIABLE: Final = "the value of a variable is known only when it runs"
OUTPUT: Final = "a command's output is known only when it runs"
NUMBER: Final = "the result of arithmetic is known only when it runs"


@dataclass(frozen=True, slots=True)
class _Parameter:
    """What ``${…}`` held: enough to judge it where it stands inside arithmetic."""

    name: str
    is_length: bool
    plain: bool


class ExpansionScanner(Scanner, ABC):
    """Reads expansions at the position; each method leaves the position behind what it read."""

    @abstractmethod
    def read_substitution(self, close_via: str) -> None:
        """Read the command list after ``$(``, ``<(`` or ``>(`` and its ``)``."""

    @abstractmethod
    def read_text(self, source: Source, via: tuple[str, ...]) -> None:
        """Read a whole text of its own (backquotes) with the grammar."""

    # Quotes.

    def read_single_quoted(self, builder: WordBuilder) -> None:
        """Read ``'…'`` at the position."""
        match = _SINGLE_QUOTED.match(self.text, self.pos + 1)
        if match is None:
            raise self.fail("a single quote without its end, or a control character inside")
        builder.literal(self.text[self.pos + 1 : match.end() - 1])
        builder.quoted = True
        self.pos = match.end()

    def read_double_quoted(self, builder: WordBuilder) -> None:
        """Read ``"…"`` at the position."""
        opened = self.pos
        self.pos += 1
        builder.quoted = True
        builder.literal("")
        while True:
            match = _DOUBLE_QUOTED.match(self.text, self.pos)
            if match is not None:
                builder.literal(match[0])
                self.pos = match.end()
            char = self.peek()
            if char == '"':
                self.pos += 1
                return
            if char == "\\":
                self._read_quoted_backslash(builder, '$`"\\')
            elif char == "$":
                self.read_dollar(builder, quoted=True)
            elif char == "`":
                self.read_backquoted(builder, quoted=True)
            elif not char:
                raise self.fail("a double quote without its end", opened)
            else:
                raise self.fail("a control character that bash treats specially")

    def _read_quoted_backslash(self, builder: WordBuilder, special: str) -> None:
        following = self.peek(1)
        if not following:
            raise self.fail("a backslash at the end")
        if following in "\x00\x01\x7f":
            raise self.fail("a control character that bash treats specially")
        if following == "\n":
            pass
        elif following in special:
            builder.literal(following)
        else:
            builder.literal("\\" + following)
        self.pos += 2

    def read_heredoc_body(self) -> None:
        """Read the whole source as the body of a here-document whose delimiter is not quoted."""
        builder = WordBuilder()
        body = re.compile(r"[^\\$`\x00\x01\x7f]+")
        while self.pos < self.end:
            match = body.match(self.text, self.pos)
            if match is not None:
                self.pos = match.end()
                continue
            char = self.peek()
            if char == "\\" and self.peek(1):
                self._read_quoted_backslash(builder, "$`\\")
            elif char == "$":
                self.read_dollar(builder, quoted=True, heredoc=True)
            elif char == "`":
                self.read_backquoted(builder, quoted=True)
            else:
                raise self.fail("a character that bash treats specially")

    # Substitutions.

    def read_backquoted(self, builder: WordBuilder, *, quoted: bool) -> None:
        """Read a backquoted substitution; its text is unescaped and then read as a text of its own."""
        start = self.pos
        match = _BACKQUOTED.match(self.text, start + 1)
        if match is None:
            raise self.fail("a backquote without its end")
        inner = self.text[start + 1 : match.end() - 1]
        source = self.source
        if "\\" not in inner and isinstance(source.origin, int):
            nested = Source(inner, source.origin + start + 1, dialect=source.dialect, level=source.level)
        elif "\\" not in inner:
            nested = Source(inner, source.span(start, match.end()), dialect=source.dialect, level=source.level)
        elif quoted:
            raise self.fail("a backslash in backquotes in double quotes", start, match.end())
        else:
            nested = self._unescape_backquoted(inner, start + 1)
        self.read_text(nested, (*self.via, "substitution"))
        self.pos = match.end()
        builder.unknown(OUTPUT, may_split=not quoted)

    def _unescape_backquoted(self, inner: str, start: int) -> Source:
        kept: list[str] = []
        places: list[int] = []
        at = 0
        while at < len(inner):
            place = self.source.span(start + at, start + at)[0]
            if inner[at] == "\\" and at + 1 < len(inner):
                following = inner[at + 1]
                if following != "\n":
                    pair = following if following in "$`\\" else "\\" + following
                    kept.append(pair)
                    places.extend([place] * len(pair))
                at += 2
            else:
                kept.append(inner[at])
                places.append(place)
                at += 1
        places.append(self.source.span(start + at, start + at)[0])
        return Source("".join(kept), places, dialect=self.source.dialect, level=self.source.level)

    def read_dollar(self, builder: WordBuilder, *, quoted: bool, heredoc: bool = False) -> None:
        """Read whatever begins with ``$`` at the position, the lone dollar sign included."""
        following = self.peek(1)
        if following == "(":
            if self.peek(2) == "(":
                self.pos += 3
                self.read_arithmetic("))")
                builder.unknown(NUMBER, number=True)
            else:
                self.pos += 2
                self.read_substitution("substitution")
                builder.unknown(OUTPUT, may_split=not quoted)
        elif following == "{":
            self._read_parameter(builder, quoted=quoted, heredoc=heredoc)
        elif following == "[":
            self.bash_only("$[…]")
            self.pos += 2
            self.read_arithmetic("]")
            builder.unknown(NUMBER, number=True)
        elif following and following in "'\"" and not quoted:
            self.bash_only(f"${following}")
            self.pos += 1
            if following == '"':
                self.read_double_quoted(builder)
            else:
                self._read_ansi_quoted(builder)
        elif (name := NAME.match(self.text, self.pos + 1)) is not None:
            self.pos = name.end()
            self._refuse_continued_name()
            builder.unknown(VARIABLE, may_split=not quoted)
        elif following and following in "0123456789@*#?-$!":
            self.pos += 2
            if following == "$" and self.peek() and self.peek() in "{(['\"":
                # Inside double quotes the lexer takes the second dollar sign for the start of an expansion.
                raise self.fail("$$ before a character that makes an expansion of its second half")
            split = following == "@" or (not quoted and following not in "#?$")
            builder.unknown(VARIABLE, may_split=split, number=following in "#?$!")
        elif self.text.startswith(CONTINUATION, self.pos + 1):
            raise self.fail("a line continuation after a dollar sign")
        else:
            builder.literal("$")
            self.pos += 1

    def _refuse_continued_name(self) -> None:
        if self.text.startswith(CONTINUATION, self.pos):
            raise self.fail("a line continuation inside an expansion")

    def _read_ansi_quoted(self, builder: WordBuilder) -> None:
        match = _ANSI_QUOTED.match(self.text, self.pos + 1)
        if match is None:
            raise self.fail("$' without its end, or a control character inside")
        builder.quoted = True
        value = decode_ansi_c(self.text[self.pos + 1 : match.end() - 1])
        if value is None:
            builder.unknown("an escape in $'…' whose value depends on the locale or the release")
        else:
            builder.literal(value)
        self.pos = match.end()

    # Parameters.

    def _read_parameter(self, builder: WordBuilder, *, quoted: bool, heredoc: bool) -> _Parameter:
        start = self.pos
        self.pos += 2
        char = self.peek()
        if char == "#" and self.peek(1) != "}":
            return self._read_length(builder)
        indirect = char == "!" and self.peek(1) != "}"
        if indirect:
            self.bash_only("${!…}")
            self.pos += 1
        name = self._read_parameter_name()
        keys = self.peek()
        if indirect and keys and keys in "*@" and self.peek(1) == "}":
            self.pos += 2
            builder.unknown(VARIABLE, may_split=keys == "@" or not quoted)
            return _Parameter(name, is_length=False, plain=False)
        subscript = self._read_subscript(name) if self.peek() == "[" else None
        if indirect and not (subscript in ("@", "*") and self.peek() == "}"):
            self.findings.add_undecided(
                self.source.span(start, self.pos), "${!…} takes a variable's content for a name, subscripts included"
            )
        splits = not quoted or name == "@" or subscript == "@"
        plain = not indirect and subscript is None and self.peek() == "}"
        if self.peek() == "}":
            self.pos += 1
            number = name in ("#", "?", "$")
            builder.unknown(VARIABLE, may_split=splits and not number, number=number)
            return _Parameter(name, is_length=False, plain=plain)
        number_default = self._read_parameter_operation(name, start, quoted=quoted, heredoc=heredoc)
        builder.unknown(VARIABLE, may_split=splits)
        return _Parameter(name, is_length=False, plain=number_default and subscript is None and not indirect)

    def _read_length(self, builder: WordBuilder) -> _Parameter:
        self.pos += 1
        name = self._read_parameter_name()
        if self.peek() == "[":
            self._read_subscript(name)
        if self.peek() != "}":
            raise self.fail("a form of ${#…} that is not known")
        self.pos += 1
        builder.unknown(NUMBER, number=True)
        return _Parameter(name, is_length=True, plain=False)

    def _read_parameter_name(self) -> str:
        match = NAME.match(self.text, self.pos) or _DIGITS.match(self.text, self.pos)
        if match is not None:
            self.pos = match.end()
            self._refuse_continued_name()
            return match[0]
        char = self.peek()
        if char and char in "@*#?-$!":
            self.pos += 1
            return char
        raise self.fail("a form of ${…} that is not known")

    def _read_subscript(self, name: str) -> str:
        self.bash_only("an array")
        if NAME.fullmatch(name) is None:
            raise self.fail("a subscript after a special parameter")
        self.pos += 1
        whole = self.peek()
        if whole and whole in "@*" and self.peek(1) == "]":
            self.pos += 2
            return whole
        start = self.pos
        self.read_arithmetic("]")
        return self.text[start : self.pos - 1]

    def _read_parameter_operation(self, name: str, start: int, *, quoted: bool, heredoc: bool) -> bool:
        """Read the operator and its word; return whether the result is the variable or a literal number."""
        match = _OPERATOR.match(self.text, self.pos)
        if match is None:
            raise self.fail("a form of ${…} that is not known")
        operator = match[0]
        self.pos = match.end()
        if self.posix and operator not in _POSIX_OPERATORS:
            self.bash_only(f"${{…{operator}…}}")
        if self.text.startswith(CONTINUATION, self.pos):
            raise self.fail("a line continuation inside an expansion")
        if operator == ":":
            if self.read_arithmetic(":}") == ":":
                self.read_arithmetic("}")
            return False
        if operator == "@":
            letter = self.peek()
            if not letter or letter not in "UuLQEPAKak" or self.peek(1) != "}":
                raise self.fail("a form of ${…@…} that is not known")
            self.pos += 2
            if letter == "P":
                self.findings.add_undecided(
                    self.source.span(start, self.pos), "${…@P} expands a variable's content, substitutions included"
                )
            return False
        word_start = self.pos
        word = WordBuilder()
        self._read_braced_word(word, quoted=quoted, heredoc=heredoc)
        literal_number = _NUMBER_WORD.fullmatch(self.text, word_start, self.pos - 1) is not None
        if operator in ("=", ":="):
            span = self.source.span(start, self.pos)
            if NAME.fullmatch(name) is not None:
                self.findings.assign(name, span, number=literal_number)
            value = self.text[word_start : self.pos - 1] if word.reason is None and not word.quoted else None
            if (why := why_assignment_matters(name, value)) is not None:
                self.findings.add_undecided(span, why)
        return literal_number and operator in ("-", ":-", "=", ":=", "+", ":+")

    def _read_braced_word(self, word: WordBuilder, *, quoted: bool, heredoc: bool) -> None:
        self.deeper()
        while True:
            match = _BRACED_TEXT.match(self.text, self.pos)
            if match is not None:
                word.literal(match[0])
                self.pos = match.end()
            char = self.peek()
            if char == "}":
                self.pos += 1
                self.depth -= 1
                return
            if not char:
                raise self.fail("${ without its end")
            if char == "\\" and self.peek(1):
                word.quoted = True
                self._read_quoted_backslash(word, "")
            elif char == "$":
                self.read_dollar(word, quoted=quoted, heredoc=heredoc)
            elif char == "`":
                self.read_backquoted(word, quoted=quoted)
            elif char == '"' and not heredoc:
                self.read_double_quoted(word)
            elif char == "'" and not quoted:
                self.read_single_quoted(word)
            elif char in "<>" and self.peek(1) != "(":
                word.literal(char)
                self.pos += 1
            else:
                raise self.fail("a quote or substitution inside ${…} that shells read differently")

    # Arithmetic.

    def read_arithmetic(self, closers: str) -> str:
        """Read an arithmetic expression and what ends it; return the closer found.

        Args:
            closers: ``"))"`` as one closer, or a string of single characters each of which ends it.

        Every variable is noted, since its content is evaluated in turn; a command's output is undecided for the
        same reason.
        """
        self.deeper()
        start = self.pos
        parentheses = 0
        double = closers == "))"
        while True:
            char = self.peek()
            if not char:
                raise self.fail("arithmetic without its end", start)
            if parentheses == 0:
                if double and char == ")":
                    if self.peek(1) != ")":
                        raise self.fail("$(( or (( that may be a substitution or a subshell", start, self.pos + 1)
                    self.pos += 2
                    self.depth -= 1
                    return closers
                if not double and char in closers:
                    self.pos += 1
                    self.depth -= 1
                    return char
            if char == "(":
                parentheses += 1
                self.pos += 1
            elif char == ")":
                parentheses -= 1
                if parentheses < 0:
                    raise self.fail("an unbalanced parenthesis in arithmetic")
                self.pos += 1
            elif char == "?" and ":" in closers:
                raise self.fail("a conditional expression in ${…:…}")
            else:
                self._read_arithmetic_token(char)

    def _read_arithmetic_token(self, char: str) -> None:
        if char == "$":
            self._read_arithmetic_dollar()
        elif char == "`":
            at = self.pos
            self.read_backquoted(WordBuilder(), quoted=True)
            self.findings.add_undecided(self.source.span(at, self.pos), _OUTPUT_AS_ARITHMETIC)
        elif (match := NAME.match(self.text, self.pos)) is not None:
            self._read_arithmetic_name(match)
        elif (match := _ARITHMETIC_NUMBER.match(self.text, self.pos)) is not None:
            self.pos = match.end()
            if self.text.startswith(CONTINUATION, self.pos):
                raise self.fail("a line continuation inside a number")
        elif self.text.startswith(CONTINUATION, self.pos):
            self.pos += 2
        elif char == ":":
            # One at a time: in ${…:…:…} each ends an expression.
            self.pos += 1
        elif (match := _ARITHMETIC_SAFE.match(self.text, self.pos)) is not None:
            text = match[0]
            if text[-1] in "<>" and self.text.startswith("(", match.end()):
                raise self.fail("a process substitution or a comparison in arithmetic")
            cut = text.find(":")
            self.pos += len(text) if cut <= 0 else cut
        else:
            raise self.fail("a character in arithmetic that is not known")

    def _read_arithmetic_name(self, match: re.Match[str]) -> None:
        name = match[0]
        start = self.pos
        self.pos = match.end()
        self._refuse_continued_name()
        if self.peek() == "[":
            self._read_subscript(name)
        span = self.source.span(start, self.pos)
        self.findings.use_in_arithmetic(name, span)
        # Any use may be an assignment (``++ PATH``); what it assigns is a number.
        if (why := why_assignment_matters(name, "0")) is not None:
            self.findings.add_undecided(span, why)

    def _read_arithmetic_dollar(self) -> None:
        start = self.pos
        following = self.peek(1)
        if following == "(" and self.peek(2) != "(":
            self.read_dollar(WordBuilder(), quoted=True)
            self.findings.add_undecided(self.source.span(start, self.pos), _OUTPUT_AS_ARITHMETIC)
            return
        if following == "{":
            parameter = self._read_parameter(WordBuilder(), quoted=True, heredoc=False)
            span = self.source.span(start, self.pos)
            if parameter.is_length or parameter.name in ("#", "?", "$"):
                return
            if parameter.plain and NAME.fullmatch(parameter.name) is not None:
                self.findings.use_in_arithmetic(parameter.name, span)
            else:
                self.findings.add_undecided(span, _TEXT_AS_ARITHMETIC)
            return
        name = NAME.match(self.text, self.pos + 1)
        if name is not None:
            self.pos = name.end()
            self._refuse_continued_name()
            self.findings.use_in_arithmetic(name[0], self.source.span(start, self.pos))
            return
        if following not in ("(", "[", "#", "?", "$"):
            if not following or following not in "0123456789@*!-":
                raise self.fail("a dollar sign in arithmetic that is not known")
            self.findings.add_undecided(self.source.span(start, self.pos + 2), _TEXT_AS_ARITHMETIC)
        self.read_dollar(WordBuilder(), quoted=True)


_OUTPUT_AS_ARITHMETIC: Final = "a command's output is evaluated as arithmetic, which can run commands in subscripts"
_TEXT_AS_ARITHMETIC: Final = "a value is evaluated as arithmetic, which can run commands in subscripts"

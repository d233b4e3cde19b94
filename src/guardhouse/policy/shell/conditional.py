"""``[[ … ]]``: its operands are words, some of them arithmetic or names with subscripts.

Knows no command. Pure. Source: bash 5.2, parse.y (``cond_expr``) and test.c.
"""

import re
from typing import Final

from guardhouse.policy.shell.expansions import NAME
from guardhouse.policy.shell.reading import Word
from guardhouse.policy.shell.words import METACHARACTERS, WordScanner

__all__ = ["ConditionalScanner"]

_UNARY: Final = re.compile(r"-[abcdefghknoprstuvwxzGLNORS](?=[ \t])")
_BINARY: Final = re.compile(r"(?:==|=~|=|!=|-(?:eq|ne|lt|le|gt|ge|nt|ot|ef))(?=[ \t])|[<>](?!\()")
_END: Final = re.compile(r"\]\](?=[ \t\n;&|<>()]|\Z)")
_ARITHMETIC: Final = frozenset({"-eq", "-ne", "-lt", "-le", "-gt", "-ge"})
_NUMBER: Final = re.compile(r"-?[0-9]{1,18}")


class ConditionalScanner(WordScanner):
    """Reads conditional expressions."""

    def read_test(self, start: int) -> None:
        """Read the expression after ``[[`` and its ``]]``."""
        self._read_or()
        self._skip_test_blanks()
        match = _END.match(self.text, self.pos)
        if match is None:
            raise self.fail("[[ without its end, or an operator that is not known", start)
        self.pos = match.end()

    def _skip_test_blanks(self) -> None:
        while True:
            self.skip_blanks()
            if self.peek() != "\n":
                return
            if self.waits_for_heredoc():
                raise self.fail("a newline in [[ while a here-document waits")
            self.pos += 1

    def _read_or(self) -> None:
        while True:
            self._read_term()
            self._skip_test_blanks()
            if self.text.startswith(("&&", "||"), self.pos):
                self.pos += 2
                self.check_continuation_after_operator()
                continue
            return

    def _read_term(self) -> None:
        self._skip_test_blanks()
        if self.text.startswith("!", self.pos) and self.text[self.pos + 1 : self.pos + 2] in (" ", "\t", "("):
            self.pos += 1
            self._read_term_deeper()
            return
        if self.peek() == "(":
            self.pos += 1
            self.deeper()
            self._read_or()
            self.depth -= 1
            self._skip_test_blanks()
            if self.peek() != ")":
                raise self.fail("a parenthesis in [[ without its end")
            self.pos += 1
            return
        unary = _UNARY.match(self.text, self.pos)
        if unary is not None:
            self._read_unary(unary)
            return
        left, left_number = self._read_operand()
        self.skip_blanks()
        binary = _BINARY.match(self.text, self.pos)
        if binary is None:
            return
        self.pos = binary.end()
        self.skip_blanks()
        right, right_number = self._read_operand(regex=binary[0] == "=~")
        if binary[0] in _ARITHMETIC:
            self._note_arithmetic(left, number=left_number)
            self._note_arithmetic(right, number=right_number)

    def _read_term_deeper(self) -> None:
        self.deeper()
        self._read_term()
        self.depth -= 1

    def _read_unary(self, unary: re.Match[str]) -> None:
        self.pos = unary.end()
        self.skip_blanks()
        word, number = self._read_operand()
        if unary[0] in ("-v", "-R") and (word.value is None or NAME.fullmatch(word.value) is None):
            self.findings.add_undecided(word.span, "the subscript of a name that is tested is evaluated")
        elif unary[0] == "-t":
            self._note_arithmetic(word, number=number)

    def _read_operand(self, *, regex: bool = False) -> tuple[Word, bool]:
        char = self.peek()
        if _END.match(self.text, self.pos) is not None or (not regex and char == "("):
            raise self.fail("an operand was expected in [[")
        opens = self.text[self.pos : self.pos + 2] in ("<(", ">(")
        if not char or (char in METACHARACTERS and not opens and not (regex and char in "(|")):
            raise self.fail("an operand was expected in [[")
        raw = self.read_word(regex=regex, globs=False)
        return raw.word, raw.number

    def _note_arithmetic(self, word: Word, *, number: bool) -> None:
        if number or (word.value is not None and _NUMBER.fullmatch(word.value) is not None):
            return
        if word.value is not None and NAME.fullmatch(word.value) is not None:
            self.findings.use_in_arithmetic(word.value, word.span)
            return
        variable = _ONE_VARIABLE.fullmatch(word.text)
        if variable is not None:
            self.findings.use_in_arithmetic(variable[1] or variable[2], word.span)
            return
        self.findings.add_undecided(
            word.span, "a value is evaluated as arithmetic, which can run commands in subscripts"
        )


_ONE_VARIABLE: Final = re.compile(r'"?\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})"?')

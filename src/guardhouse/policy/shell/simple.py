"""Simple commands: assignments, words and redirections, in the order in which they stand.

Knows no list and no compound command; a function definition that begins like a simple command is handed on. Pure.
Source: bash 5.2, parse.y (``simple_command``).
"""

import re
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Final

from guardhouse.policy.shell.builtins import DECLARATIONS
from guardhouse.policy.shell.findings import Found
from guardhouse.policy.shell.reading import Assignment, Redirection, SimpleCommand, Word
from guardhouse.policy.shell.redirections import RedirectionScanner
from guardhouse.policy.shell.words import METACHARACTERS, RawWord

__all__ = ["FUNCTION_PARENTHESES", "SimpleCommandScanner"]

FUNCTION_PARENTHESES: Final = re.compile(r"[ \t]*\([ \t]*\)")


@dataclass(slots=True)
class _Simple:
    """A simple command as it grows."""

    start: int
    end: int
    words: list[Word] = field(default_factory=list)
    assignments: list[Assignment] = field(default_factory=list)
    redirections: list[Redirection] = field(default_factory=list)


class SimpleCommandScanner(RedirectionScanner):
    """Reads one simple command and keeps it."""

    @abstractmethod
    def read_function_body(self, raw: RawWord, start: int) -> None:
        """Read the body of the function that ``raw`` names, after its parentheses."""

    def read_simple(self) -> None:
        """Read a simple command, or hand on the function definition that it turns out to be."""
        simple = _Simple(self.pos, self.pos)
        declares = False
        while True:
            self.skip_blanks()
            if self.pos >= self.end or self.text[self.pos] == "#":
                break
            redirection = self.read_redirection()
            if redirection is not None:
                simple.redirections.append(redirection)
                simple.end = self.pos
                continue
            char = self.text[self.pos]
            if char in METACHARACTERS and self.text[self.pos : self.pos + 2] not in ("<(", ">("):
                break
            if not simple.words or declares:
                assignment = self._read_assignment_here(simple, argument=bool(simple.words))
                if assignment:
                    simple.end = self.pos
                    continue
            raw = self.read_argument()
            if not simple.words:
                if self._is_function_definition(raw, simple):
                    self.read_function_body(raw, simple.start)
                    return
                declares = raw.plain and raw.word.value in DECLARATIONS
            simple.words.append(raw.word)
            simple.end = self.pos
        if self.peek() == "(":
            raise self.fail("a parenthesis where no command can begin")
        if simple.end <= simple.start and not (simple.words or simple.assignments or simple.redirections):
            raise self.fail("a command was expected")
        self._keep(simple)

    def _read_assignment_here(self, simple: _Simple, *, argument: bool) -> bool:
        start = self.pos
        assignment = self.read_assignment()
        if assignment is None:
            return False
        if self.waits_for_heredoc() and "\n" in self.text[start : self.pos]:
            raise self.fail("a newline in a word while a here-document waits", start, self.pos)
        if argument and self.posix and assignment.value is not None and assignment.value.value is None:
            raise self.fail("an expansion that shells other than bash split", start, self.pos)
        if self.pos < self.end and self.text[self.pos] not in METACHARACTERS:
            raise self.fail("text joined to an assignment", start, self.pos)
        if not argument:
            simple.assignments.append(assignment)
            return True
        simple.words.append(self._declared_word(assignment, start))
        simple.assignments.append(assignment)
        return True

    def _declared_word(self, assignment: Assignment, start: int) -> Word:
        """The argument of ``declare`` and its like, whose value the builtin assigns itself."""
        text = self.text[start : self.pos]
        value = assignment.value
        if value is None:
            prefix = text[: text.index("(")]
            return Word(text, assignment.span, None, (prefix, None), "an array's word list")
        prefix = text[: len(text) - len(value.text)]
        if value.value is not None:
            exact = prefix + value.value
            return Word(text, assignment.span, exact, (exact,))
        pattern: tuple[str | None, ...] = (prefix, *value.pattern)
        if value.pattern and value.pattern[0] is not None:
            pattern = (prefix + value.pattern[0], *value.pattern[1:])
        return Word(text, assignment.span, None, pattern, value.undecided_because)

    def _is_function_definition(self, raw: RawWord, simple: _Simple) -> bool:
        match = FUNCTION_PARENTHESES.match(self.text, self.pos)
        if match is None:
            return False
        if simple.assignments or simple.redirections or not raw.plain:
            raise self.fail("a parenthesis where no command can begin", raw.start, match.end())
        self.pos = match.end()
        return True

    def _keep(self, simple: _Simple) -> None:
        if not simple.words:
            for assignment in simple.assignments:
                self.check_assignment(assignment)
            self.findings.redirections.extend(simple.redirections)
            self.findings.assignments.extend(simple.assignments)
            return
        span = self.source.span(simple.start, simple.end)
        command = SimpleCommand(
            tuple(simple.words),
            tuple(simple.assignments),
            tuple(simple.redirections),
            span,
            self.text[simple.start : simple.end],
            self.via,
        )
        self.findings.add_command(Found(command, self.source, in_function=self.in_function))

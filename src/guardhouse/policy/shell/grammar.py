"""Lists and pipelines: bash's grammar, as far as it is positively understood.

Collects every simple command with its words, redirections and assignments; judges none of them. Whatever does not
fit ends reading, so that no part of a text is skipped. Pure. Source: bash 5.2, parse.y.
"""

import re
from typing import Final

from guardhouse.policy.shell.compounds import CompoundScanner
from guardhouse.policy.shell.findings import CannotRead, Findings, Source
from guardhouse.policy.shell.recovery import end_of_simple

__all__ = ["Grammar", "read_source"]

_TIME_OPTION: Final = re.compile(r"-p(?=[ \t\n;&|])")
_END_OF_TEXT: Final[frozenset[str]] = frozenset()


class Grammar(CompoundScanner):
    """Reads one source from its start to its end."""

    def read_program(self) -> None:
        """Read the whole source as a list of commands."""
        self.read_list(_END_OF_TEXT, allow_empty=True)
        if self.pos < self.end:
            raise self.fail(f"{self.text[self.pos]!r} where no command can begin")
        if self.pending:
            raise self.fail("a here-document without its end", self.pending[0].start)

    # What expansions ask of the grammar.

    def read_substitution(self, close_via: str) -> None:
        """Read a list up to its ``)`` in this same text."""
        self.deeper()
        via, pending, uncertain = self.via, self.pending, self.uncertain
        self.via = (*via, close_via)
        self.outer_pending += len(pending)
        self.pending = []
        self.uncertain += 1
        self.in_substitution += 1
        self.read_list(frozenset({")"}), allow_empty=True)
        if self.peek() != ")":
            raise self.fail("a substitution without its end")
        if self.pending:
            raise self.fail("a here-document that a substitution does not end", self.pending[0].start)
        self.pos += 1
        self.via, self.pending, self.uncertain = via, pending, uncertain
        self.outer_pending -= len(pending)
        self.in_substitution -= 1
        self.depth -= 1

    def read_text(self, source: Source, via: tuple[str, ...]) -> None:
        """Read a text of its own with a grammar of its own."""
        self.deeper()
        self.nested(source, via).read_program()
        self.depth -= 1

    # Lists.

    def read_list(self, closers: frozenset[str], *, allow_empty: bool = False) -> None:
        """Read commands until one of ``closers`` stands at the position, which stays there, or the text ends."""
        count = 0
        separated = True
        while True:
            self.skip_newlines()
            if self.pos >= self.end:
                break
            char = self.text[self.pos]
            if char in ";)" and self.operator_here() in closers:
                break
            reserved = self.reserved_here()
            if reserved is not None and reserved in closers:
                break
            if not separated:
                raise self.fail("text after a command that does not continue it")
            self._read_and_or()
            count += 1
            separated = self._read_separator()
        if count == 0 and not allow_empty:
            raise self.fail("a command was expected")

    def _read_separator(self) -> bool:
        self.skip_blanks()
        char = self.peek()
        if char == ";" and self.operator_here() == ";":
            self.pos += 1
            self.check_continuation_after_operator()
            return True
        if char == "&" and self.operator_here() == "&":
            self.pos += 1
            self.check_continuation_after_operator()
            return True
        return char in ("\n", "#")

    def _read_and_or(self) -> None:
        functions = len(self.findings.functions)
        self._read_pipeline()
        conditional = 0
        while True:
            self.skip_blanks()
            operator = self.operator_here()
            if operator in ("&&", "||"):
                self.pos += 2
                self.check_continuation_after_operator()
                self.skip_newlines()
                conditional += 1
                self.uncertain += 1
                self._read_pipeline()
                continue
            break
        self.uncertain -= conditional
        if operator == "&":
            self.doubt_functions(functions)

    def _read_pipeline(self) -> None:
        functions = len(self.findings.functions)
        if self._read_pipeline_prefix():
            return
        self._read_command_or_pass()
        piped = False
        while True:
            self.skip_blanks()
            operator = self.operator_here()
            if operator not in ("|", "|&"):
                break
            if operator == "|&":
                self.bash_only("|&")
            self.pos += len(operator)
            self.check_continuation_after_operator()
            self.skip_newlines()
            piped = True
            self._read_command_or_pass()
        if piped:
            self.doubt_functions(functions)

    def _read_pipeline_prefix(self) -> bool:
        """Step over ``!`` and ``time [-p]``; return whether nothing follows them."""
        seen = False
        while (reserved := self.reserved_here()) in ("!", "time"):
            seen = True
            self.pos += len(reserved or "")
            self.skip_blanks()
            if reserved == "time":
                self.bash_only("time")
                if self.text.startswith("-", self.pos):
                    if _TIME_OPTION.match(self.text, self.pos) is None:
                        raise self.fail("an option of time that is not known")
                    self.pos += 2
                    self.skip_blanks()
        if not seen:
            return False
        if self.pos >= self.end or self.peek() == "\n" or self.operator_here() == ";":
            self.bash_only("an empty pipeline")
            return True
        return False

    # Commands.

    def _read_command_or_pass(self) -> None:
        """Read one command; step over a simple one that cannot be read, where its end is certain."""
        start = self.pos
        state = self.depth, self.via, self.uncertain, self.in_substitution, self.in_function
        waits = self.waits_for_heredoc()
        try:
            self.read_command()
        except CannotRead as error:
            self.pos = start
            end = None if waits or self.reserved_here() is not None else end_of_simple(self.text, start)
            if end is None or end == start:
                raise
            self.depth, self.via, self.uncertain, self.in_substitution, self.in_function = state
            self.findings.pass_over(error)
            self.pos = end

    def read_command(self) -> None:
        """Read one command of any kind."""
        char = self.peek()
        if char == "(":
            if self.peek(1) == "(":
                self.read_arithmetic_command()
            else:
                self.read_subshell()
            self.read_compound_redirections()
            return
        reserved = self.reserved_here()
        if reserved is None:
            self.read_simple()
            return
        self.deeper()
        start = self.pos
        self.pos += len(reserved)
        self.read_compound(reserved, start)
        self.depth -= 1
        if reserved not in ("function", "coproc"):
            self.read_compound_redirections()


def read_source(
    source: Source, findings: Findings, *, via: tuple[str, ...] = (), depth: int = 0, in_function: bool = False
) -> None:
    """Read one source into ``findings``.

    Raises:
        CannotRead: at the first place that is not positively understood; what was found before it is kept.
    """
    Grammar(source, findings, via=via, depth=depth, in_function=in_function).read_program()

"""What has been found so far while one text is read, and the errors and sources that reading it needs.

The one mutable thing in this package: it lives for one call of ``read_command``. Knows no grammar. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from guardhouse import limits
from guardhouse.policy.shell.reading import Assignment, Redirection, SimpleCommand, Span, Undecided

__all__ = ["CannotRead", "Findings", "Found", "Function", "Source"]


class CannotRead(Exception):  # noqa: N818 - an answer inside this package, never seen outside
    """The reader meets something that it does not positively understand. Becomes an ``Undecided``."""

    def __init__(self, because: str, span: Span) -> None:
        super().__init__(because)
        self.because = because
        self.span = span


class Source:
    """A text to read, and where each of its characters stands in the text that was asked about.

    ``origin`` is an offset (the text is a slice), a list of offsets, one longer than the text (escapes were taken
    out), or a span that stands for every character (the text is the value of a word).
    """

    __slots__ = ("dialect", "level", "origin", "text")

    def __init__(self, text: str, origin: int | Sequence[int] | Span, *, dialect: str = "bash", level: int = 0) -> None:
        self.text = text
        self.origin = origin
        self.dialect = dialect
        self.level = level

    def span(self, start: int, end: int) -> Span:
        """The place of ``text[start:end]`` in the text that was asked about."""
        origin = self.origin
        if isinstance(origin, int):
            return (origin + start, origin + end)
        if isinstance(origin, tuple):
            return (origin[0], origin[1])
        return (origin[start], origin[end])


@dataclass(slots=True)
class Found:
    """A simple command, and what analysing it needs: how deep in texts within texts, and whose language."""

    command: SimpleCommand
    source: Source
    wrapped: int = 0
    in_function: bool = False
    via_builtin: bool = False


@dataclass(slots=True)
class Function:
    """A function definition; ``certain`` when nothing can have skipped it where later text runs."""

    name: str
    order: int
    certain: bool


@dataclass(slots=True)
class Findings:
    """Collects; every limit on counts is held here."""

    commands: list[Found] = field(default_factory=list)
    redirections: list[Redirection] = field(default_factory=list)
    assignments: list[Assignment] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)
    functions_by_name: dict[str, list[Function]] = field(default_factory=dict)
    undecided: list[Undecided] = field(default_factory=list)
    # ``$_`` is the last word of the command before, whatever that was.
    texts: dict[str, Span] = field(default_factory=lambda: {"_": (0, 0)})
    arithmetic: dict[str, Span] = field(default_factory=dict)
    arrays: set[str] = field(default_factory=set)
    declared: dict[str, Span] = field(default_factory=dict)
    unset_functions: bool = False
    words: int = 0
    passed_over: int = 0

    def count_word(self, span: Span) -> None:
        """Count one word; the limit holds over all texts within the text."""
        self.words += 1
        if self.words > limits.SHELL_WORDS_MAX:
            raise CannotRead(f"more than {limits.SHELL_WORDS_MAX} words", span)

    def add_command(self, found: Found) -> None:
        """Keep one simple command."""
        if len(self.commands) >= limits.SHELL_COMMANDS_MAX:
            raise CannotRead(f"more than {limits.SHELL_COMMANDS_MAX} commands", found.command.span)
        self.commands.append(found)

    def add_function(self, function: Function) -> None:
        """Keep one function definition."""
        self.functions.append(function)
        kept = self.functions_by_name.setdefault(function.name, [])
        if len(kept) < _DEFINITIONS_KEPT:
            kept.append(function)

    def pass_over(self, error: CannotRead) -> None:
        """Note a command that cannot be read and was stepped over; raises ``error`` where there were too many."""
        self.passed_over += 1
        # Each may have been looked through to the end of the text.
        if self.passed_over > _PASSED_OVER_MAX:
            raise error
        self.add_undecided(error.span, error.because)

    def add_undecided(self, span: Span, because: str) -> None:
        """Note a place that text alone cannot decide; reading goes on."""
        if len(self.undecided) < _UNDECIDED_KEPT:
            self.undecided.append(Undecided(span, because))

    def assign(self, name: str, span: Span, *, number: bool) -> None:
        """Note that ``name`` may now hold any text, unless what it is given is a number."""
        if not number:
            self.texts.setdefault(name, span)

    def declare_unknown(self, name: str, span: Span) -> None:
        """Note that a declaration gives ``name`` a value that may begin with a parenthesis."""
        self.declared.setdefault(name, span)

    def use_in_arithmetic(self, name: str, span: Span) -> None:
        """Note that the content of ``name`` is evaluated as an arithmetic expression."""
        self.arithmetic.setdefault(name, span)


# Enough to explain; one is enough to withhold a yes, so those left out change no decision.
_UNDECIDED_KEPT: Final = 64
# Commands stepped over in one text: reading on after each costs up to the whole text.
_PASSED_OVER_MAX: Final = 8
# Of one name; a later one could only turn "may be a function" into "is one".
_DEFINITIONS_KEPT: Final = 8

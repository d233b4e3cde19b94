"""What gate one's reader says of a shell text: plain values, made once, never changed.

Knows nothing of how the text was read and nothing of rules. Runs wherever a decision is made.

Every span is a pair of character offsets (not bytes) into the text that was asked about, end excluded. A
command that came out of another text (``eval``, ``bash -c``, ``trap``) carries the span of the word that held it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = [
    "Assignment",
    "Redirection",
    "RedirectionKind",
    "Resolution",
    "ShellReading",
    "SimpleCommand",
    "Span",
    "Undecided",
    "Word",
]

Span: TypeAlias = tuple[int, int]
RedirectionKind: TypeAlias = Literal["read", "write", "append", "read_write", "heredoc", "herestring", "dup"]
Resolution: TypeAlias = Literal["program", "builtin", "function", "function_or_program", "unknown"]


@dataclass(frozen=True, slots=True)
class Word:
    """One word as written, and what is known of its value when the command runs.

    Attributes:
        text: the source slice, quotes and all.
        value: the exact value bash 5.2 gives the word; None when text alone cannot tell.
        pattern: the value as pieces; a string stands for itself, None for any run of characters (empty and
            newlines included). ``(value,)`` for a literal word. Where ``may_split`` is set, the words that this one
            becomes fit it when they are joined by single blanks (``a$x`` may become ``a1`` and ``2``), or there is
            no word at all.
        undecided_because: why ``value`` is None.
        may_split: the word can become any number of words, none included (unquoted expansion, ``"$@"``, glob,
            braces).
    """

    text: str
    span: Span
    value: str | None
    pattern: tuple[str | None, ...]
    undecided_because: str | None = None
    may_split: bool = False


@dataclass(frozen=True, slots=True)
class Assignment:
    """``name=value`` as a statement, before a command, or as an argument of ``export`` and its like.

    ``subscript`` is the text between brackets, or None. ``value`` is None for an array's word list, whose words
    are in ``words``.
    """

    name: str
    value: Word | None
    span: Span
    appends: bool = False
    subscript: str | None = None
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class Redirection:
    """One redirection.

    Attributes:
        kind: ``dup`` is a duplicated, moved or closed descriptor and touches no file. ``heredoc`` and
            ``herestring`` touch none either; their text is data.
        fd: the descriptor number, None where the operator's own default holds or ``{name}`` chooses one.
        target: the word after the operator (the delimiter, for a here-document).
        network: bash itself opens a connection (``/dev/tcp/…``, ``/dev/udp/…``) or might.
    """

    kind: RedirectionKind
    operator: str
    fd: int | None
    target: Word | None
    span: Span
    network: bool = False


@dataclass(frozen=True, slots=True)
class SimpleCommand:
    """One command with its words: a program, a builtin or a function's name first.

    Attributes:
        words: at least one; ``words[0]`` is the name.
        assignments: those in front of it.
        text: the source slice of the (innermost) text it was read from.
        via: the way to it from outside in, such as ``("substitution", "wrapper xargs")``; empty at top level.
        resolution: what bash takes the name for. ``function`` only where a definition in this text has certainly
            run before; ``function_or_program`` where one may have.
        undecided_because: why what this command does beyond its own words is not known, or None.
    """

    words: tuple[Word, ...]
    assignments: tuple[Assignment, ...]
    redirections: tuple[Redirection, ...]
    span: Span
    text: str
    via: tuple[str, ...] = ()
    resolution: Resolution = "program"
    undecided_because: str | None = None

    @property
    def argv(self) -> tuple[str, ...] | None:
        """The exact argument vector, or None when one word is undecided."""
        values = []
        for word in self.words:
            if word.value is None:
                return None
            values.append(word.value)
        return tuple(values)


@dataclass(frozen=True, slots=True)
class Undecided:
    """A place whose meaning text alone does not give, and why."""

    span: Span
    because: str


@dataclass(frozen=True, slots=True)
class ShellReading:
    """All that a text runs, writes and sets, or where that is not known.

    Attributes:
        text: the text that was read.
        commands: every simple command that some run of the text may start, in order of place; also those found
            before a place that could not be read.
        redirections: those that belong to no simple command (``{ …; } > f``, ``> f``, ``$(< f)``).
        assignments: those that stand alone or belong to no command's environment.
        functions: names the text defines.
        undecided: every place not positively accounted for. Empty: the text is wholly understood, save for words
            whose ``value`` is None.
    """

    text: str
    commands: tuple[SimpleCommand, ...] = ()
    redirections: tuple[Redirection, ...] = ()
    assignments: tuple[Assignment, ...] = ()
    functions: tuple[str, ...] = ()
    undecided: tuple[Undecided, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to run: blank, or comments only. A test alone (``[[ -f x ]]``) is something."""
        if self.commands or self.redirections or self.assignments or self.functions or self.undecided:
            return False
        return all(not line or line.startswith("#") for line in map(str.strip, self.text.split("\n")))

    @property
    def is_understood(self) -> bool:
        """Whether nothing is undecided and the name of every command is literal."""
        return not self.undecided and all(command.words[0].value is not None for command in self.commands)

    def all_redirections(self) -> Iterator[Redirection]:
        """Every redirection of the text, whatever it belongs to."""
        yield from self.redirections
        for command in self.commands:
            yield from command.redirections

    def all_assignments(self) -> Iterator[Assignment]:
        """Every assignment of the text, whatever it belongs to."""
        yield from self.assignments
        for command in self.commands:
            yield from command.assignments

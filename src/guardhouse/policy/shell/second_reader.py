"""A second opinion on a text: where another reader sees commands begin, compared with the first reading.

The other reader's own faults (``time`` taken for a program, commands it hides) are known and none of them can turn a
no into a yes: only a command that it sees and the first reading does not is an objection. Knows positions only; the
readers themselves are given in (``tree_sitter_reader.py``, ``bashlex_reader.py``). Pure.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

from guardhouse.policy.shell.reading import ShellReading, SimpleCommand, Undecided

__all__ = ["CommandStarts", "OtherReader", "SecondReader", "compare_with", "join_readers"]

# Character offsets at which the names of commands begin, or None where the other reader cannot read the text.
CommandStarts: TypeAlias = frozenset[int] | None
OtherReader: TypeAlias = Callable[[str], CommandStarts]
SecondReader: TypeAlias = Callable[[str, ShellReading], tuple[Undecided, ...]]

_DERIVED: Final = ("wrapper ", "eval", "trap")


def compare_with(other: OtherReader, *, name: str, must_read: bool) -> SecondReader:
    """Return a second reader that asks ``other`` where commands begin.

    Args:
        name: what to call it in a reason.
        must_read: whether a text that it cannot read is undecided (else it has no opinion).
    """

    def second(text: str, reading: ShellReading) -> tuple[Undecided, ...]:
        starts = other(text)
        if starts is None:
            if must_read:
                return (Undecided((0, len(text)), f"the second reader, {name}, cannot read the text"),)
            return ()
        unseen = sorted(starts - _starts(reading))
        return tuple(
            Undecided((start, start + 1), f"the second reader, {name}, sees a command here that the first does not")
            for start in unseen[:8]
        )

    return second


def join_readers(*readers: SecondReader) -> SecondReader:
    """Return a second reader whose objections are those of all ``readers``."""

    def second(text: str, reading: ShellReading) -> tuple[Undecided, ...]:
        return tuple(objection for reader in readers for objection in reader(text, reading))

    return second


def _starts(reading: ShellReading) -> set[int]:
    return {command.words[0].span[0] for command in reading.commands if not _is_derived(command)}


def _is_derived(command: SimpleCommand) -> bool:
    return any(step.startswith(_DERIVED) for step in command.via)

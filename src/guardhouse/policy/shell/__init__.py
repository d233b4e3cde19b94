"""Gate one's reader: what a shell text runs, writes and sets, or that it cannot be told. Pure."""

from guardhouse.policy.shell.read import SecondReader, read_command
from guardhouse.policy.shell.reading import (
    Assignment,
    Redirection,
    ShellReading,
    SimpleCommand,
    Undecided,
    Word,
)

__all__ = [
    "Assignment",
    "Redirection",
    "SecondReader",
    "ShellReading",
    "SimpleCommand",
    "Undecided",
    "Word",
    "read_command",
]

"""Gate one's reader: what a shell text runs, writes and sets, or that it cannot be told. Pure."""

from guardhouse.policy.shell.read import read_command
from guardhouse.policy.shell.reading import (
    Assignment,
    Redirection,
    ShellReading,
    SimpleCommand,
    Undecided,
    Word,
)
from guardhouse.policy.shell.second_reader import SecondReader, compare_with

__all__ = [
    "Assignment",
    "Redirection",
    "SecondReader",
    "ShellReading",
    "SimpleCommand",
    "Undecided",
    "Word",
    "compare_with",
    "read_command",
]

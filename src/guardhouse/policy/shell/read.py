"""A shell text in, a reading out: the door of this package.

Never raises, never waits, and takes time about linear in the text. Plain words take a short way; everything else is
read by the grammar here, and then by a second reader whose disagreement makes the text undecided. Pure.

What the reading relies on, and others keep: the text is run by ``bash -c`` (5.1 or 5.2, not in posix mode), with no
positional parameters, no aliases, no functions and no BASH_ENV from outside, and with an environment that a
requester cannot choose freely (see ``variables.py``).
"""

import re
from dataclasses import replace
from functools import lru_cache
from typing import Final

from guardhouse import limits
from guardhouse.policy.shell.effects import judge_commands
from guardhouse.policy.shell.findings import CannotRead, Findings, Found, Source
from guardhouse.policy.shell.grammar import read_source
from guardhouse.policy.shell.reading import ShellReading, SimpleCommand, Undecided, Word
from guardhouse.policy.shell.second_reader import CommandStarts, SecondReader, compare_with
from guardhouse.policy.shell.words import RESERVED

__all__ = ["TREE_SITTER", "read_command"]

# Words of these characters stand for themselves wherever they are; ``=`` only after the first word, since it assigns
# there; ``,`` needs no care without braces.
_PLAIN_TEXT: Final = re.compile(r"[ \t]*+[A-Za-z0-9_./:@%+,-]++(?:[ \t]++[A-Za-z0-9_./:@%+,=^-]++)*+[ \t]*+")
_WORD: Final = re.compile(r"[^ \t]+")


def _ask_tree_sitter(text: str) -> CommandStarts:
    # Loaded when it is first asked, so that a process which never asks does not map the compiled grammar.
    from guardhouse.policy.shell.tree_sitter_reader import command_starts

    return command_starts(text)


# What it cannot read is undecided: otherwise the construct that it cannot read would be the way past it.
TREE_SITTER: Final = compare_with(_ask_tree_sitter, name="tree-sitter-bash", must_read=True)


def read_command(text: str, *, second: SecondReader | None = TREE_SITTER) -> ShellReading:
    """Read what ``bash -c text`` runs, writes and sets.

    Args:
        text: any string; nothing is assumed of it.
        second: asked about every text that is not plain words and that the first reader understands; its
            objections are added to ``undecided``. By default tree-sitter-bash in this process; a process that
            keeps compiled parsers out asks ``guardhouse.worker.parser_client``; None: nobody.

    Returns:
        A reading in which every command that any run of the text may start is named, or ``undecided`` is not empty,
        or the name of a command is not literal.
    """
    is_short = len(text) <= limits.SHELL_CACHE_TEXT_CHARS
    reading, is_plain = _read_remembered(text) if is_short else _read(text)
    if is_plain or second is None or reading.undecided:
        return reading
    objections = _object_remembered(text) if is_short and second is TREE_SITTER else second(text, reading)
    if not objections:
        return reading
    return replace(reading, undecided=(*reading.undecided, *objections))


@lru_cache(maxsize=limits.SHELL_CACHE_ENTRIES)
def _read_remembered(text: str) -> tuple[ShellReading, bool]:
    return _read(text)


@lru_cache(maxsize=limits.SHELL_CACHE_ENTRIES)
def _object_remembered(text: str) -> tuple[Undecided, ...]:
    return TREE_SITTER(text, _read_remembered(text)[0])


def _read(text: str) -> tuple[ShellReading, bool]:
    """Return what the first reader says, and whether the text is nothing but plain words."""
    if (refused := _check_text(text)) is not None:
        return ShellReading(text, undecided=(Undecided((0, len(text)), refused),)), False
    findings = Findings()
    is_plain = _read_plain(text, findings)
    try:
        if not is_plain:
            _collect(text, findings)
        judge_commands(findings)
    except CannotRead as error:
        findings.undecided.append(Undecided(error.span, error.because))
    except RecursionError:
        # Our own limits on depth come first unless the caller's stack is deep already.
        findings.undecided.append(Undecided((0, len(text)), "nested too deeply for the stack that is left"))
    _judge_arithmetic(findings)
    return _finish(text, findings), is_plain


def _collect(text: str, findings: Findings) -> None:
    try:
        read_source(Source(text, 0), findings)
    except CannotRead as error:
        findings.undecided.append(Undecided(error.span, error.because))


def _check_text(text: str) -> str | None:
    """Why no shell could be given this text, or None."""
    if len(text) > limits.COMMAND_TEXT_MAX_BYTES:
        return f"longer than {limits.COMMAND_TEXT_MAX_BYTES} bytes, the most that one argument of a program can hold"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "not text: it holds a lone surrogate"
    if size > limits.COMMAND_TEXT_MAX_BYTES:
        return f"longer than {limits.COMMAND_TEXT_MAX_BYTES} bytes, the most that one argument of a program can hold"
    if "\x00" in text:
        return "a NUL cannot be part of a program's argument"
    return None


def _read_plain(text: str, findings: Findings) -> bool:
    """Read a text of plain words without any shell syntax; return False when it is something else."""
    if _PLAIN_TEXT.fullmatch(text) is None:
        return False
    words: list[Word] = []
    for match in _WORD.finditer(text):
        value = match[0]
        words.append(Word(value, match.span(), value, (value,)))
    if words[0].text in RESERVED or len(words) > limits.SHELL_WORDS_MAX:
        return False
    if words[0].text in ("declare", "typeset", "local", "export", "readonly") and "=" in text:
        return False
    start, end = words[0].span[0], words[-1].span[1]
    findings.add_command(Found(SimpleCommand(tuple(words), (), (), (start, end), text[start:end]), Source(text, 0)))
    return True


def _judge_arithmetic(findings: Findings) -> None:
    """A variable that may hold any text is evaluated as arithmetic: its subscripts run commands."""
    for name, span in findings.arithmetic.items():
        if name in findings.texts:
            findings.add_undecided(
                span,
                f"{name} may hold any text and is evaluated as arithmetic, or stands unquoted in a test,"
                " which can run commands in subscripts",
            )
    for name, span in findings.declared.items():
        if name in findings.arrays:
            findings.add_undecided(span, f"{name} is an array: a value that begins with a parenthesis is evaluated")


def _finish(text: str, findings: Findings) -> ShellReading:
    commands = sorted((found.command for found in findings.commands), key=_place)
    names = dict.fromkeys(function.name for function in findings.functions)
    return ShellReading(
        text,
        tuple(commands),
        tuple(findings.redirections),
        tuple(findings.assignments),
        tuple(names),
        tuple(sorted(findings.undecided, key=lambda one: one.span)),
    )


def _place(command: SimpleCommand) -> tuple[int, int]:
    return (command.span[0], -command.span[1])

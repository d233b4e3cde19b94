"""The reader against what real bash ran: the shared corpus, and the snippets of this directory.

`snippets.jsonl` was recorded with ``python fuzz/fuzz_shell_differential.py --record`` under bash 5.2: the argument
vectors that ran, and the files that appeared.
"""

import json
import re
from pathlib import Path

import pytest

from guardhouse.policy.shell import ShellReading, Word, read_command

HERE = Path(__file__).parent


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().split("\n") if line]


CORPUS = rows(HERE.parent.parent / "corpus" / "bash_constructs.jsonl")
SNIPPETS = rows(HERE / "snippets.jsonl")


def fits(words: tuple[Word, ...], argv: list[str]) -> bool:
    """Whether words can have become ``argv``; one that may split stands for any number of arguments."""
    expression = []
    for word in words:
        unknown = ".*" if word.may_split else "[^\0]*"
        one = "".join(unknown if piece is None else re.escape(piece) for piece in word.pattern)
        expression.append(f"(?:{one}\0)?" if word.may_split else f"{one}\0")
    return re.fullmatch("".join(expression), "".join(f"{value}\0" for value in argv), re.DOTALL) is not None


def names(reading: ShellReading) -> set[str | None]:
    return {command.words[0].value for command in reading.commands}


@pytest.mark.parametrize("row", CORPUS, ids=[row["id"] for row in CORPUS])
def test_corpus(row: dict) -> None:
    """Every command that bash ran is named, builtins included, or the text is undecided."""
    reading = read_command(row["snippet"], second=None)
    assert not reading.is_understood or set(row["bash_runs"]) <= names(reading)


@pytest.mark.parametrize("row", SNIPPETS, ids=[row["id"] for row in SNIPPETS])
def test_snippets(row: dict) -> None:
    """Every program that bash started is named with words that it can have had, or the text is undecided."""
    reading = read_command(row["snippet"], second=None)
    if not reading.is_understood:
        return
    for argv in row["bash_runs"]:
        named = [command for command in reading.commands if command.words[0].value == argv[0]]
        assert any(fits(command.words, argv) for command in named), argv
    targets = [one.target for one in reading.all_redirections() if one.kind in ("write", "append", "read_write")]
    for file in row["files"]:
        assert any(fits((target,), [file]) for target in targets if target is not None), file


def test_corpus_is_mostly_understood() -> None:
    """A reader that calls everything undecided is worthless: of the corpus it must understand 145 of 197."""
    understood = sum(read_command(row["snippet"], second=None).is_understood for row in CORPUS)
    assert understood >= 145


def test_everyday_snippets_are_understood() -> None:
    """Every everyday snippet is wholly understood by the first reader."""
    left = [
        row["snippet"]
        for row in SNIPPETS
        if row["id"].startswith("everyday") and not read_command(row["snippet"], second=None).is_understood
    ]
    assert left == []


def test_second_reader_costs_little() -> None:
    """tree-sitter-bash objects to few of the texts that the first reader understands."""
    first = [row["snippet"] for row in CORPUS + SNIPPETS if read_command(row["snippet"], second=None).is_understood]
    both = [text for text in first if read_command(text).is_understood]
    assert len(both) >= 0.93 * len(first)

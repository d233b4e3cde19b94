"""Every `guardhouse` command that a page of docs/ shows is one: the subcommand is there, and takes these options."""

import re
import shlex
from pathlib import Path

import click

from guardhouse.cli.main import cli

REPOSITORY = Path(__file__).resolve().parents[2]
# What wire_protocol.md writes so are byte strings of the protocol.
PAGES = [
    *(page for page in sorted((REPOSITORY / "docs").glob("*.md")) if page.name != "wire_protocol.md"),
    REPOSITORY / "README.md",
    REPOSITORY / "SECURITY.md",
]
FENCED = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(guardhouse [^`\n]+)`")
END_OF_COMMAND = re.compile(r"[|;&<>]|\d?>>?")


def shown_in_blocks(text: str) -> list[str]:
    """Return the commands of a page's code blocks, each on one line."""
    blocks = "\n".join(FENCED.findall(text)).replace("\\\n", " ")
    lines = (line.strip().removeprefix("$ ").removeprefix("sudo ") for line in blocks.splitlines())
    return [line for line in lines if line.startswith("guardhouse ")]


def arguments_of(line: str) -> list[str]:
    """Return the words after `guardhouse`, up to a remark, a pipe or a redirection."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&<>")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words = list(lexer)[1:]
    ends = [at for at, word in enumerate(words) if END_OF_COMMAND.fullmatch(word)]
    return words[: ends[0]] if ends else words


def find_command(arguments: list[str]) -> tuple[click.Context, list[str]]:
    """Return the command that the first words name, in its context, and the words behind.

    Raises:
        LookupError: there is no such command.
    """
    command: click.Command = cli
    context = click.Context(cli, info_name="guardhouse")
    while (
        isinstance(command, click.Group)
        and arguments
        and not arguments[0].startswith(("-", "…", "["))
        and not arguments[0].isupper()
    ):
        found = command.get_command(context, arguments[0])
        if found is None:
            if command.invoke_without_command:
                break
            raise LookupError(f"no command {arguments[0]!r}")
        context, command, arguments = click.Context(found, parent=context, info_name=arguments[0]), found, arguments[1:]
    return context, arguments


def wrong_block_line(line: str) -> str | None:
    """Return what is wrong with a command of a code block, which is to be typed as it stands."""
    try:
        context, rest = find_command(arguments_of(line))
        context.command.make_parser(context).parse_args(rest)
    except (LookupError, ValueError, click.UsageError) as error:
        return str(error)
    return None


def wrong_inline(line: str) -> str | None:
    """Return what is wrong with a command in a sentence, which may leave values out."""
    try:
        context, rest = find_command(line.split()[1:])
    except LookupError as error:
        return str(error)
    known = {name for one in context.command.params for name in (*one.opts, *one.secondary_opts)} | {"--help", "-h"}
    named = {
        word.partition("=")[0].strip("[]().,") for word in rest if word.strip("[(").startswith("--") and len(word) > 2
    }
    unknown = {name.lstrip("[(") for name in named} - known
    return f"no option {', '.join(sorted(unknown))}" if unknown else None


def test_commands_in_blocks_parse() -> None:
    """What a reader copies is taken by the parser."""
    wrong, seen = [], 0
    for page in PAGES:
        for line in shown_in_blocks(page.read_text(encoding="utf-8")):
            seen += 1
            error = wrong_block_line(line)
            if error is not None:
                wrong.append(f"{page.name}: {line}: {error}")
    assert wrong == []
    assert seen > 60


def test_commands_in_sentences_exist() -> None:
    """What a sentence names is there, with the options that it names."""
    wrong, seen = [], 0
    for page in PAGES:
        for line in INLINE.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
            seen += 1
            error = wrong_inline(line)
            if error is not None:
                wrong.append(f"{page.name}: {line}: {error}")
    assert wrong == []
    assert seen > 60


def test_the_check_can_fail() -> None:
    """A command or an option that is not there is found."""
    assert wrong_block_line("guardhouse env make web-1") is not None
    assert wrong_block_line("guardhouse env list --nothing | head") is not None
    assert wrong_block_line("guardhouse env list --status online > file   # remark") is None
    assert wrong_inline("guardhouse env list --nothing") is not None

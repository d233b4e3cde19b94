"""What README.md shows a newcomer to type is true: every command parses, and what can run here is run."""

import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from guardhouse.cli.main import cli

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
LINES = [line.strip() for line in README.splitlines() if line.startswith("    guardhouse ")]
# These need no hub and no certificate, so they are run as they stand.
RUNNABLE = [
    line for line in LINES if line.split()[1] in {"try", "doctor"} or line.startswith("guardhouse policy explain")
]


def words(line: str) -> list[str]:
    """The words after `guardhouse`, without the remark behind ``#``."""
    return shlex.split(line, comments=True)[1:]


@pytest.mark.parametrize("line", LINES)
def test_command_parses(line: str) -> None:
    """The subcommand exists and takes these options."""
    command: click.Command = cli
    context = click.Context(cli, info_name="guardhouse")
    arguments = words(line)
    while isinstance(command, click.Group) and not arguments[0].startswith("-"):
        found = command.get_command(context, arguments[0])
        assert found is not None, f"no command {arguments[0]!r}"
        context = click.Context(found, parent=context, info_name=arguments.pop(0))
        command = found
    command.make_parser(context).parse_args(arguments)


@pytest.mark.parametrize("line", RUNNABLE)
def test_command_runs(line: str) -> None:
    """Run here as shown, with the exit status that the remark behind it says."""
    done = subprocess.run(
        [sys.executable, "-m", "guardhouse", *words(line)], capture_output=True, text=True, check=False, timeout=60
    )
    expected = 126 if "exit status 126" in line else 0
    assert done.returncode == expected, done.stdout + done.stderr


def test_readme_shows_commands() -> None:
    """The two tests above have something to read."""
    assert len(LINES) >= 8
    assert len(RUNNABLE) >= 5


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_targets_exist(target: str) -> None:
    """The two commands of the README are targets of the Makefile."""
    assert f"make {target}" in README
    assert f"\n{target}:" in (REPOSITORY / "Makefile").read_text(encoding="utf-8")


def test_linked_documents_exist() -> None:
    """Every document that the README points to is there."""
    links = [part.split(")")[0] for part in README.split("](")[1:]]
    missing = [link for link in links if not (REPOSITORY / link).exists()]
    assert not missing

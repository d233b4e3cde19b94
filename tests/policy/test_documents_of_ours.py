"""What our documents show is true: every policy in them loads, every shell command in them exists."""

import re
from pathlib import Path

import pytest

from guardhouse.cli.policy import policy as policy_group
from guardhouse.cli.policy_files import read_text
from guardhouse.policy import load_policy

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "docs" / "policy.md", ROOT / "docs" / "policy_language.md"]


def blocks(language: str) -> list:
    return [
        pytest.param(block, id=f"{path.name}-{number}")
        for path in DOCUMENTS
        for number, block in enumerate(re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL))
    ]


@pytest.mark.parametrize("block", [*blocks("yaml"), *blocks("json")])
def test_policy(block: str) -> None:
    """A policy that is shown loads, examples included; a single rule is shown as an item of `bash`."""
    if block.startswith("- "):
        block = "permission:\n  bash:\n" + "".join(f"  {line}\n" for line in block.splitlines())
        block = block.replace("    any_options: true", "    # any_options: true")
    load_policy(block, name="shown", includes=lambda name: read_text(ROOT / "policies" / name))


@pytest.mark.parametrize("block", blocks("console"))
def test_command(block: str) -> None:
    """Every command and option that is shown exists."""
    for line in block.splitlines():
        _, _, name, *arguments = line.removeprefix("$ ").split(" #")[0].split()
        command = policy_group.commands[name]
        known = {option for parameter in command.params for option in parameter.opts}
        options = {argument for argument in arguments if argument.startswith("--") and len(argument) > 2}
        assert line.startswith("$ guardhouse policy ")
        assert options <= known, line

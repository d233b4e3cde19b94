"""The flags of `guardhouse run` as click hands them on: repeated ones, and the seed's under our names."""

import os
import subprocess
import sys

import pytest

from guardhouse.cli.exit_codes import ExitCode

URL = ("--url", "wss://hub.example", "--token-file", "/nowhere/token")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GUARDHOUSE_", "FLASH"))}
    command = [sys.executable, "-m", "guardhouse", "run", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("flag", ["--policy", "--permission-config"])
def test_the_seeds_flag_names_the_policy(flag) -> None:
    """--permission-config FILE is --policy FILE."""
    answer = run(*URL, flag, "/nowhere/policy.yaml")
    assert "--policy: cannot read /nowhere/policy.yaml" in answer.stderr


def test_both_names_at_once_are_refused() -> None:
    """Of two policies neither is guessed."""
    answer = run(*URL, "--policy", "read_only", "--permission-config", "/p.yaml")
    assert answer.returncode == ExitCode.USAGE
    assert "--policy and --permission-config are both given" in answer.stderr


def test_help_shows_ours_only() -> None:
    """The seed's flag is for those who have it in a script already."""
    text = run("--help").stdout
    assert "--permission-config" not in text
    assert "--policy-key" in text
    assert "--name" in text


def test_keys_may_be_repeated() -> None:
    """Every --policy-key counts: the first missing one is the one complained of."""
    answer = run(*URL, "--policy-key", "/nowhere/a.pub", "--policy-key", "/nowhere/b.pub")
    assert "--policy-key: cannot read /nowhere/a.pub" in answer.stderr

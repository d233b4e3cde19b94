"""What an SRE types gives the same bytes through hub, runner and wall as in plain bash on the same host."""

import os
import pwd
import subprocess
from pathlib import Path

import pytest
from demo.local_system import LocalSystem
from tests.end_to_end.commands import COMMANDS, Command


@pytest.fixture(scope="module")
def bare_environment(system: LocalSystem) -> dict[bytes, bytes]:
    """The environment that the runner gives to commands, so that the bare run has the same."""
    answer = system.run("env -0")
    pairs = (entry.split(b"=", 1) for entry in answer.stdout.split(b"\0") if entry)
    return {name: value for name, value in pairs if name not in {b"_", b"SHLVL", b"PWD", b"OLDPWD"}}


def run_bare(command: Command, workspace: Path, environment: dict[bytes, bytes]) -> subprocess.CompletedProcess[bytes]:
    """Run the text in plain bash, as the same user in the same directory."""
    become: list[str] = []
    if os.geteuid() == 0:
        user = pwd.getpwuid(workspace.stat().st_uid)
        become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups"]
    return subprocess.run(
        [*become, "bash", "-c", command.text],
        cwd=workspace,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_same_as_bash(
    command: Command, system: LocalSystem, workspace: Path, bare_environment: dict[bytes, bytes]
) -> None:
    """Same stdout, same stderr, same exit status as plain `bash -c`; or what ``differs`` says."""
    ours = system.run(command.text)
    if command.differs:
        assert (ours.stdout, ours.exit_code) == (command.expect_stdout, command.expect_exit), command.differs
        return
    bare = run_bare(command, workspace, bare_environment)
    expected_exit = bare.returncode if bare.returncode >= 0 else 128 - bare.returncode
    assert (ours.stdout, ours.stderr, ours.exit_code) == (bare.stdout, bare.stderr, expected_exit)


def test_the_table_holds_at_least_forty_commands() -> None:
    """The comparison is about everyday work, so it is long."""
    assert len([command for command in COMMANDS if not command.differs]) >= 40


def test_a_dropped_part_of_the_output_is_said(system: LocalSystem) -> None:
    """Past 10 MiB a stream is counted and not kept, and the result says how much is missing."""
    answer = system.run("head -c 104857600 /dev/zero | tr '\\0' y")
    assert answer.task["result"]["stdout_dropped"] == 104857600 - 10 * 1024 * 1024


def test_nothing_is_left_of_a_child_that_outlived_its_parent(system: LocalSystem) -> None:
    """A double fork in a session of its own is gone when its command has ended."""
    system.run("(setsid bash -c 'exec -a left-behind sleep 987654' > /dev/null 2>&1 &) ; sleep 0.2")
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "left-behind" not in processes
    assert "guardhouse" in processes


def test_the_time_limit_ends_the_whole_tree(system: LocalSystem) -> None:
    """Exit code 124, said as timed out, and nothing of the tree is left, children that ignore TERM included."""
    answer = system.run("(trap '' TERM; exec -a deaf-child sleep 987654) & sleep 987654", timeout=1)
    assert (answer.exit_code, answer.task["state"], answer.task["result"]["timed_out"]) == (124, "timed_out", True)
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "987654" not in processes


def test_exec_returns_the_commands_own_streams_and_status(system: LocalSystem) -> None:
    """`guardhouse exec` is transparent: bytes, order within a stream, exit status."""
    done = system.cli("exec", "end-to-end", "--", "printf '\\377\\000out'; printf err >&2; exit 42")
    assert (done.stdout, done.stderr, done.returncode) == (b"\xff\0out", b"err", 42)

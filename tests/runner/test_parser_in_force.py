"""What judges tasks reads shell text in the parser process of its own launcher, and stops it when it is replaced."""

import contextlib
import os
import signal

import pytest
import trio
from tests.launcher.test_left_over import descendants_of
from tests.support.runner_process import ACCOUNT, make_directory, remove_directory

from guardhouse.policy import load_policy
from guardhouse.runner.bounds import FetchBounds
from guardhouse.runner.command_run import CommandRequest
from guardhouse.runner.enforcement import Enforcement, enforce
from guardhouse.runner.identity import resolve_account
from guardhouse.runner.wall import put_up_wall
from guardhouse.values import Verdict


@pytest.fixture
def directory():
    made = make_directory()
    yield made
    remove_directory(made)


async def test_parser_of_the_launcher(directory):
    """A text with syntax is allowed by three readings; killed parsers are replaced; a replaced policy leaves none."""
    policy = load_policy('permission: {bash: {"ls *": allow, "grep *": allow}}', name="p.yaml")
    wall = put_up_wall(
        profile="isolate",
        policy=policy,
        account=resolve_account(ACCOUNT, effective_uid=os.geteuid()),
        workspace=directory,
        protected_paths=(),
    )
    launcher_pid = wall.launcher.pid

    def parsers() -> set[int]:
        return {pid for pid in descendants_of(launcher_pid) if is_parser(pid)}

    def died() -> None:
        raise AssertionError("the launcher died")

    with trio.fail_after(90):
        async with trio.open_nursery() as nursery:
            start = nursery.start
            enforcement: Enforcement = await start(_begin, policy, wall, directory, died)
            commands = enforcement.commands
            for number in range(2):
                request = CommandRequest(text=f"ls '{number}' | grep b", timeout_s=5)
                decision = (await commands.admit(request)).decision
                assert decision.verdict is Verdict.ALLOW, decision.because
                found = parsers()
                assert found
                for pid in found:
                    # The worker goes with the first process of its namespace.
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            enforcement.replace()
            while parsers():  # noqa: ASYNC110 - another process's end
                await trio.sleep(0.05)


async def _begin(policy, wall, directory, died, *, task_status):
    await enforce(policy, wall, directory, died, ask_bashlex=False, fetch_bounds=FetchBounds(), task_status=task_status)


def is_parser(pid: int) -> bool:
    """Whether a process has the compiled grammar mapped; an ordinary user may not look, and knows it by its place."""
    try:
        if os.geteuid() != 0:
            name, parent = _name_and_parent(pid)
            # No command runs here, so only a worker is below the first process of a namespace.
            return name == "guardhouse-init" == _name_and_parent(parent)[0]
        with open(f"/proc/{pid}/maps") as file:
            return "tree_sitter" in file.read()
    except (ProcessLookupError, FileNotFoundError):
        return False


def _name_and_parent(pid: int) -> tuple[str, int]:
    with open(f"/proc/{pid}/status") as file:
        fields = dict(line.split(":", 1) for line in file.read().splitlines())
    return fields["Name"].strip(), int(fields["PPid"])

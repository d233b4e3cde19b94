"""The dispatcher with a launcher that starts nothing: queue, refusals, cancel, journal, exactly one result."""

import json
from dataclasses import replace

import pytest
import trio
from tests.runner.conversation import MemoryConnection, StillHost
from tests.runner.test_commands import ENDED

from guardhouse.errors import Refusal
from guardhouse.policy import Policy, load_policy
from guardhouse.policy.shell import read_command
from guardhouse.runner.commands import CommandService
from guardhouse.runner.dispatch import Dispatcher
from guardhouse.runner.enforcement import Enforcement
from guardhouse.runner.file_gate import FileGate
from guardhouse.runner.files import BoundedText
from guardhouse.runner.journal import open_journal, recover
from guardhouse.runner.journal_writer import JournalWriter
from guardhouse.runner.link import Link
from guardhouse.runner.mcp_pool import McpPool
from guardhouse.runner.mcp_service import McpService
from guardhouse.runner.redaction import load_redaction
from guardhouse.runner.rules import make_judge
from guardhouse.runner.task_results import encode_result
from guardhouse.runner.web import WebService
from guardhouse.wire.messages import TaskResult
from guardhouse.wire.operations import ReadResult
from guardhouse.wire.runner_session import RunnerSession
from guardhouse.worker.fetch_client import FetchClient

POLICY = load_policy('permission:\n  bash:\n    "*": allow\n    "no *": deny\n', name="p.yaml")
REDACTION = load_redaction(())


class HeldCommand:
    proxy_listener = None

    def __init__(self, open_up: trio.Event) -> None:
        self._open_up = open_up
        self._stopped = False

    async def wait(self):
        await self._open_up.wait()
        return replace(ENDED, cancelled=self._stopped)

    async def stop(self, reason) -> None:
        del reason
        self._stopped = True
        self._open_up.set()
        await trio.lowlevel.checkpoint()

    async def abandon(self) -> None:
        """Nothing of it would run on."""


class HoldingLauncher:
    """Every command runs until ``open_up`` or its own stop."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.commands: list[trio.Event] = []

    async def launch(self, request, *, stdin_fd, stdout_fd, stderr_fd) -> HeldCommand:
        del stdin_fd, stdout_fd, stderr_fd
        self.started.append(request.argv[-1])
        self.commands.append(trio.Event())
        await trio.lowlevel.checkpoint()
        return HeldCommand(self.commands[-1])


async def no_worker():
    raise Refusal("no fetch worker in this test")


class FewFiles:
    """A files worker with one file, and one that kills it."""

    async def request(self, operation, args):
        await trio.lowlevel.checkpoint()
        if operation == "read" and args.path == "deadly":
            raise Refusal("read did not finish: the files worker is of no more use")
        return ReadResult(content=b"x", total_size=1)

    async def bound(self, text, *, operation, command="") -> BoundedText:
        await trio.lowlevel.checkpoint()
        return BoundedText(text=text)


class System:
    def __init__(self, nursery, directory, *, max_tasks: int = 2) -> None:
        journal, self.recovered = open_journal(directory)
        self.journal = journal
        self.launcher = HoldingLauncher()
        self.directory = directory
        self.dispatcher = Dispatcher(
            nursery=nursery,
            enforcement=self.enforcement(POLICY),
            redaction=REDACTION,
            journal=JournalWriter(journal),
            max_tasks=max_tasks,
        )
        session = RunnerSession(memory_id="m", version="0")
        self.link = Link(session, facts=StillHost(), handle=self.dispatcher.handle)
        self.dispatcher.link = self.link
        self.connection = MemoryConnection()
        self.connection.hear("welcome", worknode_id="w", name="n", labels=[])
        nursery.start_soon(self.link.converse, self.connection)

    def enforcement(self, policy: Policy) -> Enforcement:
        commands = CommandService(
            judge=make_judge(policy, reader=read_command),
            launcher=self.launcher,
            profile="observe",
            profiles=frozenset({"observe"}),
            has_gate=False,
        )
        web = WebService(policy, client=FetchClient(no_worker), files=FewFiles())
        pool = McpPool(launcher=self.launcher, start_worker=no_worker)
        return Enforcement(
            policy=policy,
            commands=commands,
            files=FewFiles(),
            file_gate=FileGate(policy, workspace=self.directory),
            web=web,
            mcp=McpService(policy, pool=pool, commands=commands, files=FewFiles(), web=web, profile="observe"),
        )

    def ask(self, task_id: str, operation: str = "bash", args: object = None) -> None:
        self.connection.hear("task.request", task_id=task_id, operation=operation, args=args)

    async def result(self) -> dict:
        return await self.connection.next("task.result")

    async def until_started(self, count: int) -> None:
        with trio.fail_after(30):
            while len(self.launcher.started) < count:  # noqa: ASYNC110 - started in worker threads' wake
                await trio.sleep(0.005)


@pytest.fixture
async def system(nursery, tmp_path):
    built = System(nursery, tmp_path)
    yield built
    nursery.cancel_scope.cancel()
    built.journal.close()


async def test_no_more_than_the_limit_run_and_the_rest_wait_in_order(system) -> None:
    """Two slots: the third command starts when one of the first two has ended."""
    for index in range(4):
        system.ask(f"t{index}", args={"command": f"echo {index}"})
    await system.until_started(2)
    with trio.fail_after(30):
        while system.dispatcher.waiting < 2:  # noqa: ASYNC110 - judged in worker threads
            await trio.sleep(0.005)
    assert len(system.launcher.started) == 2
    system.launcher.commands[0].set()
    await system.result()
    await system.until_started(3)


async def test_a_full_queue_refuses_clearly(system) -> None:
    """Two slots and sixteen waiting: the nineteenth is refused at once, and names the limit."""
    for index in range(19):
        system.ask(f"t{index}", args={"command": f"echo {index}"})
    refused = await system.result()
    assert refused["task_id"] == "t18"
    assert "runner is busy: 18 tasks run or wait, its limit is 18" in refused["error"]


async def test_a_denied_command_needs_no_slot(system) -> None:
    """While every slot is taken, a denial still comes at once."""
    for index in range(2):
        system.ask(f"t{index}", args={"command": f"echo {index}"})
    await system.until_started(2)
    system.ask("denied", args={"command": "no way"})
    denied = await system.result()
    assert (denied["task_id"], denied["success"]) == ("denied", False)
    assert denied["error"].startswith("command denied: ")


async def test_files_do_not_wait_for_commands(system) -> None:
    """A read is answered while every command slot is taken."""
    for index in range(2):
        system.ask(f"t{index}", args={"command": f"echo {index}"})
    await system.until_started(2)
    system.ask("read", "read", {"path": "a"})
    assert (await system.result())["result"] == {"content": "eA==", "total_size": 1}


async def test_cancel_of_a_waiting_task(system) -> None:
    """A task that waits is cancelled without ever starting."""
    for index in range(3):
        system.ask(f"t{index}", args={"command": f"echo {index}"})
    await system.until_started(2)
    waiting = ({"t0", "t1", "t2"} - {f"t{text.split()[1]}" for text in system.launcher.started}).pop()
    system.connection.hear("task.cancel", task_id=waiting)
    result = await system.result()
    assert (result["task_id"], result["success"], result["error"]) == (
        waiting,
        False,
        "task cancelled before it finished",
    )
    assert len(system.launcher.started) == 2


async def test_cancel_of_a_running_task(system) -> None:
    """A running command is stopped and its result says so."""
    system.ask("t0", args={"command": "echo c"})
    await system.until_started(1)
    system.connection.hear("task.cancel", task_id="t0")
    assert (await system.result())["result"]["cancelled"] is True


async def test_a_repeated_request_starts_nothing(system) -> None:
    """The same task id again, while it runs and after it ended, starts nothing."""
    system.ask("t0", args={"command": "echo c"})
    await system.until_started(1)
    system.ask("t0", args={"command": "echo c"})
    # Requests are taken in order: when a later one has started, the repeated one would have.
    system.ask("t1", args={"command": "echo d"})
    await system.until_started(2)
    assert system.launcher.started == ["echo c", "echo d"]
    for command in system.launcher.commands:
        command.set()
    await system.result()
    await system.result()
    system.ask("t0", args={"command": "echo c"})
    system.ask("t2", args={"command": "echo e"})
    await system.until_started(3)
    assert system.launcher.started == ["echo c", "echo d", "echo e"]
    system.launcher.commands[2].set()
    await system.result()


async def test_a_dead_worker_is_an_answer(system) -> None:
    """A worker that dies over a request costs that request its result, with words, and nothing else."""
    system.ask("r1", "read", {"path": "deadly"})
    assert "files worker is of no more use" in (await system.result())["error"]
    system.ask("r2", "read", {"path": "fine"})
    assert (await system.result())["success"] is True


async def test_a_full_disk_starts_nothing(system, monkeypatch) -> None:
    """A task that cannot be recorded is refused and not started; the next one, with room again, is."""

    def full(_records) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(system.journal, "record", full)
        system.ask("t0", args={"command": "echo c"})
        refused = await system.result()
    assert "cannot record it (No space left on device)" in refused["error"]
    assert system.launcher.started == []
    system.ask("t1", args={"command": "echo c"})
    await system.until_started(1)


@pytest.mark.parametrize("extra", [{"stdin": "eA=="}, {"environment": {"A": "b"}}, {"profile": "operate"}])
async def test_what_is_not_granted_is_refused(system, extra) -> None:
    """A request for more than the runner grants is refused, never run without it."""
    system.ask("t0", args={"command": "echo c", **extra})
    assert f"{next(iter(extra))} cannot be granted" in (await system.result())["error"]
    assert system.launcher.started == []


@pytest.mark.parametrize("operation", ["mcp_call", "mcp_list_tools"])
async def test_a_server_that_cannot_be_started_is_answered(system, operation) -> None:
    """A record without what its transport needs is a clear answer, and nothing is started."""
    system.ask("t0", operation, {"server": {"name": "s", "transport": "stdio"}, "tool_name": "t"})
    assert (await system.result())["error"] == "MCP server 's' has no command"
    assert system.launcher.started == []


async def test_every_task_is_in_the_journal_before_it_starts(system, tmp_path) -> None:
    """What a crash leaves behind names the running task; after its result is delivered only the id is left."""
    system.ask("t0", args={"command": "echo c"})
    await system.until_started(1)
    assert list(recover((tmp_path / "journal").read_bytes()).interrupted) == ["t0"]
    system.launcher.commands[0].set()
    await system.result()
    with trio.fail_after(30):
        while list(recover((tmp_path / "journal").read_bytes()).over) != ["t0"]:  # noqa: ASYNC110 - a file
            await trio.sleep(0.01)


def test_a_result_too_large_for_a_frame_becomes_one_that_says_so() -> None:
    """No result is held that no frame can carry."""
    large = TaskResult(task_id="t", success=True, result={"content": "x" * (33 * 1024 * 1024)})
    replaced = encode_result(large)
    assert isinstance(replaced, TaskResult)
    assert "more than one message carries" in replaced.error
    assert json.loads(encode_result(TaskResult(task_id="t", success=True, result={"a": 1})))["result"] == {"a": 1}


async def test_a_waiting_command_is_judged_by_the_policy_that_is_in_force_when_it_starts(system) -> None:
    """Two run, two wait; the policy is replaced: what waits and is denied now is not started, the rest is."""
    for index, text in enumerate(("echo 0", "echo 1", "echo 2", "later echo 3")):
        system.ask(f"t{index}", args={"command": text})
    await system.until_started(2)
    before = system.dispatcher.enforcement
    stricter = load_policy('permission:\n  bash:\n    "*": allow\n    "later *": deny\n', name="q.yaml")
    system.dispatcher.enforcement = system.enforcement(stricter)
    before.replace()
    for command in system.launcher.commands[:2]:
        command.set()
    await system.until_started(3)
    with trio.fail_after(30):
        await before.over()
    system.launcher.commands[2].set()
    results = {result["task_id"]: result for result in [await system.result() for _ in range(4)]}
    assert results["t3"]["error"].startswith("command denied: ")
    assert results["t2"]["result"]["decision"]["policy"]["digest"] == stricter.digest
    assert system.launcher.started == ["echo 0", "echo 1", "echo 2"]


async def test_a_replaced_policy_is_over_only_when_its_last_command_is(system) -> None:
    """What keeps the old launcher open is a command that began under it, and nothing else."""
    system.ask("t0", args={"command": "echo 0"})
    await system.until_started(1)
    before = system.dispatcher.enforcement
    system.dispatcher.enforcement = system.enforcement(POLICY)
    before.replace()
    with trio.move_on_after(0.1) as waited:
        await before.over()
    assert waited.cancelled_caught
    system.launcher.commands[0].set()
    assert (await system.result())["success"]
    with trio.fail_after(30):
        await before.over()

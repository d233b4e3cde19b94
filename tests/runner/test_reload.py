"""SIGHUP: a changed policy takes the old one's place whole, or nothing changes."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
from tests.support.platform_stub import Peer, open_stub
from tests.support.runner_process import POLICY, RunnerProcess, make_directory, remove_directory, start_runner

TOKEN = "wnt_canary_77a0"
OTHER = 'permission:\n  bash:\n    "*": allow\n    "echo old*": deny\n'


@pytest.fixture
def directory() -> Iterator[Path]:
    place = make_directory()
    yield place
    remove_directory(place)


@pytest.fixture
async def runner(directory: Path) -> AsyncIterator[tuple[RunnerProcess, Peer]]:
    async with open_stub(TOKEN) as stub, start_runner(stub.url, token=TOKEN, directory=directory) as process:
        yield process, await stub.peer()


def children_of(pid: int) -> list[int]:
    """The processes that ``pid`` has started and that are no zombies."""
    found = []
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{entry}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if fields and fields[1] == str(pid) and fields[0] != "Z":
            found.append(int(entry))
    return found


def keeper_of(pid: int) -> int:
    (keeper,) = [child for child in children_of(pid) if name_of(child) == "guardhouse-keep"]
    return keeper


def name_of(pid: int) -> str:
    """Return a process's name; empty once it has ended, as a launcher that was replaced may at any moment."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def environment_of(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_text(errors="replace")


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def hang_up(process: RunnerProcess) -> None:
    process.process.send_signal(signal.SIGHUP)


async def test_a_good_policy_is_in_force_for_the_next_command_in_both_gates(runner, directory) -> None:
    """What was allowed is denied and the reverse, by the launcher's copy as well; the result names the new digest."""
    process, peer = runner
    before = await peer.run("echo old")
    assert before["success"]
    assert not (await peer.run("forbidden thing"))["success"]
    (directory / "policy.yaml").write_text(OTHER)
    hang_up(process)
    await process.logged("policy reloaded")
    denied = await peer.run("echo old")
    assert denied["error"].startswith("command denied: ")
    after = await peer.run("c=old; echo new; /bin/echo $c")
    digests = [found["result"]["decision"]["policy"]["digest"] for found in (before, after)]
    assert digests[0] != digests[1]
    assert after["result"]["stdout"] == "new\n"
    assert "exec gate" in after["result"]["stderr"]
    assert (await peer.run("forbidden thing"))["success"]


async def test_a_bad_policy_changes_nothing_and_says_why(runner, directory) -> None:
    """The old policy stays in force, and the log has the file, the line and the reason."""
    process, peer = runner
    digest = (await peer.run("true"))["result"]["decision"]["policy"]["digest"]
    (directory / "policy.yaml").write_text('permission:\n  bash:\n    "*": perhaps\n')
    hang_up(process)
    await process.logged("policy not reloaded; the one before stays in force")
    await process.logged("policy.yaml:3:")
    assert (await peer.run("true"))["result"]["decision"]["policy"]["digest"] == digest
    assert not (await peer.run("forbidden thing"))["success"]
    (directory / "policy.yaml").unlink()
    hang_up(process)
    await process.logged("cannot read")
    assert not (await peer.run("forbidden thing"))["success"]
    # What waits for ever, is no file, or once ended the keeper; the next good one is taken all the same.
    os.mkfifo(directory / "policy.yaml")
    hang_up(process)
    await process.logged("is no regular file")
    (directory / "policy.yaml").unlink()
    (directory / "policy.yaml").mkdir()
    hang_up(process)
    await process.logged("is a directory")
    (directory / "policy.yaml").rmdir()
    count = f"at_most: {'9' * 5000}"
    (directory / "policy.yaml").write_text(
        f"permission:\n  bash:\n  - {{argv: {{program: x, operands: any, {count}}}, then: allow}}\n"
    )
    hang_up(process)
    await process.logged("a number of operands")
    assert not (await peer.run("forbidden thing"))["success"]
    (directory / "policy.yaml").write_text(OTHER)
    hang_up(process)
    await process.logged("policy reloaded")
    assert (await peer.run("forbidden thing"))["success"]


async def test_what_runs_ends_under_the_old_policy_and_its_launcher_goes_then(runner, directory) -> None:
    """A reload stops no command; the launcher of the old policy ends with the last one, the new one stays."""
    process, peer = runner
    running = await peer.ask("bash", {"command": "echo begun; while [ ! -e go ]; do sleep 0.05; done; echo old"})
    await peer.output_with(running, "begun")
    old = set(children_of(process.process.pid)) - {keeper_of(process.process.pid)}
    assert len(old) == 1
    (directory / "policy.yaml").write_text(OTHER)
    hang_up(process)
    await process.logged("policy reloaded")
    assert (await peer.run("echo new; touch go"))["success"]
    ended = await peer.result_of(running)
    assert ended["result"]["stdout"] == "begun\nold\n"
    with trio.fail_after(30):
        while old & set(children_of(process.process.pid)):  # noqa: ASYNC110 - another process ends
            await trio.sleep(0.02)
    assert (await peer.run("echo still here"))["success"]
    process.terminate()
    assert await process.ended() == 0


async def test_file_operations_go_on_under_the_new_policy(runner, directory) -> None:
    """The files worker of the new launcher answers, and rules for paths hold from then on."""
    process, peer = runner
    assert (await peer.result_of(await peer.ask("write", {"path": "a", "content": "eA=="})))["success"]
    (directory / "policy.yaml").write_text(POLICY + '  read:\n    "*": allow\n    a: deny\n')
    hang_up(process)
    await process.logged("policy reloaded")
    assert (await peer.result_of(await peer.ask("read", {"path": "a"})))["error"].startswith("read denied")
    assert (await peer.result_of(await peer.ask("write", {"path": "b", "content": "eA=="})))["success"]
    assert (await peer.result_of(await peer.ask("read", {"path": "b"})))["success"]


async def test_a_signal_during_the_start_does_not_end_it(directory) -> None:
    """Somebody who reloads right after a start gets the runner, with the policy that it has just read."""
    async with open_stub(TOKEN) as stub, start_runner(stub.url, token=TOKEN, directory=directory) as process:
        await process.logged("event=starting")
        hang_up(process)
        assert (await (await stub.peer()).run("echo old"))["success"]


async def test_many_signals_leave_one_launcher(runner) -> None:
    """Reloads follow each other; every launcher but the last one ends, and the keeper waits for its own."""
    process, peer = runner
    for _ in range(4):
        hang_up(process)
        await trio.sleep(0.1)
    await process.logged("policy reloaded")
    keeper = keeper_of(process.process.pid)
    with trio.fail_after(20):
        while len(children_of(keeper)) + len(children_of(process.process.pid)) > 2:  # noqa: ASYNC110 - as above
            await trio.sleep(0.05)
    assert (await peer.run("echo fine"))["success"]


async def test_without_its_keeper_the_runner_says_so_and_keeps_its_policy(runner, directory) -> None:
    """A keeper that is gone costs reloads, nothing else."""
    process, peer = runner
    os.kill(keeper_of(process.process.pid), signal.SIGKILL)
    (directory / "policy.yaml").write_text(OTHER)
    hang_up(process)
    await process.logged("restart the runner")
    assert (await peer.run("echo old"))["success"]


async def test_the_keeper_ends_with_a_killed_runner_and_never_had_the_token(runner) -> None:
    """It holds no descriptor of the runner's but their socket, ignores the terminal's signals, and leaves with it."""
    process, peer = runner
    await peer.run("true")
    keeper = keeper_of(process.process.pid)
    if os.geteuid() == 0:
        kinds = {os.readlink(f"/proc/{keeper}/fd/{name}").split(":")[0] for name in os.listdir(f"/proc/{keeper}/fd")}
        sockets = [name for name in os.listdir(f"/proc/{keeper}/fd") if int(name) > 2]
        assert len(sockets) == 1
        assert "socket" in kinds
        assert TOKEN not in environment_of(keeper)
    else:
        # It cannot be dumped, so that not even its own user may look into it.
        with pytest.raises(PermissionError):
            os.listdir(f"/proc/{keeper}/fd")
    os.kill(keeper, signal.SIGTERM)
    process.process.kill()
    await process.ended()
    with trio.fail_after(30):
        while lives(keeper):  # noqa: ASYNC110 - another process ends
            await trio.sleep(0.02)

"""The real runner, driven through every message by a platform that speaks only the plain protocol."""

import base64
import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import trio
import trio_websocket
from tests.support.platform_stub import open_stub
from tests.support.runner_process import make_directory, remove_directory, start_runner

TOKEN = "wnt_canary_5f1c"


@pytest.fixture
def directory() -> Iterator[Path]:
    """State and workspace that outlive one runner."""
    place = make_directory()
    yield place
    remove_directory(place)


async def test_every_message() -> None:
    """Welcome, heartbeat, bash, output, results, files, cancel, unknown operation and arguments, MCP, in one go."""
    async with open_stub(TOKEN) as stub, start_runner(stub.url, token=TOKEN) as runner:
        peer = await stub.peer()
        first, second = stub.attempts
        assert (first.token, first.has_authorization, first.subprotocols) == (None, True, ("guardhouse.v1",))
        assert (second.token, second.has_authorization, second.subprotocols) == (TOKEN, False, ())

        heartbeat = await peer.next("heartbeat")
        assert (heartbeat["worknode_id"], heartbeat["name"], heartbeat["labels"]) == ("wn_stub", "stub-node", ["linux"])
        facts = heartbeat["environment"]
        assert facts["os"] == "linux"
        assert facts["workspace_root"] == str(runner.workspace)
        assert set(heartbeat["metrics"]) == {"cpu_percent", "memory_percent", "disk_percent"}
        assert set(heartbeat) == {"worknode_id", "name", "labels", "version", "environment", "metrics"}

        done = await peer.run("echo out; echo err >&2; exit 3", workdir="")
        assert done["success"] is True
        assert (done["result"]["stdout"], done["result"]["stderr"], done["result"]["exit_code"]) == (
            "out\n",
            "err\n",
            3,
        )
        assert peer.output_of(done["task_id"], "stdout") == "out\n"
        assert peer.output_of(done["task_id"], "stderr") == "err\n"

        denied = await peer.result_of(
            await peer.ask("bash", {"command": "forbidden thing"}, source_instance_id="node-7", trace_id="tr_1")
        )
        assert denied["success"] is False
        assert denied["error"].startswith("command denied: ")
        assert denied["source_instance_id"] == "node-7"

        unknown = await peer.result_of(await peer.ask("format_disk", {}))
        assert unknown["error"] == "unknown operation: format_disk"
        bad = await peer.result_of(await peer.ask("read", {"path": 7}))
        assert bad["error"].startswith("invalid read args")
        missing = await peer.result_of(await peer.ask("bash", None))
        assert missing["error"].startswith("invalid bash args")
        tools = await peer.result_of(await peer.ask("mcp_list_tools", {"server": {"name": "s", "transport": "stdio"}}))
        assert "has no command" in tools["error"]

        await peer.say("mcp.call", {"call_id": "c1", "server": {"name": "s", "transport": "stdio"}, "tool_name": "t"})
        answer = await peer.next("mcp.result")
        assert (answer["call_id"], answer["success"]) == ("c1", False)
        assert "has no command" in answer["error"]

        slow = await peer.ask("bash", {"command": "echo begun; sleep 60"})
        await peer.output_with(slow, "begun")
        began_s = time.monotonic()
        await peer.say("task.cancel", {"task_id": slow})
        await peer.say("task.cancel", {"task_id": "never-heard-of"})
        cancelled = await peer.result_of(slow)
        assert cancelled["result"]["cancelled"] is True
        assert time.monotonic() - began_s < 40

        await peer.say("something.new", {"x": 1})
        await peer.say("task.request", {"task_id": "again", "operation": "bash", "args": {"command": "echo once >> f"}})
        await peer.result_of("again")
        await peer.say("task.request", {"task_id": "again", "operation": "bash", "args": {"command": "echo once >> f"}})
        assert (await peer.run("cat f"))["result"]["stdout"] == "once\n"

        runner.terminate()
        assert await runner.ended() == 0
        assert TOKEN not in runner.text
        assert peer.close_reason.code == 1000
    extras = {key for message in peer.heard for key in message["payload"]} & {"seq", "offset", "data_b64", "draining"}
    assert not extras


async def test_file_operations() -> None:
    """write, read and list work inside the workspace, which commands share, and nowhere else."""
    async with open_stub(TOKEN) as stub, start_runner(stub.url, token=TOKEN):
        peer = await stub.peer()
        content = base64.b64encode(b"hello\n").decode()
        assert (await peer.result_of(await peer.ask("write", {"path": "a/b.txt", "content": content})))["success"]
        read = await peer.result_of(await peer.ask("read", {"path": "a/b.txt"}))
        assert base64.b64decode(read["result"]["content"]) == b"hello\n"
        assert read["result"]["total_size"] == 6
        listed = await peer.result_of(await peer.ask("list", {"path": "", "recursive": True}))
        assert "a/b.txt" in [entry["path"] for entry in listed["result"]["entries"]]
        escape = await peer.result_of(await peer.ask("read", {"path": "../../etc/passwd"}))
        assert escape["error"].startswith("path escapes workspace")
        assert (await peer.run("cat a/b.txt"))["result"]["stdout"] == "hello\n"


async def test_workdir() -> None:
    """A workdir is a place in the workspace, relative or spelt in full; anything else escapes and is refused."""
    async with open_stub(TOKEN) as stub, start_runner(stub.url, token=TOKEN) as runner:
        peer = await stub.peer()
        root = str(runner.workspace)
        await peer.run("mkdir -p sub/deep")
        for workdir, place in (("", root), ("sub", f"{root}/sub"), (f"{root}/sub/deep", f"{root}/sub/deep")):
            assert (await peer.run("pwd", workdir=workdir))["result"]["stdout"] == f"{place}\n"
        for workdir in ("..", "sub/../..", "/etc", f"{root}-other"):
            refused = await peer.run("pwd", workdir=workdir)
            assert (refused["success"], refused["error"][:22]) == (False, "path escapes workspace"), workdir
        missing = await peer.run("pwd", workdir="absent")
        assert missing["success"] is False or missing["result"]["exit_code"] != 0


async def test_the_launchers_death_ends_the_runner() -> None:
    """Without its launcher a runner can keep no promise: it ends with status 125, and the commands are gone."""
    async with open_stub(TOKEN) as stub, start_runner(stub.url, token=TOKEN) as runner:
        peer = await stub.peer()
        task_id = await peer.ask("bash", {"command": "echo begun; sleep 331"})
        await peer.output_with(task_id, "begun")
        children = psutil.Process(runner.process.pid).children()
        (launcher,) = [child for child in children if not child.name().startswith("guardhouse-keep")]
        launcher.kill()
        assert await runner.ended() == 125
        assert "the launcher ended unexpectedly" in runner.text
        assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and b"sleep\x00331" in _command_line(pid)]


async def test_time_limit() -> None:
    """A command over its time answers exit code 124 with its whole tree ended."""
    async with open_stub(TOKEN) as stub, start_runner(stub.url, token=TOKEN):
        peer = await stub.peer()
        done = await peer.run("sleep 300 & sleep 300", timeout=1)
        assert (done["success"], done["result"]["exit_code"], done["result"]["timed_out"]) == (True, 124, True)
        assert "timed out after 1 s" in done["result"]["stderr"]
        left = await peer.run("ps -eo args | grep -c '[s]leep 300'")
        assert left["result"]["stdout"] == "0\n"


async def test_large_output_is_saved_and_previewed() -> None:
    """Over 30,000 characters the result is a preview that names the file with the whole."""
    async with open_stub(TOKEN) as stub, start_runner(stub.url, token=TOKEN):
        peer = await stub.peer()
        done = (await peer.run("seq 1 20000"))["result"]
        whole = "".join(f"{number}\n" for number in range(1, 20001))
        assert done["truncated"] is True
        assert done["total_size"] == len(whole)
        assert len(done["stdout"]) < 12_000
        assert done["file_path"] in done["stdout"]
        assert peer.output_of((await peer.run("true"))["task_id"], "stdout") == ""
        read = await peer.result_of(await peer.ask("read", {"path": done["file_path"]}))
        assert base64.b64decode(read["result"]["content"]).decode() == whole


async def test_output_past_the_cap_is_counted() -> None:
    """Past 10 MiB the rest of a stream is dropped and the result says how much."""
    async with open_stub(TOKEN) as stub, start_runner(stub.url, token=TOKEN):
        peer = await stub.peer()
        task_id = await peer.ask("bash", {"command": "head -c 12582912 /dev/zero | tr '\\0' x"})
        done = (await peer.result_of(task_id, timeout_s=60))["result"]
        assert done["stdout_dropped"] == 2 * 1024 * 1024
        assert len(peer.output_of(task_id, "stdout")) == 10 * 1024 * 1024
        assert "2097152 bytes of stdout were dropped" in done["stderr"]


async def test_a_result_survives_a_cut() -> None:
    """A command runs on while the network is cut; its result comes over the next connection, once."""
    async with open_stub(TOKEN) as stub, start_runner(stub.url, token=TOKEN) as runner:
        peer = await stub.peer()
        task_id = await peer.ask("bash", {"command": "echo before; sleep 1; echo after"})
        await peer.output_with(task_id, "before")
        await peer.cut()
        again = await stub.peer()
        done = await again.result_of(task_id)
        assert done["result"]["stdout"] == "before\nafter\n"
        await again.run("true")
        assert sum(message["type"] == "task.result" for message in again.heard) == 2
        assert "environment" in (await again.next("heartbeat"))
        runner.terminate()
        assert await runner.ended() == 0


async def test_a_result_survives_the_platform(directory) -> None:
    """A result that no platform was there to take is delivered when one is back, and by the next runner otherwise."""
    async with open_stub(TOKEN) as stub, start_runner(stub.url, token=TOKEN, directory=directory) as runner:
        peer = await stub.peer()
        task_id = await peer.ask("bash", {"command": "echo begun; sleep 1; echo late"})
        await peer.output_with(task_id, "begun")
        stub.refusal = 503
        await peer.cut()
        await runner.logged("task done")
        runner.terminate()
        assert await runner.ended() == 0
        stub.refusal = None
        async with start_runner(stub.url, token=TOKEN, directory=directory):
            later = await stub.peer()
            assert (await later.result_of(task_id))["result"]["stdout"] == "begun\nlate\n"


async def test_a_killed_runner_reports_its_task_as_interrupted_once(directory) -> None:
    """After kill -9 the next runner answers for the task; the command is gone and is not started again."""
    async with open_stub(TOKEN) as stub:
        async with start_runner(stub.url, token=TOKEN, directory=directory) as runner:
            peer = await stub.peer()
            task_id = await peer.ask("bash", {"command": "echo started >> log; sleep 300"}, source_instance_id="n1")
            await runner.appeared(runner.workspace / "log")
            runner.process.kill()
            await runner.process.wait()
        async with start_runner(stub.url, token=TOKEN, directory=directory) as runner:
            peer = await stub.peer()
            lost = await peer.result_of(task_id)
            assert lost["success"] is False
            assert lost["error"].startswith("interrupted: ")
            assert lost["source_instance_id"] == "n1"
            await peer.ask("bash", {"command": "echo started >> log; sleep 300"}, task_id=task_id)
            state = await peer.run("cat log; ps -eo args | grep -c '[s]leep 300'")
            assert state["result"]["stdout"] == "started\n0\n"
            runner.terminate()
            await runner.ended()
        async with start_runner(stub.url, token=TOKEN, directory=directory):
            peer = await stub.peer()
            await peer.run("true")
            assert sum(m["type"] == "task.result" and m["payload"]["task_id"] == task_id for m in peer.heard) == 0


async def test_drain_waits_for_running_tasks() -> None:
    """SIGTERM: the running command ends by itself, its result is delivered, new requests are refused, exit 0."""
    async with open_stub(TOKEN) as stub, start_runner(stub.url, token=TOKEN) as runner:
        peer = await stub.peer()
        task_id = await peer.ask("bash", {"command": "echo begun; sleep 2; echo finished"})
        await peer.output_with(task_id, "begun")
        runner.terminate()
        await runner.logged("draining")
        refused = await peer.result_of(await peer.ask("bash", {"command": "true"}))
        assert (refused["success"], "draining" in refused["error"]) == (False, True)
        assert (await peer.result_of(task_id))["result"]["stdout"] == "begun\nfinished\n"
        assert await runner.ended() == 0


async def test_drain_time_ends() -> None:
    """What still runs when the drain's time is over is stopped, and its result delivered."""
    async with (
        open_stub(TOKEN) as stub,
        start_runner(stub.url, token=TOKEN, arguments=("--drain-timeout", "1")) as runner,
    ):
        peer = await stub.peer()
        task_id = await peer.ask("bash", {"command": "echo begun; sleep 300"})
        await peer.output_with(task_id, "begun")
        runner.terminate()
        assert (await peer.result_of(task_id))["result"]["stdout"] == "begun\n"
        assert await runner.ended() == 0


async def test_second_signal_ends_at_once() -> None:
    """A second SIGTERM kills every command and ends the runner within a moment."""
    async with open_stub(TOKEN) as stub, start_runner(stub.url, token=TOKEN) as runner:
        peer = await stub.peer()
        # No other suite on this machine sleeps as long.
        seconds = f"317.{os.getpid()}{time.monotonic_ns()}"
        task_id = await peer.ask("bash", {"command": f"trap '' TERM; echo begun; sleep {seconds}"})
        await peer.output_with(task_id, "begun")
        runner.terminate()
        await runner.logged("draining")
        began_s = time.monotonic()
        runner.terminate()
        assert await runner.ended() == 130
        # Far below the drain of 30 s that the first signal began.
        assert time.monotonic() - began_s < 20
        with trio.fail_after(30):
            while _sleeps(seconds):  # noqa: ASYNC110 - the launcher kills it once the runner is gone
                await trio.sleep(0.05)


def _sleeps(seconds: str) -> bool:
    words = f"sleep\0{seconds}\0".encode()
    return any(pid.isdigit() and _command_line(pid) == words for pid in os.listdir("/proc"))


def _command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("source", ["environment", "flag", "seed"])
async def test_the_token_is_nowhere_a_command_can_look(source) -> None:
    """However it was given: not in the log, a command's environment, argv of any process, or readable environ."""
    arguments, environ = {
        "environment": ((), {"GUARDHOUSE_TOKEN": TOKEN}),
        "flag": (("--token", TOKEN), {}),
        "seed": ((), {"FLASHDUTY_RUNNER_TOKEN": TOKEN}),
    }[source]
    async with (
        open_stub(TOKEN) as stub,
        start_runner(stub.url, token=TOKEN, arguments=arguments, environ=environ) as runner,
    ):
        peer = await stub.peer()
        hunt = "env; cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'; ls -l /proc/self/fd"
        seen = await peer.run(hunt)
        assert TOKEN not in json.dumps(seen["result"])
        assert TOKEN not in runner.text
        for name in ("cmdline", "environ"):
            # Root can read it and must find nothing; the runner's own account cannot read it at all.
            with contextlib.suppress(PermissionError):
                assert TOKEN.encode() not in await trio.Path(f"/proc/{runner.process.pid}/{name}").read_bytes()


async def test_malformed_frames_do_not_end_the_runner() -> None:
    """A frame that is no JSON ends the connection with 1007; the runner comes back."""
    async with open_stub(TOKEN) as stub, start_runner(stub.url, token=TOKEN):
        peer = await stub.peer()
        await peer.say_raw("{not json")
        await peer.is_over.wait()
        assert peer.close_reason.code == 1007
        again = await stub.peer()
        assert (await again.run("echo back"))["result"]["stdout"] == "back\n"


async def test_oversized_frames_do_not_end_the_runner() -> None:
    """A frame over 32 MiB ends the connection with 1009; the runner comes back."""
    async with open_stub(TOKEN) as stub, start_runner(stub.url, token=TOKEN):
        peer = await stub.peer()
        with trio.move_on_after(20):
            # The runner may hang up while the frame is still being sent.
            with contextlib.suppress(trio_websocket.ConnectionClosed):
                await peer.say_raw("x" * (33 * 1024 * 1024))
            await peer.is_over.wait()
        again = await stub.peer()
        assert (await again.run("echo back"))["result"]["stdout"] == "back\n"


async def test_a_missing_welcome_is_only_a_warning() -> None:
    """The seed's runner carries on without a welcome, and so does ours on the plain protocol."""
    async with open_stub(TOKEN) as stub, start_runner(stub.url, token=TOKEN) as runner:
        stub.sends_welcome = False
        peer = await stub.peer()
        await peer.next("heartbeat")
        await runner.logged("sent no welcome")
        assert (await peer.run("echo on"))["result"]["stdout"] == "on\n"

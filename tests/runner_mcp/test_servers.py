"""MCP servers through the real runner: local ones behind the wall, ones with an address, and what is refused."""

import base64
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import trio
from tests.support.platform_stub import Peer, open_stub
from tests.support.runner_process import RunnerProcess, make_directory, remove_directory, start_runner

TOKEN = "wnt_canary_mcp"
SUPPORT = Path(__file__).resolve().parents[1] / "support"
SERVER = str(SUPPORT / "mcp_server.py")
SITE = Path(json.__file__).parents[1]  # the standard library's directory, for the interpreter's own prefix

_PROFILE = """
profile: test_mcp_server
summary: mcp_server that also sees the test server and its interpreter
extends: mcp_server
view:
{entries}
"""
_POLICY = """
permission:
  bash:
    - {match: "*", then: allow}
    - {match: "forbidden*", then: deny}
    - {match: "touch PWNED*", then: deny}
  webfetch:
    - {match: "http://127.0.0.1:*/*", then: allow}
    - {match: "http://127.0.0.1:1/*", then: deny}
  mcp:
    - {match: "*", then: allow}
    - {match: "local/die*", then: deny}
    - {match: "local/large", when: {arguments: {size: "7"}}, then: deny}
"""


def visible_directories() -> list[str]:
    """What an interpreter outside /usr needs to be seen for."""
    places = {Path(sys.prefix), Path(sys.base_prefix).resolve(), SUPPORT}
    return sorted(str(place) for place in places if not place.is_relative_to("/usr"))


@pytest.fixture
def directory() -> Iterator[Path]:
    place = make_directory()
    (place / "policy.yaml").write_text(_POLICY)
    entries = "\n".join(
        f"  - {{bind_readonly: {where}, options: [nosuid, nodev], why: the test server}}"
        for where in visible_directories()
    )
    (place / "test_mcp_server.yaml").write_text(_PROFILE.format(entries=entries))
    yield place
    remove_directory(place)


@asynccontextmanager
async def system(directory: Path, *arguments: str) -> AsyncIterator[tuple[Peer, RunnerProcess]]:
    async with (
        open_stub(TOKEN) as stub,
        start_runner(
            stub.url,
            token=TOKEN,
            directory=directory,
            arguments=("--mcp-profile", str(directory / "test_mcp_server.yaml"), *arguments),
        ) as runner,
    ):
        yield await stub.peer(), runner


def local(**more: object) -> dict[str, object]:
    return {"name": "local", "transport": "stdio", "command": sys.executable, "args": [SERVER, "stdio"], **more} | {
        "connect_timeout": 60
    }


async def call(peer: Peer, server: dict[str, object], tool: str, timeout_s: float = 60.0, **args: object) -> dict:
    asked = {"server": server, "tool_name": tool, "args": args, "timeout": timeout_s}
    return await peer.result_of(await peer.ask("mcp_call", asked), timeout_s=120)


@pytest.fixture
def addressed(tmp_path: Path) -> Iterator[dict[str, object]]:
    """A server with an address on the loopback."""
    port_file = tmp_path / "port"
    with subprocess.Popen([sys.executable, SERVER, "http", str(port_file)]) as process:
        try:
            for _ in range(600):
                if port_file.exists():
                    break
                assert process.poll() is None
                trio.run(trio.sleep, 0.1)
            yield {
                "name": "addressed",
                "transport": "streamable-http",
                "url": f"http://127.0.0.1:{port_file.read_text()}/mcp",
                "connect_timeout": 60,
            }
        finally:
            process.kill()


async def test_a_local_server(directory: Path) -> None:
    """Tools are listed and called, every kind of content is kept, errors are the tool's own, one session serves all."""
    async with system(directory) as (peer, runner):
        listed = await peer.result_of(await peer.ask("mcp_list_tools", {"server": local()}), timeout_s=120)
        assert listed["success"], listed
        tools = {tool["name"]: tool for tool in listed["result"]["tools"]}
        assert tools["add"]["description"] == "Add two numbers."
        assert tools["add"]["input_schema"]["required"] == ["a", "b"]

        added = await call(peer, local(), "add", a=2, b=40)
        assert added["success"], added
        assert (added["result"]["content"], added["result"]["structured"]) == ("42", {"result": 42})

        shown = (await call(peer, local(), "show"))["result"]
        assert shown["content"].split("\n") == [
            *("first", "[Image: image/png]", "[Audio: audio/wav]", "[Resource: file:///a.txt]", "inside", "last")
        ]
        assert [part["type"] for part in shown["parts"]] == ["image", "audio", "resource"]
        assert shown["parts"][0]["data"] == "aGk="

        failed = await call(peer, local(), "fail", why="because")
        assert failed["success"] is True
        assert failed["result"]["is_error"] is True

        large = (await call(peer, local(), "large", size=200_000))["result"]
        assert (large["truncated"], large["total_size"]) == (True, 200_000)
        read = await peer.result_of(await peer.ask("read", {"path": large["file_path"]}))
        assert base64.b64decode(read["result"]["content"]) == b"x" * 200_000

        await peer.say(
            "mcp.call", {"call_id": "c1", "server": local(), "tool_name": "add", "arguments": {"a": 1, "b": 1}}
        )
        answer = await peer.next("mcp.result", timeout_s=60)
        assert (answer["call_id"], answer["success"], answer["result"]["content"]) == ("c1", True, "2")
        assert runner.text.count("mcp session open") == 1


async def test_the_wall_and_the_gate_hold_a_local_server(directory: Path) -> None:
    """It sees its record's variables and no others, its programs are judged, the host's files are not there."""
    async with system(directory) as (peer, runner):
        server = local(env={"COLOUR": "of-this-server"})
        seen = (await call(peer, server, "environment"))["result"]["structured"]
        assert seen["COLOUR"] == "of-this-server"
        assert TOKEN not in json.dumps(seen)
        assert "GUARDHOUSE_TOKEN" not in seen

        allowed = (await call(peer, server, "run", command="touch FINE; ls"))["result"]["content"]
        assert "FINE" in allowed
        denied = (await call(peer, server, "run", command="touch PWNED; ls"))["result"]["content"]
        assert "PWNED" not in denied
        hidden = (await call(peer, server, "run", command=f"ls {directory} /etc/shadow /root/.ssh; true"))["result"]
        assert "policy.yaml" not in hidden["content"]
        assert not (runner.workspace / "PWNED").exists()
        assert (runner.workspace / "FINE").exists()


async def test_what_the_policy_denies(directory: Path) -> None:
    """A tool, an argument's value, a server's command and an address are refused by their rules; the twins work."""
    async with system(directory, "--fetch-network", "127.0.0.0/8") as (peer, _):
        die = await call(peer, local(), "die")
        assert die["success"] is False
        assert die["error"].startswith("mcp denied: 'local/die' matches the mcp rule")
        assert (await call(peer, local(), "large", size=7))["error"].startswith("mcp denied: 'local/large'")
        assert (await call(peer, local(), "large", size=8))["result"]["content"] == "x" * 8

        command = await call(peer, {"name": "s", "transport": "stdio", "command": "forbidden", "args": ["x"]}, "t")
        assert command["error"].startswith("command denied: ")
        address = await call(peer, {"name": "s", "transport": "sse", "url": "http://127.0.0.1:1/sse"}, "t")
        assert "denied" in address["error"]
        unknown = await call(peer, {"name": "s", "transport": "carrier-pigeon"}, "t")
        assert unknown["error"].startswith("unsupported transport type 'carrier-pigeon'")
        twice = await call(peer, local(), "add", **{"a.b": 1, "a": {"b": 2}})
        assert "two arguments are called 'a.b'" in twice["error"]
        loading = await call(peer, local(env={"LD_PRELOAD": "./evil.so"}), "add", a=1, b=1)
        assert "LD_PRELOAD" in loading["error"]


async def test_a_server_with_an_address(directory: Path, addressed: dict[str, object]) -> None:
    """It is reached where the operator granted its network; without the grant a private address is refused."""
    port = str(addressed["url"]).split(":")[2].split("/")[0]
    policy = _POLICY.replace("http://127.0.0.1:*/*", f"http://127.0.0.1:{port}/*")
    (directory / "policy.yaml").write_text(policy)
    async with system(directory, "--fetch-network", "127.0.0.0/8") as (peer, runner):
        headers = {"Authorization": "Bearer secret-of-the-record"}
        added = await call(peer, addressed | {"headers": headers}, "add", a=1, b=2)
        assert added["result"]["content"] == "3", added
        # The platform's older name for the same transport.
        assert (await call(peer, addressed | {"transport": "sse"}, "add", a=2, b=2))["result"]["content"] == "4"
        assert "secret-of-the-record" not in runner.text
    async with system(directory) as (peer, _):
        refused = await call(peer, addressed, "add", a=1, b=2)
        assert refused["success"] is False
        assert "loopback" in refused["error"], refused


async def test_time_limits_cancel_and_death(directory: Path) -> None:
    """A slow tool ends at its limit, a cancelled one at once; others go on meanwhile; a dead server is replaced."""
    async with system(directory) as (peer, runner):
        assert (await call(peer, local(), "add", a=1, b=1))["result"]["content"] == "2"
        slow = await call(peer, local(), "wait", timeout_s=0.5, seconds=60)
        assert (slow["success"], "no answer within 0.5 s" in slow["error"]) == (False, True)

        waiting = await peer.ask("mcp_call", {"server": local(), "tool_name": "wait", "args": {"seconds": 600}})
        assert (await call(peer, local(), "add", a=1, b=2))["result"]["content"] == "3"
        await peer.say("task.cancel", {"task_id": waiting})
        assert "cancelled" in (await peer.result_of(waiting))["error"]

        [server] = [
            each
            for each in psutil.Process(runner.process.pid).children(recursive=True)
            if each.cmdline()[1:] == [SERVER, "stdio"]
        ]
        server.send_signal(signal.SIGKILL)
        with trio.fail_after(60):
            while True:
                again = await call(peer, local(), "add", a=2, b=2)
                if again["success"]:
                    break
        assert again["result"]["content"] == "4"


async def test_one_slow_server_blocks_nobody(directory: Path) -> None:
    """A server that never answers the handshake runs into its own limit while another one is used."""
    silent = {"name": "silent", "transport": "stdio", "command": "sleep", "args": ["600"], "connect_timeout": 8}
    async with system(directory) as (peer, _):
        blocked = await peer.ask("mcp_call", {"server": silent, "tool_name": "t", "args": {}})
        assert (await call(peer, local(), "add", a=1, b=1))["result"]["content"] == "2"
        ended = await peer.result_of(blocked, timeout_s=60)
        assert "no answer within 8 s" in ended["error"]
        missing = await call(peer, {"name": "m", "transport": "stdio", "command": "no-such-program"}, "t")
        assert "no-such-program" in missing["error"]


def lives(process: psutil.Process) -> bool:
    """Whether a process runs: one that only waits for its parent to take its status does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_nothing_is_left(directory: Path) -> None:
    """When the runner ends, its servers, their children and the workers end with it."""
    async with system(directory) as (peer, runner):
        await call(peer, local(), "run", command="(sleep 4242 >/dev/null 2>&1 &) ; true")
        family = psutil.Process(runner.process.pid).children(recursive=True)
        assert any(SERVER in " ".join(each.cmdline()) for each in family)
        runner.terminate()
        assert await runner.ended() == 0
        with trio.fail_after(30):
            while any(lives(each) for each in family):  # noqa: ASYNC110 - they tell nobody when they end
                await trio.sleep(0.1)

"""MCP servers that nobody here wrote, from npm and PyPI, used through the real runner: behind the wall, and over HTTP.

They are looked for where GUARDHOUSE_MCP_SERVERS points, since no test downloads anything:

    npm install @modelcontextprotocol/server-{filesystem,everything,memory}
    python3 -m venv venv && venv/bin/pip install mcp-server-time mcp-server-git mcp-server-fetch
    python3 -m venv venv1 && venv1/bin/pip install mcp-server-sqlite 'mcp<2'    # it does not start with SDK 2
    GUARDHOUSE_MCP_SERVERS=$PWD python -m pytest tests/runner_mcp/test_foreign_servers.py
"""

import base64
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.support.platform_stub import Peer, open_stub
from tests.support.runner_process import RunnerProcess, make_directory, remove_directory, start_runner

PLACE = os.environ.get("GUARDHOUSE_MCP_SERVERS", "")
TOKEN = "wnt_canary_foreign"
NODE = shutil.which("node") or "/usr/bin/node"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
POLICY = """
permission:
  bash: {"*": allow}
  webfetch: {"http://127.0.0.1:*/*": allow}
  mcp:
    - {match: "*", then: allow}
    - {match: "filesystem/write_file", when: {arguments: {path: "*/forbidden"}}, then: deny}
"""

pytestmark = pytest.mark.by_hand("GUARDHOUSE_MCP_SERVERS")


def npm(name: str, *arguments: str, **more: Any) -> dict[str, Any]:
    """Return the record of a server from npm."""
    path = Path(PLACE) / "node_modules" / "@modelcontextprotocol" / f"server-{name}" / "dist" / "index.js"
    return {"name": name, "transport": "stdio", "command": NODE, "args": [str(path), *arguments], **more} | LIMITS


def pypi(name: str, *arguments: str, venv: str = "venv") -> dict[str, Any]:
    """Return the record of a server from PyPI."""
    command = str(Path(PLACE) / venv / "bin" / f"mcp-server-{name}")
    return {"name": name, "transport": "stdio", "command": command, "args": list(arguments)} | LIMITS


LIMITS = {"connect_timeout": 120, "call_timeout": 120}


@pytest.fixture
def directory() -> Iterator[Path]:
    place = make_directory()
    (place / "policy.yaml").write_text(POLICY)
    interpreters = {Path(PLACE, venv, "bin", "python").resolve().parents[1] for venv in ("venv", "venv1")}
    seen = sorted({PLACE, *(str(each) for each in interpreters if not each.is_relative_to("/usr"))})
    entries = "\n".join(f"  - {{bind_readonly: {each}, options: [nosuid, nodev], why: the servers}}" for each in seen)
    (place / "foreign.yaml").write_text(
        f"profile: foreign\nsummary: mcp_server that also sees foreign servers\nextends: mcp_server\nview:\n{entries}\n"
    )
    yield place
    remove_directory(place)


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[tuple["Caller", RunnerProcess]]:
    arguments = ("--mcp-profile", str(directory / "foreign.yaml"), "--fetch-network", "127.0.0.0/8")
    async with (
        open_stub(TOKEN) as stub,
        start_runner(stub.url, token=TOKEN, directory=directory, arguments=arguments) as runner,
    ):
        yield Caller(await stub.peer()), runner


class Caller:
    """Asks the runner as the platform does."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    async def tools(self, server: dict[str, Any]) -> dict[str, Any]:
        found = await self.peer.result_of(await self.peer.ask("mcp_list_tools", {"server": server}), timeout_s=240)
        assert found["success"], found
        return {tool["name"]: tool for tool in found["result"]["tools"]}

    async def call(self, server: dict[str, Any], tool: str, **args: Any) -> dict[str, Any]:
        found = await self.ask(server, tool, **args)
        assert found["success"], found
        assert not found["result"].get("is_error"), found
        return found["result"]

    async def ask(self, server: dict[str, Any], tool: str, **args: Any) -> dict[str, Any]:
        asked = {"server": server, "tool_name": tool, "args": args}
        return await self.peer.result_of(await self.peer.ask("mcp_call", asked), timeout_s=240)

    async def run(self, command: str) -> dict[str, Any]:
        found = await self.peer.result_of(await self.peer.ask("bash", {"command": command}), timeout_s=120)
        assert found["success"], found
        return found["result"]


@pytest.mark.timeout(600)
async def test_from_npm(directory: Path) -> None:
    """Files, a memory that lasts, and a server with every kind of content, each by several of its tools."""
    async with running(directory) as (caller, runner):
        workspace = str(runner.workspace)
        files = npm("filesystem", workspace)
        assert {"read_text_file", "write_file", "read_media_file"} <= (await caller.tools(files)).keys()
        await caller.call(files, "write_file", path=f"{workspace}/a.txt", content="one\ntwo\n")
        assert (runner.workspace / "a.txt").read_text() == "one\ntwo\n"
        read = await caller.call(files, "read_text_file", path=f"{workspace}/a.txt", head=1)
        assert read["content"].strip() == "one"
        assert read["structured"]["content"].strip() == "one"
        denied = await caller.ask(files, "write_file", path=f"{workspace}/forbidden", content="x")
        assert denied["error"].startswith("mcp denied: 'filesystem/write_file'")
        outside = await caller.ask(files, "read_text_file", path="/etc/shadow")
        assert outside["result"]["is_error"], outside
        (runner.workspace / "dot.png").write_bytes(PNG)
        (runner.workspace / "dot.png").chmod(0o644)
        media = await caller.call(files, "read_media_file", path=f"{workspace}/dot.png")
        assert [(part["type"], base64.b64decode(part["data"])) for part in media["parts"]] == [("image", PNG)]
        (runner.workspace / "large.txt").write_text("0123456789\n" * 30_000)
        (runner.workspace / "large.txt").chmod(0o644)
        large = await caller.call(files, "read_text_file", path=f"{workspace}/large.txt")
        assert (large["truncated"], large["total_size"] >= 330_000) == (True, True)

        memory = npm("memory", env={"MEMORY_FILE_PATH": f"{workspace}/memory.json"})
        entity = {"name": "web-1", "entityType": "machine", "observations": ["runs nginx"]}
        await caller.call(memory, "create_entities", entities=[entity])
        graph = await caller.call(memory, "read_graph")
        assert graph["structured"]["entities"][0]["name"] == "web-1"
        found = await caller.call(memory, "search_nodes", query="nginx")
        assert "web-1" in found["content"]
        assert "web-1" in (runner.workspace / "memory.json").read_text()

        await _every_kind(caller, npm("everything"))


async def _every_kind(caller: Caller, everything: dict[str, Any]) -> None:
    tools = await caller.tools(everything)
    assert (await caller.call(everything, "echo", message="hello"))["content"] == "Echo: hello"
    assert "42" in (await caller.call(everything, "get-sum", a=40, b=2))["content"]
    image = await caller.call(everything, "get-tiny-image")
    assert [part["mimeType"] for part in image["parts"] if part["type"] == "image"] == ["image/png"]
    weather = await caller.call(everything, "get-structured-content", location="Chicago")
    assert weather["structured"].keys() >= {"temperature", "conditions"}
    links = await caller.call(everything, "get-resource-links", count=2)
    assert [part["type"] for part in links["parts"]] == ["resource_link", "resource_link"]
    for kind in ("Text", "Blob"):
        reference = await caller.call(everything, "get-resource-reference", resourceType=kind, resourceId=1)
        [part] = reference["parts"]
        assert part["type"] == "resource"
        assert kind.lower() in part["resource"]
    annotated = await caller.call(everything, "get-annotated-message", messageType="error", includeImage=True)
    assert "image" in [part["type"] for part in annotated["parts"]]
    slow = await caller.call(everything, "trigger-long-running-operation", duration=1, steps=2)
    assert "completed" in slow["content"].lower()
    seen = json.loads((await caller.call(everything, "get-env"))["content"])
    assert TOKEN not in json.dumps(seen)
    assert "GUARDHOUSE_TOKEN" not in seen
    assert len(tools) >= 10


@pytest.mark.timeout(600)
async def test_from_pypi(directory: Path) -> None:
    """The time, a repository, a database; one that fetches has no network behind the wall and says so."""
    async with running(directory) as (caller, runner):
        workspace = str(runner.workspace)
        clock = pypi("time", "--local-timezone=UTC")
        assert (await caller.tools(clock)).keys() == {"get_current_time", "convert_time"}
        assert "UTC" in (await caller.call(clock, "get_current_time", timezone="UTC"))["content"]
        told = await caller.call(
            clock, "convert_time", source_timezone="UTC", time="12:00", target_timezone="Asia/Kathmandu"
        )
        assert "17:45" in told["content"]

        who = "git -c user.name=x -c user.email=x@example.com"
        await caller.run(f"git init -q repo && cd repo && echo one > a && git add a && {who} commit -qm first")
        repo = pypi("git", "--repository", f"{workspace}/repo")
        path = f"{workspace}/repo"
        await caller.run("cd repo && echo two >> a")
        assert "a" in (await caller.call(repo, "git_status", repo_path=path))["content"]
        assert "+two" in (await caller.call(repo, "git_diff_unstaged", repo_path=path))["content"]
        assert "first" in (await caller.call(repo, "git_log", repo_path=path, max_count=5))["content"]

        database = pypi("sqlite", "--db-path", f"{workspace}/x.db", venv="venv1")
        await caller.call(database, "create_table", query="CREATE TABLE t (n INTEGER)")
        await caller.call(database, "write_query", query="INSERT INTO t VALUES (42)")
        assert "42" in (await caller.call(database, "read_query", query="SELECT n FROM t"))["content"]

        fetch = pypi("fetch", "--ignore-robots-txt")
        assert "fetch" in await caller.tools(fetch)
        failed = await caller.ask(fetch, "fetch", url="http://127.0.0.1:9/")
        assert not failed["success"] or failed["result"]["is_error"], failed


@pytest.mark.timeout(600)
async def test_over_streamable_http(directory: Path) -> None:
    """The same server with every kind of content, where it has an address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    policy = POLICY.replace("127.0.0.1:*", f"127.0.0.1:{port}")  # another port than 80 only where a rule names it
    (directory / "policy.yaml").write_text(policy)
    record = npm("everything", "streamableHttp")
    with subprocess.Popen(  # noqa: ASYNC220 - returns at once
        [record["command"], *record["args"]],
        env={"PATH": "/usr/bin:/bin", "PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            with trio.fail_after(60):
                while not _listens(port):  # noqa: ASYNC110 - it tells nobody that it listens
                    await trio.sleep(0.1)
            address = {"name": "everything", "transport": "streamable-http", "url": f"http://127.0.0.1:{port}/mcp"}
            async with running(directory) as (caller, runner):
                server = address | LIMITS
                tools = await caller.tools(server)
                assert (await caller.call(server, "echo", message="hello"))["content"] == "Echo: hello"
                weather = await caller.call(server, "get-structured-content", location="Chicago")
                assert weather["structured"].keys() >= {"temperature", "conditions"}
                image = await caller.call(server, "get-tiny-image")
                assert "image" in [part["type"] for part in image["parts"]]
                slow = await caller.call(server, "trigger-long-running-operation", duration=1, steps=2)
                assert "completed" in slow["content"].lower()
                assert len(tools) >= 10
                assert len(re.findall("mcp session open", runner.text)) == 1
        finally:
            process.kill()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

"""The hub's MCP server, driven by the official client in both eras and over the stdio bridge, against a real runner."""

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
import trio
from demo.local_system import LocalSystem
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

HOST = "end-to-end"
SERVER = str(Path(__file__).resolve().parents[1] / "support" / "mcp_server.py")


@asynccontextmanager
async def connected(system: LocalSystem, way: str) -> AsyncIterator[Client]:
    """Yield the official client: ``2026`` or ``2025`` over HTTPS, ``stdio`` through `guardhouse mcp`."""
    if way.startswith("stdio"):
        environ = system.cli_environment()
        parameters = StdioServerParameters(command=sys.executable, args=["-m", "guardhouse", "mcp"], env=environ)
        async with Client(parameters, mode="legacy" if way == "stdio-2025" else "auto") as client:
            yield client
        return
    context = ssl.create_default_context(cafile=system.ca_file)
    headers = {"authorization": f"Bearer {system.api_token}"}
    async with (
        httpx2.AsyncClient(headers=headers, verify=context, timeout=120) as http,
        Client(
            streamable_http_client(f"{system.url}/mcp", http_client=http), mode="legacy" if way == "2025" else "auto"
        ) as client,
    ):
        yield client


@pytest.mark.parametrize("way", ["2026", "2025", "stdio-2026", "stdio-2025"])
async def test_every_tool(system: LocalSystem, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the tools does its work and names where; the same over every way to get there."""
    # Beyond it the SDK takes a server that is slow to start for one of the older era; a bridge on a busy machine is.
    monkeypatch.setattr("mcp.client.session.DISCOVER_TIMEOUT_SECONDS", 60.0)
    async with connected(system, way) as client:
        assert client.protocol_version == ("2025-11-25" if "2025" in way else "2026-07-28")
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert len(tools) <= 15
        for tool in tools.values():
            assert tool.annotations is not None
            assert tool.annotations.destructive_hint is not None
            assert tool.output_schema is not None, tool.name
            assert tool.description

        async def ask(name: str, **arguments: object) -> dict:
            reply = await client.call_tool(name, arguments)
            assert not reply.is_error, reply
            return reply.structured_content

        assert [each["name"] for each in (await ask("list_environments"))["environments"]] == [HOST]
        environment = await ask("get_environment", environment=HOST)
        assert (environment["status"], environment["usable"]) == ("online", True)

        ran = await ask("run_command", environment=HOST, command="echo out; echo err >&2; exit 3")
        assert (ran["status"], ran["exit_code"], ran["stdout"], ran["stderr"]) == ("finished", 3, "out\n", "err\n")
        assert (ran["where"]["environment_name"], ran["where"]["host"]) == (HOST, environment["machine"]["hostname"])
        assert (await ask("run_readonly_command", environment=HOST, command="cat /etc/os-release | head -n 2"))[
            "stdout"
        ]

        session = await ask("open_session", title="look around")
        assert (session["state"], session["environment_id"]) == ("new", None)
        inside = await ask("run_command", session_id=session["session_id"], command="echo in")
        assert (inside["stdout"], inside["where"]["environment_name"]) == ("in\n", HOST)
        assert (await ask("glob_files", session_id=session["session_id"], pattern="*"))["where"] == inside["where"]
        bound = await ask("open_session", session_id=session["session_id"])
        assert (bound["environment_name"], bound["state"]) == (HOST, "ready")
        assert (await client.call_tool("run_command", {"command": "true"})).is_error

        slow = await ask("run_command", environment=HOST, command="echo begun; sleep 60", wait_s=1)
        assert slow["status"] == "running"
        assert (await ask("wait_task", task_id=slow["task_id"], wait_s=0))["status"] == "running"
        read = await ask("read_output", task_id=slow["task_id"])
        assert (read["text"], read["is_end"]) == ("begun\n", False)
        cancelled = await ask("cancel_task", task_id=slow["task_id"])
        assert cancelled["status"] in ("cancelling", "finished")
        assert (await ask("wait_task", task_id=slow["task_id"], wait_s=30))["status"] == "finished"

        path = f"agent/{way}.txt"
        written = await ask("write_file", environment=HOST, path=path, text="one\ntwo\n", if_checksum="")
        assert written["bytes"] == 8
        edited = await ask(
            "edit_file", environment=HOST, path=path, old="two", new="2", if_checksum=written["checksum"]
        )
        assert edited["replacements"] == 1
        assert (await ask("read_file", environment=HOST, path=path))["text"] == "one\n2\n"
        assert path in [each["path"] for each in (await ask("list_files", environment=HOST, path="agent"))["entries"]]
        assert path in (await ask("glob_files", environment=HOST, pattern="agent/*.txt"))["matches"]
        assert f"{path}:2:2" in (await ask("grep_files", environment=HOST, pattern="^2$", path="agent"))["text"]


@pytest.mark.parametrize("said", ["nothing", "initialize", "deaf hub"])
def test_the_bridge_ends_with_its_host(system: LocalSystem, said: str) -> None:
    """When stdin ends, however far the two have come, and also when the hub says nothing any more."""
    client = {"name": "host", "version": "1"}
    first = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
    messages = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": first},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
    ]
    command = [sys.executable, "-m", "guardhouse", "mcp"]
    hub = system.process("hub").pid
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | system.cli_environment()
    ) as bridge:
        try:
            assert bridge.stdin is not None
            assert bridge.stdout is not None
            if said != "nothing":
                bridge.stdin.write("".join(json.dumps(each) + "\n" for each in messages).encode())
                bridge.stdin.flush()
                assert json.loads(bridge.stdout.readline())["result"]["protocolVersion"] == "2025-11-25"
            if said == "deaf hub":
                os.kill(hub, signal.SIGSTOP)
            bridge.stdin.close()
            assert bridge.wait(60) == 0
        finally:
            os.kill(hub, signal.SIGCONT)
            bridge.kill()


async def test_long_output_is_head_and_tail(system: LocalSystem) -> None:
    """Within the budget, with exact counts, and the rest to be read from any offset."""
    async with connected(system, "2026") as client:
        reply = await client.call_tool(
            "run_command", {"environment": HOST, "command": "seq 1 100000", "max_output_tokens": 500}
        )
        ran = reply.structured_content
        assert ran["stdout_bytes"] == 588_895
        assert ran["stdout"].startswith("1\n2\n")
        assert ran["stdout"].endswith("99999\n100000\n")
        assert len(ran["stdout"]) < 2_300
        head, _, rest = ran["stdout"].partition("\n[… ")
        tail = rest.partition(" …]\n")[2]
        assert ran["stdout_left_out_bytes"] == ran["stdout_bytes"] - len(head) - len(tail)
        part = await client.call_tool(
            "read_output", {"task_id": ran["task_id"], "offset": 588_889, "max_output_tokens": 100}
        )
        assert (part.structured_content["text"], part.structured_content["is_end"]) == ("00000\n", True)
        assert "<untrusted-output " in reply.content[0].text


async def test_errors_that_a_model_can_act_on(system: LocalSystem) -> None:
    """What, why, the next step, and whether to try again."""
    async with connected(system, "2026") as client:
        cases = [
            ("run_command", {"environment": "nowhere", "command": "ls"}, "environment_not_found"),
            ("run_readonly_command", {"environment": HOST, "command": "touch x"}, "not_read_only"),
            ("run_readonly_command", {"environment": HOST, "command": "$(echo rm) x"}, "not_read_only"),
            ("read_file", {"environment": HOST, "path": "../../etc/shadow"}, "escapes"),
            ("wait_task", {"task_id": "tsk_none"}, "not_found"),
        ]
        for name, arguments, word in cases:
            reply = await client.call_tool(name, arguments)
            assert reply.is_error, (name, reply)
            text = reply.content[0].text
            assert word in text, text
            assert "retryable: no" in text


async def test_a_key_starts_nothing_twice(system: LocalSystem) -> None:
    """The same call with the same key answers with the same task."""
    async with connected(system, "2026") as client:
        arguments = {"environment": HOST, "command": "echo once >> key.txt; wc -l < key.txt", "idempotency_key": "k1"}
        first = (await client.call_tool("run_command", arguments)).structured_content
        second = (await client.call_tool("run_command", arguments)).structured_content
        assert (first["task_id"], first["stdout"]) == (second["task_id"], second["stdout"])
        assert second["stdout"].strip() == "1"


async def test_closing_the_stream_leaves_the_job(system: LocalSystem) -> None:
    """Whoever stops waiting does not stop the command."""
    async with connected(system, "2026") as client:
        command = "echo begun > begun.txt; sleep 6; echo still > survived.txt"
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                arguments = {"environment": HOST, "command": command, "wait_s": 60}
                nursery.start_soon(client.call_tool, "run_command", arguments)
                await _until_there(system.workspace / "begun.txt")
                nursery.cancel_scope.cancel()
    with trio.fail_after(60):
        await _until_there(system.workspace / "survived.txt")


async def _until_there(path: Path) -> None:
    while not path.exists():  # noqa: ASYNC110, ASYNC240 - a file made by the command
        await trio.sleep(0.05)


async def test_a_tool_of_the_machines_own_mcp_server(system: LocalSystem) -> None:
    """A server is started on the machine, behind its wall, and its tools are listed and called."""
    record = {
        "name": "echo",
        "transport": "stdio",
        "command": "/usr/bin/python3",
        "args": ["-c", TINY_SERVER],
        "connect_timeout": 60,
    }
    async with connected(system, "2026") as client:
        listed = await client.call_tool("call_mcp_tool", {"environment": HOST, "server_record": record})
        assert "shout" in listed.structured_content["text"], listed
        called = await client.call_tool(
            "call_mcp_tool",
            {"environment": HOST, "server_record": record, "tool": "shout", "arguments": {"text": "hello"}},
        )
        assert called.structured_content["text"] == "HELLO", called
        # The same as a record of the hub: tried from a terminal, then used by its name alone.
        words = ("--connect-timeout", "60", "--", record["command"], *record["args"])
        made = system.cli("mcp-server", "add", "shouter", "--env", HOST, *words)
        assert made.returncode == 0, made.stderr
        tried = system.cli("mcp-server", "test", "shouter", HOST)
        assert (tried.returncode, tried.stdout.split()[:2]) == (0, [b"TOOL", b"DESCRIPTION"]), tried
        by_name = {"environment": HOST, "server": "SHOUTER", "tool": "shout", "arguments": {"text": "by name"}}
        called = await client.call_tool("call_mcp_tool", by_name)
        assert called.structured_content["text"] == "BY NAME", called
        assert system.cli("mcp-server", "remove", "shouter", "--yes").returncode == 0
        gone = await client.call_tool("call_mcp_tool", by_name)
        assert gone.is_error
        assert "no MCP server" in str(gone.content)


# A server of the older era in a few lines, since the machine's own Python has no SDK behind the wall.
TINY_SERVER = r"""
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    if asked["method"] == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                  "serverInfo": {"name": "tiny", "version": "1"}}
    elif asked["method"] == "tools/list":
        result = {"tools": [{"name": "shout", "inputSchema": {"type": "object"}}]}
    elif asked["method"] == "tools/call":
        result = {"content": [{"type": "text", "text": asked["params"]["arguments"]["text"].upper()}]}
    else:
        answer = {"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "no such method"}}
        print(json.dumps(answer), flush=True)
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""


async def test_resources(system: LocalSystem) -> None:
    """Environments, a task's output and files by address; what is not there is an error, not an empty text."""
    async with connected(system, "2026") as client:

        async def read(uri: str) -> str:
            [content] = (await client.read_resource(uri)).contents
            return content.text

        listed = json.loads(await read("hub://environments"))["environments"]
        assert [each["name"] for each in listed] == [HOST]
        assert json.loads(await read(f"hub://environments/{HOST}"))["id"] == listed[0]["id"]
        ran = await client.call_tool(
            "run_command", {"environment": HOST, "command": "mkdir -p r/s; echo inside > r/s/x"}
        )
        assert "inside" in await read(f"hub://files/{HOST}/r/s/x")
        ran = await client.call_tool("run_command", {"environment": HOST, "command": "echo words"})
        assert "words" in await read(f"hub://tasks/{ran.structured_content['task_id']}/output")
        templates = (await client.list_resource_templates()).resource_templates
        assert len(templates) == 4
        for uri in ("hub://environments/nowhere", f"hub://files/{HOST}/no-such-file", "hub://tasks/tsk_none/output"):
            with pytest.raises(MCPError):
                await read(uri)
        with pytest.raises(MCPError):
            await read(f"hub://files/{HOST}/../../etc/passwd")


async def test_only_what_the_token_may(system: LocalSystem) -> None:
    """A token that only reads sees only the tools that read, and is refused the others by name."""
    context = ssl.create_default_context(cafile=system.ca_file)
    headers = {"authorization": f"Bearer {system.api_token}"}
    async with httpx2.AsyncClient(headers=headers, verify=context, base_url=system.url) as owner:
        made = await owner.post("/api/v1/tokens", json={"name": "reader", "scopes": ["env:read"]})
        secret = made.json()["secret"]
        async with (
            httpx2.AsyncClient(headers={"authorization": f"Bearer {secret}"}, verify=context, timeout=60) as http,
            Client(streamable_http_client(f"{system.url}/mcp", http_client=http)) as client,
        ):
            tools = [tool.name for tool in (await client.list_tools()).tools]
            assert tools == ["get_environment", "list_environments"]
            refused = await client.call_tool("run_command", {"environment": HOST, "command": "ls"})
            assert refused.is_error
            assert "forbidden" in refused.content[0].text
        wrong = await owner.post("/mcp", json={}, headers={"authorization": "Bearer ght_wrong"})
        assert wrong.status_code == 401
        named = wrong.headers["www-authenticate"].partition('resource_metadata="')[2].partition('"')[0]
        metadata = (await owner.get(named)).json()
        assert metadata["resource"].endswith("/mcp")
        assert "tasks:run" in metadata["scopes_supported"]

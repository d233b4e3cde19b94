"""Agents as people have them, led over every tool of a real hub and a real runner by a scripted model.

The agents themselves are looked for in the directory that GUARDHOUSE_AGENTS names, such as npm's `node_modules/.bin`;
without it the walk is gone by a plain agent of our own, whose model sees the text of a result and nothing else:

    npm install @anthropic-ai/claude-code @openai/codex opencode-ai @google/gemini-cli \
        @modelcontextprotocol/inspector
    GUARDHOUSE_AGENTS=$PWD/node_modules/.bin python -m pytest tests/end_to_end/test_agents.py
"""

import json
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from demo.local_system import LocalSystem
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from tests.end_to_end.agents.clients import AGENTS, NAME, Hub
from tests.end_to_end.agents.model_server import Call, ModelServer, Script
from tests.end_to_end.agents.walk import TOOLS, Walk

HOST = "end-to-end"
WALK_MAX_S = 300.0
DIRECTORY = os.environ.get("GUARDHOUSE_AGENTS", "")
INSPECTOR = shutil.which("mcp-inspector", path=DIRECTORY) if DIRECTORY else None
INSTALLED = [name for name, agent in AGENTS.items() if DIRECTORY and shutil.which(agent.program, path=DIRECTORY)]

# A server of the older era in a few lines, since the machine's own Python has no SDK behind the wall.
SHOUTER = r"""
import json, sys
SCHEMA = {"type": "object", "properties": {"text": {"type": "string", "description": "what is to be shouted"}}}
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    answer = {"jsonrpc": "2.0", "id": asked["id"]}
    if asked["method"] == "initialize":
        answer["result"] = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                            "serverInfo": {"name": "shouter", "version": "1"}}
    elif asked["method"] == "tools/list":
        answer["result"] = {"tools": [{"name": "shout", "description": "Shout.", "inputSchema": SCHEMA}]}
    elif asked["method"] == "tools/call":
        text = asked["params"]["arguments"]["text"].upper()
        answer["result"] = {"content": [{"type": "text", "text": text}]}
    else:
        answer["error"] = {"code": -32601, "message": "no such method"}
    print(json.dumps(answer), flush=True)
"""


def hub_of(system: LocalSystem) -> Hub:
    """What a user of the system has in hand."""
    return Hub(
        url=system.url,
        token=system.api_token,
        token_file=str(system.api_token_file),
        ca_file=str(system.ca_file),
        guardhouse=str(Path(sys.executable).with_name("guardhouse")),
    )


@pytest.fixture(scope="module")
def shouter(system: LocalSystem) -> Iterator[None]:
    """A record of an MCP server on the machine, which the walk calls by its name."""
    words = ("--env", HOST, "--connect-timeout", "60", "--", "/usr/bin/python3", "-c", SHOUTER)
    made = system.cli("mcp-server", "add", "walk-shouter", *words)
    assert made.returncode == 0, made.stderr
    yield
    assert system.cli("mcp-server", "remove", "walk-shouter", "--yes").returncode == 0


async def test_the_walk_of_a_plain_agent(system: LocalSystem, shouter: None) -> None:
    """A model that is shown the text of each result, and nothing else, gets by it to the end of the walk."""
    walk = Walk(HOST, "walk-plain")
    script = Script(walk.next_call)
    context = ssl.create_default_context(cafile=system.ca_file)
    headers = {"authorization": f"Bearer {system.api_token}"}
    messages: list[dict[str, Any]] = []
    with ModelServer(script, server=NAME) as model:
        async with (
            httpx2.AsyncClient(headers=headers, verify=context, timeout=120) as http,
            httpx2.AsyncClient(base_url=model.url, timeout=60) as provider,
            Client(streamable_http_client(f"{system.url}/mcp", http_client=http)) as client,
        ):
            listed = (await client.list_tools()).tools
            tools = [
                {"type": "function", "function": {"name": f"{NAME}_{tool.name}", "parameters": tool.input_schema}}
                for tool in listed
            ]
            while True:
                asked = {"model": "scripted", "messages": messages, "tools": tools, "stream": True}
                reply = await provider.post("/v1/chat/completions", json=asked)
                first = json.loads(reply.text.partition("\n")[0].removeprefix("data: "))
                [call] = first["choices"][0]["delta"].get("tool_calls") or [None]
                if call is None:
                    break
                function = call["function"]
                found = await client.call_tool(
                    function["name"].removeprefix(f"{NAME}_"), json.loads(function["arguments"])
                )
                text = "\n".join(block.text for block in found.content if block.type == "text")
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": text})
    assert {tool.name for tool in listed} == TOOLS, "the walk is over every tool"
    assert walk.missing(script.brought) == []


@pytest.mark.by_hand("GUARDHOUSE_AGENTS")
@pytest.mark.parametrize("way", ["https", "stdio"])
@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_the_inspector(system: LocalSystem, shouter: None, tmp_path: Path, era: str, way: str) -> None:
    """The official inspector's command line goes the same walk, a process a call, and finds no fault with a schema."""
    assert INSPECTOR is not None, f"there is no mcp-inspector in {DIRECTORY} (GUARDHOUSE_AGENTS)"
    hub = hub_of(system)
    words = [INSPECTOR, "--cli", "--protocol-era", era, "--format", "json", "-q", "--connect-timeout", "60000"]
    if way == "https":
        words += ["--transport", "http", "--server-url", f"{hub.url}/mcp", "--header", f"Authorization: {hub.bearer}"]
    else:
        pairs = [word for name, value in hub.variables().items() for word in ("-e", f"{name}={value}")]
        words += [*pairs, hub.guardhouse, "mcp"]

    def inspect(*more: str) -> str:
        ran = subprocess.run(
            [*words, *more],
            env={
                "HOME": str(tmp_path),
                "PATH": f"{DIRECTORY}:{os.environ.get('PATH', '')}",
                "NODE_EXTRA_CA_CERTS": hub.ca_file,
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=WALK_MAX_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        return f"{ran.stdout}\n{ran.stderr}"

    listed = inspect("--method", "tools/list", "--strict")
    assert [name for name in TOOLS if f'"{name}"' not in listed] == [], listed
    assert "error-severity" not in listed
    walk = Walk(HOST, f"walk-inspector-{era}-{way}", follows_tasks=era == "modern")
    brought: list[tuple[Call, str]] = []
    while (call := walk.next_call(brought)) is not None:
        arguments = json.dumps(call.arguments)
        brought.append(
            (call, inspect("--method", "tools/call", "--tool-name", call.tool, "--tool-args-json", arguments))
        )
    assert walk.missing(brought) == []


@pytest.mark.by_hand("GUARDHOUSE_AGENTS")
@pytest.mark.parametrize("way", ["https", "stdio"])
@pytest.mark.parametrize("name", INSTALLED)
def test_an_agent(system: LocalSystem, shouter: None, tmp_path: Path, name: str, way: str) -> None:
    """An agent of somebody else's, set up by our lines, calls every tool, and its model is told what it has to be."""
    agent = AGENTS[name]
    hub = hub_of(system)
    walk = Walk(HOST, f"walk-{agent.program}-{way}")
    script = Script(walk.next_call)
    with ModelServer(script, server=NAME) as model:
        setup = agent.set_up(tmp_path, hub, model.url, way == "stdio")
        environ = {"HOME": str(tmp_path), "PATH": f"{DIRECTORY}:{os.environ.get('PATH', '/usr/bin:/bin')}"}
        for command in (*setup.before, setup.command):
            ran = subprocess.run(
                command,
                env=environ | setup.environment,
                cwd=tmp_path,
                capture_output=True,
                timeout=WALK_MAX_S,
                stdin=subprocess.DEVNULL,
                check=False,
            )
            assert ran.returncode == 0, (ran.stdout[-2_000:], ran.stderr[-2_000:])
    assert script.offered.keys() == TOOLS, "every tool is offered to the model"
    assert walk.missing(script.brought) == [], (ran.stdout[-2_000:], ran.stderr[-2_000:])

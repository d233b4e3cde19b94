"""An agent is stopped at an `ask` rule: a person agrees, in the console's place or through the agent's own client."""

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from demo.local_system import LocalSystem, system_directory
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ElicitResult

HOST = "asked"
POLICY = """
permission:
  bash:
    - {match: "*", then: allow}
    - {match: "touch approved-*", then: ask, because: it leaves a file}
"""


@pytest.fixture(scope="module")
def system() -> Iterator[LocalSystem]:
    with system_directory() as directory:
        policy = directory / "policy.yaml"
        policy.write_text(POLICY)
        policy.chmod(0o644)
        with LocalSystem(directory, policy=str(policy)) as running:
            running.make_certificates()
            running.start_hub()
            running.create_environment(HOST)
            running.start_runner()
            yield running


@asynccontextmanager
async def connected(system: LocalSystem, *, mode: str = "auto", answer: Any = None) -> AsyncIterator[Client]:
    context = ssl.create_default_context(cafile=system.ca_file)
    headers = {"authorization": f"Bearer {system.api_token}"}
    async with (
        httpx2.AsyncClient(headers=headers, verify=context, timeout=120) as http,
        Client(
            streamable_http_client(f"{system.url}/mcp", http_client=http), mode=mode, elicitation_callback=answer
        ) as client,
    ):
        yield client


async def test_without_a_form_the_call_is_made_again(system: LocalSystem) -> None:
    """`approval_required` names what to do; the very same call goes on with the same task once a person agreed."""
    call = {"environment": HOST, "command": "touch approved-1; ls approved-1"}
    async with connected(system) as client:
        held = (await client.call_tool("run_command", call)).structured_content
        assert held["status"] == "approval_required", held
        assert held["approval_id"] in held["next_step"]
        assert held["approval_url"].endswith(held["approval_id"])
        still = (await client.call_tool("run_command", call)).structured_content
        assert (still["status"], still["task_id"]) == ("approval_required", held["task_id"])
        assert not (system.workspace / "approved-1").exists()

        system.api("POST", f"/api/v1/approvals/{held['approval_id']}/approve", json={"note": "go on"})
        done = (await client.call_tool("run_command", call)).structured_content
        assert (done["status"], done["task_id"], done["stdout"]) == ("finished", held["task_id"], "approved-1\n")


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_with_a_form_the_person_answers_at_once(system: LocalSystem, mode: str) -> None:
    """A client of either era shows the question and carries the answer; the call ends with the command's result."""
    questions: list[str] = []

    async def approve(_context: Any, params: Any) -> ElicitResult:
        questions.append(params.message)
        return ElicitResult(action="accept", content={"decision": "approve once", "note": "seen"})

    async with connected(system, mode=mode, answer=approve) as client:
        call = {"environment": HOST, "command": f"touch approved-{mode}; ls approved-{mode}"}
        done = await client.call_tool("run_command", call)
        assert not done.is_error, done
        assert done.structured_content["stdout"] == f"approved-{mode}\n"
    assert len(questions) == 1
    assert f"touch approved-{mode}" in questions[0]
    assert "it leaves a file" in questions[0]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_with_a_form_the_person_declines(system: LocalSystem, mode: str) -> None:
    """A no ends the command as denied, and nothing has run."""

    async def decline(_context: Any, _params: Any) -> ElicitResult:
        return ElicitResult(action="decline")

    async with connected(system, mode=mode, answer=decline) as client:
        refused = await client.call_tool("run_command", {"environment": HOST, "command": f"touch approved-no-{mode}"})
        assert refused.is_error
        assert "denied" in refused.content[0].text
    assert not (system.workspace / f"approved-no-{mode}").exists()


async def test_the_audit_log_tells_the_story_and_verifies(system: LocalSystem) -> None:
    """Who asked, who agreed and with which words is in the log, and the log is whole."""
    actions = [event["action"] for event in system.api("GET", "/api/v1/audit")["events"]]
    assert any(action.startswith("approval.") for action in actions), actions
    assert system.cli("audit", "verify").returncode == 0

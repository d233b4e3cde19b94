"""An agent is stopped at an `ask` rule: a person agrees, in the console's place or through the agent's own client."""

import json
import re
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
import trio
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
    - {match: "truncate *", then: ask, because: what it cuts off is gone}
  write: {"**": allow, "conf/**": ask}
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
async def connected(
    system: LocalSystem, *, mode: str = "auto", answer: Any = None, secret: str | None = None
) -> AsyncIterator[Client]:
    context = ssl.create_default_context(cafile=system.ca_file)
    headers = {"authorization": f"Bearer {secret or system.api_token}"}
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


async def test_a_file_waits_for_a_person_as_a_command_does(system: LocalSystem) -> None:
    """The very same call goes on with the same task; another one, and the same once it has ended, start anew."""
    call = {"environment": HOST, "path": "conf/repeated", "text": "one\n"}
    async with connected(system) as client:
        tasks = set()
        for _ in range(2):
            held = await client.call_tool("write_file", call)
            assert held.is_error
            text = held.content[0].text
            assert text.startswith("error approval_required: "), text
            assert "retryable: yes" in text
            tasks.add(re.search(r"tsk_\w+", text)[0])
        [task] = tasks
        shown = (await client.call_tool("wait_task", {"task_id": task, "wait_s": 0})).structured_content
        assert shown["status"] == "approval_required"
        approval = re.search(r"'guardhouse approval approve (\w+)'", text)[1]
        assert not (system.workspace / "conf").exists()
        system.api("POST", f"/api/v1/approvals/{approval}/approve", json={"note": "go on"})
        shown = (await client.call_tool("wait_task", {"task_id": task, "wait_s": 30})).structured_content
        assert "make the very same call again" in shown["next_step"]
        done = await client.call_tool("write_file", call)
        assert not done.is_error, done
        assert (done.structured_content["bytes"], done.structured_content["checksum"][:7]) == (4, "sha256:")
        assert (system.workspace / "conf" / "repeated").read_text() == "one\n"
        again = await client.call_tool("write_file", call)
        assert again.is_error
        assert task not in again.content[0].text, "an ended call is not answered twice"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_form_for_a_file(system: LocalSystem, mode: str) -> None:
    """A client of either era shows the question about a file too; a yes writes it, a no leaves it."""
    questions: list[str] = []

    async def answer(_context: Any, params: Any) -> ElicitResult:
        questions.append(params.message)
        if len(questions) == 2:
            return ElicitResult(action="decline")
        return ElicitResult(action="accept", content={"decision": "approve once", "note": "seen"})

    async with connected(system, mode=mode, answer=answer) as client:
        path = f"conf/form-{mode}"
        done = await client.call_tool("write_file", {"environment": HOST, "path": path, "text": "one\n"})
        assert not done.is_error, done
        refused = await client.call_tool("write_file", {"environment": HOST, "path": path, "text": "two\n"})
        assert refused.is_error
        assert "denied" in refused.content[0].text
    assert [path in question for question in questions] == [True, True]
    assert (system.workspace / path).read_text() == "one\n"


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


@pytest.mark.parametrize("way", ["form", "repeated call"])
async def test_an_incident_from_the_first_look_to_the_last_word(system: LocalSystem, way: str) -> None:
    """An agent finds out why a service fails, is stopped where it wants to change something, is let, and ends it.

    With a form the person behind the agent agrees, with a repeated call somebody at a terminal does; the log of the
    session and the audit log tell the same story, in order, and the audit log verifies.
    """
    place = f"shop-{way[:4]}"
    trace = system.workspace / place / "spool" / "debug.trace"
    trace.parent.mkdir(parents=True)
    trace.write_bytes(b"x" * 300_000)
    trace.chmod(0o666)
    log = system.workspace / place / "app.log"
    log.write_text("INFO started\n" * 500 + f"ERROR no space left: {place}/spool/debug.trace\n" + "INFO retry\n" * 500)
    # Nobody but who may decide anyway is asked by a form; a token of its own could not agree to its own request.
    secret, agent = system.api_token, system.api("GET", "/api/v1/self")["id"]
    if way != "form":
        body = {"name": "agent", "scopes": ["env:read", "tasks:run", "tasks:read", "approvals:read"]}
        made = system.api("POST", "/api/v1/tokens", json=body)
        secret, agent = made["secret"], made["token"]["id"]
    questions: list[str] = []

    async def agree(_context: Any, params: Any) -> ElicitResult:
        questions.append(params.message)
        return ElicitResult(action="accept", content={"decision": "approve once", "note": "the trace is not needed"})

    answer = agree if way == "form" else None
    culprit = await trio.lowlevel.open_process(["/usr/bin/tail", "-F", str(trace)], stdout=subprocess.DEVNULL)
    try:
        async with connected(system, answer=answer, secret=secret) as client:

            async def ask(name: str, **arguments: Any) -> dict[str, Any]:
                found = await client.call_tool(name, arguments)
                assert not found.is_error, (name, found)
                return found.structured_content

            machines = (await ask("list_environments"))["environments"]
            assert [(each["name"], each["usable"]) for each in machines] == [(HOST, True)]
            opened = await ask("open_session", title=f"why {place} fails", environment=HOST)
            session = opened["session_id"]
            errors = await ask("grep_files", session_id=session, pattern="ERROR", path=place)
            assert (errors["matches"], errors["where"]["environment_name"]) == (1, HOST)
            assert f"no space left: {place}/spool/debug.trace" in errors["text"]
            entries = (await ask("list_files", session_id=session, path=f"{place}/spool"))["entries"]
            assert [each["size"] for each in entries] == [300_000]
            processes = await ask("run_readonly_command", session_id=session, command="ps -C tail -o pid,args")
            assert f"{place}/spool/debug.trace" in processes["stdout"]

            change = {"session_id": session, "command": f"truncate -s 0 {place}/spool/debug.trace"}
            done = await ask("run_command", **change)
            if way != "form":
                assert done["status"] == "approval_required"
                assert trace.stat().st_size == 300_000
                words = ("approval", "approve", done["approval_id"], "--note", "the trace is not needed")
                assert system.cli(*words).returncode == 0
                held, done = done, await ask("run_command", **change)
                assert done["task_id"] == held["task_id"]
            assert (done["status"], done["exit_code"]) == ("finished", 0)
            assert trace.stat().st_size == 0
            assert len(questions) == (1 if way == "form" else 0)
    finally:
        culprit.kill()
        await culprit.wait()

    told = system.cli("session", "export", session)
    assert told.returncode == 0, told.stderr
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    calls = [line for line in lines if line["kind"] == "tool_call"]
    assert [call["request"]["operation"] for call in calls] == ["grep", "list", "bash", "bash"]
    assert change["command"] in json.dumps(calls[-1])
    assert [line["call_id"] for line in lines if line["kind"] == "approval"] == [calls[-1]["call_id"]]
    assert lines[-1]["kind"] == "end"
    events = [
        event
        for event in system.api("GET", "/api/v1/audit", params={"limit": 200})["events"][::-1]
        if done["task_id"] in json.dumps(event)
    ]
    actions = [event["action"] for event in events]
    assert actions[0] == "task.create"
    assert actions.index("approval.ask") < actions.index("approval.approve"), actions
    decided = events[actions.index("approval.approve")]
    assert "the trace is not needed" in json.dumps(decided)
    assert events[0]["actor"] == agent
    assert (decided["actor"] == agent) is (way == "form"), "who agreed is who is written down"
    assert system.cli("audit", "verify").returncode == 0


async def test_the_audit_log_tells_the_story_and_verifies(system: LocalSystem) -> None:
    """Who asked, who agreed and with which words is in the log, and the log is whole."""
    actions = [event["action"] for event in system.api("GET", "/api/v1/audit")["events"]]
    assert any(action.startswith("approval.") for action in actions), actions
    assert system.cli("audit", "verify").returncode == 0

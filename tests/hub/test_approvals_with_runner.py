"""Approvals whole: a person at the command line, the hub, a real runner with a policy that asks, and the command."""

import os
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from tests.support.runner_process import make_directory, remove_directory, start_runner

from guardhouse.kernel.probe import probe_host

POLICY = """
permission:
  bash:
    - {match: "*", then: allow}
    - {match: "touch *", then: ask, because: it changes the workspace}
"""

_WHY_NO_GATE = probe_host().layers["exec_gate"]
needs_gate = pytest.mark.skipif(bool(_WHY_NO_GATE), reason=f"no exec gate: {_WHY_NO_GATE}")


@asynccontextmanager
async def asking_runner(hub: Any, *arguments: str):
    """An environment whose real runner asks before ``touch``."""
    directory = make_directory()
    try:
        (directory / "policy.yaml").write_text(POLICY)
        created = await hub.environment()
        url = "ws" + hub.url.removeprefix("http") + "/api/v1/runner/ws"
        async with start_runner(url, token=created["token"], directory=directory, arguments=arguments) as runner:

            async def is_online() -> bool:
                return (await hub.status()).get("status") == "online"

            await hub.until(is_online, within_s=60)
            yield runner
    finally:
        remove_directory(directory)


async def cli(hub: Any, *words: str) -> "subprocess.CompletedProcess[bytes]":
    environ = {
        **os.environ,
        "GUARDHOUSE_HUB_URL": hub.url,
        "GUARDHOUSE_API_TOKEN_FILE": str(hub.state_dir / "owner.token"),
    }
    return await trio.run_process(
        [sys.executable, "-m", "guardhouse", *words],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env=environ,
    )


async def question(hub: Any) -> dict[str, Any]:
    async def there() -> dict[str, Any] | None:
        found = (await hub.http.get("/api/v1/approvals", params={"state": "pending"})).json()["approvals"]
        return found[0] if found else None

    return await hub.until(there, within_s=60)


async def test_yes_and_no_at_gate_one(hub):
    """Approved, the command runs and says by whom; denied, `exec` ends with 126 and the note; for the rule, unasked."""
    async with asking_runner(hub) as runner:
        done: list[subprocess.CompletedProcess[bytes]] = []

        async def run(*words: str) -> None:
            done.append(await cli(hub, "exec", "web-1", "--", *words))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, "touch one && echo ran")
            asked = await question(hub)
            assert (asked["gate"], asked["rule"]) == ("shell", "touch *")
            assert not (runner.workspace / "one").exists()
            approved = await cli(hub, "approval", "approve", asked["id"], "--note", "go on")
            assert approved.returncode == 0, approved.stderr
        assert (done[0].returncode, done[0].stdout) == (0, b"ran\n"), done[0].stderr
        assert (runner.workspace / "one").exists()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, "touch two")
            asked = await question(hub)
            denied = await cli(hub, "approval", "deny", asked["id"], "--note", "not on Friday")
            assert denied.returncode == 0, denied.stderr
        assert done[1].returncode == 126
        assert b"not on Friday" in done[1].stderr
        assert not (runner.workspace / "two").exists()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, "touch three")
            asked = await question(hub)
            assert (await cli(hub, "approval", "approve", asked["id"], "--for-rule", "4h")).returncode == 0
        await run("touch four")
        assert [one.returncode for one in done[2:]] == [0, 0]
        assert (runner.workspace / "four").exists()
        listed = await cli(hub, "approval", "list", "--state", "all")
        assert listed.stdout.count(b"approved") == 3, listed.stdout


async def test_time_and_cancelling_end_the_wait(hub):
    """What nobody decides is denied with 126; a task that is cancelled while it waits is cancelled at once."""
    async with asking_runner(hub, "--approval-timeout", "4") as runner:
        ended = await cli(hub, "exec", "web-1", "--", "touch never")
        assert ended.returncode == 126, ended.stderr
        found = (await hub.http.get("/api/v1/approvals")).json()["approvals"][0]
        assert found["state"] in {"expired", "withdrawn"}

        started = await hub.start("touch never")
        asked = await question(hub)
        await hub.http.post(f"/api/v1/tasks/{started['id']}/cancel", json={})
        assert (await hub.result(started["id"], wait_s=30))["state"] == "cancelled"

        async def is_over() -> bool:
            return (await hub.http.get(f"/api/v1/approvals/{asked['id']}")).json()["state"] == "withdrawn"

        await hub.until(is_over, within_s=30)
        assert not (runner.workspace / "never").exists()


@needs_gate
async def test_yes_and_no_at_the_exec_gate(hub):
    """A program that gate one could not see waits at its exec, with the very words that it was started with."""
    async with asking_runner(hub) as runner:
        started = await hub.start('name=touch; "$name" "a b" || echo refused')
        asked = await question(hub)
        if asked["gate"] == "shell":
            pytest.skip(f"no exec gate: {_WHY_NO_GATE}")
        assert asked["argv"][-1] == "a b"
        assert (await hub.http.post(f"/api/v1/approvals/{asked['id']}/approve", json={})).status_code == 200
        result = await hub.result(started["id"], wait_s=60)
        assert (result["state"], result["exit_code"]) == ("succeeded", 0), result
        assert (runner.workspace / "a b").exists()

        started = await hub.start('name=touch; "$name" c || echo refused')
        asked = await question(hub)
        assert (await hub.http.post(f"/api/v1/approvals/{asked['id']}/deny", json={})).status_code == 200
        result = await hub.result(started["id"], wait_s=60)
        assert result["result"]["stdout"] == "refused\n", result
        assert not (runner.workspace / "c").exists()
        events = (await hub.http.get("/api/v1/audit", params={"executed": "touch 'a b'"})).json()["events"]
        assert {"approval.ask", "task.exec"} <= {one["action"] for one in events}


ACCOUNT_POLICY = """
permission:
  bash:
    - {match: "*", then: allow}
    - {match: "touch *", then: ask}
    - {match: "mkdir *", then: ask, because: the account wants to know of it}
"""


async def test_a_rule_of_the_accounts_policy_asks(hub):
    """What the runner's own policy lets pass is put before people where the account's says `ask`; its twin runs."""
    async with asking_runner(hub) as runner:
        before = await hub.start("mkdir before")
        assert (await hub.result(before["id"], wait_s=60))["exit_code"] == 0
        reply = await hub.http.put("/api/v1/policy", json={"document": ACCOUNT_POLICY})
        assert reply.status_code == 200, reply.text

        async def in_force() -> bool:
            return (await hub.http.get("/api/v1/policy")).json()["states"]["in_force"] == 1

        await hub.until(in_force, within_s=60)
        started = await hub.start("mkdir asked")
        asked = await question(hub)
        assert (asked["rule"], asked["because"]) == ("mkdir *", "the account wants to know of it")
        assert not (runner.workspace / "asked").exists()
        assert (await hub.http.post(f"/api/v1/approvals/{asked['id']}/approve", json={})).status_code == 200
        assert (await hub.result(started["id"], wait_s=60))["exit_code"] == 0
        assert (runner.workspace / "asked").is_dir()

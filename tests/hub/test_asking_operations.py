"""Rules that ask about files and tools: a person, the hub, a real runner; what the audit log says of the policies."""

import base64
import os
import signal
from typing import Any

import pytest
from tests.support.runner_process import make_directory, remove_directory, start_runner

POLICY = """
permission:
  bash: {"*": allow}
  read: {"**": allow, "private/**": ask}
  write:
    - {match: "**", then: allow}
    - {match: "conf/**", then: ask, because: it is what the service reads}
    - {match: "conf/sealed", then: deny}
  webfetch: {"**": deny, "https://ask.invalid/*": ask}
  mcp: {"*": deny, "files/move": ask}
"""
SHADOW = 'permission: {bash: {"*": allow}, write: {"**": deny}, webfetch: {"*": allow}}'


def content(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Asking:
    """A hub with a runner that asks, and a person who answers."""

    def __init__(self, hub: Any, runner: Any) -> None:
        self.hub = hub
        self.runner = runner

    async def start(self, operation: str, **args: Any) -> str:
        body = {"environment_id": "web-1", "operation": operation, "args": args}
        reply = await self.hub.http.post("/api/v1/tasks", json=body)
        assert reply.status_code == 202, reply.text
        return reply.json()["id"]

    async def end(self, task_id: str) -> dict[str, Any]:
        return await self.hub.result(task_id, wait_s=30)

    async def question(self, task_id: str) -> dict[str, Any]:
        async def there() -> Any:
            found = (await self.hub.http.get("/api/v1/approvals", params={"state": "pending"})).json()["approvals"]
            return next((one for one in found if one["task_id"] == task_id), None)

        found = await self.hub.until(there, within_s=60)
        return (await self.hub.http.get(f"/api/v1/approvals/{found['id']}")).json()

    async def answer(self, asked: dict[str, Any], verb: str, **body: Any) -> None:
        reply = await self.hub.http.post(f"/api/v1/approvals/{asked['id']}/{verb}", json=body)
        assert reply.status_code == 200, reply.text

    async def events(self, task_id: str) -> dict[str, dict[str, Any]]:
        found = (await self.hub.http.get("/api/v1/audit", params={"task": task_id})).json()["events"]
        return {event["action"]: event["detail"] for event in found}


@pytest.fixture
async def asking(hub):
    directory = make_directory()
    try:
        (directory / "policy.yaml").write_text(POLICY)
        (directory / "next.yaml").write_text(SHADOW)
        created = await hub.environment()
        url = "ws" + hub.url.removeprefix("http") + "/api/v1/runner/ws"
        arguments = ("--shadow-policy", str(directory / "next.yaml"))
        async with start_runner(url, token=created["token"], directory=directory, arguments=arguments) as runner:
            await hub.until_online()
            yield Asking(hub, runner)
    finally:
        remove_directory(directory)


async def test_operations_ask(asking: Asking) -> None:
    """A write waits with its difference shown, a yes lets it through, a no does not; for the rule nobody asks again."""
    workspace = asking.runner.workspace
    (workspace / "conf").mkdir()
    (workspace / "conf" / "a").write_text("port: 1\nhost: x\n")
    os.chmod(workspace / "conf", 0o777)
    os.chmod(workspace / "conf" / "a", 0o666)
    # A denied one is not asked about; its twin is.
    denied = await asking.end(await asking.start("write", path="conf/sealed", content=content("x")))
    assert "matches the write rule 'conf/sealed'" in denied["error"]
    task = await asking.start("write", path="conf/a", content=content("port: 2\nhost: x\n"))
    asked = await asking.question(task)
    assert (asked["gate"], asked["rule"], asked["path"]) == ("operation", "conf/**", "conf/a")
    assert asked["command"] == "write conf/a (16 bytes)"
    preview = asked["explanation"]["preview"]
    assert (preview["kind"], preview["added"], preview["removed"]) == ("diff", 1, 1)
    assert "-port: 1\n+port: 2" in preview["text"]
    assert (workspace / "conf" / "a").read_text().startswith("port: 1")
    await asking.answer(asked, "deny", note="not on Friday")
    ended = await asking.end(task)
    assert "not on Friday" in ended["error"]
    assert (workspace / "conf" / "a").read_text().startswith("port: 1")

    task = await asking.start("edit", path="conf/a", old="port: 1", new="port: 3")
    asked = await asking.question(task)
    assert "+port: 3" in asked["explanation"]["preview"]["text"]
    await asking.answer(asked, "approve", scope="rule", for_s=3600)
    ended = await asking.end(task)
    assert ended["success"], ended
    assert (workspace / "conf" / "a").read_text().startswith("port: 3")
    decision = ended["result"]["decision"]
    assert (decision["verdict"], decision["shadow"]["verdict"], decision["shadow"]["differs"]) == ("ask", "deny", True)
    assert "approved by" in decision["approved"][0]
    ended = await asking.end(await asking.start("edit", path="conf/a", old="port: 3", new="port: 4"))
    assert ended["success"], "the rule was asked about again"

    # Whatever stems from a decision names the policies.
    events = await asking.events(task)
    digest = decision["policy"]["digest"]
    assert {"task.create", "approval.ask", "approval.approve", "task.end"} <= events.keys()
    assert {detail["policies"]["policy"]["digest"] for detail in events.values()} == {digest}
    assert events["task.end"]["decision"]["shadow"]["differs"] is True

    # Pages, tools and reads ask likewise; a no ends them before anything is fetched or started.
    server = {"name": "files", "transport": "stdio", "command": "/bin/false"}
    for operation, args, shows in (
        ("webfetch", {"url": "https://ask.invalid/page"}, "webfetch https://ask.invalid/page"),
        ("mcp_call", {"server": server, "tool_name": "move", "args": {"to": "x"}}, "call the tool move"),
        ("read", {"path": "private/key"}, "read private/key"),
    ):
        task = await asking.start(operation, **args)
        asked = await asking.question(task)
        assert asked["command"].startswith(shows)
        await asking.answer(asked, "deny")
        ended = await asking.end(task)
        assert (ended["success"], ended["error_code"]) == (False, "denied"), ended


async def test_the_hub_is_told_after_a_reload(asking: Asking) -> None:
    """After SIGHUP the hub's policy is proved against the new one: no longer narrower, it is refused and still held."""
    hub = asking.hub
    path = "/api/v1/environments/web-1/policy"
    document = POLICY.replace('bash: {"*": allow}', 'bash: {"*": allow, "touch *": deny}')
    await hub.http.put("/api/v1/policy", json={"document": document})
    await hub.http.put(path, json={"document": document})

    async def states(wanted: list[tuple[str, str, bool]]) -> Any:
        async def reached() -> Any:
            found = (await hub.http.get("/api/v1/environments/web-1/policies")).json()["policies"]
            return found if [(one["layer"], one["state"], one["held"]) for one in found] == wanted else None

        return await hub.until(reached, within_s=60)

    layers = ("account", "environment")
    await states([(layer, "in_force", True) for layer in layers])
    policy = asking.runner.directory / "policy.yaml"
    policy.write_text(POLICY.replace('bash: {"*": allow}', 'bash: {"*": allow, "id": deny}'))
    asking.runner.process.send_signal(signal.SIGHUP)
    found = await states([(layer, "refused", True) for layer in layers])
    assert all("for example: id" in one["error"] for one in found)
    # The local deny and the hub's both hold.
    for command in ("id", "touch a"):
        ended = await asking.end(await asking.start("bash", command=command))
        assert ended["error"].startswith("command denied"), ended
    assert (await asking.end(await asking.start("bash", command="true")))["success"]
    policy.write_text(POLICY)
    asking.runner.process.send_signal(signal.SIGHUP)
    await states([(layer, "in_force", True) for layer in layers])

"""The hub's policy for an environment: stored, sent, answered, withdrawn; and with a real runner, in force."""

import json
from typing import Any

import pytest
from tests.support.runner_process import make_directory, remove_directory, start_runner
from tests.support.runner_stub import connect_plain, connect_v1

from guardhouse.policy import load_policy, restore_policy

NARROW = 'permission:\n  bash:\n    "*": allow\n    "forbidden *": deny\n    "touch *": deny\n'
WIDE = 'permission:\n  bash:\n    "*": allow\n'
PATH = "/api/v1/environments/web-1/policy"


async def put(hub: Any, document: str = NARROW) -> dict[str, Any]:
    reply = await hub.http.put(PATH, json={"document": document})
    assert reply.status_code == 200, reply.text
    return reply.json()


async def show(hub: Any) -> dict[str, Any]:
    reply = await hub.http.get(PATH)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def until_state(hub: Any, state: str, *, within_s: float = 30) -> dict[str, Any]:
    async def reached() -> Any:
        found = await show(hub)
        return found if found["state"] == state else None

    return await hub.until(reached, within_s=within_s)


async def test_sent_at_once_and_answered(hub: Any) -> None:
    """A connected runner gets it, with the digest that is shown; its answers change the state and are audited."""
    token = (await hub.environment())["token"]
    async with connect_v1(hub.url, token) as runner:
        assert (await put(hub))["state"] == "pending"
        sent = await runner.expect("policy.set", within_s=30)
        assert restore_policy(json.loads(sent["policy"])).digest == sent["digest"]
        assert sent["digest"] == load_policy(NARROW, name="p").digest == (await show(hub))["digest"]
        await runner.send(
            "policy.answer", {"policy_id": sent["policy_id"], "accepted": False, "error": "it widens: rm"}
        )
        assert (await until_state(hub, "refused"))["error"] == "it widens: rm"
        await runner.send("policy.answer", {"policy_id": "pol_of_before", "accepted": True})
        await runner.send("policy.report", {"narrowing_id": sent["policy_id"], "narrowing_digest": sent["digest"]})
        await runner.send("policy.answer", {"policy_id": sent["policy_id"], "accepted": True})
        found = await until_state(hub, "in_force")
        assert (found["error"], found["reported_digest"]) == (None, sent["digest"])
    listed = (await hub.http.get("/api/v1/audit", params={"limit": 50})).json()["events"]
    assert {"environment.policy.set", "environment.policy.refused", "environment.policy.taken"} <= {
        event["action"] for event in listed
    }


async def test_told_when_it_connects(hub: Any) -> None:
    """A runner that reports another policy than the stored one is told; one that refused it is not."""
    token = (await hub.environment())["token"]
    stored = await put(hub)
    async with connect_v1(hub.url, token) as runner:
        await runner.send("policy.report", {})
        assert (await runner.expect("policy.set", within_s=30))["policy_id"] == stored["policy_id"]
        await runner.send("policy.answer", {"policy_id": stored["policy_id"], "accepted": False, "error": "no"})
        await until_state(hub, "refused")
    async with connect_v1(hub.url, token, memory_id="mem_2") as runner:
        await runner.send("policy.report", {})
        again = await put(hub)
        # The next thing that it hears is the new one: the refused one was not sent a second time.
        assert (await runner.expect("policy.set", within_s=30))["policy_id"] == again["policy_id"]


async def test_withdrawn(hub: Any) -> None:
    """A withdrawal is sent at once, and to a runner that still reports the policy when it comes back."""
    token = (await hub.environment())["token"]
    assert (await hub.http.get(PATH)).status_code == 404
    await put(hub)
    async with connect_v1(hub.url, token) as runner:
        assert (await hub.http.delete(PATH)).status_code == 204
        assert "policy" not in await runner.expect("policy.set", within_s=30)
        await runner.send("policy.report", {"narrowing_id": "pol_x"})
        assert "policy" not in await runner.expect("policy.set", within_s=30)
    assert (await hub.http.delete(PATH)).status_code == 404


async def test_plain_runner(hub: Any) -> None:
    """A runner that speaks the plain protocol is sent nothing of it: the policy stays pending."""
    token = (await hub.environment())["token"]
    async with connect_plain(hub.url, token) as runner:
        await hub.until_online()
        await put(hub)
        started = await hub.start()
        task = await runner.expect("task.request", within_s=30)
        assert task["task_id"] == started["id"]
        assert {frame["type"] for frame in runner.heard} == {"welcome", "task.request"}
        assert (await show(hub))["state"] == "pending"


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("permission: {bash: {ls: maybe}}", "hub policy:1:25"),
        ("include: [a.yaml]", "include"),
        ("\n# nothing", "empty"),
    ],
)
async def test_a_bad_document(hub: Any, document: str, says: str) -> None:
    """What cannot be loaded is refused with line and column, and nothing is stored."""
    await hub.environment()
    reply = await hub.http.put(PATH, json={"document": document})
    assert reply.status_code == 400
    assert says in reply.json()["error"]["message"]
    assert (await hub.http.get(PATH)).status_code == 404


SHARED = {"account": "/api/v1/policy", "team": "/api/v1/teams/payments/policy"}


async def expect_layer(runner: Any, layer: str, *, is_withdrawn: bool = False) -> dict[str, Any]:
    """Return the next policy of a layer, or its withdrawal.

    What a runner reported before a policy came may be answered after it: it is sent the same policy once more.
    """
    while True:
        sent = await runner.expect("policy.set", within_s=30)
        if sent["layer"] == layer and (sent.get("policy") is None) == is_withdrawn:
            return sent


async def test_account_and_team(hub: Any) -> None:
    """Both go to the runners concerned, at once and when they come; each layer has its own answer and withdrawal."""
    await hub.http.post("/api/v1/teams", json={"name": "payments"})
    token = (await hub.environment(scope={"kind": "team", "team": "payments"}))["token"]
    other = (await hub.environment("other"))["token"]
    async with connect_v1(hub.url, token) as runner, connect_v1(hub.url, other, memory_id="mem_2") as beside:
        for one in (runner, beside):
            await one.send("policy.report", {"hub_policies": []})
        account = (await hub.http.put(SHARED["account"], json={"document": NARROW})).json()
        assert account["states"] == {"pending": 2, "in_force": 0, "refused": 0}
        for one in (runner, beside):
            assert (await expect_layer(one, "account"))["policy_id"] == account["policy_id"]
        team = (await hub.http.put(SHARED["team"], json={"document": NARROW})).json()
        await expect_layer(runner, "team")
        await runner.send("policy.answer", {"policy_id": account["policy_id"], "accepted": True, "layer": "account"})
        error = {"policy_id": team["policy_id"], "accepted": False, "error": "it widens: rm", "layer": "team"}
        await runner.send("policy.answer", error)

        async def answered() -> Any:
            found = (await hub.http.get("/api/v1/environments/web-1/policies")).json()["policies"]
            return found if all(one["state"] != "pending" for one in found) else None

        found = await hub.until(answered, within_s=30)
        assert [(one["layer"], one["state"]) for one in found] == [("account", "in_force"), ("team", "refused")]
        shown = (await hub.http.get(SHARED["team"])).json()
        assert (shown["states"]["refused"], shown["refusals"][0]["error"]) == (1, "it widens: rm")
        assert (await hub.http.delete(SHARED["account"])).status_code == 204
        for one in (runner, beside):
            gone = await expect_layer(one, "account", is_withdrawn=True)
            await one.send("policy.answer", {"policy_id": gone["policy_id"], "accepted": True, "layer": "account"})
    async with connect_v1(hub.url, token, memory_id="mem_3") as runner:
        held = {"layer": "account", "policy_id": account["policy_id"], "digest": account["digest"]}
        await runner.send("policy.report", {"hub_policies": [held]})
        # It still holds what was withdrawn meanwhile; the team's it has refused, and its own policy is the same.
        gone = await runner.expect("policy.set", within_s=30)
        assert (gone["layer"], gone.get("policy")) == ("account", None)
        await runner.send("policy.report", {"hub_policies": [], "policy_digest": "changed"})
        assert (await runner.expect("policy.set", within_s=30))["policy_id"] == team["policy_id"]
    events = (await hub.http.get("/api/v1/audit", params={"limit": 50})).json()["events"]
    assert {"account.policy.set", "account.policy.withdraw", "team.policy.set", "environment.policy.withdrawn"} <= {
        event["action"] for event in events
    }


async def test_a_runner_without_layers(hub: Any) -> None:
    """A runner of an older version would take any policy for its environment's: it is sent none of another layer."""
    token = (await hub.environment())["token"]
    await hub.http.put(SHARED["account"], json={"document": NARROW})
    async with connect_v1(hub.url, token) as runner:
        await runner.send("policy.report", {})

        async def refused() -> Any:
            found = (await hub.http.get(SHARED["account"])).json()
            return found if found["states"]["refused"] else None

        assert "bring it to this hub's version" in (await hub.until(refused, within_s=30))["refusals"][0]["error"]
        stored = await put(hub)
        assert (await runner.expect("policy.set", within_s=30))["policy_id"] == stored["policy_id"]


async def test_no_longer_proved(hub: Any) -> None:
    """A runner whose own policy has changed reports that it still holds what it can no longer prove: refused, held."""
    token = (await hub.environment())["token"]
    stored = await put(hub)
    held = {"layer": "environment", "policy_id": stored["policy_id"], "digest": stored["digest"]}
    async with connect_v1(hub.url, token) as runner:
        await runner.send("policy.report", {"hub_policies": [held]})
        await until_state(hub, "in_force")
        await runner.send("policy.report", {"hub_policies": [{**held, "unproved": "it permits more: rm"}]})
        assert (await until_state(hub, "refused"))["error"] == "it permits more: rm"
        (one,) = (await hub.http.get("/api/v1/environments/web-1/policies")).json()["policies"]
        assert (one["held"], one["state"]) == (True, "refused")
        await runner.send("policy.report", {"hub_policies": [held]})
        await until_state(hub, "in_force")


async def test_with_a_real_runner(hub: Any) -> None:
    """In force in both gates, in answers, across a restart; a wider one is refused with a witness; withdrawn."""
    token = (await hub.environment())["token"]
    directory = make_directory()

    async def run(command: str) -> dict[str, Any]:
        started = await hub.start(command)
        return await hub.result(started["id"], wait_s=30)

    try:
        async with start_runner(hub.url.replace("http", "ws"), token=token, directory=directory) as runner:
            await runner.logged("connection ready")
            assert (await run("touch a"))["success"]
            stored = await put(hub)
            await until_state(hub, "in_force", within_s=60)
            denied = await run("touch a")
            assert "'touch *' (hub policy:5:5)" in denied["error"]
            assert denied["result"]["narrowing"] == {"name": stored["policy_id"], "digest": stored["digest"]}
            behind = await run("x=touch; $x a; echo end")
            assert "hub policy" in json.dumps(behind["result"]["execs"]["refused"])
            assert (await run("id"))["success"]
            wide = await put(hub, WIDE)
            assert "for example: forbidden" in (await until_state(hub, "refused", within_s=60))["error"]
            assert wide["policy_id"] != stored["policy_id"]
            assert not (await run("touch a"))["success"]
            runner.terminate()
            await runner.ended()
        await put(hub)
        async with start_runner(hub.url.replace("http", "ws"), token=token, directory=directory) as runner:
            await runner.logged("connection ready")
            assert not (await run("touch a"))["success"]
            await until_state(hub, "in_force", within_s=60)
            assert (await hub.http.delete(PATH)).status_code == 204
            await runner.logged("the hub's policy is withdrawn", timeout_s=60)
            assert (await run("touch a"))["success"]
    finally:
        remove_directory(directory)

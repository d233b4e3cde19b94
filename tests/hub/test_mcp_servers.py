"""Records of MCP servers: used by name, their secrets sealed, masked, and seen by the runner alone."""

from typing import Any

import httpx2
import pytest
import trio
from tests.hub.support import become_owner, invite
from tests.support.runner_stub import connect_v1

from guardhouse.hub.config import HubConfig
from guardhouse.hub.sealing import change_sealing_key

SECRET = "a-secret-of-forty-two"
WIKI = {
    "name": "Wiki",
    "transport": "streamable-http",
    "url": "https://wiki.example.com/mcp",
    "headers": {"Authorization": SECRET},
    "call_timeout_s": 30,
}


async def make(hub, **more: Any) -> dict[str, Any]:
    reply = await hub.http.post("/api/v1/mcp-servers", json={**WIKI, **more})
    assert reply.status_code == 201, reply.text
    return reply.json()


async def test_used_by_name_with_its_secret_at_the_runner_only(hub):
    """The runner is given the whole configuration; task, record, audit log and database have the secret nowhere."""
    created = await hub.environment()
    made = await make(hub)
    assert made["headers"] == {"Authorization": "********"}
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        body = {
            "environment_id": "web-1",
            "operation": "mcp_call",
            "args": {"server": "wiki", "tool_name": "search", "args": {"q": "x"}},
        }
        task = (await hub.http.post("/api/v1/tasks", json=body)).json()
        asked = await runner.expect("task.request")
        assert asked["args"]["server"] == {
            "name": "Wiki",
            "transport": "streamable-http",
            "command": "",
            "args": [],
            "env": {},
            "url": "https://wiki.example.com/mcp",
            "headers": {"Authorization": SECRET},
            "call_timeout": 30.0,
        }
        assert asked["args"]["args"] == {"q": "x"}
        await runner.result(asked["task_id"], result={"content": "found"})
        done = await hub.result(task["id"])
        assert done["args"]["server"] == {"name": "Wiki", "transport": "streamable-http"}
        # Nobody smuggles a record in by writing what the hub would write.
        forged = {**body, "args": {**body["args"], "server": {**done["args"]["server"], "mcp_server_id": made["id"]}}}
        await hub.http.post("/api/v1/tasks", json=forged)
        assert SECRET not in str((await runner.expect("task.request"))["args"])
    shown = (await hub.http.get(f"/api/v1/mcp-servers/{made['id']}")).text
    listed = (await hub.http.get("/api/v1/mcp-servers")).text
    audited = (await hub.http.get("/api/v1/audit")).text
    assert all(SECRET not in text for text in (shown, listed, audited, str(done)))
    assert "mcp_server.create" in audited


async def test_the_store_has_no_secret_and_a_new_key_keeps_it(start_hub, tmp_path):
    """What is on the disk is sealed; after a change of the sealing key the runner is given the same secret."""
    async with start_hub() as hub:
        created = await hub.environment()
        await make(hub)
    for path in (tmp_path / "state").iterdir():
        assert SECRET.encode() not in path.read_bytes(), path.name
    assert SECRET.encode() not in hub.store.dump()
    assert hub.store.execute("SELECT count(*) FROM mcp_servers") == [(1,)]
    await trio.to_thread.run_sync(change_sealing_key, HubConfig(state_dir=tmp_path / "state", database=hub.store.url))
    async with start_hub() as hub, connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        async with trio.open_nursery() as nursery:
            replies: list[Any] = []

            async def test() -> None:
                body = {"environment_id": "web-1"}
                replies.append(await hub.http.post("/api/v1/mcp-servers/wiki/test", json=body))

            nursery.start_soon(test)
            asked = await runner.expect("task.request")
            assert (asked["operation"], asked["args"]["server"]["headers"]) == (
                "mcp_list_tools",
                {"Authorization": SECRET},
            )
            tools = [{"name": "search", "description": "Find pages"}, {"name": "read"}]
            await runner.result(asked["task_id"], result={"tools": tools})
        assert [one["name"] for one in replies[0].json()["tools"]] == ["search", "read"]
        checks = (await hub.http.get("/api/v1/mcp-servers/wiki")).json()["checks"]
        assert [one["tool_count"] for one in checks] == [2]


async def test_a_secret_goes_nowhere_else_than_it_was_given_for(hub):
    """An editor who does not know the secret cannot lead it to another address; who gives it anew can."""
    await make(hub)

    async def change(**changes: Any) -> httpx2.Response:
        return await hub.http.patch("/api/v1/mcp-servers/wiki", json=changes)

    led_away = await change(url="https://attacker.example.com/mcp")
    assert (led_away.status_code, led_away.json()["error"]["code"]) == (400, "secrets_needed")
    masked = await change(url="https://attacker.example.com/mcp", headers={"Authorization": "********"})
    assert masked.json()["error"]["code"] == "secrets_needed"
    assert (await change(url="https://new.example.com/mcp", headers={"Authorization": "anew"})).status_code == 200
    # An empty value keeps what is there (S167), where nothing else changes.
    assert (await change(headers={"Authorization": ""}, call_timeout_s=None)).status_code == 200
    services = hub.hub.services
    record = services.mcp_servers.find("wiki")
    assert services.mcp_servers.secrets(record).headers == {"Authorization": "anew"}


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"name": "1wiki"}, id="begins with a digit"),
        pytest.param({"name": "wi ki"}, id="a blank"),
        pytest.param({"url": "https://user:secret@wiki.example.com"}, id="a secret where people read it"),
        pytest.param({"url": "ftp://wiki.example.com"}, id="no http"),
        pytest.param({"transport": "stdio"}, id="a local server without a command"),
        pytest.param({"headers": {"A": "b\r\nX: y"}}, id="a header that makes another"),
        pytest.param({"command": "sh"}, id="both"),
    ],
)
async def test_bad_records_are_refused(hub, wrong):
    """What no runner could use, or would show a secret, is no record."""
    reply = await hub.http.post("/api/v1/mcp-servers", json={**WIKI, **wrong})
    assert reply.status_code == 400, reply.text


async def test_bound_disabled_deleted_and_other_teams(hub):
    """It is used where it is bound, while it is enabled and there, by who may; names are one letter case aside."""
    await become_owner(hub)
    await hub.http.post("/api/v1/teams", json={"name": "payments"})
    created = await hub.environment("web-1")
    await hub.environment("web-2")
    await make(hub, environment="web-2")
    assert (await hub.http.post("/api/v1/mcp-servers", json={**WIKI, "name": "wIKI"})).status_code == 409
    await make(hub, name="theirs", scope={"kind": "team", "team": "payments"})
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online("web-1")

        async def call(server: str, http: httpx2.AsyncClient = hub.http) -> str:
            body = {"environment_id": "web-1", "operation": "mcp_list_tools", "args": {"server": server}}
            reply = await http.post("/api/v1/tasks", json=body)
            return reply.json()["error"]["code"] if reply.is_error else "started"

        assert await call("wiki") == "mcp_server_unusable"
        assert await call("none") == "mcp_server_not_found"
        assert await call("theirs") == "started"
        member, _ = await invite(hub, "member@example.com")
        headers = {"sec-fetch-site": "same-origin"}
        async with httpx2.AsyncClient(base_url=hub.url, cookies=member, headers=headers, timeout=30) as http:
            assert await call("theirs", http) == "mcp_server_not_found"
            servers = (await http.get("/api/v1/mcp-servers")).json()["servers"]
            assert [one["name"] for one in servers] == ["Wiki"]
            assert (await http.patch("/api/v1/mcp-servers/wiki", json={"enabled": False})).status_code == 403
        await hub.http.patch("/api/v1/mcp-servers/theirs", json={"enabled": False})
        assert await call("theirs") == "mcp_server_unusable"
        assert (await hub.http.delete("/api/v1/mcp-servers/theirs")).status_code == 204
        assert await call("theirs") == "mcp_server_not_found"
        assert len([one for one in runner.heard if one["type"] == "task.request"]) == 1


async def test_names_and_bindings_that_are_not_taken(hub):
    """An operation's name, in any letter case, is refused as a server's; a managed sandbox binds none."""
    for name, status in (("Bash", 400), ("sync_skill", 400), ("bash-2", 201)):
        reply = await hub.http.post("/api/v1/mcp-servers", json={**WIKI, "name": name})
        assert reply.status_code == status, reply.text
    made = await hub.environment()
    environment_id = made["environment"]["id"]
    await hub.hub.services.database.write(
        lambda connection: connection.exec_driver_sql("UPDATE environments SET kind = 'cloud'") and None
    )
    hub.hub.services.links.forget_known()
    reply = await hub.http.post("/api/v1/mcp-servers", json={**WIKI, "environment": environment_id})
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "session_needed")

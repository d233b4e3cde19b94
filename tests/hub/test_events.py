"""Server-sent events: what changes reaches who may see it, and nobody misses anything over a break."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import trio
from tests.hub.support import become_owner, invite, make_skill
from tests.support.runner_stub import connect_v1


async def events(
    http: httpx2.AsyncClient, *, last_id: int | None = None, **query: Any
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Yield name and data of each event, from behind ``last_id`` as a browser that comes back asks for them."""
    headers = {} if last_id is None else {"last-event-id": str(last_id)}
    async with http.stream("GET", "/api/v1/events", params=query, headers=headers) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        name = ""
        async for line in reply.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))


async def until(stream: AsyncIterator[tuple[str, dict[str, Any]]], wanted: str) -> list[str]:
    """Read until an event of this name and return the names of all that came."""
    names: list[str] = []
    with trio.fail_after(30):
        async for name, _ in stream:
            names.append(name)
            if name == wanted:
                break
    return names


async def test_changes_are_heard_in_their_order(hub):
    """From a record on, each change once: made, connected, asked, ended, gone."""
    after = (await hub.http.get("/api/v1/audit", params={"limit": 1})).json()["events"][0]["seq"]
    created = await hub.environment()
    stream = events(hub.http, after=after)
    try:
        assert await until(stream, "environment.create") == ["environment.create"]
        async with connect_v1(hub.url, created["token"]) as runner:
            assert set(await until(stream, "presence")) <= {"presence", "runner.connect"}
            await hub.until_online()
            await hub.start()
            task = await runner.expect("task.request")
            await runner.result(task["task_id"], stdout_bytes=0, stderr_bytes=0)
            # The first heartbeat makes it online, which is another change of its presence; its connection is recorded.
            heard = [name for name in await until(stream, "task.end") if name not in ("presence", "runner.connect")]
            assert heard == ["task.create", "task.end"]
        with trio.fail_after(30):
            while (await anext(stream))[1].get("status") != "offline":
                pass
    finally:
        await stream.aclose()


async def test_a_stream_ends_with_the_right_to_it(hub):
    """Revoked, disabled, signed out or of another team: what comes after is told on no stream that was open before."""
    await become_owner(hub)
    created = await hub.environment()
    await hub.http.post("/api/v1/teams", json={"name": "payments"})
    people = {name: await invite(hub, f"{name}@example.com") for name in ("disabled", "left", "moved", "stays")}
    made = (await hub.http.post("/api/v1/tokens", json={"name": "n", "scopes": ["env:read", "tasks:read"]})).json()
    ours = {"sec-fetch-site": "same-origin"}
    ended: dict[str, str] = {}
    going: dict[str, trio.Event] = {}

    async def listen(name: str, path: str, http: httpx2.AsyncClient) -> None:
        async with http, http.stream("GET", path) as reply:
            assert reply.status_code == 200
            heard = ""
            async for text in reply.aiter_text():
                heard += text
                if "environment.create" in text or "before" in text:
                    going[name].set()
            ended[name] = heard

    def client(**more: Any) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=hub.url, timeout=60, **more)

    async with connect_v1(hub.url, created["token"]) as runner, trio.open_nursery() as nursery:
        await hub.until_online()
        task = await hub.start()
        await runner.expect("task.request")
        await runner.send("task.accepted", {"task_id": task["id"]})
        await runner.output(task["id"], b"before\n")
        token = {"authorization": f"Bearer {made['secret']}"}
        output = f"/api/v1/tasks/{task['id']}/output?follow=true"
        listeners = {
            "token": ("/api/v1/events?after=0", client(headers=token)),
            "output": (output, client(headers=token)),
        }
        for name, (cookies, _) in people.items():
            listeners[name] = ("/api/v1/events?after=0", client(cookies=cookies, headers=ours))
        for name, (path, http) in listeners.items():
            going[name] = trio.Event()
            nursery.start_soon(listen, name, path, http)
        with trio.fail_after(30):
            for one in going.values():
                await one.wait()
        assert (await hub.http.delete(f"/api/v1/tokens/{made['token']['id']}")).status_code == 204
        person = {name: f"/api/v1/people/{found['id']}" for name, (_, found) in people.items()}
        assert (await hub.http.patch(person["disabled"], json={"disabled": True})).status_code == 200
        member = f"/api/v1/teams/payments/members/{people['moved'][1]['id']}"
        assert (await hub.http.put(member)).status_code == 204
        async with client(cookies=people["left"][0], headers=ours) as http:
            assert (await http.post("/api/v1/sign-out")).status_code == 204
        await runner.output(task["id"], b"afterwards\n", offset=7)
        later = await hub.environment("later")

        async def are_over() -> bool:
            return len(ended) == 5

        await hub.until(are_over)
        assert "stays" not in ended
        assert not any(later["environment"]["id"] in heard or "afterwards" in heard for heard in ended.values())
        nursery.cancel_scope.cancel()


async def test_nobody_hears_of_what_they_may_not_see(hub):
    """A member hears of their teams' and the account's environments, not of others' and not of people."""
    await become_owner(hub)
    cookies, _ = await invite(hub, "max@example.com")
    after = (await hub.http.get("/api/v1/audit", params={"limit": 1})).json()["events"][0]["seq"]
    await hub.http.post("/api/v1/teams", json={"name": "payments"})
    await hub.environment("hidden", scope={"kind": "team", "team": "payments"})
    shown = await hub.environment("shown")
    async with httpx2.AsyncClient(base_url=hub.url, cookies=cookies, timeout=60) as http:
        stream = events(http, after=after)
        try:
            with trio.fail_after(30):
                name, data = await anext(stream)
            assert (name, data["target"]) == ("environment.create", shown["environment"]["id"])
        finally:
            await stream.aclose()


async def test_nothing_is_missed_over_a_restart_of_the_hub(start_hub):
    """Whoever comes back with the last id hears what happened before the end, while nobody listened and since: once."""
    heard: list[tuple[int, str]] = []
    async with start_hub() as hub:
        created = await hub.environment()
        stream = events(hub.http, after=0)
        with trio.fail_after(30):
            async for name, data in stream:
                heard.append((data["seq"], name))
                if name == "environment.create":
                    break
        await stream.aclose()
        # Nobody listens.
        await hub.http.post("/api/v1/teams", json={"name": "payments"})
    async with start_hub() as hub:
        stream = events(hub.http, last_id=heard[-1][0])
        try:
            with trio.fail_after(30):
                async for name, data in stream:
                    heard.append((data["seq"], name))
                    if name == "hub.start":
                        break
                await hub.http.delete(f"/api/v1/environments/{created['environment']['id']}")
                async for name, data in stream:
                    heard.append((data["seq"], name))
                    if name == "environment.delete":
                        break
        finally:
            await stream.aclose()
        numbers = [number for number, _ in heard]
        names = [name for _, name in heard]
        assert numbers == list(range(1, numbers[-1] + 1))
        assert names.count("team.create") == names.count("hub.stop") == names.count("environment.create") == 1
        assert names.count("hub.start") == 2


async def test_skills_and_mcp_servers_are_heard_of_by_those_who_see_them(hub):
    """A member hears of the account's and of their team's, not of another team's nor of a refused upload."""
    await become_owner(hub)
    cookies, max_ = await invite(hub, "max@example.com")
    for team in ("payments", "search"):
        await hub.http.post("/api/v1/teams", json={"name": team})
    reply = await hub.http.put(f"/api/v1/teams/payments/members/{max_['id']}")
    assert reply.is_success, reply.text
    after = (await hub.http.get("/api/v1/audit", params={"limit": 1})).json()["events"][0]["seq"]
    seen: list[str] = []
    for name, team in (("hidden", "search"), ("ours", "payments"), ("shared", None)):
        query = {"team": team} if team is not None else {}
        made = await hub.http.post("/api/v1/skills", content=make_skill(name), params=query)
        assert made.status_code == 201, made.text
        server: dict[str, Any] = {"name": name, "transport": "stdio", "command": "x"}
        if team is not None:
            server["scope"] = {"kind": "team", "team": team}
        created = await hub.http.post("/api/v1/mcp-servers", json=server)
        assert created.status_code == 201, created.text
        if name != "hidden":
            seen += [made.json()["skill"]["id"], created.json()["id"]]
    assert (await hub.http.post("/api/v1/skills", content=b"no archive")).status_code == 422
    assert (await hub.http.delete("/api/v1/skills/hidden")).status_code == 204
    assert (await hub.http.delete("/api/v1/skills/shared")).status_code == 204
    heard: list[tuple[str, str]] = []
    async with httpx2.AsyncClient(base_url=hub.url, cookies=cookies, timeout=60) as http:
        stream = events(http, after=after)
        try:
            with trio.fail_after(30):
                async for name, data in stream:
                    heard.append((name, data["target"]))
                    if name == "skill.delete":
                        break
        finally:
            await stream.aclose()
    made_names = ["skill.create", "mcp_server.create"] * 2
    assert heard == [*zip(made_names, seen, strict=True), ("skill.delete", seen[2])]

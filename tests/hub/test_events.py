"""Server-sent events: what changes reaches who may see it, and nobody misses anything over a break."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import trio
from tests.hub.support import become_owner, invite
from tests.support.runner_stub import connect_v1


async def events(http: httpx2.AsyncClient, **query: Any) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Yield name and data of each event."""
    async with http.stream("GET", "/api/v1/events", params=query) as reply:
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

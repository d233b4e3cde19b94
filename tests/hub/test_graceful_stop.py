"""A hub that stops while clients wait: each is told what there is, and none is cut off without a word."""

import json
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import trio
from tests.support.runner_stub import connect_v1

pytestmark = pytest.mark.one_store("what a stopping hub tells its clients; test_persistence.py asks the stores")


async def test_who_waits_is_answered(start_hub):
    """A wait ends with the task as it stands, a stream with a line that says so; after the restart all is taken up."""
    found: dict[str, Any] = {}
    async with start_hub() as hub:
        created = await hub.environment()
        async with connect_v1(hub.url, created["token"]) as runner:
            await hub.until_online()
            task = await hub.start("long")
            await runner.expect("task.request", within_s=30)
            fanned = await hub.http.post(
                "/api/v1/fanouts", json={"environments": ["web-1"], "operation": "bash", "args": {"command": "long"}}
            )
            assert fanned.status_code in {200, 201, 202}, fanned.text
            begun = {name: trio.Event() for name in ("output", "events", "fanout")}

            async def wait(name: str, method: str, path: str, **more: Any) -> None:
                found[name] = await hub.http.request(method, path, **more)

            async def stream(name: str, path: str) -> None:
                async with hub.http.stream("GET", path) as reply:
                    begun[name].set()
                    found[name] = b"".join([piece async for piece in reply.aiter_bytes()]).decode()

            with trio.fail_after(30):
                async with trio.open_nursery() as nursery:
                    one = f"/api/v1/tasks/{task['id']}"
                    body = {"environment_id": "web-1", "operation": "bash", "args": {"command": "longer"}}
                    nursery.start_soon(wait, "result", "GET", f"{one}/result?wait_s=60")
                    nursery.start_soon(lambda: wait("create", "POST", "/api/v1/tasks?wait_s=60", json=body))
                    nursery.start_soon(stream, "output", f"{one}/output?follow=true")
                    nursery.start_soon(stream, "events", "/api/v1/events")
                    nursery.start_soon(stream, "fanout", f"/api/v1/fanouts/{fanned.json()['id']}/events")
                    for event in begun.values():
                        await event.wait()

                    async def are_waiting() -> bool:
                        return len(hub.hub.services.waits) == len(begun) + 2

                    await hub.until(are_waiting)
                    began_s = trio.current_time()
                    hub.hub.stop.set()
                    await runner.expect_closed()
                took_s = trio.current_time() - began_s
    for name in ("result", "create"):
        assert found[name].status_code == 202, found[name].text
        assert found[name].json()["finished"] is False
        assert found[name].headers["connection"] == "close", "the next request is for the next hub"
    assert found["result"].json()["id"] == task["id"]
    last = json.loads(found["output"].splitlines()[-1])
    assert (last["end"], last["finished"]) == (True, False)
    assert "event: task.create" in found["events"] or "retry:" in found["events"]
    assert "event: progress" in found["fanout"]
    assert "event: end" not in found["fanout"]
    assert took_s < 4, "nobody who waits holds up the stop"
    held = [{"task_id": one, "state": "running"} for one in (task["id"], found["create"].json()["id"])]
    async with start_hub() as hub, connect_v1(hub.url, created["token"], tasks=held) as runner:
        await runner.result(task["id"], exit_code=0)
        assert (await hub.result(task["id"]))["state"] == "succeeded"


async def test_what_cannot_be_answered_in_time_is_refused_in_words(start_hub, monkeypatch):
    """A request that hangs, here for its own body, gets 503 with Retry-After before its connection is cut."""
    monkeypatch.setattr("guardhouse.hub.server.REQUESTS_STOP_S", 0.1)
    async with start_hub() as hub:
        address = urlsplit(hub.url)
        stream = await trio.open_tcp_stream(address.hostname or "", address.port or 0)
        head = (
            f"POST /api/v1/tasks HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
            f"authorization: {hub.http.headers['authorization']}\r\ncontent-length: 100\r\n\r\n"
        )
        await stream.send_all(head.encode())

        async def is_read() -> bool:
            return len(hub.hub.services.requests) == 1

        await hub.until(is_read)
        hub.hub.stop.set()
        answer = b""
        with trio.fail_after(30):
            while piece := await stream.receive_some():
                answer += piece
    head_lines, _, body = answer.decode().partition("\r\n\r\n")
    assert head_lines.startswith("HTTP/1.1 503")
    assert "retry-after: 5" in head_lines.lower()
    error = json.loads(body)["error"]
    assert (error["code"], error["retryable"]) == ("stopping", True)
    assert "idempotency_key" in error["hint"]


async def test_a_hub_that_stops_takes_no_more_waits(hub):
    """What begins to wait after the stop has begun is answered at once."""
    await hub.environment()
    task = await hub.start("later", queue_s=60)
    hub.hub.services.waits.end()
    with trio.fail_after(30):
        reply = await hub.http.get(
            f"/api/v1/tasks/{task['id']}/result", params={"wait_s": 60}, timeout=httpx2.Timeout(30)
        )
    assert (reply.status_code, reply.json()["state"]) == (202, "queued")

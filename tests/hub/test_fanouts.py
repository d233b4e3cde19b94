"""Fan-outs: so many at a time, stopped after so many errors, cancelled as a whole, carried over a restart."""

import json
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest
import trio
from tests.support.runner_stub import RunnerStub, connect_v1

from guardhouse.hub.tasks.fanout_plan import ChildState, FanoutState, NextStep, decide_next

W, R, S, F, K = (
    ChildState.WAITING,
    ChildState.RUNNING,
    ChildState.SUCCEEDED,
    ChildState.FAILED,
    ChildState.SKIPPED,
)


@pytest.mark.parametrize(
    ("children", "bounds", "expected"),
    [
        pytest.param([W, W, W], {"parallel": 2}, NextStep(start=(0, 1)), id="as many as may"),
        pytest.param([S, R, W, W], {"parallel": 2}, NextStep(start=(2,)), id="one ended, one starts"),
        pytest.param([R, R, W], {"parallel": 2}, NextStep(), id="full"),
        pytest.param([F, W, W], {"parallel": 1, "stop_after": 2}, NextStep(start=(1,)), id="one error is not two"),
        pytest.param([F, F, R, W], {"parallel": 3, "stop_after": 2}, NextStep(skip=(3,)), id="what runs goes on"),
        pytest.param(
            [F, F, S, W],
            {"parallel": 3, "stop_after": 2},
            NextStep(skip=(3,), ends_as=FanoutState.STOPPED),
            id="stopped",
        ),
        pytest.param(
            [F, S, K], {"parallel": 1, "stop_after": 1}, NextStep(ends_as=FanoutState.STOPPED), id="told later"
        ),
        pytest.param(
            [F, F], {"parallel": 1, "stop_after": 2}, NextStep(ends_as=FanoutState.FINISHED), id="all started"
        ),
        pytest.param([S, F], {"parallel": 1}, NextStep(ends_as=FanoutState.FINISHED), id="finished"),
        pytest.param([R, W], {"parallel": 9, "is_cancelled": True}, NextStep(skip=(1,)), id="cancelled, one runs"),
        pytest.param(
            [S, W], {"parallel": 9, "is_cancelled": True}, NextStep(skip=(1,), ends_as=FanoutState.CANCELLED), id="over"
        ),
    ],
)
def test_next_step(children, bounds, expected):
    """What starts, what is left out and how it ends follows from the children's states alone."""
    assert decide_next(children, **{"stop_after": None, "is_cancelled": False, **bounds}) == expected


async def ask(hub, **more: Any) -> dict[str, Any]:
    body = {"tags": ["fleet"], "operation": "bash", "args": {"command": "uptime"}, **more}
    reply = await hub.http.post("/api/v1/fanouts", json=body)
    assert reply.status_code == 202, reply.text
    return reply.json()


async def children(hub, fanout_id: str) -> list[dict[str, Any]]:
    return (await hub.http.get(f"/api/v1/fanouts/{fanout_id}/children")).json()["children"]


async def ended(hub, fanout_id: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        found = (await hub.http.get(f"/api/v1/fanouts/{fanout_id}")).json()
        return found if found["finished"] else None

    return await hub.until(look, within_s=60)


async def fleet(hub, stack: AsyncExitStack, count: int) -> list[RunnerStub]:
    runners = []
    for number in range(count):
        created = await hub.environment(f"host-{number}", tags=["fleet", "linux"])
        runners.append(await stack.enter_async_context(connect_v1(hub.url, created["token"], memory_id=f"m{number}")))
        await hub.until_online(f"host-{number}")
    return runners


async def test_one_command_in_a_fleet(hub):
    """It runs in every environment with all the tags, two at a time here; each child is a task; progress is told."""
    at_once, most = 0, 0
    async with AsyncExitStack() as stack:
        runners = await fleet(hub, stack, 3)
        await hub.environment("other", tags=["linux"])
        nursery = await stack.enter_async_context(trio.open_nursery())

        async def serve(runner: RunnerStub, exit_code: int) -> None:
            nonlocal at_once, most
            task = await runner.expect("task.request")
            at_once, most = at_once + 1, max(most, at_once + 1)
            # The third cannot start before one ends, so both of the first are seen at once.
            if runner is not runners[2]:
                await hub.until(_is(lambda: most == 2))
            at_once -= 1
            await runner.result(task["task_id"], exit_code=exit_code)

        for runner, exit_code in zip(runners, (0, 3, 0), strict=True):
            nursery.start_soon(serve, runner, exit_code)
        made = await ask(hub, tags=["fleet", "linux"], parallel=2, idempotency_key="k")
        events = await follow(hub, made["id"])
        found = await ended(hub, made["id"])
        assert (found["state"], found["counts"]) == (
            "finished",
            {"waiting": 0, "running": 0, "succeeded": 2, "failed": 1, "skipped": 0},
        )
        assert most == 2
        assert [
            (one["environment_name"], one["state"], one["exit_code"]) for one in await children(hub, made["id"])
        ] == [
            ("host-0", "succeeded", 0),
            ("host-1", "failed", 3),
            ("host-2", "succeeded", 0),
        ]
        # Asked again under the same key it is the same one; another request under that key is refused.
        again = await ask(hub, tags=["linux", "fleet"], parallel=2, idempotency_key="k")
        assert again["id"] == made["id"]
        other = {"tags": ["linux"], "operation": "bash", "args": {"command": "x"}, "idempotency_key": "k"}
        assert (await hub.http.post("/api/v1/fanouts", json=other)).status_code == 409
        listed = (await hub.http.get("/api/v1/tasks", params={"origin": made["id"]})).json()["tasks"]
        assert len(listed) == 3
        assert {one["data"]["position"] for one in events if one["event"] == "child"} == {0, 1, 2}
        assert events[-1]["event"] == "end"
        assert events[-1]["data"]["counts"] == found["counts"]
        audited = (await hub.http.get("/api/v1/audit", params={"target": made["id"]})).json()["events"]
        assert [one["action"] for one in audited] == ["fanout.end", "fanout.create"]


def _is(condition):
    async def ask_() -> bool:
        return condition()

    return ask_


async def follow(hub, fanout_id: str) -> list[dict[str, Any]]:
    """Return the events of one stream to its end."""
    found: list[dict[str, Any]] = []
    async with hub.http.stream("GET", f"/api/v1/fanouts/{fanout_id}/events") as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        async for line in reply.aiter_lines():
            key, _, value = line.partition(": ")
            if key == "event":
                found.append({"event": value})
            elif key == "data":
                found[-1]["data"] = json.loads(value)
    return found


async def test_stops_after_errors_and_says_what_never_started(hub):
    """An environment that is away counts as an error; after the second nothing else starts."""
    async with AsyncExitStack() as stack:
        (runner,) = await fleet(hub, stack, 1)
        for name in ("away-1", "away-2", "zulu"):
            await hub.environment(name, tags=["fleet"])
        made = await ask(hub, parallel=1, stop_after=2)
        found = await ended(hub, made["id"])
        assert (found["state"], found["reason"]) == ("stopped", "stopped after 2 errors")
        outcomes = {one["environment_name"]: one for one in await children(hub, made["id"])}
        assert {name: one["state"] for name, one in outcomes.items()} == {
            "away-1": "failed",
            "away-2": "failed",
            "host-0": "skipped",
            "zulu": "skipped",
        }
        assert "is not connected" in outcomes["away-1"]["error"]
        assert not [frame for frame in runner.heard if frame["type"] == "task.request"]
        # The twin: left out instead of failed, everything that is there runs.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runner.serve)
            made = await ask(hub, parallel=1, stop_after=2, online_only=True)
            assert (await ended(hub, made["id"]))["counts"]["succeeded"] == 1
            nursery.cancel_scope.cancel()
    refused = await hub.http.post(
        "/api/v1/fanouts", json={"tags": ["none"], "operation": "bash", "args": {"command": "x"}}
    )
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "no_environment")
    both = {"tags": ["a"], "environments": ["away-1"], "operation": "bash", "args": {"command": "x"}}
    assert (await hub.http.post("/api/v1/fanouts", json=both)).status_code == 400
    wrong = {"tags": ["fleet"], "operation": "bash", "args": {"command": 1}}
    assert (await hub.http.post("/api/v1/fanouts", json=wrong)).status_code == 400


async def test_cancelled_as_a_whole(hub):
    """What runs is told to stop, what waits never starts."""
    async with AsyncExitStack() as stack:
        runners = await fleet(hub, stack, 2)
        made = await ask(hub, parallel=1)
        task = await runners[0].expect("task.request")
        reply = await hub.http.post(f"/api/v1/fanouts/{made['id']}/cancel", json={"reason": "wrong fleet"})
        assert reply.status_code == 202
        assert (await runners[0].expect("task.cancel"))["task_id"] == task["task_id"]
        await runners[0].result(task["task_id"], success=False, error="cancelled", error_code="cancelled")
        found = await ended(hub, made["id"])
        assert (found["state"], found["reason"]) == ("cancelled", "wrong fleet")
        assert [one["state"] for one in await children(hub, made["id"])] == ["failed", "skipped"]
        assert not [frame for frame in runners[1].heard if frame["type"] == "task.request"]


async def test_goes_on_over_a_restart(start_hub):
    """A hub that comes back carries it on where it was: nothing runs twice, and runners that follow are waited for."""
    async with start_hub() as hub, AsyncExitStack() as stack:
        runners = await fleet(hub, stack, 2)
        tokens = [(await hub.http.get(f"/api/v1/environments/host-{n}/token")).json()["token"] for n in (0, 1)]
        made = await ask(hub, parallel=1)
        first = await runners[0].expect("task.request")
        await runners[0].send("task.accepted", {"task_id": first["task_id"], "state": "running"})

        async def runs() -> bool:
            return (await hub.http.get(f"/api/v1/tasks/{first['task_id']}")).json()["state"] == "running"

        await hub.until(runs)
    async with start_hub() as hub, AsyncExitStack() as stack:
        held = [{"task_id": first["task_id"], "state": "running"}]
        one = await stack.enter_async_context(connect_v1(hub.url, tokens[0], memory_id="m0", tasks=held))
        await one.result(first["task_id"])

        async def second_asked() -> bool:
            return [child["state"] for child in await children(hub, made["id"])] == ["succeeded", "running"]

        await hub.until(second_asked)
        # Its runner comes only now: the child has waited for it.
        two = await stack.enter_async_context(connect_v1(hub.url, tokens[1], memory_id="m1"))
        second = await two.expect("task.request")
        await two.result(second["task_id"])
        found = await ended(hub, made["id"])
        assert (found["state"], found["counts"]["succeeded"]) == ("finished", 2)
        assert not [frame for frame in one.heard if frame["type"] == "task.request"]
        assert len((await hub.http.get("/api/v1/tasks", params={"origin": made["id"]})).json()["tasks"]) == 2


async def test_a_hub_that_died_between_the_two_rows_starts_nothing_twice(start_hub):
    """A child's task was stored, and not yet that it runs: the next hub finds the task by the child's key."""
    async with start_hub() as hub, AsyncExitStack() as stack:
        (runner,) = await fleet(hub, stack, 1)
        token = (await hub.http.get("/api/v1/environments/host-0/token")).json()["token"]
        made = await ask(hub, parallel=1)
        task = await runner.expect("task.request")
        await runner.result(task["task_id"])
        await ended(hub, made["id"])
    # What the store has when kill -9 comes between the two transactions.
    hub.store.execute("UPDATE fanouts SET state = 'running', reason = NULL, finished_ms = NULL")
    hub.store.execute("UPDATE fanout_children SET state = 'waiting', task_id = NULL, finished_ms = NULL")
    async with start_hub() as hub, connect_v1(hub.url, token, memory_id="m0") as runner:
        found = await ended(hub, made["id"])
        assert (found["state"], found["counts"]["succeeded"]) == ("finished", 1)
        assert [child["task_id"] for child in await children(hub, made["id"])] == [task["task_id"]]
        assert not [frame for frame in runner.heard if frame["type"] == "task.request"]


async def test_who_asked_must_still_be_allowed(hub):
    """A token that was revoked meanwhile starts nothing more; what it had started goes on."""
    made = await hub.http.post("/api/v1/tokens", json={"name": "ci", "scopes": ["tasks:run", "tasks:read"]})
    headers = {"authorization": f"Bearer {made.json()['secret']}"}
    async with AsyncExitStack() as stack:
        runners = await fleet(hub, stack, 2)
        body = {"tags": ["fleet"], "operation": "bash", "args": {"command": "x"}, "parallel": 1}
        async with httpx2.AsyncClient(base_url=hub.url, headers=headers, timeout=30) as http:
            fanout = (await http.post("/api/v1/fanouts", json=body)).json()
            task = await runners[0].expect("task.request")
            assert (await http.get("/api/v1/fanouts")).json()["fanouts"][0]["id"] == fanout["id"]
        await hub.http.delete(f"/api/v1/tokens/{made.json()['token']['id']}")
        await runners[0].result(task["task_id"])
        await ended(hub, fanout["id"])
        first, second = await children(hub, fanout["id"])
        assert first["state"] == "succeeded"
        assert (second["state"], second["task_id"]) == ("failed", None)
        assert "no valid token" in second["error"]
        assert not [frame for frame in runners[1].heard if frame["type"] == "task.request"]

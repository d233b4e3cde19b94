"""Tasks that start later: at their time, once, by whoever may still; otherwise they say why they did not."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from tests.support.runner_stub import connect_v1

from guardhouse.hub.tasks import schedules
from guardhouse.hub.tasks.schedule_plan import Verdict, decide_due


@pytest.mark.parametrize(
    ("now_ms", "is_online", "served_since_ms", "verdict", "look_again_ms"),
    [
        pytest.param(999, True, 0, Verdict.WAIT, 1_000, id="before its time"),
        pytest.param(1_000, True, 0, Verdict.START, 0, id="at its time"),
        pytest.param(1_000, False, 0, Verdict.WAIT, 1_500, id="nobody there yet"),
        pytest.param(1_400, True, 1_300, Verdict.START, 0, id="late, within its grace"),
        pytest.param(1_500, True, 0, Verdict.START, 0, id="at the end of its grace"),
        pytest.param(1_500, False, 0, Verdict.EXPIRE, 0, id="nobody came"),
        pytest.param(1_501, True, 0, Verdict.EXPIRE, 0, id="too late"),
        pytest.param(9_000, True, 8_000, Verdict.EXPIRE, 0, id="the hub was away"),
    ],
)
def test_due(now_ms, is_online, served_since_ms, verdict, look_again_ms):
    """What becomes of it follows from the time, its grace and whether a runner is there."""
    times = {"now_ms": now_ms, "served_since_ms": served_since_ms, "looked_ms": 1_200}
    due = decide_due(run_at_ms=1_000, grace_ms=500, is_online=is_online, **times)
    assert (due.verdict, due.look_again_ms) == (verdict, look_again_ms)
    assert bool(due.reason) == (verdict is Verdict.EXPIRE)
    assert ("hub did not run" in due.reason) == (served_since_ms > 1_500)


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def plan(hub, seconds: float, **more: Any) -> dict[str, Any]:
    body = {"environment_id": "web-1", "operation": "bash", "args": {"command": "uptime"}, "run_at": soon(seconds)}
    reply = await hub.http.post("/api/v1/schedules", json={**body, **more})
    assert reply.status_code == 201, reply.text
    return reply.json()


async def decided(hub, schedule_id: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        found = (await hub.http.get(f"/api/v1/schedules/{schedule_id}")).json()
        return found if found["state"] != "waiting" else None

    return await hub.until(look)


async def test_starts_at_its_time_and_not_before(hub):
    """It becomes a task of whoever asked, when its time comes; a cancelled one never does."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        cancelled = await plan(hub, 3_600, idempotency_key="k")
        reply = await hub.http.post(f"/api/v1/schedules/{cancelled['id']}/cancel", json={"reason": "not today"})
        assert (reply.json()["state"], reply.json()["reason"]) == ("cancelled", "not today")
        made = await plan(hub, 0.4)
        assert made["state"] == "waiting"
        task = await runner.expect("task.request")
        found = await decided(hub, made["id"])
        assert (found["state"], found["task_id"]) == ("started", task["task_id"])
        await runner.result(task["task_id"])
        shown = await hub.result(task["task_id"])
        assert shown["origin"] == made["id"]
        assert shown["created_at"] >= made["run_at"]
        assert (await hub.http.post(f"/api/v1/schedules/{made['id']}/cancel")).status_code == 409
        listed = (await hub.http.get("/api/v1/schedules", params={"state": "cancelled"})).json()["schedules"]
        assert [one["id"] for one in listed] == [cancelled["id"]]
        assert len([frame for frame in runner.heard if frame["type"] == "task.request"]) == 1
    for wrong in ("2020-01-01T00:00:00Z", "2026-01-01T00:00:00", "tomorrow", soon(500 * 86_400)):
        body = {"environment_id": "web-1", "operation": "bash", "args": {"command": "x"}, "run_at": wrong}
        assert (await hub.http.post("/api/v1/schedules", json=body)).status_code == 400, wrong


async def test_expires_where_nobody_is_there_in_time(hub):
    """One whose environment stays away at its time expires; where that comes back within the grace, it starts."""
    created = await hub.environment()
    late = await plan(hub, 0.1, grace_s=1)
    found = await decided(hub, late["id"])
    assert found["state"] == "expired"
    assert "not online at its time" in found["reason"]
    waits = await plan(hub, 0, grace_s=600)
    async with connect_v1(hub.url, created["token"]) as runner:
        task = await runner.expect("task.request")
        assert (await decided(hub, waits["id"]))["task_id"] == task["task_id"]
    audited = (await hub.http.get("/api/v1/audit", params={"action": "schedule."})).json()["events"]
    assert [one["action"] for one in audited] == [
        "schedule.start",
        "schedule.create",
        "schedule.expire",
        "schedule.create",
    ]


async def test_survives_a_restart_and_asks_again_who_may(start_hub):
    """A hub that was away at the time starts it when it is back, once; a person who lost the right starts nothing."""
    async with start_hub() as hub:
        created = await hub.environment()
        made = await hub.http.post("/api/v1/tokens", json={"name": "ci", "scopes": ["tasks:run", "tasks:read"]})
        ours = await plan(hub, 0.6)
        headers = {"authorization": f"Bearer {made.json()['secret']}"}
        async with httpx2.AsyncClient(base_url=hub.url, headers=headers, timeout=30) as http:
            body = {"environment_id": "web-1", "operation": "bash", "args": {"command": "x"}, "run_at": soon(0.6)}
            theirs = (await http.post("/api/v1/schedules", json=body)).json()
        await hub.http.delete(f"/api/v1/tokens/{made.json()['token']['id']}")
    async with start_hub() as hub, connect_v1(hub.url, created["token"]) as runner:
        task = await runner.expect("task.request")
        assert (await decided(hub, ours["id"]))["task_id"] == task["task_id"]
        refused = await decided(hub, theirs["id"])
        assert (refused["state"], refused["task_id"]) == ("refused", None)
        assert "no valid token" in refused["reason"]
        await runner.result(task["task_id"])
        await hub.result(task["task_id"])
        assert len([frame for frame in runner.heard if frame["type"] == "task.request"]) == 1


async def test_a_clock_that_is_set(start_hub, monkeypatch):
    """Set back, a schedule waits for its time anew; set forward, it starts within its grace, or says what happened."""
    monkeypatch.setattr(schedules, "LOOK_AGAIN_S", 0.05)
    steps_ms = [0]
    real_now_ms = schedules.now_ms
    monkeypatch.setattr(schedules, "now_ms", lambda: real_now_ms() + steps_ms[0])
    async with start_hub() as hub:
        created = await hub.environment()
        async with connect_v1(hub.url, created["token"]) as runner:
            await hub.until_online()
            in_time = await plan(hub, 600, grace_s=300)
            too_late = await plan(hub, 600, grace_s=1)
            steps_ms[0] = 620_000
            task = await runner.expect("task.request")
            assert (await decided(hub, in_time["id"]))["task_id"] == task["task_id"]
            expired = await decided(hub, too_late["id"])
            assert expired["state"] == "expired"
            assert "the hub's clock went from" in expired["reason"]
            later = await plan(hub, 700)
            steps_ms[0] = -3_600_000
            due = await plan(hub, 0)
            # The hub has looked again, by the clock that is an hour behind, when this one is refused a start.
            cancelled = await hub.http.post(f"/api/v1/schedules/{due['id']}/cancel")
            assert cancelled.json()["state"] == "cancelled"
            assert (await hub.http.get(f"/api/v1/schedules/{later['id']}")).json()["state"] == "waiting"
            steps_ms[0] = 710_000
            assert (await runner.expect("task.request"))["task_id"] == (await decided(hub, later["id"]))["task_id"]
            assert len([frame for frame in runner.heard if frame["type"] == "task.request"]) == 2


async def test_a_hub_that_died_between_the_two_rows_starts_nothing_twice(start_hub):
    """The task was stored, and not yet that its schedule has started: the next hub finds the task by its key."""
    async with start_hub() as hub:
        created = await hub.environment()
        async with connect_v1(hub.url, created["token"]) as runner:
            await hub.until_online()
            made = await plan(hub, 0)
            task = await runner.expect("task.request")
            await runner.result(task["task_id"])
            await hub.result(task["task_id"])
            await decided(hub, made["id"])
    # What the store has when kill -9 comes between the two transactions.
    hub.store.execute("UPDATE schedules SET state = 'waiting', task_id = NULL, decided_ms = NULL")
    async with start_hub() as hub, connect_v1(hub.url, created["token"]) as runner:
        found = await decided(hub, made["id"])
        assert (found["state"], found["task_id"]) == ("started", task["task_id"])
        assert not [frame for frame in runner.heard if frame["type"] == "task.request"]

"""The hub's wall clock is set an hour forward or back: nothing ends, goes offline or stays locked for that."""

import time
from types import SimpleNamespace

import pytest
from tests.hub.support import PASSWORD, become_owner
from tests.support.runner_stub import connect_v1

from guardhouse.hub import clock
from guardhouse.hub.clock import Moment
from guardhouse.hub.clock_steps import HOLD_MS, STEP_MS, ClockStep, decide_held_until
from guardhouse.hub.people.lockout import FREE_TRIES

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class Clocks:
    """The hub's two clocks, each with what was added to it."""

    def __init__(self) -> None:
        self.wall_ms = self.steady_ms = 0

    def time_ns(self) -> int:
        return time.time_ns() + self.wall_ms * 1_000_000

    def monotonic_ns(self) -> int:
        return time.monotonic_ns() + self.steady_ms * 1_000_000


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    made = Clocks()
    names = SimpleNamespace(time_ns=made.time_ns, monotonic_ns=made.monotonic_ns)
    monkeypatch.setattr(clock, "time", names)
    return made


@pytest.mark.parametrize("step_ms", [HOUR_MS, -HOUR_MS])
async def test_a_step_ends_nothing(hub, clocks, step_ms):
    """What runs goes on and its runner stays online; an hour that really passes tells the runner to stop it."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        started = await hub.start("sleep 60")
        await runner.expect("task.request")
        await runner.send("task.accepted", {"task_id": started["id"]})
        await runner.output(started["id"], b"it runs")

        async def runs() -> bool:
            return (await hub.http.get(f"/api/v1/tasks/{started['id']}")).json()["state"] == "running"

        await hub.until(runs)
        clocks.wall_ms = step_ms
        await hub.hub.services.board.deadlines.sweep()
        assert [live.cancel_sent_s for live in hub.hub.services.board] == [None]
        shown = await hub.status()
        assert (shown["status"], shown["last_heartbeat_ago"]) == ("online", "just now")
        assert await runs()
        assert (await hub.http.get("/api/v1/session-choices")).json()["auto"]["name"] == "web-1"
        clocks.wall_ms, clocks.steady_ms = step_ms + HOUR_MS, HOUR_MS
        await hub.hub.services.board.deadlines.sweep()
        cancel = await runner.expect("task.cancel")
        assert cancel["task_id"] == started["id"]
        assert (await hub.status())["status"] == "offline"


def test_a_moment_is_as_long_ago_as_it_was(clocks):
    """Set or not, both clocks' answers differ by what passed."""
    made = Moment()
    clocks.steady_ms = clocks.wall_ms = 5_000
    assert clock.now_ms() - made.seen_now_ms() == pytest.approx(5_000, abs=900)
    clocks.wall_ms += HOUR_MS
    assert clock.now_ms() - made.seen_now_ms() == pytest.approx(5_000, abs=900)
    assert clock.now_ms() - made.clock_ms() == pytest.approx(HOUR_MS, abs=900)


async def test_a_clock_that_is_set_back_keeps_nobody_out(hub, clocks):
    """A lock of a minute is over after a minute, and not when the clock has caught up with what it was."""
    await become_owner(hub)
    body = {"email": "owner@example.com", "password": PASSWORD}
    for _ in range(FREE_TRIES):
        wrong = await hub.http.post("/api/v1/sign-in", json={**body, "password": "wrong horse battery"})
    assert wrong.status_code == 401
    clocks.wall_ms = -HOUR_MS
    assert (await hub.http.post("/api/v1/sign-in", json=body)).status_code == 429
    clocks.steady_ms = 61_000
    assert (await hub.http.post("/api/v1/sign-in", json=body)).status_code == 200


@pytest.mark.parametrize(
    ("step", "now_ms", "held_until_ms"),
    [
        pytest.param(None, 0, None, id="never set"),
        pytest.param(ClockStep(100 * DAY_MS, STEP_MS), 100 * DAY_MS, 100 * DAY_MS + HOLD_MS, id="ahead"),
        pytest.param(ClockStep(100 * DAY_MS, STEP_MS), 100 * DAY_MS + HOLD_MS, None, id="ahead, and left so"),
        pytest.param(ClockStep(100 * DAY_MS, STEP_MS), 10 * DAY_MS, None, id="ahead, and back again"),
        pytest.param(ClockStep(10 * DAY_MS, -90 * DAY_MS), 10 * DAY_MS, None, id="back: nothing looks older"),
    ],
)
def test_what_a_jump_holds(step, now_ms, held_until_ms):
    """Three days long nothing is deleted for its age after a jump ahead, unless it was taken back."""
    assert decide_held_until(step, now_ms=now_ms) == held_until_ms


async def test_a_clock_months_ahead_deletes_nothing(start_hub, clocks, monkeypatch):
    """Not while the hub runs, not at a start, not at a restore; three days later, or where it was right, it does."""
    monkeypatch.setattr("guardhouse.hub.upkeep.RETENTION_EVERY_S", 0.05)

    async def steps(hub) -> list[tuple[int, str]]:
        found = (await hub.http.get("/api/v1/audit", params={"action": "clock.step"})).json()["events"]
        return [(round(one["detail"]["by_s"] / 86_400), one["detail"]["seen"]) for one in found]

    async def held(hub) -> bool:
        return "guardhouse_deletions_held 1.0" in (await hub.http.get("/metrics")).text

    async def is_there(hub) -> bool:
        return (await hub.http.get(f"/api/v1/tasks/{task['id']}")).status_code == 200

    async with start_hub(retention_days=90) as hub:
        await hub.environment()
        task = await hub.start(queue_s=600)
        assert (await hub.http.post(f"/api/v1/tasks/{task['id']}/cancel")).status_code in {200, 202}
        clocks.wall_ms = 200 * DAY_MS
        assert await held(hub)
        await hub.until(lambda: _answer(steps(hub), [(200, "running")]))
        assert await is_there(hub)
    # The hub goes on with what it saw, and sees what happened while it was stopped.
    clocks.steady_ms = HOUR_MS
    async with start_hub(retention_days=90) as hub:
        assert (await held(hub), await steps(hub), await is_there(hub)) == (True, [(200, "running")], True)
        clocks.wall_ms = 0
        assert not await held(hub)
        await hub.until(lambda: _answer(steps(hub), [(-200, "running"), (200, "running")]))
    clocks.wall_ms = 100 * DAY_MS
    async with start_hub(retention_days=90) as hub:
        assert (await held(hub), (await steps(hub))[0], await is_there(hub)) == (True, (100, "start"), True)
        clocks.wall_ms += HOLD_MS
        clocks.steady_ms += HOLD_MS

        async def is_deleted() -> bool:
            return not await is_there(hub)

        await hub.until(is_deleted)
        assert not await held(hub)


async def _answer(asked, wanted) -> bool:
    return await asked == wanted

"""The hub's wall clock is set an hour forward or back: nothing ends, goes offline or stays locked for that."""

import time
from types import SimpleNamespace

import pytest
from tests.hub.support import PASSWORD, become_owner
from tests.support.runner_stub import connect_v1

from guardhouse.hub import clock
from guardhouse.hub.clock import Moment
from guardhouse.hub.people.lockout import FREE_TRIES

HOUR_MS = 3_600_000


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

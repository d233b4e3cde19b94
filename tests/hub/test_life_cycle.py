"""An environment's life cycle: degraded and why, draining, upgrade available, the onboarding guide, its events."""

import json
import shlex
import time
from dataclasses import replace

import httpx2
import pytest
import trio
from tests.support.runner_stub import connect_plain, connect_v1

from guardhouse.errors import SetupError
from guardhouse.hub.condition import Condition, TimeoutStreaks, Vitals, decide_conditions, newer_version
from guardhouse.hub.config import HubConfig
from guardhouse.hub.guide import write_guide

NOW = 1_800_000_000_000
WELL = Vitals(tasks_waiting=0, executor_delay_ms=40, clock_skew_ms=900)


@pytest.mark.parametrize(
    ("vitals", "code", "text"),
    [
        (replace(WELL, executor_delay_ms=2_000), "delay", "2.0 s"),
        (replace(WELL, tasks_waiting=8), "backlog", "8 tasks"),
        (replace(WELL, clock_skew_ms=-30_000), "clock_skew", "30 s behind"),
        (Vitals(timeouts=3, timed_out_ms=NOW - 1_799_000), "timeouts", "last 3 tasks"),
    ],
)
def test_what_degrades(vitals: Vitals, code: str, text: str) -> None:
    """Each bound, just reached, is one condition whose sentence has the figure."""
    (found,) = decide_conditions(vitals, now_ms=NOW)
    assert (found.code, found.degrades) == (code, True)
    assert text in found.text


@pytest.mark.parametrize(
    "vitals",
    [
        WELL,
        Vitals(),
        replace(WELL, executor_delay_ms=1_999, tasks_waiting=7, clock_skew_ms=29_999),
        Vitals(timeouts=3, timed_out_ms=NOW - 1_800_000),
        Vitals(timeouts=2, timed_out_ms=NOW),
        # A runner that says how it is counts by what it says, whatever its tasks' time limits were.
        replace(WELL, timeouts=9, timed_out_ms=NOW),
    ],
)
def test_what_does_not_degrade(vitals: Vitals) -> None:
    """Just below a bound nothing is wrong."""
    assert decide_conditions(vitals, now_ms=NOW) == ()


def test_missing_layers_are_said_and_do_not_degrade() -> None:
    """They make nothing slow; a profile that needs one is refused by the runner."""
    assert decide_conditions(Vitals(missing_layers=("landlock",)), now_ms=NOW) == (
        Condition("missing_layers", "the runner's host does not give: landlock", degrades=False),
    )


def test_timeouts_in_a_row() -> None:
    """Only longer ones count, a success ends the row, environments do not mix."""
    streaks = TimeoutStreaks()
    for limit_ms in (20_000, 20_001, 60_000):
        streaks.note("env_a", timed_out=True, limit_ms=limit_ms, at_ms=NOW)
    streaks.note("env_b", timed_out=True, limit_ms=60_000, at_ms=NOW)
    assert streaks.of("env_a") == (2, NOW)
    streaks.note("env_a", timed_out=False, limit_ms=60_000, at_ms=NOW)
    assert (streaks.of("env_a"), streaks.of("env_b")) == ((0, 0), (1, NOW))


@pytest.mark.parametrize(
    ("running", "offered", "newer"),
    [
        ("0.1.0", "0.2.0", True),
        ("0.9.9", "0.10.0", True),
        ("0.2.0rc1", "0.2.0", True),
        ("v0.1.0", "0.1.1", True),
        ("0.2.0", "0.2.0", False),
        ("0.3.0", "0.2.0", False),
        ("0.2.0", "0.2.0-rc1", False),
        ("dev", "0.2.0", False),
        ("", "0.2.0", False),
        (None, "0.2.0", False),
        ("0.1.0" + "0" * 60, "0.2.0", False),
    ],
)
def test_newer_version(running: str | None, offered: str, newer: bool) -> None:
    """Parts are compared as numbers; what is written otherwise is of another program."""
    assert newer_version(running, offered) is newer


def test_guide_quotes_what_it_fills_in() -> None:
    """A hub's address and an environment's name cannot become commands or Markdown."""
    found = write_guide(
        environment_id="env_x",
        name="web` $(reboot) [x](http://x)",
        public_url="https://hub.example.com/a'b;reboot",
        connect_url="wss://hub.example.com/a'b;reboot/api/v1/runner/ws",
        version="1.2.3",
        install_url="https://files.example.com/guardhouse/",
    )
    assert [section.id for section in found.sections] == ["install", "manual", "upgrade", "uninstall", "purge"]
    lines = [line for section in found.sections for step in section.steps for line in step.commands]
    assert not any(
        "reboot" in word for line in lines for word in shlex.split(line, comments=True) if "hub." not in word
    )
    assert "curl -fsSL --proto '=https' -O https://files.example.com/guardhouse/guardhouse-1.2.3.tar.gz" in lines
    assert found.markdown.startswith("# Runner of `web' $(reboot) [x](http://x)`\n")
    assert "wnt_" not in found.markdown


@pytest.mark.parametrize(
    "wrong",
    [
        {"install_url": "http://files.example.com/x"},
        {"install_url": "https://files.example.com/x y"},
        {"install_url": "https://files.example.com/`id`"},
        {"runner_version": "latest; reboot"},
    ],
)
def test_bad_settings_are_refused(tmp_path, wrong) -> None:
    """What the guide fills into commands is checked when the hub starts."""
    with pytest.raises(SetupError):
        HubConfig(state_dir=tmp_path, **wrong)


async def beat(runner, **more) -> None:
    await runner.send("heartbeat", {"version": "0.0.9", "tasks_waiting": 0, "executor_delay_ms": 10, **more})


async def test_degraded_and_back(hub):
    """A backlog degrades, says so, stays selectable; the next healthy heartbeat mends it. Upgrades show, too."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()

        async def follow(statuses: list[str]) -> None:
            async with (
                httpx2.AsyncClient(base_url=hub.url, headers=hub.http.headers, timeout=60) as http,
                http.stream("GET", "/api/v1/events") as reply,
            ):
                following.set()
                kind = ""
                async for line in reply.aiter_lines():
                    if line.startswith("event: "):
                        kind = line.removeprefix("event: ")
                    if line.startswith("data: ") and kind == "presence":
                        statuses.append(json.loads(line.removeprefix("data: "))["status"])

        following = trio.Event()
        statuses: list[str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, statuses)
            await following.wait()

            async def is_now(status: str) -> bool:
                return (await hub.status())["status"] == status

            await beat(runner, tasks_waiting=40, environment={"os": "linux"})
            await hub.until(lambda: is_now("degraded"))
            found = await hub.status()
            assert found["selectable"]
            assert found["status_reason"].startswith("usable, answers may be slow: 40 tasks wait")
            assert [one["code"] for one in found["conditions"]] == ["backlog"]
            assert found["upgrade_available"] == hub.hub.services.config.runner_version
            listed = (await hub.http.get("/api/v1/environments", params={"status": "degraded"})).json()["environments"]
            assert [one["name"] for one in listed] == ["web-1"]

            async def heard(status: str) -> bool:
                return status in statuses

            await hub.until(lambda: heard("degraded"))
            await beat(runner)
            await hub.until(lambda: is_now("online"))
            await hub.until(lambda: heard("online"))
            nursery.cancel_scope.cancel()


async def test_a_clock_that_is_wrong_degrades(hub):
    """The sender's time in the heartbeat's envelope is held against the hub's."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner:
        frame = {"id": "m", "type": "heartbeat", "payload": {}, "timestamp": int((time.time() - 3_600) * 1000)}
        await hub.until_online()
        await runner.websocket.send_message(json.dumps(frame))

        async def degraded() -> bool:
            return "behind the hub's" in (await hub.status())["status_reason"]

        await hub.until(degraded)


async def test_draining(hub):
    """A drained environment takes nothing new, ends what runs, tells its runner, and takes the waiting ones after."""
    created = await hub.environment()
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        running = await hub.start("sleep 9")
        assert (await runner.expect("task.request"))["task_id"] == running["id"]
        drained = await hub.http.post("/api/v1/environments/web-1/drain", json={"reason": "disk swap"})
        assert drained.status_code == 200
        assert drained.json()["status"] == "draining"
        assert "disk swap" in drained.json()["status_reason"]
        assert not drained.json()["selectable"]
        assert await runner.expect("hub.draining") == {"draining": True, "reason": "disk swap"}
        body = {"environment_id": "web-1", "operation": "bash", "args": {"command": "x"}}
        refused = await hub.http.post("/api/v1/tasks", json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "environment_unavailable")
        assert "drained by an operator" in refused.json()["error"]["message"]
        waiting = await hub.start("later", queue_s=600)
        assert waiting["state"] == "queued"
        cancelled = await hub.http.post(f"/api/v1/tasks/{running['id']}/cancel")
        assert cancelled.status_code == 202
        assert (await runner.expect("task.cancel"))["task_id"] == running["id"]
        await runner.result(running["id"])
        assert (await hub.result(running["id"]))["finished"]
        assert (await hub.http.get(f"/api/v1/tasks/{waiting['id']}")).json()["state"] == "queued"
        assert (await hub.http.delete("/api/v1/environments/web-1/drain")).json()["status"] == "online"
        assert (await runner.expect("hub.draining"))["draining"] is False
        assert (await runner.expect("task.request"))["task_id"] == waiting["id"]
    actions = [one["action"] for one in (await hub.http.get("/api/v1/audit")).json()["events"]]
    assert {"environment.drain", "environment.undrain"} <= set(actions)


async def test_draining_survives_a_restart_and_is_told_anew(start_hub):
    """It is the operator's word and stays until taken back; a runner that comes later hears it."""
    async with start_hub() as hub:
        created = await hub.environment()
        await hub.http.post("/api/v1/environments/web-1/drain", json={"reason": "r"})
        assert (await hub.status())["status"] == "pending"
        assert (await hub.status())["drain"]["reason"] == "r"
    async with start_hub() as hub:
        async with connect_v1(hub.url, created["token"]) as runner:
            assert (await runner.expect("hub.draining"))["draining"] is True

        async def draining() -> bool:
            return (await hub.status())["status"] == "draining"

        async with connect_plain(hub.url, created["token"]):
            await hub.until(draining)


async def test_guide(hub):
    """The guide has this environment and this hub in it, and needs no right to see the token."""
    created = await hub.environment()
    made = await hub.http.post("/api/v1/tokens", json={"name": "reader", "scopes": ["env:read"]})
    headers = {"authorization": f"Bearer {made.json()['secret']}"}
    async with httpx2.AsyncClient(base_url=hub.url, headers=headers) as http:
        found = (await http.get("/api/v1/environments/web-1/guide")).json()
        assert (await http.get("/api/v1/environments/web-1/token")).status_code == 403
    assert found["connect_url"] == created["connect_url"]
    assert created["environment"]["id"] in found["markdown"]
    assert created["token"] not in json.dumps(found)


async def test_addresses_come_from_the_configuration(start_hub):
    """Behind a proxy the guide and the answers name the address that the operator set, not the socket's."""
    async with start_hub(public_url="https://hub.example.com/base/") as hub:
        created = await hub.environment()
        assert created["connect_url"].startswith("wss://hub.example.com/base/")
        guide = (await hub.http.get("/api/v1/environments/web-1/guide")).json()
        assert guide["connect_url"] == created["connect_url"]
        assert "hub.example.com" in guide["markdown"]
        assert "127.0.0.1" not in guide["markdown"]

"""Runners that come and go, in the audit log: what, why, under which policies; and never a flood."""

from functools import partial
from typing import Any

import pytest
import trio_websocket
from tests.support.runner_stub import connect_plain, connect_v1

from guardhouse.hub.clock import now_ms
from guardhouse.hub.gateway.presence_log import BURST, OMITTED_AFTER_S, STRANGERS_BURST, PresenceLog


async def events(hub: Any, action: str = "runner.") -> list[dict[str, Any]]:
    found = (await hub.http.get("/api/v1/audit", params={"action": action, "limit": 100})).json()["events"]
    return list(reversed(found))


async def until_events(hub: Any, count: int, action: str) -> list[dict[str, Any]]:
    async def there() -> list[dict[str, Any]] | None:
        found = await events(hub, action)
        return found if len(found) >= count else None

    return await hub.until(there)


async def test_what_a_runner_does_is_on_record(hub):
    """Connected, refused and why, another version, disconnected with the policies in force; a stranger too."""
    created = await hub.environment()
    environment = created["environment"]["id"]
    async with connect_v1(hub.url, created["token"]) as runner:
        await hub.until_online()
        digest = "d" * 16
        report = {"policy_name": "p", "policy_digest": digest, "hub_policies": []}
        await runner.send("policy.report", report)

        async def is_reported() -> bool:
            return hub.hub.services.links.reported_policy(environment) is not None

        await hub.until(is_reported)
        with pytest.raises(trio_websocket.ConnectionRejected):
            async with connect_plain(hub.url, created["token"]):
                pass
    with pytest.raises(trio_websocket.ConnectionRejected):
        async with connect_plain(hub.url, "wnt_" + "x" * 40):
            pass
    (gone,) = await until_events(hub, 1, "runner.disconnect")
    assert gone["environment"] == gone["target"] == environment
    assert gone["actor"] == "runner"
    assert gone["detail"]["policies"] == {"policy": {"name": "p", "digest": digest}}
    assert gone["detail"]["reason"]
    refused = await until_events(hub, 2, "runner.refuse")
    assert {(one["environment"], one["detail"]["status"]) for one in refused} == {(environment, 409), (None, 401)}
    (came,) = await events(hub, "runner.connect")
    assert (came["detail"]["protocol"], came["address"]) == ("guardhouse.v1", "127.0.0.1")
    async with connect_plain(hub.url, created["token"]) as runner:
        await hub.until_online()
    await until_events(hub, 2, "runner.disconnect")
    async with connect_plain(hub.url, created["token"]) as runner:
        payload = {"worknode_id": "", "name": "", "labels": [], "version": "10.0.0"}
        await runner.send("heartbeat", payload)
        (changed,) = await until_events(hub, 1, "runner.version")
        assert (changed["detail"]["before"], changed["detail"]["after"]) == ("9.9.9", "10.0.0")


async def test_a_stop_is_one_record(start_hub):
    """However many runners are connected, a hub that stops says so once, and how many."""
    async with start_hub() as hub:
        created = await hub.environment()
        async with connect_plain(hub.url, created["token"]):
            await hub.until_online()
            hub.hub.stop.set()
            await hub.hub.services.database.read(lambda _connection: None)

            async def is_stopped() -> bool:
                return hub.hub.services.is_stopping

            await hub.until(is_stopped)
    async with start_hub() as hub:
        (stopped,) = await events(hub, "hub.stop")
        assert stopped["detail"]["runners"] == 1
        assert await events(hub, "runner.disconnect") == []


class Kept:
    """What a database is to the log: a line of operations."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []

    def write_soon(self, operation: "partial[int]") -> None:
        self.written.append(operation.keywords)


def test_who_flaps_fills_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten records at once, one a minute after that, and every one that was left out is counted somewhere."""
    clock = now_ms()
    monkeypatch.setattr("guardhouse.hub.gateway.presence_log.now_ms", lambda: clock)
    kept = Kept()
    log = PresenceLog(kept)  # type: ignore[arg-type]  # the one method that it uses
    for _ in range(500):
        log.note("runner.connect", environment="env_1", address="192.0.2.1")
        log.note("runner.disconnect", environment="env_1", address="192.0.2.1")
    log.note("runner.connect", environment="env_2", address="192.0.2.1")
    assert len(kept.written) == BURST + 1
    clock += 60_000
    log.note("runner.connect", environment="env_1", address="192.0.2.1")
    assert kept.written[-1]["omitted"] == {"runner.connect": 495, "runner.disconnect": 495}
    log.note("runner.disconnect", environment="env_1", address="192.0.2.1")
    clock += int(OMITTED_AFTER_S * 1000)
    log.sweep(clock)
    assert (kept.written[-1]["action"], kept.written[-1]["omitted"]) == ("runner.omit", {"runner.disconnect": 1})
    assert kept.written[-1]["environment"] == "env_1"


def test_strangers_fill_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand sources that are refused are a hundred records and a count."""
    clock = now_ms()
    monkeypatch.setattr("guardhouse.hub.gateway.presence_log.now_ms", lambda: clock)
    kept = Kept()
    log = PresenceLog(kept)  # type: ignore[arg-type]  # the one method that it uses
    for number in range(10_000):
        address = f"10.{number // 250 % 250}.{number % 250}.1"
        log.note_refused(environment=None, address=address, status=401, code="authentication_failed", reason="no")
    log.note_refused(environment="env_1", address="10.0.0.1", status=409, code="already_connected", reason="no")
    assert len(kept.written) == STRANGERS_BURST + 1
    log.note_stop(runners=3)
    left_out = sum(one["omitted"]["runner.refuse"] for one in kept.written if one["action"] == "runner.omit")
    assert left_out == 10_000 - STRANGERS_BURST
    log.note("runner.disconnect", environment="env_1", address=None)
    assert kept.written[-1]["action"] == "hub.stop"

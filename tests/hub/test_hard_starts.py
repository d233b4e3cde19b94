"""What an operator finds in the night: a hub that cannot start says why and what to do, and begins nothing anew."""

import os
import re
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from guardhouse.errors import SetupError
from guardhouse.hub.config import HubConfig
from guardhouse.hub.server import open_hub
from guardhouse.hub.transport import certificate_notice

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)


def scribble(state: Path) -> None:
    with (state / "hub.db").open("r+b") as file:
        file.write(b"not what SQLite wrote")


def empty(state: Path) -> None:
    (state / "hub.db").write_bytes(b"")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        pytest.param(lambda state: state.chmod(0o755), "chmod 700", id="the directory is open to others"),
        pytest.param(lambda state: (state / "sealing.key").chmod(0o644), "chmod 600", id="a key is open to others"),
        pytest.param(scribble, "cannot open the database .* restore it from a backup", id="a damaged database"),
        pytest.param(empty, "the store is empty, and .*audit.head.*guardhouse hub restore", id="an emptied database"),
        pytest.param(
            lambda state: (state / "hub.db").unlink(), "move audit.head away to start anew", id="a lost database"
        ),
        pytest.param(lambda state: (state / "audit.key").unlink(), "audit key .* is missing", id="a lost audit key"),
        pytest.param(lambda state: (state / "audit.head").write_bytes(b"{"), "restore it", id="a broken audit.head"),
    ],
)
async def test_a_harmed_state_is_refused_and_left(start_hub, tmp_path, harm, words):
    """Each harm is named with its way out; the twin without it starts, and keys and token are what they were."""
    async with start_hub():
        pass
    state = tmp_path / "state"
    kept = {name: (state / name).read_bytes() for name in ("sealing.key", "audit.key", "owner.token")}
    harm(state)
    with pytest.raises((SetupError, ExceptionGroup)) as caught:
        async with start_hub():
            pass
    found = caught.value.exceptions[0] if isinstance(caught.value, ExceptionGroup) else caught.value
    assert isinstance(found, SetupError)
    assert re.search(words, str(found).replace("'", "")), str(found)
    there = {name: (state / name).read_bytes() for name in kept if (state / name).exists()}
    assert there == {name: content for name, content in kept.items() if name in there}
    assert {"sealing.key", "owner.token"} <= there.keys()


async def test_an_emptied_hub_may_begin_anew_when_told(start_hub, tmp_path):
    """The way out that the refusal names is one: without audit.head the hub begins with nothing."""
    async with start_hub():
        pass
    state = tmp_path / "state"
    (state / "hub.db").unlink()
    (state / "audit.head").rename(tmp_path / "audit.head.lost")
    async with start_hub() as hub:
        assert (await hub.http.get("/api/v1/environments")).json()["environments"] == []


async def test_a_taken_port_is_said(tmp_path):
    """The port's number and the option stand in the message, and the state directory is let go."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=rf"127.0.0.1:{port}: .*; choose another address with --listen"):
            async with open_hub(HubConfig(state_dir=tmp_path / "state", port=port)):
                pass
    async with open_hub(HubConfig(state_dir=tmp_path / "state", port=0)):
        pass


@pytest.mark.parametrize(
    ("begins", "ends", "event"),
    [
        (timedelta(days=-90), timedelta(seconds=0), "certificate_expired"),
        (timedelta(days=-90), timedelta(days=13), "certificate_ends_soon"),
        (timedelta(seconds=1), timedelta(days=90), "certificate_not_yet_valid"),
        (timedelta(days=-1), timedelta(days=14), None),
    ],
)
def test_dates_of_a_certificate(begins, ends, event):
    """Over, over soon, not begun by this clock: each is an event of its own; a good one is none."""
    notice = certificate_notice((NOW + begins, NOW + ends), now_ms=NOW_MS)
    assert (notice and notice[0]) == event


async def test_a_certificate_that_is_over_is_logged(start_hub, authority, monkeypatch):
    """The hub looks when it starts and when it is told to reload."""
    much_later_ms = int(datetime(3100, 1, 1, tzinfo=UTC).timestamp() * 1000)
    monkeypatch.setattr("guardhouse.hub.upkeep.now_ms", lambda: much_later_ms)
    with structlog.testing.capture_logs() as logs:
        async with start_hub(tls=True) as hub:

            async def seen() -> bool:
                return any(line["event"] == "certificate_expired" for line in logs)

            await hub.until(seen)
            logs.clear()
            hub.hub.reload_certificate()
            assert [line["event"] for line in logs if "certificate" in line["event"]] == [
                "certificate_reloaded",
                "certificate_expired",
            ]
            assert os.fspath(hub.hub.services.config.tls_certificate) in str(logs)

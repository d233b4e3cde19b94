"""Wrong tokens are counted by source, and beyond the limit not looked at."""

import httpx2
import pytest
import trio_websocket

from guardhouse.hub.guesses import GUESSES_PER_HOUR, SOURCES_MAX, GuessLimit
from guardhouse.hub.source import source_of

HOUR_MS = 3_600_000
RIGHT, WRONG = b"right", b"wrong"


def test_at_most_the_limit_in_any_hour() -> None:
    """However guesses are spread, no window of an hour holds more than the limit."""
    limit, looked_at = GuessLimit(), []
    for now_ms in range(0, 3 * HOUR_MS, 5_000):
        if not limit.wait_s("a", WRONG, now_ms=now_ms):
            limit.note_wrong("a", WRONG, now_ms=now_ms)
            looked_at.append(now_ms)
    busiest = max(sum(begin <= at < begin + HOUR_MS for at in looked_at) for begin in looked_at)
    assert GUESSES_PER_HOUR * 0.9 < busiest <= GUESSES_PER_HOUR


def throttled() -> GuessLimit:
    limit = GuessLimit()
    while not limit.wait_s("a", WRONG, now_ms=0):
        limit.note_wrong("a", WRONG, now_ms=0)
    return limit


def test_waiting_as_told_is_enough() -> None:
    """After the seconds that were named one more is looked at, and a moment before it is not."""
    limit = throttled()
    wait_ms = int(limit.wait_s("a", WRONG, now_ms=0) * 1000)
    assert limit.wait_s("a", WRONG, now_ms=wait_ms - 1_000)
    assert not limit.wait_s("a", WRONG, now_ms=wait_ms + 1)


def test_other_sources_are_not_touched() -> None:
    """One source's guesses cost another nothing."""
    assert not throttled().wait_s("b", WRONG, now_ms=0)


def test_a_token_that_was_right_there_still_is_looked_at() -> None:
    """Who shares an address with a guesser keeps working; the same token from elsewhere is a guess there."""
    limit = GuessLimit()
    limit.note_right("a", RIGHT)
    while not limit.wait_s("a", WRONG, now_ms=0):
        limit.note_wrong("a", WRONG, now_ms=0)
    assert not limit.wait_s("a", RIGHT, now_ms=0)
    assert limit.wait_s("a", b"another right one", now_ms=0)


def test_a_revoked_token_becomes_a_guess() -> None:
    """A token that was right and is no longer is counted like any other."""
    limit = throttled()
    limit.note_right("a", RIGHT)
    limit.note_wrong("a", RIGHT, now_ms=0)
    assert limit.wait_s("a", RIGHT, now_ms=0)


def test_a_clock_set_back_gives_nothing_away() -> None:
    """Time that runs backwards refills no bucket and breaks nothing."""
    assert throttled().wait_s("a", WRONG, now_ms=-HOUR_MS) > 0


def test_memory_is_bounded() -> None:
    """Of very many sources only the newest are remembered."""
    limit = throttled()
    for number in range(SOURCES_MAX):
        limit.note_wrong(str(number), WRONG, now_ms=0)
    assert not limit.wait_s("a", WRONG, now_ms=0)


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, ""),
        ("unix", "unix"),
    ],
)
def test_what_is_one_source(address, source) -> None:
    """An IPv6 host has a whole /64 to guess from, so that is one source."""
    assert source_of(address) == source


async def test_guessing_ends_with_429_for_all_but_who_was_there(hub) -> None:
    """Over API and gateway guesses are no longer looked at, a right one neither; who was let in before stays."""
    created = await hub.environment()
    fresh = (await hub.http.post("/api/v1/tokens", json={"name": "n", "scopes": ["env:read"]})).json()["secret"]
    statuses = []
    async with httpx2.AsyncClient(base_url=hub.url) as http:
        for number in range(GUESSES_PER_HOUR):
            reply = await http.get("/api/v1/self", headers={"authorization": f"Bearer ght_{number:048}"})
            statuses.append(reply.status_code)
        assert set(statuses) == {401, 429}
        assert reply.json()["error"]["code"] == "too_many_guesses"
        assert (await http.get("/api/v1/self", headers={"authorization": f"Bearer {fresh}"})).status_code == 429
    assert (await hub.http.get("/api/v1/self")).status_code == 200
    gateway = f"{hub.url.replace('http', 'ws')}/api/v1/runner/ws?token={created['token']}"
    with pytest.raises(trio_websocket.ConnectionRejected) as refused:
        async with trio_websocket.open_websocket_url(gateway):
            raise AssertionError("the gateway accepted a token that it must not look at")
    assert refused.value.status_code == 429


async def test_a_request_without_a_token_is_no_guess(hub) -> None:
    """A page that a browser asks for without a token locks nobody out."""
    fresh = (await hub.http.post("/api/v1/tokens", json={"name": "n", "scopes": ["env:read"]})).json()["secret"]
    async with httpx2.AsyncClient(base_url=hub.url) as http:
        for _ in range(GUESSES_PER_HOUR):
            assert (await http.get("/api/v1/self")).status_code == 401
        assert (await http.get("/api/v1/self", headers={"authorization": f"Bearer {fresh}"})).status_code == 200

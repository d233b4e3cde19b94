"""How many requests one caller may send: the bucket by itself, and at the door."""

import httpx2
import pytest

from guardhouse.hub import rates
from guardhouse.hub.rates import RateLimit, TooManyRequests

NOW = 1_800_000_000_000


def test_a_bucket_empties_and_refills():
    """A minute's worth at once, then a second's share each second; a clock set back gives none; others have theirs."""
    limit = RateLimit(60)
    for _ in range(60):
        limit.take("a", now_ms=NOW)
    with pytest.raises(TooManyRequests) as caught:
        limit.take("a", now_ms=NOW)
    assert caught.value.wait_s == pytest.approx(1.0)
    limit.take("b", now_ms=NOW)
    with pytest.raises(TooManyRequests):
        limit.take("a", now_ms=NOW - 100_000)
    limit.take("a", now_ms=NOW + 1_000)
    with pytest.raises(TooManyRequests):
        limit.take("a", now_ms=NOW + 1_000)


def test_no_limit_and_bounded_memory(monkeypatch):
    """0 limits nothing; callers beyond the bound push out those not heard of for longest."""
    free = RateLimit(0)
    for _ in range(1_000):
        free.take("a", now_ms=NOW)
    monkeypatch.setattr(rates, "CALLERS_MAX", 2)
    limit = RateLimit(1)
    for caller in ("a", "b", "c", "a"):
        limit.take(caller, now_ms=NOW)
    with pytest.raises(TooManyRequests):
        limit.take("c", now_ms=NOW)


async def until_refused(http: httpx2.AsyncClient, path: str) -> httpx2.Response:
    """Ask until the answer is 429: buckets refill while a busy machine takes its time."""
    for _ in range(100):
        reply = await http.get(path)
        if reply.status_code == 429:
            return reply
        assert reply.status_code == 200, reply.text
    raise AssertionError("never refused")


async def test_at_the_door(start_hub):
    """A token over its limit is told when to come back; another goes on, and public routes count by address."""
    async with start_hub(rate_per_minute=5, public_rate_per_minute=4) as hub:
        made = (await hub.http.post("/api/v1/tokens", json={"name": "x", "scopes": ["env:read"]})).json()["secret"]
        refused = await until_refused(hub.http, "/api/v1/self")
        assert refused.json()["error"]["code"] == "too_many_requests"
        assert 1 <= int(refused.headers["retry-after"]) <= 12
        async with httpx2.AsyncClient(base_url=hub.url, timeout=30) as http:
            other = await http.get("/api/v1/self", headers={"authorization": f"Bearer {made}"})
            assert other.status_code == 200
            assert (await until_refused(http, "/healthz")).headers["retry-after"]

"""When the runner dials again."""

import random

import pytest

from guardhouse.runner.reconnect import ReconnectSchedule


def capped_delays(schedule: ReconnectSchedule, *, until_s: float) -> list[float]:
    """Return the delays from 0 s on, each attempt failing at once."""
    now_s, delays = 0.0, list[float]()
    while now_s < until_s:
        delays.append(schedule.next_delay_s(now_s))
        now_s += delays[-1]
    return delays


@pytest.mark.parametrize(
    ("away_s", "cap_s"), [(0, 1), (3, 4), (10, 11), (18, 12), (90, 21), (2_321, 299.875), (2_322, 300), (10**9, 300)]
)
def test_cap_grows_with_the_time_away(away_s, cap_s) -> None:
    """From 1 s in step with the first ten seconds, by an eighth of what comes after, to 5 min."""
    schedule = ReconnectSchedule(lambda: 1.0, now_s=7.0)
    assert schedule.cap_s(7.0 + away_s) == cap_s
    assert schedule.next_delay_s(7.0 + away_s) == cap_s


def test_without_luck_the_first_delays_double() -> None:
    """With jitter at its largest they are 1, 2, 4 and 8 s."""
    assert capped_delays(ReconnectSchedule(lambda: 1.0, now_s=0.0), until_s=14)[:4] == [1, 2, 4, 8]


def test_many_short_delays_make_no_long_one() -> None:
    """Who dialled a thousand times within a short outage waits no longer than who dialled once."""
    schedule = ReconnectSchedule(lambda: 0.001, now_s=0.0)
    for step in range(1_000):
        schedule.next_delay_s(step * 0.003)
    assert schedule.cap_s(3.0) == 4


def test_it_never_gives_up() -> None:
    """After a hundred thousand failures there is still a next delay of at most five minutes."""
    schedule = ReconnectSchedule(lambda: 1.0, now_s=0.0)
    now_s = 0.0
    for _ in range(100_000):
        last_s = schedule.next_delay_s(now_s)
        now_s += last_s
    assert last_s == 300


def test_jitter_is_full() -> None:
    """A delay lies anywhere between nothing and the cap, so a fleet does not come back as one."""
    schedule = ReconnectSchedule(random.Random(7).random, now_s=0.0)
    delays = [schedule.next_delay_s(10_000.0) for _ in range(2_000)]
    assert min(delays) < 3
    assert max(delays) > 297


def test_asked_to_wait() -> None:
    """A runner stays away for as long as it was asked to, not all runners for equally long, and never above the cap."""
    schedule = ReconnectSchedule(random.Random(7).random, now_s=0.0)
    delays = [schedule.next_delay_s(0.0, retry_after_s=40) for _ in range(5)]
    assert min(delays) >= 40
    assert max(delays) <= 60
    assert len(set(delays)) == 5
    assert schedule.next_delay_s(0.0, retry_after_s=10**9) == 300


@pytest.mark.parametrize(
    ("welcomed", "lasted_s", "next_s"),
    [
        pytest.param(True, 60.0, 1.0, id="a real connection starts again"),
        pytest.param(True, 0.1, 12.0, id="accepted and dropped at once does not"),
        pytest.param(False, 60.0, 12.0, id="never welcomed does not"),
    ],
)
def test_reset(welcomed, lasted_s, next_s) -> None:
    """The delays start again only after a connection that was welcomed and held."""
    schedule = ReconnectSchedule(lambda: 1.0, now_s=0.0)
    schedule.connection_ended(18.0, welcomed=welcomed, lasted_s=lasted_s)
    assert schedule.next_delay_s(18.0) == next_s

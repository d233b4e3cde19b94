"""When the runner dials again."""

import random

import pytest

from guardhouse.runner.reconnect import ReconnectSchedule


def test_cap_doubles_from_one_second_to_five_minutes() -> None:
    """Without luck (jitter at its largest) the delays double from 1 s and stop at 300 s."""
    schedule = ReconnectSchedule(lambda: 1.0)
    assert [schedule.next_delay_s() for _ in range(11)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_it_never_gives_up() -> None:
    """After a hundred thousand failures there is still a next delay of at most five minutes."""
    schedule = ReconnectSchedule(lambda: 1.0)
    for _ in range(100_000):
        last_s = schedule.next_delay_s()
    assert last_s == 300


def test_jitter_is_full() -> None:
    """A delay lies anywhere between nothing and the cap, so a fleet does not come back as one."""
    schedule = ReconnectSchedule(random.Random(7).random)
    for _ in range(20):
        schedule.next_delay_s()
    delays = [schedule.next_delay_s() for _ in range(2_000)]
    assert min(delays) < 3
    assert max(delays) > 297


def test_asked_to_wait() -> None:
    """A runner stays away for as long as it was asked to, not all runners for equally long, and never above the cap."""
    schedule = ReconnectSchedule(random.Random(7).random)
    delays = [schedule.next_delay_s(retry_after_s=40) for _ in range(5)]
    assert min(delays) >= 40
    assert max(delays) <= 60
    assert len(set(delays)) == 5
    assert schedule.next_delay_s(retry_after_s=10**9) == 300


@pytest.mark.parametrize(
    ("welcomed", "lasted_s", "next_s"),
    [
        pytest.param(True, 60.0, 1.0, id="a real connection starts again"),
        pytest.param(True, 0.1, 8.0, id="accepted and dropped at once does not"),
        pytest.param(False, 60.0, 8.0, id="never welcomed does not"),
    ],
)
def test_reset(welcomed, lasted_s, next_s) -> None:
    """The delays start again only after a connection that was welcomed and held."""
    schedule = ReconnectSchedule(lambda: 1.0)
    for _ in range(3):
        schedule.next_delay_s()
    schedule.connection_ended(welcomed=welcomed, lasted_s=lasted_s)
    assert schedule.next_delay_s() == next_s

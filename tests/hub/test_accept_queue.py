"""Which connection is served next when more wait than can be served."""

import heapq
import random

from guardhouse.hub.transport.accept_queue import (
    OVERLOADED_AFTER_S,
    WAIT_MAX_S,
    WAITING_MAX,
    AcceptQueue,
    places,
)
from guardhouse.runner.reconnect import ReconnectSchedule


def test_in_the_order_of_their_coming() -> None:
    """While nobody has waited for long, the oldest is next."""
    queue = AcceptQueue[int]()
    for number in range(3):
        assert queue.put(number, "192.0.2.1", 0.0) is None
    assert [queue.take(OVERLOADED_AFTER_S) for _ in range(4)] == [0, 1, 2, None]


def test_the_newest_first_when_the_oldest_has_waited() -> None:
    """The oldest may have given up; the newest has not."""
    queue = AcceptQueue[int]()
    for number in range(3):
        queue.put(number, "192.0.2.1", float(number) / 10)
    assert [queue.take(OVERLOADED_AFTER_S + 0.05) for _ in range(3)] == [2, 1, 0]


def test_who_waits_too_long_is_dropped() -> None:
    """Each is closed when its own time is over, and counted."""
    queue = AcceptQueue[int]()
    queue.put(0, "192.0.2.1", 0.0)
    queue.put(1, "192.0.2.2", 1.0)
    assert queue.take_expired(WAIT_MAX_S - 0.1) is None
    assert queue.take_expired(WAIT_MAX_S) == 0
    assert queue.take_expired(WAIT_MAX_S) is None
    assert queue.take_expired(WAIT_MAX_S + 1) == 1
    assert queue.take_expired(WAIT_MAX_S + 100) is None
    assert (len(queue), queue.expired, queue.pushed_out) == (0, 2, 0)


def test_one_source_does_not_hold_up_another() -> None:
    """One person behind a thousand connections of one network is served at once, overloaded or not."""
    for now_s in (0.5, 2.0):
        queue = AcceptQueue[str]()
        for _ in range(1_000):
            queue.put("runner", "198.51.100.7", 0.0)
        queue.put("person", "192.0.2.1", now_s)
        assert "person" in [queue.take(now_s) for _ in range(2)]


def test_who_floods_pushes_out_its_own() -> None:
    """With more than can wait, the flooding source loses its oldest; those of others stay."""
    queue = AcceptQueue[str]()
    for number in range(10):
        queue.put(f"other {number}", f"192.0.2.{number}", 0.0)
    pushed_out = [queue.put(f"flood {number}", "198.51.100.7", 0.1) for number in range(2 * WAITING_MAX)]
    dropped = [one for one in pushed_out if one is not None]
    assert len(queue) == WAITING_MAX
    assert queue.pushed_out == len(dropped) == WAITING_MAX + 10
    assert dropped == [f"flood {number}" for number in range(len(dropped))]
    assert [queue.put(f"late {number}", "203.0.113.9", 0.2) for number in range(3)] == [f"other {n}" for n in range(3)]


def test_a_smaller_limit() -> None:
    """Where the process may open few files, fewer wait."""
    queue = AcceptQueue[int](2)
    assert [queue.put(number, f"source {number}", 0.0) for number in range(4)] == [None, None, 0, 1]


def test_of_many_sources_the_oldest_is_pushed_out() -> None:
    """Where nobody has more than a share, who has waited for longest goes."""
    queue = AcceptQueue[int]()
    for number in range(WAITING_MAX):
        assert queue.put(number, f"source {number}", 0.0) is None
    assert queue.put(WAITING_MAX, "one more", 0.0) == 0
    assert queue.put(WAITING_MAX + 1, "and another", 0.0) == 1
    assert len(queue) == WAITING_MAX


def test_everything_that_was_put_comes_out_once() -> None:
    """Whatever the order of calls: served, expired or pushed out, each exactly once."""
    chance = random.Random(5)
    queue, seen, now_s = AcceptQueue[int](), list[int | None](), 0.0
    for number in range(20_000):
        now_s += chance.random() / 150
        seen.append(queue.put(number, f"source {chance.randrange(1 + number // 500)}", now_s))
        if chance.random() < 0.3:
            seen.append(queue.take(now_s))
        if chance.random() < 0.2:
            seen.append(queue.take_expired(now_s))
    while len(queue):
        seen.append(queue.take(now_s))
    assert sorted(one for one in seen if one is not None) == list(range(20_000))
    assert min(queue.expired, queue.pushed_out) > 0


def test_places_follow_what_else_the_event_loop_does() -> None:
    """Few at a time where turns are short, more where each takes long for other reasons, never all at once."""
    assert places(0.0) == places(0.012) == 2
    assert places(0.12) == 20
    assert places(60.0) == 256


def all_back_s(*, runners: int, served_per_s: float, down_s: float) -> float:
    """Let runners that lost their hub at 0 s dial by their own rule, and a hub serve so many a second by its own."""
    chance = random.Random(11)
    schedules = [ReconnectSchedule(chance.random, now_s=0.0) for _ in range(runners)]
    dials = [(schedule.next_delay_s(0.0), number) for number, schedule in enumerate(schedules)]
    heapq.heapify(dials)
    queue, back, now_s = AcceptQueue[int](), 0, down_s

    def dial_again(number: int) -> None:
        heapq.heappush(dials, (now_s + schedules[number].next_delay_s(now_s), number))

    while back < runners:
        while dials and dials[0][0] <= now_s:
            at_s, number = heapq.heappop(dials)
            if at_s < down_s:
                heapq.heappush(dials, (at_s + schedules[number].next_delay_s(at_s), number))
            elif (dropped := queue.put(number, f"source {number}", at_s)) is not None:
                dial_again(dropped)
        while (dropped := queue.take_expired(now_s)) is not None:
            dial_again(dropped)
        back += queue.take(now_s) is not None
        now_s += 1 / served_per_s
    return now_s


def test_a_fleet_is_back_soon_after_the_hub_could_let_it_in() -> None:
    """Both rules together: the last is in within 1.5 times the time that letting all in takes, at any pace."""
    for down_s, served_per_s in ((3.0, 320.0), (6.5, 250.0), (4.0, 150.0), (60.0, 320.0)):
        least_s = down_s + 5_000 / served_per_s
        assert least_s <= all_back_s(runners=5_000, served_per_s=served_per_s, down_s=down_s) <= 1.5 * least_s
    assert all_back_s(runners=1_000, served_per_s=320, down_s=3.0) < 8

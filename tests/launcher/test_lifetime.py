"""The time limit's state machine, against a clock that the test moves."""

import pytest

from guardhouse import limits
from guardhouse.launcher.lifetime import Action, Lifetime


def script(lifetime, *times):
    """Return what is due at each time, every action at once."""
    found = []
    for now_s in times:
        action = lifetime.tick(now_s)
        while action is not None:
            found.append((now_s, action))
            action = lifetime.tick(now_s)
    return found


def test_nothing_before_the_limit():
    """Before its time limit a command is left alone."""
    lifetime = Lifetime(now_s=100.0, timeout_s=5.0, grace_s=2.0)
    assert script(lifetime, 100.0, 104.999) == []
    assert lifetime.deadline_s == 105.0
    assert not lifetime.timed_out


def test_limit_grace_kill_destroy():
    """The limit sends TERM, the grace's end KILL, and what still lives then loses its pid 1."""
    lifetime = Lifetime(now_s=0.0, timeout_s=5.0, grace_s=2.0)
    destroyed_s = 7.0 + limits.STOP_KILL_TIMEOUT_S
    assert script(lifetime, 5.0, 6.9, 7.0, 8.0, destroyed_s, destroyed_s + 100) == [
        (5.0, Action.TERMINATE),
        (7.0, Action.KILL),
        (destroyed_s, Action.DESTROY),
    ]
    assert lifetime.deadline_s is None
    assert lifetime.timed_out
    assert not lifetime.stopped


def test_no_grace():
    """A grace of nothing kills in the same moment."""
    lifetime = Lifetime(now_s=0.0, timeout_s=1.0, grace_s=0.0)
    assert script(lifetime, 1.0) == [(1.0, Action.TERMINATE), (1.0, Action.KILL)]


def test_stop_is_no_time_limit():
    """A stop begins the same stages at once and is not reported as a time limit."""
    lifetime = Lifetime(now_s=0.0, timeout_s=100.0, grace_s=3.0)
    assert lifetime.stop(10.0) is Action.TERMINATE
    assert script(lifetime, 12.0, 13.0) == [(13.0, Action.KILL)]
    assert lifetime.stopped
    assert not lifetime.timed_out


@pytest.mark.parametrize("again_s", [0.5, 2.5, 50.0])
def test_second_stop_changes_nothing(again_s):
    """A second stop neither shortens nor lengthens the grace."""
    lifetime = Lifetime(now_s=0.0, timeout_s=100.0, grace_s=2.0)
    lifetime.stop(0.0)
    script(lifetime, again_s)
    before = lifetime.deadline_s
    assert lifetime.stop(again_s) is None
    assert lifetime.deadline_s == before


def test_stop_after_the_limit_stays_a_time_limit():
    """What began as a time limit is reported as one."""
    lifetime = Lifetime(now_s=0.0, timeout_s=1.0, grace_s=5.0)
    script(lifetime, 1.0)
    assert lifetime.stop(2.0) is None
    assert lifetime.timed_out
    assert not lifetime.stopped


def test_late_tick_catches_up():
    """A loop that slept too long gives every stage its full time after it woke."""
    lifetime = Lifetime(now_s=0.0, timeout_s=1.0, grace_s=5.0)
    assert script(lifetime, 60.0) == [(60.0, Action.TERMINATE)]
    assert lifetime.deadline_s == 65.0


def test_it_stands_still_while_a_person_is_asked():
    """What was left of the limit when the question came is left when it is answered."""
    lifetime = Lifetime(now_s=0.0, timeout_s=5.0, grace_s=2.0)
    lifetime.hold(3.0, at_most_s=100.0)
    assert script(lifetime, 4.0, 50.0) == []
    lifetime.go_on(60.0)
    assert script(lifetime, 61.9) == []
    assert script(lifetime, 62.0) == [(62.0, Action.TERMINATE)]
    assert lifetime.timed_out


def test_a_hold_has_an_end():
    """Where nobody lets it go on it goes on by itself, with what was left."""
    lifetime = Lifetime(now_s=0.0, timeout_s=5.0, grace_s=2.0)
    lifetime.hold(3.0, at_most_s=10.0)
    lifetime.hold(4.0, at_most_s=10.0)
    assert script(lifetime, 13.9, 14.0) == []
    assert lifetime.deadline_s == 16.0
    assert script(lifetime, 16.0) == [(16.0, Action.TERMINATE)]


def test_a_stop_is_not_held():
    """A stopped command is not kept alive by a question, whenever that comes."""
    lifetime = Lifetime(now_s=0.0, timeout_s=5.0, grace_s=2.0)
    lifetime.hold(1.0, at_most_s=100.0)
    assert lifetime.stop(2.0) is Action.TERMINATE
    lifetime.hold(3.0, at_most_s=100.0)
    lifetime.go_on(3.5)
    assert script(lifetime, 4.0) == [(4.0, Action.KILL)]

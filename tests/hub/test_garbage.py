"""When garbage is looked for."""

import gc
import weakref

import pytest
import trio

from guardhouse.hub import garbage
from guardhouse.hub.garbage import Action, Collections

START_S = 100.0
CALM_S = START_S + garbage.START_S


@pytest.fixture
def calm() -> Collections:
    """A hub whose first runners are in."""
    collections = Collections(START_S)
    assert collections.decide(START_S, waiting=0, connected=0, ended=0) is Action.NOTHING
    assert collections.decide(CALM_S, waiting=0, connected=3, ended=0) is Action.CALM_DOWN
    return collections


def test_a_crowd_is_let_in_and_what_it_left_put_aside(calm) -> None:
    """While somebody waits, and some seconds after, only the young are looked through; then once it is put aside."""
    assert calm.decide(CALM_S + 1, waiting=0, connected=3, ended=0) is Action.NOTHING
    assert calm.decide(CALM_S + 50, waiting=1, connected=3, ended=0) is Action.HURRY
    assert calm.decide(CALM_S + 51, waiting=900, connected=100, ended=0) is Action.NOTHING
    over_s = CALM_S + 51 + garbage.CALM_AFTER_S
    assert calm.decide(over_s - 0.1, waiting=0, connected=900, ended=0) is Action.NOTHING
    assert calm.decide(over_s, waiting=0, connected=900, ended=0) is Action.PUT_ASIDE
    assert calm.decide(over_s + 1, waiting=0, connected=900, ended=0) is Action.NOTHING


def test_a_crowd_of_requests_is_not_put_aside(calm) -> None:
    """What requests leave is garbage soon, and must be found: only many runners more are put aside."""
    for round_s in range(0, 1_000, 10):
        assert calm.decide(CALM_S + round_s, waiting=50, connected=499, ended=0) is Action.HURRY
        later_s = CALM_S + round_s + garbage.CALM_AFTER_S
        assert calm.decide(later_s, waiting=0, connected=499, ended=0) is Action.CALM_DOWN
    assert calm.decide(CALM_S + 2_000, waiting=1, connected=600, ended=0) is Action.HURRY
    assert calm.decide(CALM_S + 2_010, waiting=0, connected=600, ended=0) is Action.PUT_ASIDE
    assert calm.decide(CALM_S + 2_020, waiting=1, connected=600, ended=0) is Action.HURRY
    assert calm.decide(CALM_S + 2_030, waiting=0, connected=600, ended=0) is Action.CALM_DOWN


def test_after_many_ends_everything_is_looked_through(calm) -> None:
    """Once for each thousand connections that ended, and not while a crowd comes."""
    assert calm.decide(CALM_S + 1, waiting=0, connected=0, ended=garbage.ENDED_MAX - 1) is Action.NOTHING
    assert calm.decide(CALM_S + 2, waiting=5, connected=0, ended=garbage.ENDED_MAX) is Action.HURRY
    over_s = CALM_S + 2 + garbage.CALM_AFTER_S
    assert calm.decide(over_s, waiting=0, connected=0, ended=garbage.ENDED_MAX) is Action.COLLECT_EVERYTHING
    assert calm.decide(over_s + 1, waiting=0, connected=0, ended=2 * garbage.ENDED_MAX - 1) is Action.NOTHING
    assert calm.decide(over_s + 2, waiting=0, connected=0, ended=2 * garbage.ENDED_MAX) is Action.COLLECT_EVERYTHING


def test_once_a_day_everything_is_looked_through(calm) -> None:
    """Also where nobody comes or goes."""
    day_s = garbage.EVERYTHING_EVERY_S
    assert calm.decide(START_S + day_s - 1, waiting=0, connected=0, ended=0) is Action.NOTHING
    assert calm.decide(START_S + day_s, waiting=0, connected=0, ended=0) is Action.COLLECT_EVERYTHING
    assert calm.decide(START_S + day_s + 1, waiting=0, connected=0, ended=0) is Action.NOTHING


class Node:
    """Something that can be part of a cycle."""


async def test_what_was_decided_is_done(autojump_clock) -> None:
    """The collector is set as decided; cycles that were put aside are found when everything is looked through."""
    thresholds, frozen = gc.get_threshold(), gc.get_freeze_count()
    waiting, ended = 0, 0
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: garbage.pace_collections(waiting=lambda: waiting, connected=lambda: 500, ended=lambda: ended)
            )
            gc.disable()
            alive = Node()
            alive.itself = alive
            await trio.sleep(garbage.START_S + 1)
            assert gc.get_threshold()[2] == 20
            assert gc.get_freeze_count() > frozen
            waiting = 7
            await trio.sleep(1)
            assert gc.get_threshold()[2] == 200
            waiting = 0
            await trio.sleep(garbage.CALM_AFTER_S + 1)
            gone = weakref.ref(alive)
            del alive
            gc.collect()
            assert gone() is not None, "it was put aside while it was alive"
            ended = garbage.ENDED_MAX
            await trio.sleep(1)
            assert gone() is None
            nursery.cancel_scope.cancel()
    finally:
        gc.enable()
        gc.set_threshold(*thresholds)
        gc.unfreeze()

"""One task for many timers."""

import gc
import weakref

import trio

from guardhouse.hub.timers import GRANULARITY_S, Timers


def test_each_is_called_when_it_said() -> None:
    """In the order of their times, again at the time that a call returned, and once for each round."""
    timers, said = Timers(), []

    def every(step_s):
        def call(now_s):
            said.append((step_s, now_s))
            return now_s + step_s

        return call

    timers.add(every(2.0), due_s=2.0)
    timers.add(every(3.0), due_s=3.0)
    for now_s in (1.0, 2.0, 3.0, 4.0, 5.9, 6.0):
        timers.fire_due(now_s)
    assert said == [(2.0, 2.0), (3.0, 3.0), (2.0, 4.0), (2.0, 6.0), (3.0, 6.0)]
    assert len(timers) == 2


def test_one_that_is_due_at_once_again_waits_for_the_next_round() -> None:
    """A call that returns a time that has passed does not keep the others from their turn."""
    timers, calls = Timers(), []
    timers.add(lambda now_s: calls.append(now_s) or 0.0, due_s=0.0)
    timers.fire_due(1.0)
    assert calls == [1.0]
    timers.fire_due(2.0)
    assert calls == [1.0, 2.0]


def test_a_cancelled_one_is_let_go_at_once() -> None:
    """It is called no more, also where it cancels itself, and keeps nothing alive until it would have been due."""

    class Connection:
        def call(self, now_s):
            raise AssertionError("it was cancelled")

    timers, connection = Timers(), Connection()
    gone = weakref.ref(connection)
    timers.add(connection.call, due_s=100.0).cancel()
    del connection
    gc.collect()
    assert gone() is None
    timers.fire_due(200.0)
    assert len(timers) == 0

    cancelling = timers.add(lambda now_s: cancelling.cancel() or now_s + 1, due_s=0.0)
    timers.fire_due(1.0)
    assert len(timers) == 0


async def test_they_run(autojump_clock) -> None:
    """Calls come within the granularity, for ever."""
    timers, late_s, began_s = Timers(), [], trio.current_time()
    due_s = [began_s + 1.0]

    def call(now_s):
        late_s.append(now_s - due_s[0])
        due_s[0] = now_s + 1.0
        return due_s[0]

    timers.add(call, due_s=due_s[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        await trio.sleep(20)
        nursery.cancel_scope.cancel()
    assert len(late_s) > 10
    assert min(late_s) >= 0
    assert max(late_s) <= GRANULARITY_S

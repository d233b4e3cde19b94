"""The promise of ARCHITECTURE section 7, 1: at most one start, exactly one result, whatever is cut and when."""

import random

import pytest
from tests.wire.world import V1, World

from guardhouse.values import Stream
from guardhouse.wire.messages import TaskRequest
from guardhouse.wire.session import RunnerSession, StoredState

TASKS = 10
# What happens next and how often, so that most messages arrive and most tasks end between two cuts.
WEIGHTS = {
    "to_runner": 30,
    "to_hub": 40,
    "store": 25,
    "write": 20,
    "request": 8,
    "end": 6,
    "again": 4,
    "connect": 6,
    "cut": 2,
    "cancel": 1,
}


def random_step(rng: random.Random, *, restarts: bool = False) -> tuple:
    """Return one step of `act` with its arguments."""
    weights = WEIGHTS | ({"restart": 1} if restarts else {})
    name = rng.choices(list(weights), weights=list(weights.values()))[0]
    match name:
        case "write":
            return (name, rng.randrange(9), rng.choice(list(Stream)), rng.randbytes(rng.randrange(300)))
        case "end":
            return (name, rng.randrange(9))
        case "request" | "again" | "cancel":
            return (name, rng.randrange(TASKS))
        case _:
            return (name,)


def walk(world: World, seed: int, *, restarts: bool = False) -> None:
    """Do 400 random steps, then heal the wire and let everything end."""
    rng = random.Random(seed)
    world.settle()
    for _ in range(400):
        act(world, random_step(rng, restarts=restarts))
    finish_all(world)


def act(world: World, step: tuple) -> None:
    match step:
        case ("restart",):
            world.restart_runner()
        case ("connect",):
            world.connect()
        case ("cut",):
            if world.hub is not None:
                world.cut()
        case ("to_runner",):
            world.deliver_to_runner()
        case ("to_hub",):
            world.deliver_to_hub()
        case ("store",):
            world.store_next()
        case ("request", number):
            if f"t{number}" not in world.store:
                world.request(f"t{number}")
        case ("again", number):
            # A hub with a bug, or an attacker who replays a frame: past the hub's own checks.
            if world.hub is not None and world.hub.is_ready and f"t{number}" in world.store:
                world.collect()
                world.to_runner.append(TaskRequest(task_id=f"t{number}", operation="bash", args={}))
        case ("cancel", number):
            world.cancel(f"t{number}")
        case ("write", index, stream, data):
            world.write(index, stream, data)
        case ("end", index):
            world.end(index)


def finish_all(world: World) -> None:
    world.settle()
    while world.running:
        world.end(0)
    world.settle()


@pytest.mark.parametrize("seed", range(60))
def test_cuts_lose_and_double_nothing(seed: int) -> None:
    """Under v1 every task starts at most once, has one stored result, and its stored output is what it wrote."""
    world = World()
    walk(world, seed)
    conversation = "\n".join(world.log)
    assert all(count == 1 for count in world.started.values()), conversation
    for task_id, row in world.store.items():
        assert not row.lost, conversation
        assert row.state is StoredState.FINISHED, conversation
        assert len(row.results) == 1, conversation
        assert world.started[task_id] == 1, conversation
        assert row.output == world.written[task_id], conversation
        assert world.acknowledged[task_id] == 1, conversation
    assert not world.gaps
    assert world.runner.unsent == 0


@pytest.mark.parametrize("seed", range(60))
def test_runner_restarts_with_its_journal(seed: int) -> None:
    """A runner that is killed and keeps its journal still starts a task once and reports one result for it."""
    world = World()
    walk(world, seed, restarts=True)
    conversation = "\n".join(world.log)
    assert all(count == 1 for count in world.started.values()), conversation
    for task_id, row in world.store.items():
        assert not row.lost, conversation
        assert len(row.results) == 1, conversation
        for stream in Stream:
            assert world.written[task_id][stream].startswith(row.output[stream]), conversation


def test_memory_lost() -> None:
    """A task of a runner that lost its memory is reported lost and not sent again."""
    world = World()
    world.settle()
    world.request("t0")
    world.settle()
    world.cut()
    world.runner = RunnerSession(memory_id="mem_2", version="1")
    world.settle()
    assert world.store["t0"].lost
    assert world.started == {"t0": 1}


def test_request_never_arrived() -> None:
    """The twin: a request that was cut off before it arrived is sent again under the same memory, and runs once."""
    world = World()
    world.settle()
    world.request("t0")
    world.collect()
    world.cut()
    world.settle()
    assert not world.store["t0"].lost
    assert world.started == {"t0": 1}


@pytest.mark.parametrize("seed", range(60))
def test_plain_starts_once_and_stores_one_result(seed: int) -> None:
    """On the plain protocol, too, a task starts at most once and the hub stores one result for each that started."""
    world = World(subprotocol=None)
    walk(world, seed)
    conversation = "\n".join(world.log)
    assert all(count == 1 for count in world.started.values()), conversation
    for row in world.store.values():
        assert len(row.results) <= 1, conversation


def script(world: World) -> list:
    """One task's whole life as single deliveries."""

    def life() -> None:
        world.connect()
        world.settle()
        world.request("t0")

    return [
        life,
        world.deliver_to_runner,
        lambda: world.write(0, Stream.STDOUT, b"one\xff"),
        world.deliver_to_hub,
        lambda: world.write(0, Stream.STDERR, b"two"),
        world.deliver_to_hub,
        world.store_next,
        world.deliver_to_hub,
        world.store_next,
        lambda: world.end(0),
        world.deliver_to_hub,
        world.store_next,
        world.deliver_to_runner,
        world.deliver_to_runner,
    ]


@pytest.mark.parametrize("again", [False, True], ids=["one cut", "and one more in the resumption"])
@pytest.mark.parametrize("at", range(15))
def test_cut_at_every_message(at: int, again: bool) -> None:
    """A cut at each single message of a task's life changes nothing of its outcome."""
    world = World()
    for number, step in enumerate(script(world)):
        if number == at:
            world.cut()
            world.connect()
            if again:
                world.deliver_to_runner()
                world.deliver_to_hub()
                world.cut()
            world.settle()
        step()
    finish_all(world)
    row = world.store["t0"]
    assert world.started == {"t0": 1}, "\n".join(world.log)
    assert len(row.results) == 1
    assert row.output == world.written["t0"]


def test_uncut_twin() -> None:
    """The same life without a cut has the same outcome, so that the tests above compare with something."""
    world = World(subprotocol=V1)
    for step in script(world):
        step()
    assert world.store["t0"].state is StoredState.FINISHED
    assert world.store["t0"].output[Stream.STDOUT] == b"one\xff"
    assert world.acknowledged == {"t0": 1}

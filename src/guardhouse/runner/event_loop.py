"""trio.run for our programs: an error of ours comes out by itself instead of in a nursery's group.

So that the command line's one place for messages sees it. Runs in the runner and in `guardhouse try`.
"""

import gc
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import trio

from guardhouse.errors import GuardhouseError

__all__ = ["leaves", "run_in_trio"]

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)
Arguments = TypeVarTuple("Arguments")


def run_in_trio(program: Callable[[*Arguments], Awaitable[T]], *arguments: *Arguments) -> T:
    """Run ``program`` to its end.

    Raises:
        GuardhouseError: the first one of a group that holds nothing else.
        BaseExceptionGroup: anything that is not ours: a defect, with its tracebacks.
    """
    # A thread that has its answer waits for the interpreter's lock: by default up to 5 ms under load.
    sys.setswitchinterval(0.0005)
    # What was loaded by now is never garbage; looking through it again and again costs milliseconds each time.
    gc.collect()
    gc.freeze()
    try:
        return trio.run(program, *arguments)
    except BaseExceptionGroup as group:
        ours, others = group.split(GuardhouseError)
        if ours is None or others is not None:
            raise
        raise leaves(ours)[0] from None


def leaves(group: BaseExceptionGroup[E]) -> list[E]:
    """Return the errors of a group and of the groups inside it, in order."""
    found: list[E] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            found += leaves(error)
        else:
            found.append(error)
    return found

"""SIGHUP: the policy is read again, whole, and takes the place of the one in force, or nothing changes.

A reload does exactly what the start did with the policy: read it with its includes, check its signature, compile the
profiles, start a launcher. The keeper does that (`keeper.py`); only when all of it has succeeded is the new one in
force. Runs in the runner.
"""

from collections.abc import AsyncIterator, Awaitable, Callable

import trio

from guardhouse.errors import SetupError
from guardhouse.policy import Policy
from guardhouse.runner.logs import get_logger
from guardhouse.runner.wall import Wall

__all__ = ["reload_on_signal"]


async def reload_on_signal(
    received: AsyncIterator[int],
    *,
    read: Callable[[], tuple[Policy, Wall]],
    put_in_force: Callable[[Policy, Wall], Awaitable[None]],
) -> None:
    """Reload at every signal, one after the other, for ever.

    Args:
        received: an item for each SIGHUP.
        read: returns the policy as its file is now, and a wall with a launcher that has its copy of it. Runs in a
            thread; a SetupError leaves the old policy in force.
        put_in_force: makes it the one that the next task is judged by.
    """
    log = get_logger()
    async for _ in received:
        found = await trio.to_thread.run_sync(_attempt, read, abandon_on_cancel=True)
        if isinstance(found, SetupError):
            log.error("policy not reloaded; the one before stays in force", error=str(found))
            continue
        policy, wall = found
        await put_in_force(policy, wall)
        log.info(
            "policy reloaded",
            policy=policy.name,
            policy_digest=policy.digest[:16],
            bundle_digest=wall.bundle.digest[:16],
        )


def _attempt(read: Callable[[], tuple[Policy, Wall]]) -> tuple[Policy, Wall] | SetupError:
    try:
        return read()
    except SetupError as error:
        return error

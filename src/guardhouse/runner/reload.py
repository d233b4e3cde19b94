"""The policy is read again, whole, and takes the place of the one in force, or nothing changes.

A reload does exactly what the start did with the policy: read it with its includes, check its signature, compile the
profiles, start a launcher. The keeper does that (`keeper.py`); only when all of it has succeeded is the new one in
force. SIGHUP asks for it, and a policy from the hub (`hub_policy.py`). Runs in the runner.
"""

from collections.abc import AsyncIterator, Awaitable, Callable

import trio

from guardhouse.errors import SetupError
from guardhouse.policy import Policy
from guardhouse.policy.in_force import chain_digest
from guardhouse.runner.logs import get_logger
from guardhouse.runner.wall import Wall

__all__ = ["Reloader", "reload_on_signal"]


class Reloader:
    """Reloads one time after the other, whoever asks."""

    def __init__(
        self, read: Callable[[], tuple[Policy, Wall]], *, put_in_force: Callable[[Policy, Wall], Awaitable[None]]
    ) -> None:
        """Keep the parts.

        Args:
            read: returns the policy as its files are now, and a wall with a launcher that has its copy of it. Runs in
                a thread; a SetupError leaves the old policy in force.
            put_in_force: makes it the one that the next task is judged by.
        """
        self._read = read
        self._put_in_force = put_in_force
        self._order = trio.StrictFIFOLock()

    async def reload(self) -> None:
        """Put in force what the files say.

        Raises:
            SetupError: they cannot be taken; the policy before stays in force.
        """
        async with self._order:
            # A SetupError comes out as a value: one that is raised in a thread given up would be lost.
            found = await trio.to_thread.run_sync(_attempt, self._read, abandon_on_cancel=True)
            if isinstance(found, SetupError):
                raise found
            policy, wall = found
            await self._put_in_force(policy, wall)
            get_logger().info(
                "policy reloaded",
                policy=policy.name,
                policy_digest=policy.digest[:16],
                narrowing_digest=chain_digest([layer.digest for layer in policy.layers[1:]])[:16],
                bundle_digest=wall.bundle.digest[:16],
            )


async def reload_on_signal(received: AsyncIterator[int], reloader: Reloader) -> None:
    """Reload at every signal, one after the other, for ever.

    Args:
        received: an item for each SIGHUP.
    """
    async for _ in received:
        try:
            await reloader.reload()
        except SetupError as error:
            get_logger().error("policy not reloaded; the one before stays in force", error=str(error))


def _attempt(read: Callable[[], tuple[Policy, Wall]]) -> tuple[Policy, Wall] | SetupError:
    try:
        return read()
    except SetupError as error:
        return error

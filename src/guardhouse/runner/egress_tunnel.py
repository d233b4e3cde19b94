"""Bytes both ways between a command and a target until both have said their last: half-closed ends stay so.

One chunk is under way in each direction, so a slow reader slows its writer and nothing piles up. Runs in the runner.
"""

from collections.abc import Callable

import trio

from guardhouse.limits import EGRESS_CHUNK_BYTES

__all__ = ["carry_both_ways"]


async def carry_both_ways(
    client: trio.SocketStream,
    target: trio.SocketStream,
    *,
    first_up: bytes,
    count_up: Callable[[int], None],
    count_down: Callable[[int], None],
    up_ended: Callable[[], None],
) -> bool:
    """Return when both directions have ended; False where one broke instead.

    Args:
        first_up: what the command sent ahead of the answer.
        count_up: called with the size of each chunk that was passed on to the target; likewise ``count_down``.
        up_ended: called once everything that the command sent has been passed on.
    """
    whole = True

    async def carry(
        source: trio.SocketStream, sink: trio.SocketStream, first: bytes, count: Callable[[int], None]
    ) -> None:
        nonlocal whole
        try:
            chunk: bytes | bytearray = first or await source.receive_some(EGRESS_CHUNK_BYTES)
            while chunk:
                await sink.send_all(chunk)
                count(len(chunk))
                chunk = await source.receive_some(EGRESS_CHUNK_BYTES)
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # Reset, or closed for good: the other end must not take what it got for the whole.
            whole = False
            nursery.cancel_scope.cancel()

    async def carry_up() -> None:
        await carry(client, target, first_up, count_up)
        up_ended()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(carry_up)
        nursery.start_soon(carry, target, client, b"", count_down)
    return whole

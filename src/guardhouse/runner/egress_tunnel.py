"""Bytes both ways between a command and a target until both have said their last: half-closed ends stay so.

What the command says first waits until its guard has seen which server it asks for. One chunk is under way in each
direction, so a slow reader slows its writer and nothing piles up. Runs in the runner.
"""

import math
from collections.abc import Awaitable, Callable

import trio

from guardhouse.egress.rules import EgressRefused
from guardhouse.egress.tunnel import TunnelGuard
from guardhouse.limits import EGRESS_CHUNK_BYTES, EGRESS_HEAD_TIMEOUT_S

__all__ = ["carry_both_ways"]


async def carry_both_ways(
    client: trio.SocketStream,
    target: trio.SocketStream,
    *,
    guard: TunnelGuard,
    first_up: bytes,
    count_up: Callable[[int], None],
    count_down: Callable[[int], None],
    up_ended: Callable[[], None],
) -> bool:
    """Return when both directions have ended; False where one broke instead.

    Args:
        guard: is shown all that is said, and lets through what the command says.
        first_up: what the command sent ahead of the answer.
        count_up: called with the size of each chunk that was passed on to the target; likewise ``count_down``.
        up_ended: called once everything that the command sent has been passed on.

    Raises:
        EgressRefused: the guard says no; nothing of what it held back has been passed on.
    """
    whole = True
    refused: EgressRefused | None = None

    async def carry(
        take: Callable[[], Awaitable[bytes]], sink: trio.SocketStream, count: Callable[[int], None]
    ) -> None:
        nonlocal whole
        try:
            while chunk := await take():
                await sink.send_all(chunk)
                count(len(chunk))
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # Reset, or closed for good: the other end must not take what it got for the whole.
            whole = False
            nursery.cancel_scope.cancel()

    async def take_down() -> bytes:
        chunk = bytes(await target.receive_some(EGRESS_CHUNK_BYTES))
        guard.feed_down(chunk)
        return chunk

    async def carry_up() -> None:
        nonlocal refused
        try:
            await carry(_Guarded(client, guard, first_up).take, target, count_up)
        except EgressRefused as error:
            refused = error
            nursery.cancel_scope.cancel()
            return
        up_ended()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(carry_up)
        nursery.start_soon(carry, take_down, client, count_down)
    if refused is not None:
        raise refused
    return whole


class _Guarded:
    """What a command says, as far as its guard lets it through."""

    def __init__(self, client: trio.SocketStream, guard: TunnelGuard, first: bytes) -> None:
        self._client = client
        self._guard = guard
        self._first = first
        self._until_s = math.inf  # a hello that has begun is whole by then

    async def take(self) -> bytes:
        """Return what may go on, b"" at the end.

        Raises:
            EgressRefused: the guard says no, or has waited too long.
        """
        while True:
            chunk, self._first = self._first or await self._receive(), b""
            if not chunk:
                self._guard.end_up()
                return b""
            passed = self._guard.feed_up(chunk)
            if not self._guard.is_holding:
                self._until_s = math.inf
            elif self._until_s == math.inf:
                self._until_s = trio.current_time() + EGRESS_HEAD_TIMEOUT_S
            if passed:
                return passed

    async def _receive(self) -> bytes:
        with trio.move_on_at(self._until_s):
            return bytes(await self._client.receive_some(EGRESS_CHUNK_BYTES))
        raise self._guard.refuse(f"no whole ClientHello within {EGRESS_HEAD_TIMEOUT_S:g} s")

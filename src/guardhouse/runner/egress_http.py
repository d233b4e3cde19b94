"""One plain HTTP request through the proxy, re-written on both sides by h11: what the origin reads is what was judged.

Knows one request and one connected origin. Runs in the runner.
"""

from collections.abc import Callable

import h11
import trio

from guardhouse.egress.http_message import ProxyRequest, make_origin_request, make_response
from guardhouse.limits import EGRESS_CHUNK_BYTES, EGRESS_HEAD_MAX_BYTES

__all__ = ["HttpClient", "OriginFailed", "forward_request", "next_event"]


class OriginFailed(Exception):  # noqa: N818 - says what happened
    """The origin did not answer with HTTP, or stopped in the middle. ``was_answered``: part of it was passed on."""

    def __init__(self, why: str, *, was_answered: bool) -> None:
        super().__init__(why)
        self.was_answered = was_answered


class HttpClient:
    """The command's side: its stream and h11's view of it."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=EGRESS_HEAD_MAX_BYTES)

    async def send(self, event: h11.Event) -> None:
        """Send one event.

        Raises:
            trio.BrokenResourceError: the command has gone.
        """
        data = self.http.send(event)
        if data:
            await self.stream.send_all(data)


async def next_event(http: h11.Connection, stream: trio.SocketStream) -> h11.Event | type[h11.PAUSED]:
    """Return the next event of a connection.

    Raises:
        h11.RemoteProtocolError: the other side broke HTTP.
        trio.BrokenResourceError: it broke the connection.
    """
    while True:
        event = http.next_event()
        if event is not h11.NEED_DATA:
            return event  # type: ignore[return-value]  # NEED_DATA is the only other
        http.receive_data(bytes(await stream.receive_some(EGRESS_CHUNK_BYTES)))


async def forward_request(
    client: HttpClient,
    origin_stream: trio.SocketStream,
    asked: h11.Request,
    request: ProxyRequest,
    *,
    count_up: Callable[[int], None],
    count_down: Callable[[int], None],
    up_ended: Callable[[], None],
) -> int:
    """Carry one request and its response; return the response's status.

    Raises:
        OriginFailed: the origin broke off or speaks no HTTP.
        h11.RemoteProtocolError: the command's own request broke off or turned out to be none.
        trio.BrokenResourceError: the command has gone.
    """
    origin = h11.Connection(h11.CLIENT, max_incomplete_event_size=EGRESS_HEAD_MAX_BYTES)
    failure: Exception | None = None
    status = 0

    async def send_up(event: h11.Event) -> bool:
        data = origin.send(event)
        try:
            await origin_stream.send_all(data or b"")
        except trio.BrokenResourceError:
            # It may have answered before it closed: that is read to its end.
            return False
        return True

    async def carry_body() -> None:
        nonlocal failure
        try:
            while True:
                event = await next_event(client.http, client.stream)
                if not isinstance(event, h11.Data):
                    await send_up(h11.EndOfMessage())
                    up_ended()
                    return
                if not await send_up(h11.Data(data=event.data)):
                    return
                count_up(len(event.data))
        except (h11.RemoteProtocolError, trio.BrokenResourceError) as error:
            failure = error
            nursery.cancel_scope.cancel()

    # Nothing is raised inside the nursery, where it would come out in a group.
    async with trio.open_nursery() as nursery:
        if await send_up(make_origin_request(request, asked)):
            nursery.start_soon(carry_body)
        try:
            status = await _carry_response(client, origin, origin_stream, asked, count_down)
        except (OriginFailed, trio.BrokenResourceError) as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return status


async def _carry_response(
    client: HttpClient,
    origin: h11.Connection,
    stream: trio.SocketStream,
    asked: h11.Request,
    count_down: Callable[[int], None],
) -> int:
    status = 0
    while True:
        try:
            event = await next_event(origin, stream)
        except h11.RemoteProtocolError as error:
            raise OriginFailed(f"the origin's answer is no HTTP: {error}", was_answered=bool(status)) from None
        except trio.BrokenResourceError:
            raise OriginFailed("the origin broke off", was_answered=bool(status)) from None
        try:
            if isinstance(event, h11.EndOfMessage):
                await client.send(h11.EndOfMessage())
                return status
            if isinstance(event, h11.Data):
                await client.send(h11.Data(data=event.data))
                count_down(len(event.data))
            elif isinstance(event, h11.Response):
                status = event.status_code
                await client.send(make_response(event))
            elif not isinstance(event, h11.InformationalResponse):
                raise OriginFailed("the origin closed without an answer", was_answered=bool(status))
            elif asked.http_version >= b"1.1":
                await client.send(make_response(event))
        except h11.LocalProtocolError as error:
            raise OriginFailed(f"the origin's answer cannot be passed on: {error}", was_answered=bool(status)) from None

"""One WebSocket as Hypercorn serves it, with what its own lacks: bounds, liveness and honest close codes.

Hypercorn 0.18 stores a message before it measures it, offers compression (a 10 MiB frame may unpack to 10 GiB),
answers a malformed frame by dropping the connection, and does not tell the application of a pong. Knows nothing of
what the messages mean. Runs in the hub.
"""

import math
from dataclasses import replace
from io import BytesIO, StringIO
from typing import Any, Final

import trio
from hypercorn.protocol.events import Body, Data, Event, Request, StreamClosed
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WebsocketBuffer, WSStream
from hypercorn.typing import ASGISendEvent, WebsocketAcceptEvent
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason

from guardhouse.hub.timers import Timer, Timers

__all__ = ["BoundedWebSocket", "Probe"]

# RFC 6455 section 5.5.2 lets a peer ping at will; one ping every 54 s is what runners do. More than this is an attack.
CONTROL_FRAMES_PER_S: Final = 50.0
CONTROL_FRAMES_BURST: Final = 500.0
# Well below the 60 s after which either side gives an idle WebSocket up (WIRE_PROTOCOL "Transport").
PING_INTERVAL_S: Final = 20.0
# How long bytes are still read and dropped after our close frame, so that a reset does not overtake it.
LINGER_S: Final = 1.0


class Probe:
    """Asks the peer of one WebSocket whether it is alive; the gateway finds it under ``scope["state"]["probe"]``."""

    def __init__(self, websocket: "BoundedWebSocket") -> None:
        self._websocket = websocket
        self._heard = trio.Event()
        self.last_heard_s = trio.current_time()

    def heard(self) -> None:
        """Note that something arrived: any frame proves life."""
        self.last_heard_s = trio.current_time()
        self._heard.set()

    @property
    def is_gone(self) -> bool:
        """Whether the peer has hung up, as far as has been read; it may have while its upgrade waited for its turn."""
        return self._websocket.closed

    async def is_alive(self, *, within_s: float) -> bool:
        """Send a ping and say whether any frame came back within ``within_s`` seconds."""
        self._heard = trio.Event()
        with trio.move_on_after(within_s):
            await self._websocket.ping()
            await self._heard.wait()
            return True
        return False


class BoundedBuffer(WebsocketBuffer):
    """Hypercorn's message buffer, measuring before it stores. Texts are measured in characters."""

    def would_overflow(self, event: Message[Any]) -> bool:
        """Return whether ``event`` would take the message over the limit."""
        return bool(self.length + len(event.data) > self.max_length)

    def mixes_kinds(self, event: Message[Any]) -> bool:
        """Return whether a continuation changed between text and binary, which wsproto rules out already."""
        return (isinstance(self.value, StringIO) and isinstance(event, BytesMessage)) or (
            isinstance(self.value, BytesIO) and isinstance(event, TextMessage)
        )


class BoundedWebSocket(WSStream):
    """A WebSocket without compression, bounded in message size and in control frames a second."""

    def __init__(self, *args: Any, timers: Timers) -> None:
        super().__init__(*args)
        self._timers = timers
        self.buffer: BoundedBuffer = BoundedBuffer(self.config.websocket_max_message_size)
        self.probe = Probe(self)
        self._closing = False
        self._pings: Timer | None = None
        # When a ping of the peer was answered last, on trio's clock: both sides have heard each other then.
        self._answered_s = -math.inf
        self._control_tokens = CONTROL_FRAMES_BURST
        self._control_refilled_s = trio.current_time()

    async def handle(self, event: Event) -> None:
        """Take one event of the HTTP layer."""
        if isinstance(event, Request):
            state = dict(event.state)
            state["probe"] = self.probe
            headers = [(name, value) for name, value in event.headers if name.lower() != b"sec-websocket-extensions"]
            await super().handle(replace(event, headers=headers, state=state))  # type: ignore[arg-type]  # a plain dict is its state
            return
        if isinstance(event, (Body, Data)) and self.handshake.accepted:
            if self._closing or self.connection.state is ConnectionState.CLOSED:
                return
            self.probe.heard()
        await super().handle(event)
        if self.closed:
            self.end_pings()

    async def app_send(self, message: ASGISendEvent | None) -> None:
        """Take one event of the application; None when it has ended."""
        if message is None and self._closing and not self.closed:
            await trio.sleep(LINGER_S)
        if message is not None and message["type"] == "websocket.send" and self._closing:
            return
        await super().app_send(message)

    async def ping(self) -> None:
        """Send a WebSocket ping when the connection is open."""
        if self.state is ASGIWebsocketState.CONNECTED and not self.closed:
            await self._send_wsproto_event(Ping())

    async def _handle_events(self) -> None:
        for event in self.connection.events():
            if isinstance(event, Message):
                if self.buffer.would_overflow(event) or self.buffer.mixes_kinds(event):
                    await self._fail(CloseReason.MESSAGE_TOO_BIG, "message too big")
                    return
                self.buffer.extend(event)
                if event.message_finished and self.app_put is not None:
                    message = self.buffer.to_message()
                    self.buffer.clear()
                    await self.app_put(message)
            elif isinstance(event, (Ping, Pong)):
                if not self._may_handle_control_frame():
                    await self._fail(CloseReason.POLICY_VIOLATION, "too many control frames")
                    return
                if isinstance(event, Ping):
                    self._answered_s = trio.current_time()
                    await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                if self.connection.state is ConnectionState.OPEN:
                    await self._fail(CloseReason(event.code), event.reason or "malformed frame")
                    return
                if self.connection.state is ConnectionState.REMOTE_CLOSING:
                    await self._send_wsproto_event(event.response())
                # Told before Hypercorn's own event, which knows the code of no peer.
                if self.app_put is not None:
                    await self.app_put(
                        {"type": "websocket.disconnect", "code": int(event.code), "reason": event.reason}
                    )
                await self.send(StreamClosed(stream_id=self.stream_id))

    async def _accept(self, message: WebsocketAcceptEvent) -> None:
        await super()._accept(message)
        # Not at once: a connection that has just been made is alive, and thousands are made together after a restart.
        due_s = trio.current_time() + PING_INTERVAL_S
        self._pings = self._timers.add(self._ping_when_silent, due_s=due_s)
        if self.closed:
            self._pings.cancel()

    def _ping_when_silent(self, now_s: float) -> float:
        """Have a ping sent unless the peer has pinged lately, as runners of guardhouse.v1 do every 15 s."""
        if now_s - self._answered_s >= PING_INTERVAL_S:
            self.task_group.spawn(self.ping)
        return now_s + PING_INTERVAL_S

    def end_pings(self) -> None:
        """Send no more pings: the connection is over."""
        if self._pings is not None:
            self._pings.cancel()

    async def _fail(self, code: CloseReason, reason: str) -> None:
        """Say why, stop listening, and let the application end."""
        self._closing = True
        self.buffer.clear()
        await self._send_wsproto_event(CloseConnection(code=code, reason=reason))
        if self.app_put is not None:
            await self.app_put({"type": "websocket.disconnect", "code": int(code), "reason": reason})

    def _may_handle_control_frame(self) -> bool:
        now_s = trio.current_time()
        refill = (now_s - self._control_refilled_s) * CONTROL_FRAMES_PER_S
        self._control_tokens = min(CONTROL_FRAMES_BURST, self._control_tokens + refill) - 1
        self._control_refilled_s = now_s
        return self._control_tokens >= 0

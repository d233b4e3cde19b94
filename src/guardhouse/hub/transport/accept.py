"""Accept connections as fast as they come, and begin to serve a few of them in each turn of the event loop.

`trio.serve_listeners` accepts one connection a turn. With thousands of runners at the door the rest wait in the kernel,
in the order of their coming: a person's request behind all of them, and most runners until they have given up. Here
they wait in an `AcceptQueue`. Knows nothing of what is served. Runs in the hub.
"""

import errno
import math
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import structlog
import trio

from guardhouse.hub.source import source_of
from guardhouse.hub.transport.accept_queue import AcceptQueue, places

__all__ = ["accept_for_ever"]

_log = structlog.get_logger("guardhouse.hub.transport")

# Accepted in one turn at most, so that those who are served already are not kept waiting.
ACCEPTED_A_TURN: Final = 256
# The process or the machine is out of something.
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
EXHAUSTED_WAIT_S: Final = 1.0
# Of one connection, which its client, the network or a firewall ended before (accept(2), "Error handling").
_OF_ONE: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPERM,
        errno.EPROTO,
        errno.ENOPROTOOPT,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENONET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
    }
)

# TCP states of include/net/tcp_states.h: reset, and ended by the peer.
_TCP_CLOSE: Final = 7
_TCP_CLOSE_WAIT: Final = 8
# An upgrade with a token is some hundreds of bytes; only a request whose peer is gone already is looked at like this.
_PEEK_BYTES: Final = 2_048


async def accept_for_ever(
    listening: socket.socket,
    queue: AcceptQueue[socket.socket],
    serve: Callable[[socket.socket], Awaitable[object]],
    *,
    is_tls: bool,
    connections: trio.Nursery,
) -> NoReturn:
    """Serve what connects to ``listening``, which does not block, until cancelled; then close it and what waits.

    Args:
        queue: where connections wait for their turn; empty.
        serve: serves one connection in a task of its own in ``connections``, and closes it.
        is_tls: whether a handshake is the first that a client sends.

    Raises:
        OSError: the listening socket itself is broken.
    """
    said = 0
    accept_from_s = -math.inf
    turn_began_s = time.thread_time()
    try:
        while True:
            if not queue:
                await trio.sleep_until(accept_from_s)
                await trio.lowlevel.wait_readable(listening)
            # Out of descriptors, those that wait are served all the same: each that ends makes room.
            if trio.current_time() >= accept_from_s and not _accept_waiting(listening, queue):
                accept_from_s = trio.current_time() + EXHAUSTED_WAIT_S
            turn_ended_s = time.thread_time()
            count = places(turn_ended_s - turn_began_s)
            turn_began_s = turn_ended_s
            for connection in _next_ones(queue, trio.current_time(), count=count, is_tls=is_tls):
                connections.start_soon(serve, connection)
            if not queue:
                dropped = queue.expired + queue.pushed_out
                if dropped > said:
                    _log.warning("connections_dropped", count=dropped - said, reason="more came than can be served")
                    said = dropped
            await trio.lowlevel.checkpoint()
    finally:
        listening.close()
        while (waiting := queue.take(trio.current_time())) is not None:
            waiting.close()


def _accept_waiting(listening: socket.socket, queue: AcceptQueue[socket.socket]) -> bool:
    """Accept what the kernel holds; return False where the machine has no room for another one now."""
    for _ in range(ACCEPTED_A_TURN):
        try:
            accepted, address = listening.accept()
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno in _EXHAUSTED:
                _log.error("connections_not_accepted", error=str(error))
                return False
            if error.errno not in _OF_ONE:
                raise
            continue
        pushed_out = queue.put(accepted, source_of(address[0]), trio.current_time())
        if pushed_out is not None:
            pushed_out.close()
    return True


def _next_ones(queue: AcceptQueue[socket.socket], now_s: float, *, count: int, is_tls: bool) -> list[socket.socket]:
    """Return the ``count`` that are served next, and close who has waited for too long or has given up."""
    while (expired := queue.take_expired(now_s)) is not None:
        expired.close()
    found: list[socket.socket] = []
    while len(found) < count and (connection := queue.take(now_s)) is not None:
        if hung_up(connection, is_tls=is_tls):
            connection.close()
        else:
            found.append(connection)
    return found


def hung_up(connection: socket.socket, *, is_tls: bool) -> bool:
    """Return whether whoever connected has given up while the connection waited for its turn.

    A client may end its own side after a plain request and still read the answer (RFC 9112 section 9.6), but no
    handshake and no WebSocket goes on from there.
    """
    try:
        state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        if state != _TCP_CLOSE_WAIT:
            return state == _TCP_CLOSE
        if is_tls:
            return True
        head = connection.recv(_PEEK_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return True
    return b"\r\nsec-websocket-key:" in head.lower()

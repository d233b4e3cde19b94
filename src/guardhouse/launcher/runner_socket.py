"""The launcher's end of the socket to its runner: requests come in, answers wait until the kernel takes them.

Knows nothing of what they mean. Runs in the launcher.
"""

import os
import select
import socket
from collections import deque

from guardhouse.errors import PeerError, SetupError
from guardhouse.launcher import channel
from guardhouse.launcher.messages import Message, render_message

__all__ = ["RunnerSocket"]


class RunnerSocket:
    """The socket, registered with the launcher's epoll.

    Attributes:
        is_open: off once the runner is gone, or broke its own protocol.
        retries: an answer could not be sent for a reason that no event will tell the end of: `flush` soon.
    """

    def __init__(self, sock: socket.socket, epoll: select.epoll) -> None:
        self.is_open = True
        self.retries = False
        self._socket = sock
        self._epoll = epoll
        self._answers: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._waits_for_room = False  # the socket was full: the kernel tells when it is not
        os.set_blocking(sock.fileno(), False)
        epoll.register(sock.fileno(), select.EPOLLIN)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._socket.fileno()

    def take(self) -> channel.Received | None:
        """Return what has come, None where nothing has or will."""
        try:
            received = channel.receive(self._socket)
        except BlockingIOError:
            return None
        except (PeerError, ConnectionResetError):
            # A runner that breaks its own protocol is not ours any more: same end as its death.
            received = None
        if received is None:
            self.is_open = False
        return received

    def answer(self, message: Message, descriptors: tuple[int, ...] = ()) -> None:
        """Queue an answer; ``descriptors`` are closed once they are sent."""
        self._answers.append((render_message(message), descriptors))
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the kernel takes it."""
        self.retries = False
        while self._answers:
            body, descriptors = self._answers[0]
            try:
                channel.send(self._socket, body, descriptors)
            except BlockingIOError:
                if not self._waits_for_room:
                    self._waits_for_room = True
                    self._epoll.modify(self._socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
                return
            except (BrokenPipeError, ConnectionResetError):
                self.is_open = False
                return
            except SetupError:
                # Too many descriptors under way.
                self.retries = True
                return
            self._answers.popleft()
            for descriptor in descriptors:
                os.close(descriptor)
        if self._waits_for_room:
            self._waits_for_room = False
            self._epoll.modify(self._socket.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """Close it."""
        self._socket.close()

"""One message, one datagram, with its descriptors: the socket's side of `messages.py`.

Knows how a body and descriptors travel, not what they mean. Used by the runner's client, by the launcher and by
init processes; no ctypes.
"""

import array
import errno
import os
import socket
import struct
from typing import Final

from guardhouse import limits
from guardhouse.errors import PeerError, SetupError
from guardhouse.kernel.sealed import read_sealed, seal_memory

__all__ = ["Received", "make_pair", "receive", "send"]

_INLINE: Final = b"J"
_IN_MEMORY: Final = b"M"
_DESCRIPTORS_MAX: Final = 5  # three of a command, one body, one to spare
_CREDENTIALS: Final = struct.Struct("=3i")  # struct ucred: pid, uid, gid
# As plain numbers: combining members of `socket.MsgFlag` costs more than the system call that they are for.
_NO_SIGNAL: Final = int(socket.MSG_NOSIGNAL)
_CLOSE_ON_EXEC: Final = int(socket.MSG_CMSG_CLOEXEC)
_CUT_SHORT: Final = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)
_INT_BYTES: Final = array.array("i").itemsize
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_DESCRIPTORS_MAX * _INT_BYTES) + socket.CMSG_SPACE(_CREDENTIALS.size)


class Received:
    """One received message: ``body``, its ``descriptors`` (the receiver closes them), the sender's ``pid``.

    ``pid`` is 0 unless the receiving socket asked for credentials.
    """

    __slots__ = ("body", "descriptors", "pid")

    def __init__(self, body: bytes, descriptors: list[int], pid: int) -> None:
        self.body = body
        self.descriptors = descriptors
        self.pid = pid

    def close(self) -> None:
        """Close every descriptor that nobody has taken."""
        while self.descriptors:
            os.close(self.descriptors.pop())


def make_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets (close-on-exec) that keep message boundaries."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, body: bytes, descriptors: tuple[int, ...] = (), *, as_pid: int = 0) -> None:
    """Send one message; the descriptors stay the caller's.

    Args:
        as_pid: send with this process's id as the credentials, which the kernel translates into the receiver's
            pid namespace; needs CAP_SYS_ADMIN over the sender's.

    Raises:
        SetupError: the account has more descriptors under way in sockets than this process may add to (unix(7)):
            they are counted over all its processes on the host, those of commands among them.
        OSError: BlockingIOError on a full non-blocking socket, BrokenPipeError when the other side is gone.
    """
    memory: int | None = None
    try:
        payload = _INLINE + body
        passed = list(descriptors)
        if len(payload) > limits.LAUNCH_DATAGRAM_MAX_BYTES:
            memory = seal_memory("guardhouse-message", body)
            passed.insert(0, memory)
            payload = _IN_MEMORY
        ancillary: list[tuple[int, int, bytes]] = []
        if passed:
            ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", passed).tobytes()))
        if as_pid:
            credentials = _CREDENTIALS.pack(as_pid, os.getuid(), os.getgid())
            ancillary.append((socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials))
        sock.sendmsg([payload], ancillary, _NO_SIGNAL)
    except OSError as error:
        if error.errno != errno.ETOOMANYREFS:
            raise
        raise SetupError(
            "launcher: the account has too many descriptors under way in unix sockets (unix(7), ETOOMANYREFS); raise"
            " the hard limit on open files (LimitNOFILE=) or end who holds them"
        ) from None
    finally:
        if memory is not None:
            os.close(memory)


def receive(sock: socket.socket) -> Received | None:
    """Return the next message, or None when the other side has closed.

    Raises:
        PeerError: a datagram that is too long, carries too many descriptors, or is not of our form; its
            descriptors are closed.
        OSError: as recvmsg(2) says.
    """
    payload, ancillary, flags, _ = sock.recvmsg(limits.LAUNCH_DATAGRAM_MAX_BYTES, _ANCILLARY_BYTES, _CLOSE_ON_EXEC)
    descriptors = array.array("i")
    pid = 0
    for level, kind, data in ancillary:
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % _INT_BYTES])
        elif kind == socket.SCM_CREDENTIALS:
            pid = _CREDENTIALS.unpack(data)[0]
    received = Received(payload[1:], list(descriptors), pid)
    if not payload and not received.descriptors:
        return None
    try:
        if flags & _CUT_SHORT:
            raise PeerError("launch datagram is too long or carries too many descriptors", code="oversized")
        if payload[:1] == _IN_MEMORY:
            received.body = _read_memory(received)
        elif payload[:1] != _INLINE:
            raise PeerError("launch datagram has an unknown form")
    except PeerError:
        received.close()
        raise
    return received


def _read_memory(received: Received) -> bytes:
    if not received.descriptors:
        raise PeerError("launch datagram promises a memory file and brings none")
    memory = received.descriptors.pop(0)
    try:
        return read_sealed(memory, limit_bytes=limits.LAUNCH_BODY_MAX_BYTES)
    except (OSError, ValueError) as error:
        raise PeerError(f"launch message in memory refused: {error}", code="oversized") from error
    finally:
        os.close(memory)

"""PROCESS: the files worker. Serves operations on one workspace over one socket until the socket ends.

The launcher forks it, gives it two descriptors, and confines it: no network, no exec, nothing visible but the
workspace. It opens nothing outside its handle after `main` has started. A request that hangs is ended by the
kernel (SIGALRM), and what a hostile pattern or archive breaks is this process and nothing else.
"""

import codecs
import gc
import os
import select
import signal
import socket
import sys
import time
from typing import Final

import msgspec

from guardhouse.errors import PeerError, Refusal
from guardhouse.limits import WORKER_REQUEST_TIMEOUT_S
from guardhouse.worker import protocol
from guardhouse.worker.handlers import Body, Served, Session, serve
from guardhouse.worker.settings import FilesSettings
from guardhouse.workspace.errors import Code, WorkspaceRefusal
from guardhouse.workspace.handle import Method, open_workspace
from guardhouse.workspace.rules import make_rules

__all__ = ["main"]

# The client gives up first and says so; the alarm is for a worker whose client is gone.
_ALARM_MARGIN_S: Final = 5.0
_POLL_EVERY_S: Final = 0.02
_GC_THRESHOLD: Final = 50_000
_ENCODER: Final = msgspec.json.Encoder()
# Python imports a codec's module when it is first used. Once confined there is no file to import from, so it is now:
# the names in zip archives, a byte order mark, bytes as they are.
_CODECS: Final = tuple(map(codecs.lookup, ("ascii", "cp437", "latin-1", "utf-8", "utf-8-sig")))


def main(workspace_fd: int, sock_fd: int, settings: FilesSettings | None = None) -> int:
    """Serve requests until the other side closes the socket.

    Args:
        workspace_fd: open directory, the only way to any file.
        sock_fd: connected SOCK_STREAM unix socket; both descriptors are this process's own.
        settings: the operator's; defaults otherwise.

    Returns:
        The exit status: 0 after a regular end, 1 when the client broke the protocol.

    Raises:
        SetupError: the handle or a setting is unfit.
    """
    settings = settings or FilesSettings()
    os.umask(0o022)
    # A listing makes 100,000 objects and no cycle of them: looking for cycles at the usual rate is a third of its time.
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    # The default action ends the process even inside a C extension that never returns to the interpreter.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    method = None if settings.method is None else Method(settings.method)
    workspace = open_workspace(
        workspace_fd, root_path=settings.root_path, method=method, cross_mounts=settings.cross_mounts,
        rules=make_rules(
            read_deny=settings.read_deny, write_allow=settings.write_allow, write_deny=settings.write_deny
        ),
    )  # fmt: skip
    # Family and type are said: finding them out takes getsockname(2), which the worker's filter does not have.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=sock_fd) as sock:
        connection = _Connection(sock)
        session = Session(workspace, settings, connection.tick, say=_say)
        session.begin()
        try:
            while connection.serve_one(session):
                pass
        except PeerError as error:
            _say(str(error))
            return 1
        except _OutOfOrder:
            _say("a second request came before the first was answered")
            return 1
        except (ConnectionError, _ClientGone):
            return 0
        finally:
            session.temporaries.close()
    return 0


def _say(line: str) -> None:
    sys.stderr.write(f"files worker: {line}\n")


class _ClientGone(Exception):  # noqa: N818 - an event, seen only inside this file
    """The client closed the socket in the middle of a request."""


class _OutOfOrder(Exception):  # noqa: N818 - an event, seen only inside this file
    """A second request came before the first was answered; which answer belongs to which is lost."""


class _Connection:
    """The worker's end of the socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._serving: int | None = None
        self._polled_at = 0.0

    def serve_one(self, session: Session) -> bool:
        """Answer one request; False when the client has closed the socket between two."""
        received = self._receive()
        if received is None:
            return False
        request, body = received
        if request.operation == "cancel":
            return True  # it crossed with the reply
        self._serving = request.id
        limit_s = request.deadline_s if request.deadline_s > 0 else WORKER_REQUEST_TIMEOUT_S
        signal.setitimer(signal.ITIMER_REAL, limit_s + _ALARM_MARGIN_S)
        try:
            served = serve(session, request.operation, request.args, body)
            reply = protocol.Reply(id=request.id, result=msgspec.Raw(_ENCODER.encode(served.result)))
            head = protocol.render(reply, served.body)
        except (Refusal, PeerError) as error:
            head = protocol.render(protocol.Reply(id=request.id, failure=_failure(error)))
            served = Served(protocol.UsageArgs())
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._serving = None
        self._sock.sendall(head)
        if served.body:
            self._sock.sendall(served.body)
        return True

    def tick(self) -> None:
        """Look whether the client has cancelled or left; called by long operations now and then."""
        now = time.monotonic()
        if now - self._polled_at < _POLL_EVERY_S:
            return
        self._polled_at = now
        if not self._poll.poll(0):
            return
        received = self._receive()
        if received is None:
            raise _ClientGone
        request, _ = received
        if request.operation != "cancel" or self._serving is None:
            raise _OutOfOrder
        if request.id == self._serving:
            raise WorkspaceRefusal("cancelled", code=Code.CANCELLED)

    def _receive(self) -> tuple[protocol.Request, Body] | None:
        lengths = self._exactly(protocol.LENGTHS.size, at_boundary=True)
        if lengths is None:
            return None
        header_size, body_size = protocol.parse_lengths(lengths)
        header = self._exactly(header_size)
        body = self._exactly(body_size) if body_size else bytearray()
        if header is None or body is None:
            raise _ClientGone
        return protocol.parse_request(header), memoryview(body)

    def _exactly(self, size: int, *, at_boundary: bool = False) -> bytearray | None:
        """Return ``size`` bytes; None at the end of the stream before the first, if ``at_boundary``."""
        data = bytearray(size)
        view = memoryview(data)
        got = 0
        while got < size:
            count = self._sock.recv_into(view[got:])
            if not count:
                if at_boundary and not got:
                    return None
                raise _ClientGone
            got += count
        return data


def _failure(error: Refusal | PeerError) -> protocol.Failure:
    if isinstance(error, PeerError):
        return protocol.Failure(family="peer", code=error.code, text=str(error))
    code = error.code.value if isinstance(error, WorkspaceRefusal) else "refused"
    return protocol.Failure(family="refusal", code=code, text=str(error))

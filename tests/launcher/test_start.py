"""The end of a launcher as its starter sees it."""

import socket
import subprocess

from guardhouse.launcher.start import LauncherHandle


class RootProcess:
    """A launcher that runs as root, seen by a runner that has dropped its privileges."""

    pid = 4711

    def __init__(self, *, ends):
        self._ends = ends

    def wait(self, timeout=None):
        if not self._ends:
            raise subprocess.TimeoutExpired("launcher", timeout)
        return 0

    def poll(self):
        return 0 if self._ends else None

    def kill(self):
        raise PermissionError(1, "Operation not permitted")


def test_close_ends_it_by_its_socket():
    """Closing the socket is enough: nothing is signalled."""
    ours, theirs = socket.socketpair()
    assert LauncherHandle(ours, RootProcess(ends=True)).close() == 0
    assert theirs.recv(1) == b""
    theirs.close()


def test_close_out_of_reach(capfd):
    """A launcher that hangs and may not be killed is reported with its pid and is no error of the runner's end."""
    ours, theirs = socket.socketpair()
    assert LauncherHandle(ours, RootProcess(ends=False)).close(timeout_s=0.01) is None
    assert theirs.recv(1) == b""
    theirs.close()
    assert "launcher (pid 4711) still runs" in capfd.readouterr().err

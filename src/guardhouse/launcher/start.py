"""Start the launcher as a process of its own, before any secret is read.

It gets an empty environment, a socket and a sealed bundle: nothing of what this process will learn later (the
token) is in its memory. Called at boot, once, and again when a launcher has died. The runner's modules use
`client.py`; only start-up code calls this.
"""

import importlib.util
import json
import os
import resource
import socket
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from guardhouse.errors import PeerError, SetupError
from guardhouse.kernel.sealed import seal_memory
from guardhouse.launcher import channel
from guardhouse.launcher.messages import Ready, parse_message
from guardhouse.limits import DESCRIPTORS_MAX, LAUNCHER_START_TIMEOUT_S
from guardhouse.sandbox.bundle import Bundle

__all__ = ["LauncherHandle", "gate_settings", "start_launcher"]


@dataclass(slots=True)
class LauncherHandle:
    """A running launcher: ``sock`` speaks `messages.py`; closing it ends the launcher and every command."""

    sock: socket.socket
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Of the launcher process."""
        return self.process.pid

    def close(self, *, timeout_s: float = 10.0) -> int | None:
        """End the launcher and everything it started; return its exit status, or None when it does not end in time.

        Closing the socket is what ends it. SIGKILL helps one along that does not, where we may send it: a launcher
        that runs as root is out of reach for a runner that has dropped its privileges, and ends when it comes round.
        """
        self.sock.close()
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            try:
                self.process.kill()
            except PermissionError:
                sys.stderr.write(
                    f"guardhouse: the launcher (pid {self.pid}) still runs {timeout_s:g} s after its socket was closed,"
                    " and this account may not kill it; it ends when it reads that, otherwise 'kill' it as root\n"
                )
                return self.process.poll()
            return self.process.wait()


def gate_settings(dumped_policy: object, *, environment: frozenset[str] | None = None, follows: bool = True) -> bytes:
    """Return what the exec gate is started with.

    Args:
        dumped_policy: ``policy.dump_policy``.
        environment: the host's own tags; None: not known.
        follows: off where nothing can follow execs: only plans with a notice of them are judged then.
    """
    tags = None if environment is None else sorted(environment)
    return json.dumps({"policy": dumped_policy, "environment": tags, "follows": follows}).encode("ascii")


def start_launcher(
    bundle: Bundle,
    *,
    warm: tuple[str, ...] = (),
    files_settings: bytes | None = None,
    gate_policy: bytes = b"",
    interpreter: str = sys.executable,
) -> LauncherHandle:
    """Start the launcher with this bundle and return once it serves.

    Args:
        warm: profiles for which one init process is prepared at once, ahead of the first command.
        files_settings: JSON object of `worker.settings.FilesSettings`; by default only the workspace's path.
        gate_policy: `gate_settings` for the exec gate; empty for none.
        interpreter: the Python to run it with; the running one by default.

    Raises:
        SetupError: the interpreter cannot be started, or the launcher refuses the bundle.
    """
    _raise_descriptor_limit()
    ours, theirs = channel.make_pair()
    memory = seal_memory("guardhouse-bundle", bundle.to_json().encode("ascii"))
    if files_settings is None:
        files_settings = json.dumps({"root_path": bundle.workspace}).encode("ascii")
    settings = seal_memory("guardhouse-settings", files_settings)
    policy = seal_memory("guardhouse-policy", gate_policy)
    main = Path(__file__).resolve().parent / "__main__.py"
    arguments = [str(theirs.fileno()), str(memory), str(settings), str(policy), ",".join(warm), _library_directory()]
    try:
        process = subprocess.Popen(
            [interpreter, "-I", "-S", str(main), *arguments],
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), memory, settings, policy),
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        ours.close()
        raise SetupError(f"cannot start the launcher with {interpreter}: {error}") from error
    finally:
        theirs.close()
        for descriptor in (memory, settings, policy):
            os.close(descriptor)
    handle = LauncherHandle(ours, process)
    _wait_ready(handle)
    return handle


def _raise_descriptor_limit() -> None:
    """Let this process, and the launcher with it, hold and pass on more descriptors than a command may.

    The kernel sums the descriptors that are under way in the sockets of all processes of an account and compares that
    with the sender's soft limit (unix(7), ETOOMANYREFS). Were ours the customary 1,024, a command of the same account
    that sends itself so many would keep every other from being started. `prepare` holds commands to half of this.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _wait_ready(handle: LauncherHandle) -> None:
    """Return once the launcher serves; a bundle that it refuses is a failure of the start, not of the first command."""
    handle.sock.settimeout(LAUNCHER_START_TIMEOUT_S)
    try:
        received = channel.receive(handle.sock)
        if received is not None and parse_message(received.body) == Ready(0):
            handle.sock.settimeout(None)
            return
    except (TimeoutError, ConnectionResetError, PeerError):
        received = None
    status = handle.close(timeout_s=2.0)
    raise SetupError(f"the launcher did not start (exit status {status}); what it wrote to stderr says why")


def _library_directory() -> str:
    """Return the directory that third-party packages of this installation come from."""
    found = importlib.util.find_spec("msgspec")
    if found is not None and found.origin is not None:
        return str(Path(found.origin).resolve().parent.parent)
    return sysconfig.get_path("platlib")

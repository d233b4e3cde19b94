"""PROCESS: the keeper. Forked at the start, before the token is read, to start a launcher for a changed policy.

A launcher must be started by a process that is still who started the runner (root, where that was root) and that
never saw the token. The keeper is that process. It sleeps until the runner asks, reads the operator's own files again
as the start did, and hands back the new launcher's socket. It can be asked for nothing else, so a taken-over runner
cannot bring in a policy of its own. It ends with the runner.
"""

import json
import os
import select
import signal
import socket
import traceback
from collections.abc import Callable
from typing import Final, NoReturn

from guardhouse.errors import SetupError
from guardhouse.kernel.credentials import set_dumpable
from guardhouse.kernel.descriptors import close_all_but
from guardhouse.kernel.probe import HostFeatures
from guardhouse.kernel.sealed import read_sealed, seal_memory
from guardhouse.kernel.title import set_title
from guardhouse.launcher.self_confine import confine_process
from guardhouse.launcher.start import LauncherHandle
from guardhouse.limits import LAUNCH_BUNDLE_MAX_BYTES
from guardhouse.policy import Policy, dump_policy, restore_policy
from guardhouse.runner.wall import Wall
from guardhouse.sandbox.bundle import Bundle, ProcessPlan

__all__ = ["Keeper", "start_keeper"]

_ASK: Final = b"reload"
_DONE: Final = b"+"
_FAILED: Final = b"-"
# Compiling the profiles and starting a launcher takes about a second; examples of a large policy a few more.
_ANSWER_TIMEOUT_S: Final = 120.0
_ERROR_MAX_BYTES: Final = 16 * 1024
# A launcher that was replaced is a zombie until somebody looks; there is seldom one.
_REAP_INTERVAL_S: Final = 30.0


class _KeptLauncher(LauncherHandle):
    """A launcher that is the keeper's child: closing its socket ends it, and the keeper waits for it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def close(self, *, timeout_s: float = 0.0) -> int:
        """End the launcher and everything it started; its exit status is not known here."""
        del timeout_s
        self.sock.close()
        return 0


class Keeper:
    """The runner's end. One question at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.settimeout(_ANSWER_TIMEOUT_S)

    def reload(self, features: HostFeatures) -> tuple[Policy, Wall]:
        """Have the policy read again and a launcher started for it; blocks.

        Args:
            features: of this host, as the start found them.

        Raises:
            SetupError: the policy or a profile cannot be taken, or the keeper is gone.
        """
        try:
            self._sock.send(_ASK)
            said, descriptors, _, _ = socket.recv_fds(self._sock, 1 + _ERROR_MAX_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            # A late answer must not be taken for that to a later question.
            self._sock.close()
            raise SetupError(f"the keeper does not answer ({error}); restart the runner") from None
        if said != _DONE or len(descriptors) != 2:
            for descriptor in descriptors:
                os.close(descriptor)
            raise SetupError(said[1:].decode("utf-8", "replace") or "the keeper is gone; restart the runner")
        launcher = _KeptLauncher(socket.socket(fileno=descriptors[0]))
        try:
            found = json.loads(read_sealed(descriptors[1], limit_bytes=2 * LAUNCH_BUNDLE_MAX_BYTES))
            policy = restore_policy(found["policy"])
            if policy.digest != found["digest"]:
                raise SetupError("the policy changed on its way from the keeper; this is a defect")
            wall = Wall(
                launcher=launcher,
                bundle=Bundle.from_json(found["bundle"]),
                features=features,
                profile=found["profile"],
                mcp_profile=found["mcp_profile"],
                profiles=frozenset(found["profiles"]),
                has_gate=found["has_gate"],
            )
        except BaseException:  # whatever ends this, the launcher is let go
            launcher.close()
            raise
        finally:
            os.close(descriptors[1])
        return policy, wall

    def close(self) -> None:
        """End the keeper."""
        self._sock.close()


def start_keeper(make: Callable[[], tuple[Policy, Wall]], plan: ProcessPlan) -> Keeper:
    """Fork the keeper. Call it while this process has one thread, and before it reads the token.

    Args:
        make: reads the policy and puts up a wall for it; raises SetupError when it cannot.
        plan: how it confines itself before it listens.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        _be_keeper(theirs, make, plan)
    theirs.close()
    return Keeper(ours)


def _be_keeper(sock: socket.socket, make: Callable[[], tuple[Policy, Wall]], plan: ProcessPlan) -> NoReturn:
    try:
        # Its end is told by the socket alone; launchers ignore these as well.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        close_all_but((0, 1, 2, sock.fileno()))
        set_title("guardhouse-keeper")
        set_dumpable(dumpable=False)
        confine_process(plan)
        _serve(sock, make)
    except BaseException:  # raised again: only told before this process ends
        traceback.print_exc()
        raise
    finally:
        os._exit(0)


def _serve(sock: socket.socket, make: Callable[[], tuple[Policy, Wall]]) -> None:
    launchers: list[LauncherHandle] = []
    while True:
        readable, _, _ = select.select((sock,), (), (), _REAP_INTERVAL_S if launchers else None)
        launchers = [launcher for launcher in launchers if launcher.process.poll() is None]
        if not readable:
            continue
        if sock.recv(len(_ASK)) != _ASK:
            return
        # The probe traces a child of its own, which the kernel allows for a dumpable process only (ptrace(2)).
        set_dumpable(dumpable=True)
        try:
            policy, wall = make()
        except (SetupError, OSError) as error:
            sock.send(_FAILED + str(error).encode("utf-8", "replace")[:_ERROR_MAX_BYTES])
            continue
        finally:
            set_dumpable(dumpable=False)
        launchers.append(wall.launcher)
        memory = seal_memory("guardhouse-policy", json.dumps(_answer(policy, wall)).encode("ascii"))
        socket.send_fds(sock, [_DONE], [wall.launcher.sock.fileno(), memory])
        os.close(memory)
        wall.launcher.sock.close()


def _answer(policy: Policy, wall: Wall) -> dict[str, object]:
    return {
        "policy": dump_policy(policy),
        "digest": policy.digest,
        "bundle": wall.bundle.to_json(),
        "profile": wall.profile,
        "mcp_profile": wall.mcp_profile,
        "profiles": sorted(wall.profiles),
        "has_gate": wall.has_gate,
    }

"""A child of the launcher that does nothing but clone init processes, so that its memory stays as they share it.

A clone shares its parent's pages until one of the two writes. The launcher writes all the time, were it only reference
counts: each page that it changes, of those that an init began with, is that init's alone from then on, some 1 MiB for
each. The template sleeps between two clones. What it clones is the launcher's child and not its own (CLONE_PARENT), so
whom the kernel kills at the launcher's end, and who waits for whom, is as if the launcher had cloned it.

Forked after the launcher has confined itself. Takes orders from the launcher alone, holds one socket, dies with it.
"""

import gc
import json
import os
import signal
import socket
from typing import Final, NoReturn

from guardhouse import limits
from guardhouse.errors import PeerError, SetupError
from guardhouse.kernel import credentials, descriptors, namespaces
from guardhouse.kernel.title import set_title
from guardhouse.launcher import channel
from guardhouse.launcher.init import run_init
from guardhouse.launcher.prepare import Place
from guardhouse.sandbox.bundle import Bundle

__all__ = ["CloneUnansweredError", "InitOrder", "Template"]

# Made by clone3; `cgroup` only after the group has been joined, so that it becomes the namespace's root.
_CLONED: Final = frozenset({"user", "mount", "pid", "ipc", "uts", "net"})
_EXIT_BROKEN: Final = 70


class CloneUnansweredError(SetupError):
    """The template did not say what came of an order. It was replaced; ask the new one, with fresh sockets."""


class InitOrder:
    """What the template is told of one init process: names and numbers, and descriptors that go with them.

    Attributes:
        profile: in the bundle.
        control: the init's end of its control socket.
        gate: its end of the socket to the monitor; None without a gate.
        cgroup_fd: directory of the cgroup v2 group that it begins in; None where it joins ``cgroup_files`` itself.
        first_number: see `Place`.
    """

    __slots__ = ("cgroup_fd", "cgroup_files", "control", "first_number", "gate", "pids_in_cgroup", "profile")

    def __init__(
        self,
        profile: str,
        *,
        control: socket.socket,
        gate: socket.socket | None,
        cgroup_fd: int | None,
        cgroup_files: tuple[str, ...],
        pids_in_cgroup: bool,
        first_number: int,
    ) -> None:
        self.profile = profile
        self.control = control
        self.gate = gate
        self.cgroup_fd = cgroup_fd
        self.cgroup_files = cgroup_files
        self.pids_in_cgroup = pids_in_cgroup
        self.first_number = first_number


class Template:
    """The child as the launcher holds it; one that has died is replaced when it is next needed."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._pid, self._sock = _start(bundle)

    def clone(self, order: InitOrder) -> tuple[int, int]:
        """Have an init process cloned, a child of the caller; return its pid and a pidfd.

        The order's descriptors stay the caller's, who closes both ends of its sockets after an error: an init that was
        cloned in spite of it finds them closed and ends.

        Raises:
            CloneUnansweredError: the template ended this very moment, or hangs.
            SetupError: no namespaces; the message names the layer first, as of the other.
        """
        if os.waitpid(self._pid, os.WNOHANG)[0]:
            # Somebody killed it (the OOM killer, an operator): a new one is as good.
            self._sock.close()
            self._pid, self._sock = _start(self._bundle)
        try:
            return self._ask(order)
        except (OSError, PeerError) as error:
            # It is not asked again for the same init: it may have begun with this one.
            self.finish()
            self._pid, self._sock = _start(self._bundle)
            raise CloneUnansweredError(
                f"namespaces: the process that clones others gave no answer ({error}); it was replaced, try again"
            ) from error

    def finish(self) -> None:
        """End it."""
        self._sock.close()
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def _ask(self, order: InitOrder) -> tuple[int, int]:
        body = {
            "profile": order.profile,
            "cgroup_files": order.cgroup_files,
            "pids_in_cgroup": order.pids_in_cgroup,
            "first_number": order.first_number,
            "has_gate": order.gate is not None,
            "has_cgroup": order.cgroup_fd is not None,
        }
        passed = [order.control.fileno()]
        if order.gate is not None:
            passed.append(order.gate.fileno())
        if order.cgroup_fd is not None:
            passed.append(order.cgroup_fd)
        channel.send(self._sock, json.dumps(body).encode("ascii"), tuple(passed))
        received = channel.receive(self._sock)
        if received is None:
            raise PeerError("it has ended")
        answer = json.loads(received.body)
        if "why" in answer:
            raise SetupError(f"namespaces: {answer['why']}")
        return int(answer["pid"]), received.descriptors.pop()


def _start(bundle: Bundle) -> tuple[int, socket.socket]:
    """Fork the child; the launcher must be confined already, and have one thread."""
    ours, theirs = channel.make_pair()
    launcher_ids = (os.getuid(), os.getgid())
    pid = os.fork()
    if pid == 0:
        _serve(bundle, theirs, launcher_ids)
    theirs.close()
    ours.settimeout(limits.SLOT_CLONE_TIMEOUT_S)
    return pid, ours


def _serve(bundle: Bundle, sock: socket.socket, launcher_ids: tuple[int, int]) -> NoReturn:
    """The child's side: clone on request until the launcher is gone."""
    try:
        credentials.set_parent_death_signal(signal.SIGKILL)
        set_title("guardhouse-template")
        descriptors.close_all_but((0, 1, 2, sock.fileno()))
        # What is not collected is not touched, and stays shared.
        gc.disable()
        while (received := channel.receive(sock)) is not None:
            _clone(bundle, sock, received, launcher_ids)
    finally:
        os._exit(0)


def _clone(bundle: Bundle, sock: socket.socket, received: channel.Received, launcher_ids: tuple[int, int]) -> None:
    order = json.loads(received.body)
    given = received.descriptors
    plan = bundle.profiles[order["profile"]]
    gate_fd = given[1] if order["has_gate"] else -1
    try:
        pid, pidfd = namespaces.clone_process(
            plan.namespaces & _CLONED, cgroup_fd=given[-1] if order["has_cgroup"] else None, is_sibling=True
        )
    except OSError as error:
        channel.send(sock, json.dumps({"why": str(error)}).encode("ascii"))
        received.close()
        return
    if pid == 0:
        place = Place(
            bundle=bundle,
            plan=plan,
            launcher_ids=launcher_ids,
            cgroup_files=tuple(order["cgroup_files"]),
            kept=(given[0], *(() if gate_fd < 0 else (gate_fd,))),
            pids_in_cgroup=order["pids_in_cgroup"],
            gate_fd=gate_fd,
            watches_masks=True,
            first_number=order["first_number"],
        )
        _be_init(place, socket.socket(fileno=given[0]))
    channel.send(sock, json.dumps({"pid": pid}).encode("ascii"), (pidfd,))
    os.close(pidfd)
    received.close()


def _be_init(place: Place, control: socket.socket) -> NoReturn:
    """The clone's side; it never returns into the template's loop."""
    try:
        credentials.set_parent_death_signal(signal.SIGKILL)
        run_init(place, control)
    finally:
        os._exit(_EXIT_BROKEN)

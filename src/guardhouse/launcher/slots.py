"""One prepared init process as the launcher holds it: make it, give it a command, kill it, tidy up after it.

An init that is verifiably as it was (`init.py`, "clean") serves the next command of the same profile; every
other one is thrown away. Knows processes and descriptors; who waits for which command is in `supervise.py`.
Runs in the launcher.
"""

import contextlib
import json
import os
import signal
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from guardhouse import limits
from guardhouse.errors import PeerError, SetupError
from guardhouse.launcher import channel
from guardhouse.launcher.cgroup import CgroupHome, Group
from guardhouse.launcher.messages import LaunchRequest
from guardhouse.launcher.self_confine import plan_of
from guardhouse.launcher.template import InitOrder, Template
from guardhouse.sandbox.bundle import Bundle, ProfilePlan

if TYPE_CHECKING:
    # Only named here: it needs RE2, which a launcher without a gate does not load.
    from guardhouse.launcher.gate.judge import ExecJudge

__all__ = ["Slot", "make_slot", "missing_layers"]

# What bounds one command, and is said in its result where nothing carries it. Shares (weights) and swap are facts of
# the host: `doctor` and the runner's start say those once.
_BOUNDS: Final = {"memory": "memory_bytes", "pids": "pids", "cpu_quota": "cpu_quota_percent"}


@dataclass(slots=True)
class Slot:
    """One init process.

    Attributes:
        deadline_s: monotonic time by which it must be ready, or, when it is idle, by which it ends.
        serving: the id of the command it was given, or None.
        notes: limits that nothing carries on this host.
        monitor: leads to its monitor, for questions and their answers (`gate.messages`); None without a gate.
    """

    plan: ProfilePlan
    pid: int
    pidfd: int
    control: socket.socket
    group: Group | None
    notes: tuple[str, ...]
    deadline_s: float
    is_ready: bool = field(default=False)
    is_dying: bool = field(default=False)
    served: int = field(default=0)
    serving: int | None = field(default=None)
    monitor_pid: int = field(default=0)
    monitor: socket.socket | None = field(default=None)

    @property
    def is_waiting(self) -> bool:
        """Whether ``deadline_s`` holds: it prepares itself, or is idle."""
        return not self.is_dying and (self.serving is None or not self.is_ready)

    def run(self, identifier: int, request: LaunchRequest, stdio: tuple[int, ...]) -> None:
        """Order a command; the descriptors stay the caller's."""
        self.serving = identifier
        if self.group is not None:
            self.group.begin()
        order = {
            "op": "run",
            "argv": request.argv,
            "workdir": request.workdir,
            "environment": request.environment,
        }
        channel.send(self.control, json.dumps(order).encode("ascii"), stdio)

    def signal(self, number: int) -> None:
        """Send a signal to every process of the command, or, when its pid 1 takes no more orders, kill that."""
        try:
            channel.send(self.control, json.dumps({"op": "signal", "number": number}).encode("ascii"))
        except BlockingIOError:
            self.destroy()
        except (BrokenPipeError, ConnectionResetError):
            # It is dead already; the pidfd says so.
            return

    def tell_monitor(self, order: bytes) -> None:
        """Send an order to the monitor; one that takes none any more ends with its slot."""
        if self.monitor is None:
            return
        try:
            channel.send(self.monitor, order)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            self.destroy()

    def destroy(self) -> None:
        """Kill pid 1, and so everything in its pid namespace. Its end shows on ``pidfd``."""
        self.is_dying = True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def receive(self) -> tuple[dict[str, Any], channel.Received] | None:
        """Return the init's next report and how it came (the caller closes that); None when it has closed.

        Raises:
            BlockingIOError: nothing to read now.
            PeerError: not a report of ours; the slot is of no use any more.
        """
        try:
            received = channel.receive(self.control)
        except ConnectionResetError:
            return None
        if received is None:
            return None
        try:
            report = json.loads(received.body)
        except ValueError as error:
            received.close()
            raise PeerError(f"init {self.pid} sent no JSON: {error}") from error
        if not isinstance(report, dict) or not isinstance(report.get("event"), str):
            received.close()
            raise PeerError(f"init {self.pid} sent no report")
        return report, received

    def is_dead(self) -> bool:
        """Whether the process has ended; it stays a zombie until `bury`."""
        return os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def bury(self) -> bool:
        """Reap the dead process and let go of all that was its own; False when its group is still busy."""
        if self.pid:
            os.waitpid(self.pid, 0)
            self.pid = 0
            os.close(self.pidfd)
            self.control.close()
        if self.monitor_pid:
            # It ends by itself once nobody holds the other end of its socket; nothing is gained by waiting for that.
            os.kill(self.monitor_pid, signal.SIGKILL)
            os.waitpid(self.monitor_pid, 0)
            self.monitor_pid = 0
            if self.monitor is not None:
                self.monitor.close()
        return self.group is None or self.group.remove()


def missing_layers(
    plan: ProfilePlan, home: CgroupHome | None, *, has_gate: bool, has_judge: bool = False
) -> dict[str, str]:
    """Return the layers that ``plan`` requires and that cannot be put up here, each with what to do.

    Args:
        has_gate: execs can be followed and are judged.
        has_judge: there is a policy to judge them by, however they are heard of.
    """
    missing: dict[str, str] = {}
    controllers = () if home is None else home.controllers
    for layer in sorted(plan.required_layers):
        if layer.startswith("cgroup_") and layer.removeprefix("cgroup_") not in controllers:
            missing[layer] = (
                "no cgroup controller can be used; run under systemd with Delegate=yes or choose a profile"
                " that does not require it"
            )
    if "landlock" in plan.required_layers and plan.landlock is None:
        missing["landlock"] = "the profile's plan has no Landlock rules; this kernel may lack Landlock"
    if "seccomp" in plan.required_layers and not plan.seccomp:
        missing["seccomp"] = "the profile's plan has no filter"
    if "exec_gate" in plan.required_layers and not has_gate:
        missing["exec_gate"] = "this host cannot follow execs, or the launcher was given no policy"
    if plan.exec_notice != "none" and not has_judge:
        missing["exec_gate"] = "the launcher was given no policy to judge the notified execs by"
    for name in ("mount", "pid"):
        if name not in plan.namespaces:
            missing["namespaces"] = f"the plan lacks the {name!r} namespace, without which nothing can be killed whole"
    return missing


def make_slot(
    bundle: Bundle,
    plan: ProfilePlan,
    home: CgroupHome | None,
    template: Template,
    *,
    gate: "ExecJudge | None",
    now_s: float,
    first_number: int = 0,
) -> Slot:
    """Have an init process cloned for ``plan``, with a monitor beside it when there is a gate; it prepares itself.

    Args:
        first_number: that a command's first child gets, where its view has the host's /proc; 0: the namespace's own.

    Raises:
        SetupError: no cgroup or no namespaces; the message names the layer first.
    """
    try:
        group = None if home is None else home.make_group(plan.cgroup)
    except OSError as error:
        raise SetupError(f"cgroup_pids: {error}") from error
    notes = _notes(plan, group)
    if gate is not None and not gate.follows and plan.exec_notice == "none":
        gate = None
    ours, theirs = channel.make_pair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    # The launcher serves everybody: it never waits for one init, whatever state that is in.
    os.set_blocking(ours.fileno(), False)
    gate_ours, gate_theirs = (None, None) if gate is None else channel.make_pair()
    asks_ours, asks_theirs = (None, None) if gate is None else channel.make_pair()
    order = InitOrder(
        plan.name,
        control=theirs,
        gate=gate_theirs,
        cgroup_fd=None if group is None else group.directory_fd,
        cgroup_files=() if group is None else group.procs_files,
        pids_in_cgroup=group is not None and group.bounds_pids,
        first_number=first_number,
    )
    try:
        pid, pidfd = template.clone(order)
    except SetupError:
        for sock in (ours, theirs, gate_ours, gate_theirs, asks_ours, asks_theirs):
            if sock is not None:
                sock.close()
        if group is not None:
            group.remove()
        raise
    theirs.close()
    monitor_pid = 0
    if gate is not None and gate_ours and gate_theirs and asks_ours and asks_theirs:
        gate_theirs.close()
        from guardhouse.launcher.gate.monitor import fork_monitor

        try:
            monitor_pid = fork_monitor(
                gate, gate_ours, asks_theirs, init_pid=pid, plan=plan, wall=plan_of(bundle, "monitor")
            )
        finally:
            # Without a monitor its init finds the socket closed and refuses to start anything.
            gate_ours.close()
            asks_theirs.close()
        os.set_blocking(asks_ours.fileno(), False)
    return Slot(
        plan=plan,
        pid=pid,
        pidfd=pidfd,
        control=ours,
        group=group,
        notes=notes,
        deadline_s=now_s + limits.SLOT_PREPARE_TIMEOUT_S,
        monitor_pid=monitor_pid,
        monitor=asks_ours,
    )


def _notes(plan: ProfilePlan, group: Group | None) -> tuple[str, ...]:
    wanted = [name for name, limit in _BOUNDS.items() if getattr(plan.cgroup, limit) is not None]
    lacking = [name for name in wanted if group is None or name in group.missing]
    if not lacking:
        return ()
    return (f"no cgroup carries the limits of {', '.join(lacking)} here; rlimits bound each process by itself",)

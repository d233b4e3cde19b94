"""The steps by which a fresh clone of the launcher becomes pid 1 of a place where commands can run, in order.

Done once for each init process, ahead of need, so that a command pays only for `confine.STEPS`. Knows one
profile; starts nothing. Runs in init processes.
"""

import errno
import fcntl
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from guardhouse.errors import SetupError
from guardhouse.kernel import credentials, descriptors, namespaces
from guardhouse.kernel.title import set_title
from guardhouse.launcher.masks import MaskWatch, open_mount_table
from guardhouse.launcher.view import PrivatePart, build_view
from guardhouse.sandbox.bundle import Bundle, ProfilePlan

__all__ = ["PREPARE_STEPS", "Place", "PrepareFailedError", "prepare"]

_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_IFREQ: Final = struct.Struct("=16sH22x")

# What `confine.STEPS` need, plus signals to commands of another uid.
_KEPT_CAPABILITIES: Final = ("sys_admin", "setuid", "setgid", "kill", "dac_override")


class PrepareFailedError(Exception):
    """A layer could not be put up. ``layer`` and ``why`` are for the refusal."""

    def __init__(self, layer: str, why: str) -> None:
        super().__init__(f"{layer}: {why}")
        self.layer = layer
        self.why = why


@dataclass(slots=True)
class Place:
    """What an init process prepares.

    Attributes:
        launcher_ids: (uid, gid) of the launcher outside.
        cgroup_files: ``cgroup.procs`` of the groups to join; empty where clone3 did it or there is none.
        kept: descriptors that stay open.
        pids_in_cgroup: a pids controller bounds the command, so RLIMIT_NPROC is not needed. Without a user namespace
            the kernel counts that limit over every process of the account on the host: others would use it up.
        private_parts: out: see `build_view`.
        gate_fd: socket to the exec gate's monitor; -1 where there is no gate.
        watches_masks: commands will be started here for as long as the host may change below the view.
        masks: out: what keeps the view's masks on; None where none is to be kept.
        mount_table_fd: out: tells of changes of the view's mounts; -1 where nobody watches.
        last_pid_fd: out: where the pid namespace's last number can be set; -1 where that is not needed or not there.
        first_number: the one that a command's first child gets there; 0 where it does not matter.
    """

    bundle: Bundle
    plan: ProfilePlan
    launcher_ids: tuple[int, int]
    cgroup_files: tuple[str, ...]
    kept: tuple[int, ...]
    pids_in_cgroup: bool
    private_parts: tuple[PrivatePart, ...] = field(default=())
    gate_fd: int = field(default=-1)
    last_pid_fd: int = field(default=-1)
    first_number: int = field(default=0)
    watches_masks: bool = field(default=False)
    masks: MaskWatch | None = field(default=None)
    mount_table_fd: int = field(default=-1)

    @property
    def drops_ids(self) -> bool:
        """Root started us, so a command's ids differ from ours and no user namespace is needed."""
        return "user" not in self.plan.namespaces


@dataclass(frozen=True, slots=True)
class PrepareStep:
    """One step; ``layer`` is the name that a profile's ``requires``, a refusal and ``doctor`` use."""

    name: str
    layer: str
    run: Callable[[Place], None]
    why: str


def _join_cgroups(place: Place) -> None:
    for path in place.cgroup_files:
        _write(path, "0")


def _write(path: str, text: str) -> None:
    # Not open(): its buffers and codecs are pages that every init would have to itself.
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)


def _close_descriptors(place: Place) -> None:
    descriptors.close_all_but((2, *place.kept))
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in (0, 1, 2):
        if number != null:
            os.dup2(null, number, inheritable=True)
    if null > 2:
        os.close(null)


def _hide_command_line(_place: Place) -> None:
    set_title("guardhouse-init")


def _map_user(place: Place) -> None:
    if place.drops_ids:
        return
    uid, gid = place.launcher_ids
    # The kernel gives /proc/self to root while we are undumpable, and the maps could not be written.
    credentials.set_dumpable(dumpable=True)
    # setgroups must be refused before an unprivileged gid_map is accepted: user_namespaces(7).
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        _write(f"/proc/self/{name}", text)


def _open_last_pid(place: Place) -> None:
    """Open the pid namespace's counter where the view will show the host's /proc.

    There a program that looks itself up by its own number (procps: ps) finds the host's process of that number, or none
    and fails. So every command begins at a row of numbers that the launcher keeps taken (`number_keeper`).
    """
    if place.plan.proc != "host" or not place.first_number:
        return
    try:
        place.last_pid_fd = os.open("/proc/sys/kernel/ns_last_pid", os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        # No CONFIG_CHECKPOINT_RESTORE, or /proc/sys is read-only: a container, or ProtectKernelTunables= of a unit.
        # Only a comfort is lost: `ps` where numbers have grown.
        if error.errno not in (errno.ENOENT, errno.EROFS, errno.EACCES):
            raise
        return
    place.kept = (*place.kept, place.last_pid_fd)


def _leave_cgroup_view(place: Place) -> None:
    if "cgroup" in place.plan.namespaces:
        namespaces.unshare(("cgroup",))


def _name_host(place: Place) -> None:
    if "uts" in place.plan.namespaces and place.plan.hostname:
        namespaces.set_hostname(place.plan.hostname)


def _raise_loopback(place: Place) -> None:
    """Bring up ``lo`` of an own network namespace: programs talk to themselves over it; it leads nowhere."""
    if "net" not in place.plan.namespaces:
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0))
        _, flags = _IFREQ.unpack(answer)
        fcntl.ioctl(sock, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | _IFF_UP))


def _build_view(place: Place) -> None:
    place.private_parts = build_view(place.plan.mounts, place.bundle.identity)


def _close_descriptors_again(place: Place) -> None:
    descriptors.close_all_but((0, 1, 2, *place.kept))


def _open_mount_table(place: Place) -> None:
    if place.watches_masks and any(step.kind == "mask" for step in place.plan.mounts):
        place.mount_table_fd = open_mount_table()
        place.kept = (*place.kept, place.mount_table_fd)


def _watch_masks(place: Place) -> None:
    if place.mount_table_fd >= 0:
        place.masks = MaskWatch(place.plan.mounts, place.mount_table_fd)


def _set_rlimits(place: Place) -> None:
    """Limit this process; a command inherits. A soft or hard limit that is lower already stays lower."""
    for name, (soft, hard) in place.plan.rlimits.items():
        if name == "nproc" and place.pids_in_cgroup:
            continue
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if not isinstance(number, int):
            raise SetupError(f"this Python knows no limit {name!r}; setrlimit(2) lists them")
        soft_now, hard_now = resource.getrlimit(number)
        if name == "nofile" and soft_now != resource.RLIM_INFINITY:
            # What commands send each other counts against what the launcher may send: `start`, "descriptor limit".
            hard_now = _lower(soft_now // 2, hard_now)
        hard_new = hard if hard_now == resource.RLIM_INFINITY else _lower(hard, hard_now)
        resource.setrlimit(number, (_lower(soft, hard_new), hard_new))


def _lower(wanted: int, ceiling: int) -> int:
    if ceiling == resource.RLIM_INFINITY:
        return wanted
    return ceiling if wanted == resource.RLIM_INFINITY else min(wanted, ceiling)


def _set_umask(place: Place) -> None:
    os.umask(place.plan.umask)


def _close_privilege_gains(_place: Place) -> None:
    credentials.set_securebits()
    credentials.drop_bounding_set()
    mask = 0
    for name in _KEPT_CAPABILITIES:
        mask |= 1 << credentials.CAPABILITIES[name]
    credentials.keep_capabilities_only(mask)


def _set_no_new_privs(_place: Place) -> None:
    credentials.set_no_new_privs()


def _become_unreadable(_place: Place) -> None:
    # After the last change of credentials, which clears both.
    credentials.set_dumpable(dumpable=False)
    credentials.set_parent_death_signal(signal.SIGKILL)


PREPARE_STEPS: Final = (
    PrepareStep("cgroup", "cgroup_pids", _join_cgroups, why="first, so that all that follows is counted and limited"),
    PrepareStep(
        "descriptors",
        "namespaces",
        _close_descriptors,
        why="pid 1 holds its control socket and nothing of the launcher's",
    ),
    PrepareStep(
        "title", "namespaces", _hide_command_line, why="a command that lists processes is not told where we live"
    ),
    PrepareStep(
        "user_namespace", "namespaces", _map_user, why="every later step needs capabilities, which only this gives"
    ),
    PrepareStep(
        "process_numbers",
        "namespaces",
        _open_last_pid,
        why="before the view makes /proc read-only; what it opens counts for our own pid namespace alone",
    ),
    PrepareStep(
        "cgroup_namespace",
        "namespaces",
        _leave_cgroup_view,
        why="after joining: the group becomes the root that is seen",
    ),
    PrepareStep(
        "uts", "namespaces", _name_host, why="a command is not told the host's name where the profile gives it another"
    ),
    PrepareStep("network", "namespaces", _raise_loopback, why="needs a capability that is dropped below"),
    PrepareStep(
        "mount_table", "mount_view", _open_mount_table, why="the view may have no /proc; tells of masks that are off"
    ),
    PrepareStep("mount_view", "mount_view", _build_view, why="nothing outside the plan has a path from here on"),
    PrepareStep(
        "descriptors_again", "namespaces", _close_descriptors_again, why="a handle on the host's view is a way back"
    ),
    PrepareStep(
        "masks", "mount_view", _watch_masks, why="the host may replace or make what is masked after the view was built"
    ),
    PrepareStep(
        "rlimits",
        "rlimits",
        _set_rlimits,
        why="inherited by every thread and command; root too cannot raise them later",
    ),
    PrepareStep("umask", "rlimits", _set_umask, why="inherited; the launcher's own could be anything"),
    PrepareStep(
        "capabilities", "capabilities", _close_privilege_gains, why="no exec can gain a capability; pid 1 keeps five"
    ),
    PrepareStep(
        "no_new_privs",
        "no_new_privs",
        _set_no_new_privs,
        why="setuid files gain nothing; seccomp and Landlock require it",
    ),
    PrepareStep(
        "undumpable", "namespaces", _become_unreadable, why="a command must not read or trace its pid 1, nor outlive us"
    ),
)


def prepare(place: Place) -> None:
    """Do every step.

    Raises:
        PrepareFailedError: one failed; the caller ends this process, there is no weaker second try.
    """
    for step in PREPARE_STEPS:
        try:
            step.run(place)
        except (OSError, SetupError, ValueError) as error:
            raise PrepareFailedError(step.layer, f"step {step.name!r}: {error}") from error

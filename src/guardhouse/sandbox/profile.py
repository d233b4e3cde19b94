"""What a profile says, as values: every entry with its reason and its place. No host, no identity, no numbers.

Made by `load.py`, resolved by `compile.py`, put in words by `describe.py`. Runs at boot and in the CLI.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from guardhouse.sandbox.bundle import MountKind, NetworkMode, ProcView

__all__ = [
    "CGROUP_LIMITS",
    "EXEC_FALLBACKS",
    "FOREIGN_ARCHITECTURES",
    "LAYERS",
    "RLIMITS",
    "Answer",
    "CallRule",
    "CgroupLimit",
    "Condition",
    "Egress",
    "Grant",
    "Limit",
    "Mask",
    "Network",
    "OwnPath",
    "Port",
    "ProcessProfile",
    "Profile",
    "Reason",
    "Requirement",
    "Setting",
    "Switch",
    "SyscallGroup",
    "ViewEntry",
    "ViewKind",
    "WorkspaceAccess",
]

# `system_link`: where the host has merged /usr, the same symbolic link; elsewhere a read-only bind.
ViewKind = MountKind | Literal["system_link"]
WorkspaceAccess = Literal["read_write", "read_only", "none"]

# The wall's layers in the order in which they are put up, with what each holds; names stand in `requires:`, in a
# plan's required_layers, in refusals and in doctor's table.
LAYERS: Final[Mapping[str, str]] = {
    "cgroup_memory": "memory of the whole tree is bounded and its peak reported",
    "cgroup_pids": "the number of processes is bounded",
    "cgroup_cpu": "the host's own services get their share of the CPUs first",
    "cgroup_io": "the same for disks",
    "namespaces": "processes, mounts, ipc, host name and network as the profile lists them",
    "mount_view": "nothing outside the plan has a path",
    "rlimits": "descriptors, file size, core files and locked memory are bounded",
    "capabilities": "nothing that only root may do",
    "no_new_privs": "setuid files and file capabilities gain nothing",
    "landlock": "paths, ports, abstract sockets and signals, should the mount view have a mistake",
    "seccomp": "only listed system calls, with checked arguments",
    "exec_gate": "every program start is judged by the policy",
}

# Names of setrlimit(2) that a profile may set, with the unit of their values.
RLIMITS: Final[Mapping[str, Literal["count", "bytes", "seconds"]]] = {
    "as": "bytes",
    "core": "bytes",
    "cpu": "seconds",
    "data": "bytes",
    "fsize": "bytes",
    "memlock": "bytes",
    "msgqueue": "bytes",
    "nice": "count",
    "nofile": "count",
    "nproc": "count",
    "rtprio": "count",
    "sigpending": "count",
    "stack": "bytes",
}

# Fields of bundle.CgroupLimits with the range of their values (bytes, or the kernel's own range).
CGROUP_LIMITS: Final[Mapping[str, tuple[int, int]]] = {
    "memory_bytes": (1 << 22, 1 << 50),
    "memory_swap_bytes": (0, 1 << 50),
    "pids": (2, 4_194_304),
    "cpu_weight": (1, 10_000),
    "cpu_quota_percent": (1, 1_000_000),
    "io_weight": (1, 10_000),
}


# What becomes of commands that only the exec gate could decide, where this host cannot follow execs: refused, or run
# with Landlock letting them execute nothing but the files that the policy allows whatever their arguments, or but those
# that it allows with some, the arguments judged as their caller shows them. In this order each allows more.
EXEC_FALLBACKS: Final = ("refuse", "allowed_files", "judged_arguments")


# Tables of system calls that a profile may permit beside the machine's own, by the architecture whose kernel serves
# them. Not among them: x32 (x86_64's own calls again, with pointers of 32 bits) and the 32-bit calls of aarch64.
FOREIGN_ARCHITECTURES: Final[Mapping[str, str]] = {"i386": "x86_64"}


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an entry stands in a file, and where. ``without`` says what breaks if it goes."""

    why: str
    place: str
    without: str = ""


@dataclass(frozen=True, slots=True)
class Condition:
    """One argument's condition, by symbolic name.

    Exactly one of ``any_of`` and ``none_of`` is set. ``any_of``: the low 32 bits, masked with ``within`` (or with
    everything but ``ignoring``), equal one of the names. ``none_of``: not one bit of these flags is set.
    """

    arg: str
    any_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()
    within: str = ""
    ignoring: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CallRule:
    """One call that is allowed when all of ``conditions`` hold; rules of the same call are alternatives."""

    call: str
    conditions: tuple[Condition, ...]
    reason: Reason


@dataclass(frozen=True, slots=True)
class Answer:
    """One call that always gets ``errno`` (a symbolic name)."""

    call: str
    errno: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class SyscallGroup:
    """A file of `sandbox/syscalls/`."""

    name: str
    purpose: str
    allow: tuple[CallRule, ...]
    answers: tuple[Answer, ...]
    place: str


@dataclass(frozen=True, slots=True)
class ViewEntry:
    """One `view:` entry; ``source`` is the host path, or the text of a file or symlink."""

    kind: ViewKind
    source: str
    target: str
    options: tuple[str, ...]
    optional: bool
    reason: Reason


@dataclass(frozen=True, slots=True)
class Mask:
    """One path that the view covers, with the group it came from."""

    path: str
    group: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Grant:
    """One path that is shown although a mask or the view would hide it.

    ``kind`` is ``path``, ``socket`` or ``kubeconfig``; only a ``path`` may be ``writable``. A kubeconfig also sets
    ``KUBECONFIG``.
    """

    kind: Literal["path", "socket", "kubeconfig"]
    path: str
    writable: bool
    optional: bool
    reason: Reason


@dataclass(frozen=True, slots=True)
class Port:
    """One TCP port of network mode ``ports``; in mode ``domains``, one of the command's own loopback."""

    port: int
    direction: Literal["connect", "bind"]
    reason: Reason


@dataclass(frozen=True, slots=True)
class Egress:
    """One entry of network mode ``domains``: a name, or an address or network, at these TCP ports."""

    target: str
    ports: tuple[int, ...]
    reason: Reason


TunnelTls = Literal["named", "required"]


@dataclass(frozen=True, slots=True)
class Tunnels:
    """What tunnels of network mode ``domains`` may carry.

    ``named``: TLS that names a server names the tunnel's own host; what names none, and what is no TLS, passes.
    ``required``: only TLS that names that host passes, and that may hide no second name.
    """

    tls: TunnelTls
    reason: Reason


@dataclass(frozen=True, slots=True)
class Network:
    """The network mode with what it lets through."""

    mode: NetworkMode
    ports: tuple[Port, ...]
    domains: tuple[Egress, ...]
    addresses: tuple[Egress, ...]
    tunnels: Tunnels
    proxy_port: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Limit:
    """One resource limit, in the unit of `RLIMITS`."""

    soft: int
    hard: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class CgroupLimit:
    """One limit of the command's own group, in the unit its name says."""

    value: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Setting:
    """A single text setting: an environment variable, the host name, the umask and the like."""

    value: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Requirement:
    """A layer without which the profile does not run; not needed where a user namespace is made, if it says so."""

    unless_user_namespace: bool
    reason: Reason


@dataclass(frozen=True, slots=True)
class Switch:
    """Optional groups of system calls under one name; off unless somebody asks for it at start."""

    groups: tuple[str, ...]
    reason: Reason


@dataclass(frozen=True, slots=True)
class OwnPath:
    """A path that one of our own processes may read, or write beneath; ``{name}`` stands for paths known at boot."""

    path: str
    writable: bool
    optional: bool
    reason: Reason


@dataclass(frozen=True, slots=True)
class ProcessProfile:
    """How one of our own processes confines itself: a file of `sandbox/processes/`, with what it extends folded in.

    Attributes:
        inherited: commands are born below this process, so whatever it gives up they have given up too.
        groups: every group of system calls it uses, by name.
        capabilities: those that a start as root keeps, each with its reason.
        bounding_kept: the bounding set keeps those (a program that it starts gets them), instead of none.
        nobody: a start as root becomes the account nobody; None stays who it is.
        scoped: Landlock scopes: what reaches no process outside its domain.
        files_listed: Landlock denies every file but ``paths``.
        requires: layers without which it does not start.
        may_lack: layers that it goes without where the host has none.
    """

    name: str
    summary: str
    place: str
    inherited: bool
    inherited_reason: Reason
    groups: Mapping[str, SyscallGroup]
    syscalls: Mapping[str, Reason]
    capabilities: Mapping[str, Reason]
    bounding_kept: bool
    bounding_reason: Reason
    nobody: Reason | None
    scoped: tuple[str, ...]
    files_listed: bool
    landlock_reason: Reason
    paths: tuple[OwnPath, ...]
    limits: Mapping[str, Limit]
    requires: Mapping[str, Reason]
    may_lack: Mapping[str, Reason]


@dataclass(frozen=True, slots=True)
class Profile:
    """A whole profile with everything it extends folded in.

    Attributes:
        ancestry: names of the profiles it was built from, the furthest first, its own last.
        groups: every group of system calls that it uses or has a switch for, by name.
        syscalls: the groups that are always on.
        processes: our own processes of the same sandbox directory, by name.
        architectures: whose programs and calls are permitted beside the machine's own (`FOREIGN_ARCHITECTURES`).
    """

    name: str
    summary: str
    place: str
    ancestry: tuple[str, ...]
    namespaces: Mapping[str, Reason]
    network: Network
    view: tuple[ViewEntry, ...]
    masks: tuple[Mask, ...]
    grants: tuple[Grant, ...]
    groups: Mapping[str, SyscallGroup]
    syscalls: Mapping[str, Reason]
    switches: Mapping[str, Switch]
    limits: Mapping[str, Limit]
    cgroup: Mapping[str, CgroupLimit]
    environment: Mapping[str, Setting]
    requires: Mapping[str, Requirement]
    landlock_minimum_abi: int
    landlock_reason: Reason
    proc: ProcView
    proc_reason: Reason
    hostname: Setting
    tmp_bytes: int
    umask: int
    count_denials: bool
    workspace: WorkspaceAccess
    workspace_reason: Reason
    root_identity: Reason | None
    exec_fallback: str = EXEC_FALLBACKS[0]
    exec_fallback_reason: Reason | None = None
    processes: Mapping[str, ProcessProfile] = field(default_factory=dict)
    architectures: Mapping[str, Reason] = field(default_factory=dict)

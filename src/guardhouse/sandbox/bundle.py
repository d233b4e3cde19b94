"""The bundle: everything the launcher may do, resolved, in one value that travels as JSON.

Compiled at boot from the profiles in `sandbox/` (`compile.py`) and read once by the launcher, which has no
YAML and no libseccomp. Knows shapes and names only: no path is opened here and no number of a kernel constant
appears, except that filters are finished BPF. Standard library only: the launcher runs ``python -I -S``.

Runs in the runner (writes it) and in the launcher (reads it).
"""

import base64
import binascii
import hashlib
import json
import types
import typing
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

from guardhouse.errors import SetupError

__all__ = [
    "BUNDLE_VERSION",
    "GATE_TRACE_DATA",
    "Bundle",
    "CgroupLimits",
    "EgressGrant",
    "ExecNotice",
    "FilterVariant",
    "Identity",
    "LandlockPlan",
    "MountKind",
    "MountStep",
    "Namespace",
    "NetworkMode",
    "PathRule",
    "PortRule",
    "ProcView",
    "ProcessPlan",
    "ProfilePlan",
    "SeccompFilter",
]

BUNDLE_VERSION: Final = 5

# The low 16 bits of SECCOMP_RET_TRACE in the *_gate variants: what PTRACE_GETEVENTMSG gives at an execve stop.
GATE_TRACE_DATA: Final = 0x4758

Namespace = Literal["user", "mount", "pid", "ipc", "uts", "net", "cgroup"]
NetworkMode = Literal["none", "host", "ports", "domains"]
ProcView = Literal["own", "host"]

# What a step does at its target, in the view being built; symbolic links in a target resolve inside the view. A
# target that is missing is made where an earlier step put a tmpfs (parents too, mode 0755); elsewhere it is an
# error, or with ``optional`` the step is skipped. Sources always resolve in the host's own view as it was before
# the first step, so a step may cover a directory and a later one show a part of it again.
MountKind = Literal[
    "bind",  # source as it is on the host; submounts too when options has "recursive"
    "bind_readonly",  # the same, read-only (every submount of it as well)
    "tmpfs",  # an empty file system; options: "mode=0755", "size=BYTES", "inodes=N", "owner" (the identity's)
    "proc",  # a new procfs of the command's own pid namespace
    "dev",  # tmpfs with null zero full random urandom tty, fd stdin stdout stderr, own devpts, ptmx
    "dir",  # an empty directory inside a tmpfs made by an earlier step; options: "mode=0755"
    "file",  # a small read-only file inside such a tmpfs; its content is ``source``
    "symlink",  # a symbolic link inside such a tmpfs; its text is ``source``
    "mask",  # whatever the target is: an unreadable empty file over a file or socket, such a directory over one
]

# errno: a denied call fails with EPERM, at once. notify: it asks the monitor, which counts it and says EPERM.
# *_gate: the same, and allowed execve/execveat stop with SECCOMP_RET_TRACE for the exec gate's monitor.
# *_execs: the same, and allowed execve/execveat, and the call that a C library makes once when its program starts, are
# handed to the listener (SECCOMP_RET_USER_NOTIF): where nothing can follow execs.
FilterVariant = Literal["errno", "notify", "errno_gate", "notify_gate", "errno_execs", "notify_execs"]

# Who is told of a command's execs where nothing can follow them. ``allowed_files``: they are recorded, and judged where
# the caller's words can be read; Landlock alone is relied on. ``judged_arguments``: Landlock lets more files run, and
# what cannot be judged does not start.
ExecNotice = Literal["none", "allowed_files", "judged_arguments"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the command is: ids on the host. ``home`` is what ``HOME`` says; the view may not show it."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    user_name: str
    home: str


@dataclass(frozen=True, slots=True)
class MountStep:
    """One step of the view, done in order.

    Attributes:
        source: host path (binds), text (symlink, file) or ``""``.
        target: absolute path in the view; ``/`` only in the first step, which makes the root.
        options: of `MountKind`, and ``nosuid nodev noexec readonly``. ``readonly`` on a tmpfs takes effect
            after the last step, so that later steps can still make their mount points in it.
        why: the profile's reason, for messages.
        optional: a source or target that does not exist skips the step; otherwise the command is refused.
    """

    kind: MountKind
    source: str
    target: str
    options: tuple[str, ...]
    why: str
    optional: bool


@dataclass(frozen=True, slots=True)
class PathRule:
    """Landlock: these accesses on everything beneath ``path``, as the path is in the finished view.

    ``access`` holds names of LANDLOCK_ACCESS_FS_* in lower case (``read_file``, ``make_reg`` …). A path that
    does not exist in the view is skipped when ``optional``.
    """

    path: str
    access: tuple[str, ...]
    optional: bool


@dataclass(frozen=True, slots=True)
class PortRule:
    """Landlock: a TCP port, 0 to 65535, that may be used for ``access`` (``bind_tcp``, ``connect_tcp``)."""

    port: int
    access: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LandlockPlan:
    """One ruleset, already cut to the ABI of this host: every name in it is known to ``abi``.

    Attributes:
        abi: the version compiled for; never more than the host's.
        minimum_abi: below it the profile does not run.
        handled_fs: accesses denied except where a path rule allows them.
        handled_net: ``bind_tcp`` and ``connect_tcp``, or nothing.
        scoped: ``abstract_unix_socket`` and ``signal``, or nothing.
    """

    abi: int
    minimum_abi: int
    handled_fs: tuple[str, ...]
    handled_net: tuple[str, ...]
    scoped: tuple[str, ...]
    paths: tuple[PathRule, ...]
    ports: tuple[PortRule, ...]


@dataclass(frozen=True, slots=True)
class SeccompFilter:
    """Finished classic BPF (``struct sock_filter[]``, 8 bytes an instruction) for one architecture.

    Attributes:
        programs: by `FilterVariant`; of the ``*_execs`` ones that which the plan uses, where it uses one.
        names: every call known on the architecture, name to number, so that a notification can be named.
        foreign: the same of each further table that the filter lets calls of through (``i386``).
        digest: sha256 (hex) of the readable text in `sandbox/compiled/` that this was compiled from.
    """

    programs: dict[str, bytes]
    names: dict[str, int]
    foreign: dict[str, dict[str, int]]
    digest: str


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """Limits of the command's own group; None leaves the controller alone.

    ``cpu_weight`` is cgroup v2's 1 to 10000 (100 is the kernel's default; v1 shares are weight * 1024 / 100).
    ``cpu_quota_percent`` is of one CPU: 150 means one and a half CPUs.
    """

    memory_bytes: int | None
    memory_swap_bytes: int | None
    pids: int | None
    cpu_weight: int | None
    cpu_quota_percent: int | None
    io_weight: int | None


@dataclass(frozen=True, slots=True)
class EgressGrant:
    """A name (``*.`` wildcard), or an address or network (CIDR), and the TCP ports that it is granted at."""

    target: str
    ports: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ProfilePlan:
    """One profile, resolved for this host, identity and workspace.

    Attributes:
        namespaces: made for the command; ``user`` only where the launcher lacks the privilege to do without.
        network: ``none`` and ``domains`` have their own net namespace; ``ports`` is the host's with Landlock.
        network_domains: names (``*.`` wildcards) that the runner's egress proxy lets through (``domains``).
        network_addresses: addresses and networks (CIDR) that it connects to although private.
        is_tls_required: a tunnel through that proxy carries TLS that names its host, or nothing.
        proxy_port: TCP port on the command's own 127.0.0.1 where that proxy listens; 0 in other modes.
        rlimits: (soft, hard) by lower-case name (``nofile``), in the unit of setrlimit(2).
        seccomp: by architecture as uname(2) has it; a bundle carries the one of its host.
        environment: the whole environment; nothing is inherited.
        required_layers: names of `LAYERS` in `profile.py`; one that cannot be put up refuses the command.
        tmp_bytes: size of each private tmpfs; the number already stands in the mount options.
        umask: as a number.
        count_denials: use the ``notify`` variants.
        exec_notice: other than ``none``: use the ``*_execs`` variants, with a listener outside.
    """

    name: str
    summary: str
    namespaces: frozenset[Namespace]
    network: NetworkMode
    network_domains: tuple[EgressGrant, ...]
    network_addresses: tuple[EgressGrant, ...]
    is_tls_required: bool
    proxy_port: int
    mounts: tuple[MountStep, ...]
    landlock: LandlockPlan | None
    seccomp: dict[str, SeccompFilter]
    rlimits: dict[str, tuple[int, int]]
    cgroup: CgroupLimits
    environment: dict[str, str]
    required_layers: frozenset[str]
    proc: ProcView
    hostname: str
    tmp_bytes: int
    umask: int
    count_denials: bool
    exec_notice: ExecNotice


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """How one of our own processes confines itself, resolved for this host.

    Attributes:
        programs: finished BPF by architecture. Where commands inherit the filter a denied call is handed to a listener
            that nobody has, which the kernel answers with ENOSYS, unless a newer filter says something; see
            `sandbox/processes/init.yaml`. Elsewhere it fails with EPERM.
        capabilities: names of those kept where the process has them.
        bounding_kept: the bounding set keeps the same ones; otherwise none.
        becomes_nobody: with uid 0 it becomes nobody (65534), keeping those capabilities.
        rlimits: (soft, hard) by lower-case name.
        landlock: None where the profile wants none, or may lack it and this host has none.
        digest: sha256 (hex) of the readable filter in `sandbox/compiled/`.
    """

    name: str
    programs: dict[str, bytes]
    capabilities: tuple[str, ...]
    bounding_kept: bool
    becomes_nobody: bool
    rlimits: dict[str, tuple[int, int]]
    landlock: LandlockPlan | None
    digest: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """What one launcher may start: named profiles for one identity and one workspace.

    Attributes:
        workspace: absolute path on the host; the same path is used in the view.
        trusted_path: ``PATH`` of commands, and where the policy resolves program names.
        processes: our own processes by name; the launcher starts with those of launcher, init and monitor only.
    """

    version: int
    profiles: dict[str, ProfilePlan]
    identity: Identity
    workspace: str
    trusted_path: str
    processes: dict[str, ProcessPlan]

    def to_json(self) -> str:
        """Return canonical JSON: sorted keys, no spaces; equal bundles give equal text."""
        return json.dumps(_encode(self), sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Bundle":
        """Read what `to_json` wrote.

        Raises:
            SetupError: not JSON, an unknown, missing or doubled key, a wrong type, or another version.
        """
        try:
            raw = json.loads(text, object_pairs_hook=_object_without_doubles, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise SetupError(f"bundle is not JSON: {error}; compile it again") from error
        bundle = _decode(cls, raw, "bundle")
        if bundle.version != BUNDLE_VERSION:
            raise SetupError(
                f"bundle has version {bundle.version}, this launcher reads {BUNDLE_VERSION}; "
                "install one version of guardhouse and start again"
            )
        return bundle

    @property
    def digest(self) -> str:
        """Sha256 (hex) of the canonical JSON; logged at start, so a change of the wall leaves a trace."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


_T = TypeVar("_T")


def _encode(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _encode(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    if isinstance(value, dict):
        return {key: _encode(item) for key, item in value.items()}
    return value


def _object_without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"a key stands twice among {sorted(key for key, _ in pairs)}")
    return found


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def _wrong(place: str, expected: str, value: Any) -> SetupError:
    return SetupError(f"bundle does not fit: {place} must be {expected}, got {type(value).__name__}; compile it again")


def _decode(kind: type[_T], value: Any, place: str) -> _T:
    """Return ``value`` as ``kind``, strictly: no conversion, no unknown key, no missing key."""
    return typing.cast(_T, _decode_any(kind, value, place))


def _decode_any(kind: Any, value: Any, place: str) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if origin is types.UnionType:
        return None if value is None else _decode_any(args[0], value, place)
    if origin is Literal:
        if not isinstance(value, str) or value not in args:
            raise _wrong(place, f"one of {', '.join(args)}", value)
        return value
    if origin is tuple or origin is frozenset:
        return _decode_sequence(origin, args, value, place)
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(place, "an object", value)
        return {key: _decode_any(args[1], item, f"{place}.{key}") for key, item in value.items()}
    if is_dataclass(kind):
        return _decode_dataclass(kind, value, place)
    if kind is bytes:
        try:
            return base64.b64decode(value, validate=True)
        except (TypeError, ValueError, binascii.Error) as error:
            raise _wrong(place, "base64 text", value) from error
    if type(value) is not kind:  # exact on purpose: True is no int
        raise _wrong(place, kind.__name__, value)
    return value


def _decode_sequence(origin: Any, args: tuple[Any, ...], value: Any, place: str) -> Any:
    if not isinstance(value, list):
        raise _wrong(place, "a list", value)
    if origin is frozenset:
        items = frozenset(_decode_any(args[0], item, f"{place}[]") for item in value)
        if len(items) != len(value):
            raise _wrong(place, "a list without doubles", value)
        return items
    if args[-1] is Ellipsis:
        return tuple(_decode_any(args[0], item, f"{place}[{index}]") for index, item in enumerate(value))
    if len(value) != len(args):
        raise _wrong(place, f"a list of {len(args)}", value)
    return tuple(_decode_any(kind, item, f"{place}[]") for kind, item in zip(args, value, strict=True))


def _decode_dataclass(kind: Any, value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(place, "an object", value)
    hints = get_type_hints(kind)
    if value.keys() != hints.keys():
        odd = ", ".join(sorted(value.keys() ^ hints.keys()))
        raise SetupError(f"bundle does not fit: {place} has unknown or missing keys: {odd}; compile it again")
    return kind(**{name: _decode_any(hint, value[name], f"{place}.{name}") for name, hint in hints.items()})

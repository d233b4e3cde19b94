"""One profile file as it is written: a `Draft`, in which everything may still be missing.

`fold.py` puts drafts on top of each other. Knows the keys of a profile file; knows no host and no group's content.
Runs at boot and in the CLI.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from dataclasses import fields as dataclass_fields
from typing import Final, Literal, TypeVar, cast, get_args

from guardhouse.sandbox.bundle import MountKind, Namespace, NetworkMode, ProcView
from guardhouse.sandbox.documents import ProfileError, Value
from guardhouse.sandbox.load_groups import parse_path, parse_reason, parse_word
from guardhouse.sandbox.plan_egress import DEFAULT_EGRESS_PORTS
from guardhouse.sandbox.profile import (
    CGROUP_LIMITS,
    EXEC_FALLBACKS,
    FOREIGN_ARCHITECTURES,
    LAYERS,
    RLIMITS,
    CgroupLimit,
    Egress,
    Grant,
    Limit,
    Mask,
    Network,
    Port,
    Reason,
    Requirement,
    Setting,
    Switch,
    Tunnels,
    TunnelTls,
    ViewEntry,
    ViewKind,
    WorkspaceAccess,
)

__all__ = ["Draft", "parse_choice", "parse_draft", "parse_group", "parse_limit"]

# Above any use of a single machine, below where a number becomes RLIM_INFINITY by accident.
LIMIT_MAX: Final = 1 << 50
PROXY_PORT_DEFAULT: Final = 3128
NETWORK_ENTRIES_MAX: Final = 4096
EGRESS_PORTS_MAX: Final = 64

_VIEW_KINDS: Final = frozenset(get_args(MountKind)) - {"mask"} | {"system_link"}
_VIEW_OPTION: Final = re.compile(
    r"recursive|nosuid|nodev|noexec|readonly|owner|mode=[0-7]{4}|size=(\d{1,15}|\{tmp_bytes\})|inodes=\d{1,10}"
)
_DOMAIN: Final = re.compile(
    r"(\*\.)?(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.ASCII
)
# As inet_aton(3) reads a last label as a number, no host name ends so.
_NUMERIC_END: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
# Variables that make the loader or an interpreter run other code than the one that was judged.
_CODE_VARIABLES: Final = re.compile(
    r"LD_.*|BASH_ENV|ENV|SHELLOPTS|BASHOPTS|BASH_FUNC_.*|PYTHON(PATH|STARTUP|HOME|INSPECT)|PERL5(LIB|OPT|DB)"
    r"|RUBY(OPT|LIB)|NODE_OPTIONS|GCONV_PATH|LOCPATH|IFS|PROMPT_COMMAND|PS4|GIT_SSH.*|GIT_EXTERNAL_DIFF|EDITOR|VISUAL"
)

_DROPPABLE: Final = (
    *("syscalls", "grant", "mask", "view", "namespace", "environment", "requires", "limit", "cgroup"),
    "architecture",
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Draft:
    """One file's entries; None or empty where it says nothing."""

    name: str
    summary: str
    place: str
    extends: str | None = None
    namespaces: Mapping[str, Reason] = field(default_factory=dict)
    network: Network | None = None
    view: tuple[ViewEntry, ...] = ()
    masks: tuple[Mask, ...] = ()
    mask_groups: Mapping[str, Reason] = field(default_factory=dict)
    grants: tuple[Grant, ...] = ()
    syscalls: Mapping[str, Reason] = field(default_factory=dict)
    architectures: Mapping[str, Reason] = field(default_factory=dict)
    switches: Mapping[str, Switch] = field(default_factory=dict)
    limits: Mapping[str, Limit] = field(default_factory=dict)
    cgroup: Mapping[str, CgroupLimit] = field(default_factory=dict)
    environment: Mapping[str, Setting] = field(default_factory=dict)
    requires: Mapping[str, Requirement] = field(default_factory=dict)
    landlock: tuple[int, Reason] | None = None
    proc: tuple[ProcView, Reason] | None = None
    hostname: Setting | None = None
    tmp: tuple[int, Reason] | None = None
    umask: tuple[int, Reason] | None = None
    count_denials: tuple[bool, Reason] | None = None
    exec_gate: tuple[str, Reason] | None = None
    workspace: tuple[WorkspaceAccess, Reason] | None = None
    root_identity: Reason | None = None
    drops: Mapping[tuple[str, str], Reason] = field(default_factory=dict)


def parse_draft(document: Value) -> Draft:
    """Parse one profile file.

    Raises:
        ProfileError: an unknown key, an entry without a reason, a value that means nothing.
    """
    optional = frozenset(item.name for item in dataclass_fields(Draft)) - {
        "name",
        "place",
        "summary",
        "grants",
        "drops",
    }
    optional |= {"grant", "drop"}
    table = document.as_table(required=frozenset({"profile", "summary"}), optional=optional)

    def each(key: str, parse: Callable[[Value], tuple[str, _T]]) -> dict[str, _T]:
        found: dict[str, _T] = {}
        for entry in table[key].as_list() if key in table else ():
            name, value = parse(entry)
            if name in found:
                raise ProfileError(entry.place, f"{name!r} stands twice under {key!r}")
            found[name] = value
        return found

    def one(key: str, parse: Callable[[Value], _T]) -> _T | None:
        return parse(table[key]) if key in table else None

    drops: dict[tuple[str, str], Reason] = {}
    for entry in table["drop"].as_list() if "drop" in table else ():
        key, reason = _parse_drop(entry)
        if key in drops:
            raise ProfileError(entry.place, f"{key[0]} {key[1]!r} is dropped twice")
        drops[key] = reason
    return Draft(
        name=parse_word(table["profile"], "profile name"),
        summary=table["summary"].as_text(),
        place=document.place,
        extends=_parse_extends(table["extends"]) if "extends" in table else None,
        namespaces=each("namespaces", _parse_namespace),
        network=one("network", _parse_network),
        view=tuple(each("view", _parse_view).values()),
        masks=tuple(each("masks", _parse_mask).values()),
        mask_groups=each("mask_groups", parse_group),
        grants=tuple(each("grant", _parse_grant).values()),
        syscalls=each("syscalls", parse_group),
        architectures=each("architectures", _parse_architecture),
        switches=each("switches", _parse_switch),
        limits=each("limits", parse_limit),
        cgroup=each("cgroup", _parse_cgroup),
        environment=each("environment", _parse_environment),
        requires=each("requires", _parse_requirement),
        landlock=one("landlock", lambda v: _number(v, "minimum_abi", minimum=0, maximum=100)),
        proc=one("proc", lambda v: _choice(v, "view", get_args(ProcView))),  # type: ignore[arg-type]  # one of them
        hostname=one("hostname", _parse_hostname),
        tmp=one("tmp", _parse_tmp),
        umask=one("umask", _parse_umask),
        count_denials=one("count_denials", _parse_count_denials),
        exec_gate=one("exec_gate", lambda v: _choice(v, "fallback", EXEC_FALLBACKS)),
        workspace=one("workspace", lambda v: _choice(v, "access", get_args(WorkspaceAccess))),  # type: ignore[arg-type]  # as above
        root_identity=one("root_identity", _parse_bare_reason),
        drops=drops,
    )


def _fields(entry: Value, *required: str, optional: tuple[str, ...] = ()) -> Mapping[str, Value]:
    return entry.as_table(required=frozenset({"why", *required}), optional=frozenset(optional))


def _parse_extends(value: Value) -> str:
    text = value.as_text()
    return text if "/" in text or text.endswith(".yaml") else parse_word(value, "profile name")


def _parse_namespace(entry: Value) -> tuple[str, Reason]:
    fields = _fields(entry, "namespace")
    name = fields["namespace"].as_text()
    known = tuple(item for item in get_args(Namespace) if item != "user")
    if name not in known:
        raise ProfileError(
            fields["namespace"].place,
            f"unknown namespace {name!r}; known: {', '.join(known)} (user is made where it is needed)",
        )
    return name, parse_reason(entry)


def parse_group(entry: Value) -> tuple[str, Reason]:
    """Return the name and the reason of an entry ``{group: …, why: …}``."""
    fields = _fields(entry, "group")
    return parse_word(fields["group"], "group name"), parse_reason(entry)


def _parse_architecture(entry: Value) -> tuple[str, Reason]:
    fields = _fields(entry, "architecture")
    return parse_choice(fields["architecture"], tuple(FOREIGN_ARCHITECTURES)), parse_reason(entry)


def _parse_switch(entry: Value) -> tuple[str, Switch]:
    fields = _fields(entry, "switch", "groups")
    groups = tuple(parse_word(item, "group name") for item in fields["groups"].as_list())
    return parse_word(fields["switch"], "switch name"), Switch(groups=groups, reason=parse_reason(entry))


def _parse_mask(entry: Value) -> tuple[str, Mask]:
    fields = _fields(entry, "path")
    path = parse_path(fields["path"])
    if path == "/":
        raise ProfileError(fields["path"].place, "the root cannot be masked")
    return path, Mask(path=path, group="", reason=parse_reason(entry))


def _parse_grant(entry: Value) -> tuple[str, Grant]:
    table = entry.as_table(
        required=frozenset({"why"}), optional=frozenset({"path", "socket", "kubeconfig", "optional", "writable"})
    )
    kinds = [kind for kind in ("path", "socket", "kubeconfig") if kind in table]
    if len(kinds) != 1:
        raise ProfileError(entry.place, "a grant names one of path, socket and kubeconfig")
    kind = cast(Literal["path", "socket", "kubeconfig"], kinds[0])
    writable = table["writable"].as_flag() if "writable" in table else False
    if writable and kind != "path":
        raise ProfileError(table["writable"].place, f"a {kind} is not written; only a path may be writable")
    path = parse_path(table[kind])
    if path == "/":
        raise ProfileError(table[kind].place, "the root cannot be granted; name what is needed")
    optional = table["optional"].as_flag() if "optional" in table else False
    return path, Grant(kind, path, writable, optional, parse_reason(entry))


def _parse_view(entry: Value) -> tuple[str, ViewEntry]:
    table = entry.as_table(
        required=frozenset({"why"}), optional=frozenset({*_VIEW_KINDS, "from", "text", "options", "optional"})
    )
    kinds = sorted(_VIEW_KINDS & table.keys())
    if len(kinds) != 1:
        raise ProfileError(entry.place, f"an entry of the view has one of {', '.join(sorted(_VIEW_KINDS))}")
    kind = kinds[0]
    target = parse_path(table[kind])
    binds = kind in {"bind", "bind_readonly"}
    if ("from" in table) and not binds:
        raise ProfileError(table["from"].place, "'from' belongs to bind and bind_readonly")
    if ("text" in table) != (kind in {"file", "symlink"}):
        raise ProfileError(entry.place, "'text' belongs to file and symlink, and they need it")
    source = target if binds or kind == "system_link" else ""
    if "from" in table:
        source = parse_path(table["from"])
    if "text" in table:
        source = table["text"].as_text()
    options = tuple(_parse_option(item) for item in table["options"].as_list()) if "options" in table else ()
    optional = table["optional"].as_flag() if "optional" in table else False
    shown = cast(ViewKind, kind)
    return target, ViewEntry(shown, source, target, options, optional, parse_reason(entry))


def _parse_option(item: Value) -> str:
    text = item.as_text()
    if not _VIEW_OPTION.fullmatch(text):
        raise ProfileError(item.place, f"unknown mount option {text!r}")
    return text


def _parse_network(value: Value) -> Network:
    table = value.as_table(
        required=frozenset({"mode", "why"}),
        optional=frozenset({"ports", "domains", "addresses", "tunnels", "proxy_port"}),
    )
    mode = parse_choice(table["mode"], get_args(NetworkMode))
    for key, belongs in (
        ("ports", ("ports", "domains")),
        ("domains", ("domains",)),
        ("addresses", ("domains",)),
        ("tunnels", ("domains",)),
        ("proxy_port", ("domains",)),
    ):
        if key in table and mode not in belongs:
            raise ProfileError(table[key].place, f"{key!r} belongs to mode {' and '.join(belongs)}, not to {mode}")
    for key in ("ports", "domains"):
        if mode == key and key not in table:
            raise ProfileError(value.place, f"mode {mode} needs a list {key!r}")
    ports = tuple(_parse_port(item) for item in _bounded_list(table, "ports"))
    domains = tuple(_parse_domain(item) for item in _bounded_list(table, "domains"))
    addresses = tuple(_parse_address(item) for item in _bounded_list(table, "addresses"))
    _check_own_ports(mode, ports)
    proxy = PROXY_PORT_DEFAULT if mode == "domains" else 0
    if "proxy_port" in table:
        proxy = table["proxy_port"].as_integer(minimum=1024, maximum=65535)
    tunnels = _parse_tunnels(table["tunnels"]) if "tunnels" in table else Tunnels("named", parse_reason(value))
    return Network(cast(NetworkMode, mode), ports, domains, addresses, tunnels, proxy, parse_reason(value))


def _bounded_list(table: Mapping[str, Value], key: str) -> tuple[Value, ...]:
    items = table[key].as_list() if key in table else ()
    if len(items) > NETWORK_ENTRIES_MAX:
        raise ProfileError(table[key].place, f"{len(items)} entries are more than {NETWORK_ENTRIES_MAX}")
    return items


def _parse_port(entry: Value) -> Port:
    table = entry.as_table(required=frozenset({"why"}), optional=frozenset({"connect", "bind"}))
    if ("connect" in table) == ("bind" in table):
        raise ProfileError(entry.place, "a port is for either connect or bind")
    if "connect" in table:
        return Port(table["connect"].as_integer(minimum=1, maximum=65535), "connect", parse_reason(entry))
    return Port(table["bind"].as_integer(minimum=0, maximum=65535), "bind", parse_reason(entry))


def _parse_tunnels(entry: Value) -> Tunnels:
    tls = parse_choice(_fields(entry, "tls")["tls"], get_args(TunnelTls))
    return Tunnels(cast(TunnelTls, tls), parse_reason(entry))


def _check_own_ports(mode: str, ports: tuple[Port, ...]) -> None:
    for port in ports:
        if mode == "domains" and port.direction == "bind":
            raise ProfileError(
                port.reason.place, "in mode domains every port of the command's own loopback may be bound already"
            )


def _parse_egress_ports(fields: Mapping[str, Value]) -> tuple[int, ...]:
    if "ports" not in fields:
        return DEFAULT_EGRESS_PORTS
    items = fields["ports"].as_list()
    ports = tuple(item.as_integer(minimum=1, maximum=65535) for item in items)
    if not ports or len(set(ports)) != len(ports) or len(ports) > EGRESS_PORTS_MAX:
        raise ProfileError(
            fields["ports"].place, f"from 1 to {EGRESS_PORTS_MAX} different ports are wanted here, not {len(ports)}"
        )
    return ports


def _parse_domain(entry: Value) -> Egress:
    fields = _fields(entry, "domain", optional=("ports",))
    name = fields["domain"].as_text()
    if not _DOMAIN.fullmatch(name):
        raise ProfileError(
            fields["domain"].place,
            f"{name!r} is no host name in lower case ASCII, and a wildcard is a leading '*.' only",
        )
    if _NUMERIC_END.fullmatch(name.rpartition(".")[2]):
        raise ProfileError(fields["domain"].place, f"{name!r} is an address; it belongs under 'addresses'")
    return Egress(name, _parse_egress_ports(fields), parse_reason(entry))


def _parse_address(entry: Value) -> Egress:
    fields = _fields(entry, "address", optional=("ports",))
    text = fields["address"].as_text()
    try:
        network = ipaddress.ip_network(text, strict=True)
    except ValueError as error:
        raise ProfileError(fields["address"].place, f"not an address or network: {error}") from error
    return Egress(str(network), _parse_egress_ports(fields), parse_reason(entry))


def parse_limit(entry: Value) -> tuple[str, Limit]:
    """Return the name and the numbers of an entry ``{limit: …, soft: …, hard: …, why: …}``."""
    fields = _fields(entry, "limit", "soft", "hard")
    name = parse_choice(fields["limit"], tuple(RLIMITS))
    if RLIMITS[name] == "bytes" and fields["soft"].text != "0":
        soft = fields["soft"].as_size_bytes(minimum=0, maximum=LIMIT_MAX)
        hard = fields["hard"].as_size_bytes(minimum=0, maximum=LIMIT_MAX)
    else:
        soft = fields["soft"].as_integer(minimum=0, maximum=LIMIT_MAX)
        hard = fields["hard"].as_integer(minimum=0, maximum=LIMIT_MAX)
    if soft > hard:
        raise ProfileError(fields["soft"].place, f"soft limit {soft} is above the hard limit {hard}")
    return name, Limit(soft=soft, hard=hard, reason=parse_reason(entry))


def _parse_cgroup(entry: Value) -> tuple[str, CgroupLimit]:
    fields = _fields(entry, "limit", "value")
    name = parse_choice(fields["limit"], tuple(CGROUP_LIMITS))
    minimum, maximum = CGROUP_LIMITS[name]
    value = fields["value"]
    read = value.as_size_bytes if name.endswith("_bytes") else value.as_integer
    return name, CgroupLimit(value=read(minimum=minimum, maximum=maximum), reason=parse_reason(entry))


def _parse_environment(entry: Value) -> tuple[str, Setting]:
    fields = _fields(entry, "name", "value")
    name = fields["name"].as_text()
    if not _VARIABLE.fullmatch(name):
        raise ProfileError(fields["name"].place, f"{name!r} is no variable name")
    if _CODE_VARIABLES.fullmatch(name):
        raise ProfileError(
            fields["name"].place, f"{name} makes programs load or run other code; a profile cannot set it"
        )
    return name, Setting(value=fields["value"].as_text(), reason=parse_reason(entry))


def _parse_requirement(entry: Value) -> tuple[str, Requirement]:
    fields = _fields(entry, "layer", optional=("unless",))
    layer = parse_choice(fields["layer"], tuple(LAYERS))
    unless = parse_choice(fields["unless"], ("user_namespace",)) if "unless" in fields else ""
    return layer, Requirement(unless_user_namespace=bool(unless), reason=parse_reason(entry))


def _parse_hostname(value: Value) -> Setting:
    fields = _fields(value, "name")
    name = fields["name"].as_text()
    if name != "{host}" and not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name):
        raise ProfileError(fields["name"].place, f"{name!r} is no host name; write one label, or {{host}}")
    return Setting(value=name, reason=parse_reason(value))


def _parse_tmp(value: Value) -> tuple[int, Reason]:
    fields = _fields(value, "size")
    return fields["size"].as_size_bytes(minimum=1 << 16, maximum=LIMIT_MAX), parse_reason(value)


def _parse_umask(value: Value) -> tuple[int, Reason]:
    fields = _fields(value, "mode")
    text = fields["mode"].as_text()
    if not re.fullmatch(r"0[0-7]{3}", text):
        raise ProfileError(fields["mode"].place, f"{text!r} is no mode of four octal digits")
    return int(text, 8), parse_reason(value)


def _parse_count_denials(value: Value) -> tuple[bool, Reason]:
    fields = _fields(value, "enabled")
    return fields["enabled"].as_flag(), parse_reason(value)


def _parse_bare_reason(value: Value) -> Reason:
    _fields(value)
    return parse_reason(value)


def _parse_drop(entry: Value) -> tuple[tuple[str, str], Reason]:
    table = entry.as_table(required=frozenset({"why"}), optional=frozenset(_DROPPABLE))
    kinds = [kind for kind in _DROPPABLE if kind in table]
    if len(kinds) != 1:
        raise ProfileError(entry.place, f"an entry drops one of {', '.join(_DROPPABLE)}")
    return (kinds[0], table[kinds[0]].as_text()), parse_reason(entry)


def _number(value: Value, key: str, *, minimum: int, maximum: int) -> tuple[int, Reason]:
    fields = _fields(value, key)
    return fields[key].as_integer(minimum=minimum, maximum=maximum), parse_reason(value)


def _choice(value: Value, key: str, known: tuple[str, ...]) -> tuple[str, Reason]:
    fields = _fields(value, key)
    return parse_choice(fields[key], known), parse_reason(value)


def parse_choice(value: Value, known: tuple[str, ...]) -> str:
    """Return the word if it is one of ``known``."""
    text = value.as_text()
    if text not in known:
        raise ProfileError(value.place, f"unknown word {text!r}; known here: {', '.join(known)}")
    return text

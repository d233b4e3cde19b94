"""One file of `sandbox/processes/`: how one of our own processes confines itself.

Knows the keys of such a file and which of them go together; knows no host. Runs at boot and in the CLI.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

from guardhouse.sandbox.documents import ProfileError, Value
from guardhouse.sandbox.load_groups import parse_path, parse_reason, parse_word
from guardhouse.sandbox.parse_profile import parse_choice, parse_group, parse_limit
from guardhouse.sandbox.plan_landlock import SCOPE_SINCE
from guardhouse.sandbox.profile import OwnPath, ProcessProfile, Reason, SyscallGroup

__all__ = ["CAPABILITIES", "CONFINING_LAYERS", "extended_process", "parse_process"]

# The layers that a process puts around itself; namespaces and views are for those it starts.
CONFINING_LAYERS: Final = ("rlimits", "capabilities", "no_new_privs", "landlock", "seccomp")

# Those of linux/capability.h that a process of ours may say it needs; `kernel/credentials.py` has their numbers.
CAPABILITIES: Final = (
    "dac_override",
    "dac_read_search",
    "kill",
    "net_admin",
    "setgid",
    "setpcap",
    "setuid",
    "sys_admin",
    "sys_ptrace",
)

_PLACEHOLDER: Final = re.compile(r"\{[a-z_]{1,32}\}", re.ASCII)
_REQUIRED: Final = frozenset(
    {"process", "summary", "inherited", "syscalls", "capabilities", "bounding", "landlock", "requires"}
)
_OPTIONAL: Final = frozenset({"extends", "read", "write", "limits", "may_lack", "nobody"})

_T = TypeVar("_T")


def extended_process(document: Value) -> str | None:
    """Return the name of the process whose system calls this one has as well, if any."""
    table = document.as_table(required=_REQUIRED, optional=_OPTIONAL)
    return parse_word(table["extends"], "process name") if "extends" in table else None


def parse_process(
    document: Value, *, groups: Mapping[str, SyscallGroup], extended: ProcessProfile | None
) -> ProcessProfile:
    """Parse one file.

    Args:
        groups: every group that a process of ours may name, commands' and its own.
        extended: the process it extends; only that one's system calls are taken over, all else is said anew.

    Raises:
        ProfileError: an unknown key, an entry without a reason, a layer of which nothing is said.
    """
    table = document.as_table(required=_REQUIRED, optional=_OPTIONAL)
    inherited = table["inherited"].as_table(required=frozenset({"by_commands", "why"}), optional=frozenset())
    bounding = table["bounding"].as_table(required=frozenset({"keep", "why"}), optional=frozenset())
    landlock = table["landlock"].as_table(required=frozenset({"scoped", "files", "why"}), optional=frozenset())
    own = _each(table.get("syscalls"), parse_group)
    for name, reason in own.items():
        if name not in groups:
            raise ProfileError(reason.place, f"unknown group {name!r}; known: {', '.join(sorted(groups))}")
    syscalls = {**(extended.syscalls if extended else {}), **own}
    profile = ProcessProfile(
        name=parse_word(table["process"], "process name"),
        summary=table["summary"].as_text().strip(),
        place=document.place,
        inherited=inherited["by_commands"].as_flag(),
        inherited_reason=parse_reason(table["inherited"]),
        groups={name: groups[name] for name in sorted(syscalls)},
        syscalls=syscalls,
        capabilities=_each(table["capabilities"], _parse_capability),
        bounding_kept=parse_choice(bounding["keep"], ("none", "capabilities")) == "capabilities",
        bounding_reason=parse_reason(table["bounding"]),
        nobody=_parse_bare(table["nobody"]) if "nobody" in table else None,
        scoped=tuple(parse_choice(item, tuple(SCOPE_SINCE)) for item in landlock["scoped"].as_list()),
        files_listed=parse_choice(landlock["files"], ("none", "listed")) == "listed",
        landlock_reason=parse_reason(table["landlock"]),
        paths=(
            *_each(table.get("read"), partial(_parse_path, writable=False)).values(),
            *_each(table.get("write"), partial(_parse_path, writable=True)).values(),
        ),
        limits=_each(table.get("limits"), parse_limit),
        requires=_each(table["requires"], _parse_layer),
        may_lack=_each(table.get("may_lack"), _parse_layer),
    )
    _check_sense(profile)
    return profile


def _each(value: Value | None, parse: Callable[[Value], tuple[str, _T]]) -> dict[str, _T]:
    found: dict[str, _T] = {}
    for entry in value.as_list() if value is not None else ():
        name, item = parse(entry)
        if name in found:
            raise ProfileError(entry.place, f"{name!r} stands twice")
        found[name] = item
    return found


def _parse_capability(entry: Value) -> tuple[str, Reason]:
    table = entry.as_table(required=frozenset({"keep", "why"}), optional=frozenset())
    return parse_choice(table["keep"], CAPABILITIES), parse_reason(entry)


def _parse_layer(entry: Value) -> tuple[str, Reason]:
    table = entry.as_table(required=frozenset({"layer", "why"}), optional=frozenset())
    return parse_choice(table["layer"], CONFINING_LAYERS), parse_reason(entry)


def _parse_bare(value: Value) -> Reason:
    value.as_table(required=frozenset({"why"}), optional=frozenset())
    return parse_reason(value)


def _parse_path(entry: Value, *, writable: bool) -> tuple[str, OwnPath]:
    table = entry.as_table(required=frozenset({"path", "why"}), optional=frozenset({"optional"}))
    text = table["path"].as_text()
    path = text if _PLACEHOLDER.fullmatch(text) else parse_path(table["path"])
    optional = table["optional"].as_flag() if "optional" in table else False
    return path, OwnPath(path, writable, optional, parse_reason(entry))


def _check_sense(profile: ProcessProfile) -> None:
    uses: Sequence[tuple[str, object]] = (
        ("rlimits", profile.limits),
        ("capabilities", True),
        ("no_new_privs", True),
        ("landlock", profile.scoped or profile.files_listed),
        ("seccomp", True),
    )
    for layer, is_used in uses:
        said = (layer in profile.requires) + (layer in profile.may_lack)
        if is_used and said != 1:
            raise ProfileError(
                profile.place, f"process {profile.name!r} must name {layer} under 'requires' or under 'may_lack'"
            )
        if said and not is_used:
            raise ProfileError(profile.place, f"process {profile.name!r} names {layer} but asks nothing of it")
    if profile.paths and not profile.files_listed:
        raise ProfileError(profile.place, "'read' and 'write' need 'landlock: {files: listed}'")
    if profile.inherited and profile.files_listed:
        raise ProfileError(profile.landlock_reason.place, "a process whose children mount cannot handle files")

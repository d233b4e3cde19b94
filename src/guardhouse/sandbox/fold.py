"""Put drafts on top of each other, the extended one first, and check that the whole makes sense.

An entry with the same name replaces the earlier one where it stands; `drop:` takes one away. Runs at boot, in the CLI.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from guardhouse.sandbox.documents import ProfileError
from guardhouse.sandbox.parse_profile import Draft
from guardhouse.sandbox.profile import EXEC_FALLBACKS, Grant, Mask, Profile, SyscallGroup, ViewEntry

__all__ = ["fold_drafts"]

_V = TypeVar("_V")
_E = TypeVar("_E", ViewEntry, Mask, Grant)


def fold_drafts(
    drafts: Sequence[Draft], *, groups: Mapping[str, SyscallGroup], masks: Mapping[str, tuple[Mask, ...]]
) -> Profile:
    """Return the profile that the last of ``drafts`` describes.

    Args:
        drafts: the furthest ancestor first.
        groups: every known group of system calls.
        masks: every known group of masks.

    Raises:
        ProfileError: a group is unknown, a part that every profile needs is missing, or parts contradict each other.
    """
    last = drafts[-1]
    tables = _Tables(drafts)
    view = _entries((draft.view for draft in drafts), tables, "view", key=lambda entry: entry.target)
    mask_entries = _entries((_masks_of(draft, masks) for draft in drafts), tables, "mask", key=lambda m: m.path)
    grants = _entries((draft.grants for draft in drafts), tables, "grant", key=lambda grant: grant.path)
    network = _needed(last, "network", [draft.network for draft in drafts])
    syscalls = tables.merge("syscalls", [draft.syscalls for draft in drafts])
    if network.mode == "domains":
        # Without it no program reaches the proxy; whoever writes the mode means it.
        syscalls.setdefault("sockets_tcp", network.reason)
    switches = tables.merge("switch", [draft.switches for draft in drafts])
    used = {name: place for draft in drafts for name, place in _group_places(draft).items()}
    used |= {name: reason.place for name, reason in syscalls.items()}
    for name, place in used.items():
        if name not in groups:
            raise ProfileError(place, f"unknown group {name!r}; known: {', '.join(sorted(groups))}")
    minimum_abi, landlock_reason = _needed(last, "landlock", [draft.landlock for draft in drafts])
    proc, proc_reason = _needed(last, "proc", [draft.proc for draft in drafts])
    exec_gate = next((draft.exec_gate for draft in reversed(drafts) if draft.exec_gate), None)
    workspace, workspace_reason = _needed(last, "workspace", [draft.workspace for draft in drafts])
    profile = Profile(
        name=last.name,
        summary=last.summary,
        place=last.place,
        ancestry=tuple(draft.name for draft in drafts),
        namespaces=tables.merge("namespace", [draft.namespaces for draft in drafts]),
        network=network,
        view=view,
        masks=mask_entries,
        grants=grants,
        groups={name: groups[name] for name in sorted(used)},
        syscalls=syscalls,
        architectures=tables.merge("architecture", [draft.architectures for draft in drafts]),
        switches=switches,
        limits=tables.merge("limit", [draft.limits for draft in drafts]),
        cgroup=tables.merge("cgroup", [draft.cgroup for draft in drafts]),
        environment=tables.merge("environment", [draft.environment for draft in drafts]),
        requires=tables.merge("requires", [draft.requires for draft in drafts]),
        landlock_minimum_abi=minimum_abi,
        landlock_reason=landlock_reason,
        proc=proc,
        proc_reason=proc_reason,
        hostname=_needed(last, "hostname", [draft.hostname for draft in drafts]),
        tmp_bytes=_needed(last, "tmp", [draft.tmp for draft in drafts])[0],
        umask=_needed(last, "umask", [draft.umask for draft in drafts])[0],
        count_denials=_needed(last, "count_denials", [draft.count_denials for draft in drafts])[0],
        workspace=workspace,
        workspace_reason=workspace_reason,
        exec_fallback=exec_gate[0] if exec_gate else EXEC_FALLBACKS[0],
        exec_fallback_reason=exec_gate[1] if exec_gate else None,
        root_identity=next((draft.root_identity for draft in reversed(drafts) if draft.root_identity), None),
    )
    tables.check_every_drop_was_used()
    _check_sense(profile)
    return profile


class _Tables:
    """Merges of named entries, with `drop:` applied at the level where it stands."""

    def __init__(self, drafts: Sequence[Draft]) -> None:
        self._drafts = drafts
        self._unused = {key: reason.place for draft in drafts for key, reason in draft.drops.items()}

    def merge(self, kind: str, levels: Sequence[Mapping[str, _V]]) -> dict[str, _V]:
        merged: dict[str, _V] = {}
        for draft, level in zip(self._drafts, levels, strict=True):
            for dropped, item in draft.drops:
                if dropped == kind and item in merged:
                    del merged[item]
                    self._unused.pop((kind, item), None)
            merged.update(level)
        return merged

    def check_every_drop_was_used(self) -> None:
        for (kind, item), place in self._unused.items():
            raise ProfileError(place, f"there is no {kind} {item!r} to drop")


def _entries(levels: Iterable[Sequence[_E]], tables: _Tables, kind: str, *, key: Callable[[_E], str]) -> tuple[_E, ...]:
    return tuple(tables.merge(kind, [{key(entry): entry for entry in level} for level in levels]).values())


def _masks_of(draft: Draft, masks: Mapping[str, tuple[Mask, ...]]) -> tuple[Mask, ...]:
    found: dict[str, Mask] = {}
    for group, reason in draft.mask_groups.items():
        if group not in masks:
            raise ProfileError(reason.place, f"unknown masks {group!r}; known: {', '.join(sorted(masks))}")
        found.update({mask.path: mask for mask in masks[group]})
    found.update({mask.path: mask for mask in draft.masks})
    return tuple(found.values())


def _group_places(draft: Draft) -> dict[str, str]:
    places = {name: reason.place for name, reason in draft.syscalls.items()}
    for switch in draft.switches.values():
        places.update(dict.fromkeys(switch.groups, switch.reason.place))
    return places


def _needed(last: Draft, what: str, levels: Sequence[_V | None]) -> _V:
    for level in reversed(levels):
        if level is not None:
            return level
    raise ProfileError(last.place, f"profile {last.name!r} says nothing of {what!r}; extend base or write it")


def _check_sense(profile: Profile) -> None:
    """Refuse combinations that promise more than the kernel can hold."""
    mode, place = profile.network.mode, profile.network.reason.place
    own_net = "net" in profile.namespaces
    if mode in {"none", "domains"} and not own_net and profile.name != "base":
        raise ProfileError(place, f"network mode {mode} needs the namespace 'net'")
    if mode in {"host", "ports"} and own_net:
        raise ProfileError(place, f"network mode {mode} is the host's network: drop the namespace 'net'")
    if mode == "ports" and "sockets_udp" in profile.syscalls:
        raise ProfileError(
            place, "network mode ports cannot bound UDP (Landlock does not see it): drop the group sockets_udp"
        )
    if mode == "ports" and ("landlock" not in profile.requires or profile.landlock_minimum_abi < 4):
        raise ProfileError(place, "network mode ports needs landlock required with minimum_abi 4 or more")
    if profile.proc == "host" and "landlock" not in profile.requires:
        raise ProfileError(
            profile.proc_reason.place, "the host's /proc needs landlock required, or other processes can be read"
        )
    for namespace in ("mount", "pid"):
        if namespace not in profile.namespaces:
            raise ProfileError(profile.place, f"profile {profile.name!r} needs the namespace {namespace!r}")
    if profile.view and profile.view[0].target != "/":
        raise ProfileError(profile.view[0].reason.place, "the first entry of a view makes its root '/'")
    for entry in profile.view[1:]:
        if entry.target == "/":
            raise ProfileError(entry.reason.place, "only the first entry of a view makes its root '/'")

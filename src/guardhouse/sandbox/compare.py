"""What changes when one profile takes the place of another: what widens, what narrows, what merely differs.

"Widens" means that a command may do something under the second that it may not under the first. Where that cannot be
said for certain, a change counts as widening. Runs in the CLI and in tests that guard the shipped profiles.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from guardhouse.sandbox.profile import EXEC_FALLBACKS, Egress, Profile
from guardhouse.sandbox.rules import alternatives_in_words, resolve_rules

__all__ = ["Change", "compare_profiles"]

Direction = Literal["widens", "narrows", "differs"]

_NETWORK_RANK = {"none": 0, "domains": 1, "ports": 2, "host": 3}
_WORKSPACE_RANK = {"none": 0, "read_only": 1, "read_write": 2}
# Of the limits, a higher number permits more.
_NOT_A_PERMISSION = frozenset({"cpu_weight", "io_weight"})


@dataclass(frozen=True, slots=True)
class Change:
    """One difference from the first profile to the second."""

    direction: Direction
    subject: str
    text: str


def compare_profiles(first: Profile, second: Profile) -> tuple[Change, ...]:
    """Return every change of what a command may do, widening ones first."""
    changes = [
        *_namespaces(first, second),
        *_network(first, second),
        *_view(first, second),
        *_masks_and_grants(first, second),
        *_architectures(first, second),
        *_calls(first, second),
        *_numbers("limit", _hard(first), _hard(second)),
        *_numbers("cgroup", _values(first), _values(second)),
        *_requirements(first, second),
        *_single_settings(first, second),
    ]
    order = {"widens": 0, "narrows": 1, "differs": 2}
    return tuple(sorted(changes, key=lambda change: (order[change.direction], change.subject, change.text)))


def _namespaces(first: Profile, second: Profile) -> Iterator[Change]:
    for name in sorted(first.namespaces.keys() - second.namespaces.keys()):
        yield Change("widens", "namespace", f"{name} is the host's")
    for name in sorted(second.namespaces.keys() - first.namespaces.keys()):
        yield Change("narrows", "namespace", f"{name} is the command's own")


def _network(first: Profile, second: Profile) -> Iterator[Change]:
    before, after = first.network, second.network
    if before.mode != after.mode:
        wider = _NETWORK_RANK[after.mode] > _NETWORK_RANK[before.mode]
        yield Change("widens" if wider else "narrows", "network", f"mode {before.mode} becomes {after.mode}")
    if before.mode == after.mode and before.tunnels.tls != after.tunnels.tls:
        change = f"tunnels tls {before.tunnels.tls} becomes {after.tunnels.tls}"
        yield Change("widens" if after.tunnels.tls == "named" else "narrows", "network", change)
    sets = (
        ("port", {f"{p.direction} {p.port}" for p in before.ports}, {f"{p.direction} {p.port}" for p in after.ports}),
        ("domain", _egress(before.domains), _egress(after.domains)),
        ("address", _egress(before.addresses), _egress(after.addresses)),
    )
    for what, old, new in sets:
        yield from (Change("widens", "network", f"{what} {item} is let through") for item in sorted(new - old))
        yield from (Change("narrows", "network", f"{what} {item} is shut") for item in sorted(old - new))


def _egress(entries: tuple[Egress, ...]) -> set[str]:
    return {f"{entry.target} port {port}" for entry in entries for port in entry.ports}


def _view(first: Profile, second: Profile) -> Iterator[Change]:
    before = {entry.target: entry for entry in first.view}
    after = {entry.target: entry for entry in second.view}
    hiding = frozenset({"tmpfs", "dev", "proc", "dir", "file", "symlink"})
    for target in sorted(before.keys() | after.keys()):
        old, new = before.get(target), after.get(target)
        if old is None and new is not None:
            covers = new.kind in hiding and "bind" in after["/"].kind
            yield Change("narrows" if covers else "widens", "view", f"{target} is {_kind_words(new.kind)}")
        elif new is None and old is not None:
            uncovers = old.kind in hiding and "bind" in after["/"].kind
            yield Change("widens" if uncovers else "narrows", "view", f"{target} is no longer {_kind_words(old.kind)}")
        elif (
            old is not None
            and new is not None
            and (old.kind, old.source, old.options)
            != (
                new.kind,
                new.source,
                new.options,
            )
        ):
            narrower = new.kind in hiding and old.kind in {"bind", "bind_readonly"}
            narrower |= (old.kind, new.kind) == ("bind", "bind_readonly")
            was = f"was {_kind_words(old.kind)} {list(old.options)}"
            now = f"is {_kind_words(new.kind)} {list(new.options)}"
            yield Change("narrows" if narrower else "widens", "view", f"{target} {was}, {now}")


def _kind_words(kind: str) -> str:
    words = {"bind": "the host's, writable", "bind_readonly": "the host's, read-only", "tmpfs": "an empty tmpfs"}
    return words.get(kind, kind)


def _masks_and_grants(first: Profile, second: Profile) -> Iterator[Change]:
    shows_host = "bind" in second.view[0].kind if second.view else False
    old_masks, new_masks = {m.path for m in first.masks}, {m.path for m in second.masks}
    for path in sorted(old_masks - new_masks):
        yield Change("widens" if shows_host else "differs", "mask", f"{path} is not covered")
    for path in sorted(new_masks - old_masks):
        yield Change("narrows", "mask", f"{path} is covered")
    old_grants = {(g.path, g.writable) for g in first.grants}
    new_grants = {(g.path, g.writable) for g in second.grants}
    for path, writable in sorted(new_grants - old_grants):
        yield Change("widens", "grant", f"{path} is granted{' writable' if writable else ''}")
    for path, writable in sorted(old_grants - new_grants):
        yield Change("narrows", "grant", f"{path} is no longer granted{' writable' if writable else ''}")


def _calls(first: Profile, second: Profile) -> Iterator[Change]:
    for architecture in ("x86_64", "aarch64"):
        before, after = _permissions(first, architecture), _permissions(second, architecture)
        for call, text in sorted(after.items() - before.items()):
            yield Change("widens", f"system call on {architecture}", f"{call}{text}")
        for call, text in sorted(before.items() - after.items()):
            yield Change("narrows", f"system call on {architecture}", f"{call}{text}")


def _architectures(first: Profile, second: Profile) -> Iterator[Change]:
    """Yield whole tables that come or go; what changes inside one that both have follows from the native calls."""
    for name in sorted(second.architectures.keys() - first.architectures.keys()):
        yield Change("widens", "architecture", f"programs and calls of {name} are let through")
    for name in sorted(first.architectures.keys() - second.architectures.keys()):
        yield Change("narrows", "architecture", f"programs and calls of {name} are shut out")


def _permissions(profile: Profile, architecture: str) -> dict[str, str]:
    rules = resolve_rules(profile, architecture=architecture, switches=frozenset())
    flat = {text: "" for rule in rules.allow for text in alternatives_in_words(rule)}
    flat.update({f"{answer.call} answers {answer.errno}": "" for answer in rules.answers})
    return flat


def _hard(profile: Profile) -> dict[str, int]:
    return {name: limit.hard for name, limit in profile.limits.items()}


def _values(profile: Profile) -> dict[str, int]:
    return {name: limit.value for name, limit in profile.cgroup.items()}


def _numbers(subject: str, before: Mapping[str, int], after: Mapping[str, int]) -> Iterator[Change]:
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        direction: Direction = "widens" if new is None or (old is not None and new > old) else "narrows"
        if name in _NOT_A_PERMISSION:
            direction = "differs"
        yield Change(direction, subject, f"{name} was {_or_none(old)}, is {_or_none(new)}")


def _or_none(number: int | None) -> str:
    return "unlimited" if number is None else str(number)


def _requirements(first: Profile, second: Profile) -> Iterator[Change]:
    for layer in sorted(first.requires.keys() - second.requires.keys()):
        yield Change("widens", "requires", f"{layer} is no longer required")
    for layer in sorted(second.requires.keys() - first.requires.keys()):
        yield Change("narrows", "requires", f"{layer} is required")
    if first.landlock_minimum_abi != second.landlock_minimum_abi:
        wider = second.landlock_minimum_abi < first.landlock_minimum_abi
        text = f"landlock ABI {first.landlock_minimum_abi} becomes {second.landlock_minimum_abi}"
        yield Change("widens" if wider else "narrows", "requires", text)


def _single_settings(first: Profile, second: Profile) -> Iterator[Change]:
    if first.exec_fallback != second.exec_fallback:
        narrows = EXEC_FALLBACKS.index(second.exec_fallback) < EXEC_FALLBACKS.index(first.exec_fallback)
        direction: Direction = "narrows" if narrows else "widens"
        yield Change(direction, "exec_gate", f"fallback was {first.exec_fallback}, is {second.exec_fallback}")
    if first.proc != second.proc:
        yield Change("widens" if second.proc == "host" else "narrows", "proc", f"/proc of the {second.proc}")
    if first.workspace != second.workspace:
        wider = _WORKSPACE_RANK[second.workspace] > _WORKSPACE_RANK[first.workspace]
        yield Change("widens" if wider else "narrows", "workspace", f"{first.workspace} becomes {second.workspace}")
    if (first.root_identity is None) != (second.root_identity is None):
        wider = second.root_identity is not None
        yield Change("widens" if wider else "narrows", "identity", "may run as root" if wider else "never as root")
    if first.umask != second.umask:
        yield Change("differs", "umask", f"{first.umask:04o} becomes {second.umask:04o}")
    before = {name: setting.value for name, setting in first.environment.items()}
    after = {name: setting.value for name, setting in second.environment.items()}
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield Change("differs", "environment", f"{name} was {before.get(name)!r}, is {after.get(name)!r}")
    for name in sorted(second.switches.keys() - first.switches.keys()):
        yield Change("widens", "switch", f"{name} can be turned on")
    for name in sorted(first.switches.keys() - second.switches.keys()):
        yield Change("narrows", "switch", f"{name} is gone")

"""How our own processes confine themselves, resolved for one host: `ProcessProfile` in, `ProcessPlan` out.

Checks as well that nothing a command may do is forbidden by what it inherits. Runs at boot and in the CLI.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from guardhouse.sandbox.bundle import LandlockPlan, PathRule, ProcessPlan
from guardhouse.sandbox.documents import ProfileError
from guardhouse.sandbox.facts import HostFacts, ProfileUnavailableError
from guardhouse.sandbox.plan_landlock import ACCESS_SINCE, NEWEST_ABI, READ_ACCESS, SCOPE_SINCE, WRITE_ACCESS
from guardhouse.sandbox.profile import ProcessProfile
from guardhouse.sandbox.rules import FilterRules, combine_groups, digest_of_text, render_rules
from guardhouse.sandbox.seccomp_compiler import compile_program

__all__ = ["check_inheritance", "compile_process", "lacking_layers", "process_rules"]


def process_rules(profile: ProcessProfile, *, architecture: str, foreign: tuple[FilterRules, ...] = ()) -> FilterRules:
    """Return the filter of one of our own processes, in names.

    Args:
        foreign: tables of foreign architectures that a profile in force permits: commands inherit this filter, so they
            pass here as well, as far as a command's own filter lets them through and no further.
    """
    groups = [profile.groups[name] for name in profile.syscalls]
    rules = combine_groups(f"process {profile.name}", groups, architecture=architecture, is_inherited=profile.inherited)
    return replace(rules, foreign=foreign if profile.inherited else ())


def lacking_layers(profile: ProcessProfile, features: HostFacts) -> Mapping[str, str]:
    """Return the layers that the process asks for and this host does not give, each with the reason."""
    lacking: dict[str, str] = {}
    for layer in (*profile.requires, *profile.may_lack):
        because = features.layers.get(layer, "not probed")
        if layer == "landlock" and not because:
            since = max((SCOPE_SINCE[name] for name in profile.scoped), default=1)
            if not profile.files_listed and features.landlock_abi < since:
                because = f"scopes need ABI {since}, this kernel has {features.landlock_abi}"
        if because:
            lacking[layer] = because
    return lacking


def compile_process(
    profile: ProcessProfile,
    *,
    features: HostFacts,
    paths: Mapping[str, Sequence[str]],
    foreign: tuple[FilterRules, ...] = (),
) -> ProcessPlan:
    """Compile one of our own processes.

    Args:
        paths: what each ``{name}`` of a path stands for.
        foreign: see `process_rules`.

    Raises:
        ProfileUnavailableError: it requires a layer that this host does not give.
        ProfileError: a path has an unknown placeholder.
    """
    lacking = lacking_layers(profile, features)
    for layer in profile.requires:
        if layer in lacking:
            raise ProfileUnavailableError(f"process {profile.name}", layer, lacking[layer])
    rules = process_rules(profile, architecture=features.architecture, foreign=foreign)
    return ProcessPlan(
        name=profile.name,
        # By what it says, not by whose it is: keeper and launcher have the same filter, which is compiled once.
        programs={features.architecture: compile_program(replace(rules, profile="process of ours"))},
        capabilities=tuple(sorted(profile.capabilities)),
        bounding_kept=profile.bounding_kept,
        becomes_nobody=profile.nobody is not None,
        rlimits={name: (limit.soft, limit.hard) for name, limit in profile.limits.items()},
        landlock=None if "landlock" in lacking else _plan_landlock(profile, features.landlock_abi, paths),
        digest=digest_of_text(render_rules(rules)),
    )


def check_inheritance(process: ProcessProfile, filters: Sequence[FilterRules]) -> None:
    """Check that ``process``, from which commands inherit, allows whatever their own ``filters`` allow.

    Raises:
        ProfileError: naming the call and both places.
    """
    for rules in filters:
        own = process_rules(process, architecture=rules.architecture)
        free = {rule.call for rule in own.allow if not rule.conditions}
        conditional = {(rule.call, rule.conditions) for rule in own.allow}
        for rule in rules.allow:
            if rule.call not in free and (rule.call, rule.conditions) not in conditional:
                raise ProfileError(
                    rule.reason.place,
                    f"{rule.call} is allowed here, but process {process.name!r}, from which every command inherits,"
                    f" does not allow it ({process.place}): allow it there as well, or not at all",
                )


def _plan_landlock(profile: ProcessProfile, abi: int, paths: Mapping[str, Sequence[str]]) -> LandlockPlan | None:
    abi = min(abi, NEWEST_ABI)
    scoped = tuple(name for name in profile.scoped if SCOPE_SINCE[name] <= abi)
    if not scoped and not profile.files_listed:
        return None

    def known(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in names if ACCESS_SINCE[name] <= abi)

    rules: list[PathRule] = []
    for entry in profile.paths:
        # No process of ours starts a program that it did not start with, least of all one that it has written.
        access = known([name for name in (WRITE_ACCESS if entry.writable else READ_ACCESS) if name != "execute"])
        filled = _filled(entry.path, paths, entry.reason.place)
        rules += [PathRule(path, access, optional=entry.optional) for path in filled]
    return LandlockPlan(
        abi=abi,
        minimum_abi=1,
        handled_fs=known(tuple(ACCESS_SINCE)) if profile.files_listed else (),
        handled_net=(),
        scoped=scoped,
        paths=tuple(rules),
        ports=(),
    )


def _filled(path: str, paths: Mapping[str, Sequence[str]], place: str) -> Sequence[str]:
    if not path.startswith("{"):
        return (path,)
    name = path[1:-1]
    if name not in paths:
        raise ProfileError(place, f"unknown placeholder {path!r}; known: {', '.join(sorted(paths)) or 'none'}")
    return paths[name]

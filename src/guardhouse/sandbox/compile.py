"""Profiles, an identity, a workspace and a host's features in; the launcher's bundle out.

Decides nothing at run time: what is not in the bundle cannot be asked of the launcher. Runs at boot and in the CLI.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from guardhouse.errors import SetupError
from guardhouse.sandbox.bundle import (
    BUNDLE_VERSION,
    Bundle,
    CgroupLimits,
    ExecNotice,
    Identity,
    Namespace,
    ProcessPlan,
    ProfilePlan,
    SeccompFilter,
)
from guardhouse.sandbox.compile_process import check_inheritance, compile_process
from guardhouse.sandbox.documents import ProfileError
from guardhouse.sandbox.facts import HostFacts, ProfileUnavailableError, Surroundings
from guardhouse.sandbox.plan_egress import plan_addresses, plan_domains, proxy_environment
from guardhouse.sandbox.plan_landlock import plan_landlock
from guardhouse.sandbox.plan_mounts import check_absolute, plan_mounts
from guardhouse.sandbox.profile import CGROUP_LIMITS, FOREIGN_ARCHITECTURES, Profile
from guardhouse.sandbox.rules import ARCHITECTURES, resolve_rules, unite_foreign
from guardhouse.sandbox.seccomp_compiler import compile_exec_notice, compile_filter

__all__ = ["compile_bundle", "compile_plan", "missing_layers", "with_exec_notice"]

_PARAMETERS: Final = {**CGROUP_LIMITS, "tmp_bytes": (1 << 16, 1 << 50)}
# sethostname(2): 64 bytes.
_HOSTNAME_MAX_BYTES: Final = 64


def compile_bundle(
    profiles: Sequence[Profile],
    *,
    identity: Identity,
    workspace: str,
    features: HostFacts,
    trusted_path: str,
    around: Surroundings = Surroundings(),  # noqa: B008 - frozen
) -> Bundle:
    """Compile ``profiles`` into one bundle.

    Args:
        profiles: with distinct names.
        identity: ids on the host that every command runs as.
        workspace: absolute path of the one directory that commands share.
        features: what this host gives.
        trusted_path: ``PATH`` of commands.
        around: protected paths, switches, numbers of this installation.

    Raises:
        ProfileUnavailableError: a profile requires a layer that this host does not give.
        ProfileError: a profile contradicts itself.
        SetupError: an argument makes no sense, or libseccomp is missing.
    """
    for directory in trusted_path.split(":"):
        check_absolute(directory, "directory of the trusted path")
    names = [profile.name for profile in profiles]
    if not names or len(set(names)) != len(names):
        raise SetupError(f"a bundle needs profiles with different names, got {names}")
    processes = _processes(profiles, features, around)
    return Bundle(
        version=BUNDLE_VERSION,
        profiles={
            profile.name: compile_plan(
                profile,
                identity=identity,
                workspace=workspace,
                features=features,
                trusted_path=trusted_path,
                around=around,
            )
            for profile in profiles
        },
        identity=identity,
        workspace=workspace,
        trusted_path=trusted_path,
        processes=processes,
    )


def _processes(profiles: Sequence[Profile], features: HostFacts, around: Surroundings) -> dict[str, ProcessPlan]:
    """Return how our own processes confine themselves; commands must be able to do under them what they may."""
    known = profiles[0].processes
    if missing := around.own_processes - known.keys():
        raise SetupError(
            f"the sandbox directory says nothing of our own processes {', '.join(sorted(missing))} (processes/);"
            " copy that directory from the shipped one"
        )
    if features.architecture not in ARCHITECTURES:
        raise ProfileUnavailableError(profiles[0].name, "seccomp", f"no filter is made for {features.architecture}")
    filters = [
        resolve_rules(
            profile,
            architecture=features.architecture,
            switches=around.switches & profile.switches.keys(),
        )
        for profile in profiles
    ]
    foreign = unite_foreign(filters)
    plans: dict[str, ProcessPlan] = {}
    for name in sorted(around.own_processes):
        if known[name].inherited:
            check_inheritance(known[name], filters)
        plans[name] = compile_process(known[name], features=features, paths=around.own_paths, foreign=foreign)
    return plans


def compile_plan(
    profile: Profile,
    *,
    identity: Identity,
    workspace: str,
    features: HostFacts,
    trusted_path: str,
    around: Surroundings,
) -> ProfilePlan:
    """Compile one profile; see `compile_bundle`."""
    _check_identity(profile, identity, features)
    _check_architectures(profile, features)
    for layer, because in missing_layers(profile, features).items():
        raise ProfileUnavailableError(profile.name, layer, because)
    unknown = around.parameters.keys() - _PARAMETERS.keys()
    if unknown:
        raise SetupError(f"unknown parameters {sorted(unknown)}; known: {', '.join(sorted(_PARAMETERS))}")
    for name, number in around.parameters.items():
        minimum, maximum = _PARAMETERS[name]
        if not minimum <= number <= maximum:
            raise SetupError(f"parameter {name} is {number}, it must be between {minimum} and {maximum}")
    tmp_bytes = around.parameters.get("tmp_bytes", profile.tmp_bytes)
    words = _words(profile, identity, workspace, features, trusted_path, tmp_bytes)
    mounts = plan_mounts(profile, workspace=workspace, words=words, host=features, around=around)
    namespaces: set[str] = set(profile.namespaces)
    if not features.privileged:
        namespaces.add("user")
    switches = around.switches & profile.switches.keys()
    cgroup = {name: limit.value for name, limit in profile.cgroup.items()}
    cgroup.update({name: number for name, number in around.parameters.items() if name in CGROUP_LIMITS})
    return ProfilePlan(
        name=profile.name,
        summary=profile.summary,
        namespaces=frozenset(_as_namespaces(namespaces)),
        network=profile.network.mode,
        network_domains=plan_domains(profile, around.domains),
        network_addresses=plan_addresses(profile),
        is_tls_required=profile.network.tunnels.tls == "required",
        proxy_port=profile.network.proxy_port,
        mounts=mounts,
        landlock=plan_landlock(profile, mounts, abi=features.landlock_abi),
        seccomp=_filters(profile, switches, features.architecture),
        # All of them: the launcher leaves ``nproc`` out of a command whose group does bound its processes.
        rlimits={name: (limit.soft, limit.hard) for name, limit in profile.limits.items()},
        cgroup=CgroupLimits(**{name: cgroup.get(name) for name in CGROUP_LIMITS}),
        environment=_environment(profile, words),
        required_layers=frozenset(_required(profile, features)),
        proc=profile.proc,
        hostname=words["hostname"],
        tmp_bytes=tmp_bytes,
        umask=profile.umask,
        count_denials=profile.count_denials,
        exec_notice="none",
    )


def with_exec_notice(
    plan: ProfilePlan, profile: Profile, *, notice: ExecNotice, switches: frozenset[str] = frozenset()
) -> ProfilePlan:
    """Return ``plan`` with a filter that hands its execs to a listener, and lets no program of 32 bits run.

    Args:
        profile: what ``plan`` was compiled from, under the same ``switches``.
        notice: ``none``: nothing can be handed over either, and Landlock alone says what is executed.

    Raises:
        SetupError: see `seccomp_compiler.compile_exec_notice`.
    """
    filters: dict[str, SeccompFilter] = {}
    for architecture in plan.seccomp:
        rules = resolve_rules(profile, architecture=architecture, switches=switches & profile.switches.keys())
        # Without calls of a foreign table: the listener knows the machine's own alone.
        native = replace(rules, foreign=())
        compiled = compile_filter(native)
        if notice != "none":
            variant, program = compile_exec_notice(native, counts_denials=plan.count_denials)
            compiled = replace(compiled, programs={**compiled.programs, variant: program})
        filters[architecture] = compiled
    return replace(plan, seccomp=filters, exec_notice=notice)


def missing_layers(profile: Profile, features: HostFacts) -> Mapping[str, str]:
    """Return the layers that ``profile`` requires and this host does not give, each with the reason."""
    missing: dict[str, str] = {}
    for layer in _required(profile, features):
        because = features.layers.get(layer, "not probed")
        if layer == "landlock" and not because and features.landlock_abi < profile.landlock_minimum_abi:
            because = f"it needs ABI {profile.landlock_minimum_abi}, this kernel has {features.landlock_abi}"
        if because:
            missing[layer] = because
    return missing


def _required(profile: Profile, features: HostFacts) -> list[str]:
    return [
        layer
        for layer, requirement in profile.requires.items()
        if not (requirement.unless_user_namespace and not features.privileged)
    ]


def _check_identity(profile: Profile, identity: Identity, features: HostFacts) -> None:
    if identity.uid < 0 or identity.gid < 0 or any(group < 0 for group in identity.groups):
        raise SetupError(f"identity {identity.user_name!r} has a negative id")
    if (identity.uid == 0 or identity.gid == 0 or 0 in identity.groups) and profile.root_identity is None:
        raise SetupError(
            f"profile {profile.name!r} does not run as root (uid {identity.uid}, gid {identity.gid}): name an ordinary"
            " account for commands, or extend the profile with 'root_identity:' and a reason"
        )
    if not features.privileged and features.layers.get("namespaces"):
        raise ProfileUnavailableError(profile.name, "namespaces", features.layers["namespaces"])


def _check_architectures(profile: Profile, features: HostFacts) -> None:
    for name, reason in profile.architectures.items():
        if FOREIGN_ARCHITECTURES[name] != features.architecture:
            raise ProfileUnavailableError(
                profile.name,
                "seccomp",
                f"it permits calls of {name} ({reason.place}), which a kernel for {FOREIGN_ARCHITECTURES[name]} alone"
                f" has, and this host is {features.architecture}",
            )


def _as_namespaces(names: set[str]) -> list[Namespace]:
    known: tuple[Namespace, ...] = ("user", "mount", "pid", "ipc", "uts", "net", "cgroup")
    return [name for name in known if name in names]


def _filters(profile: Profile, switches: frozenset[str], architecture: str) -> dict[str, SeccompFilter]:
    if architecture not in ARCHITECTURES:
        raise ProfileUnavailableError(profile.name, "seccomp", f"no filter is made for {architecture}")
    return {architecture: compile_filter(resolve_rules(profile, architecture=architecture, switches=switches))}


def _words(
    profile: Profile, identity: Identity, workspace: str, features: HostFacts, trusted_path: str, tmp_bytes: int
) -> dict[str, str]:
    for text in (identity.user_name, identity.home):
        if any(character in text for character in "\n\0:{}"):
            raise SetupError(f"identity has an impossible name or home: {text!r}")
    hostname = features.hostname if profile.hostname.value == "{host}" else profile.hostname.value
    return {
        "trusted_path": trusted_path,
        "user_name": identity.user_name,
        "uid": str(identity.uid),
        "gid": str(identity.gid),
        "home": identity.home,
        "workspace": workspace,
        "tmp_bytes": str(tmp_bytes),
        "hostname": hostname[:_HOSTNAME_MAX_BYTES],
    }


def _environment(profile: Profile, words: Mapping[str, str]) -> dict[str, str]:
    environment: dict[str, str] = {}
    for name, setting in profile.environment.items():
        text = setting.value
        for word, value in words.items():
            text = text.replace(f"{{{word}}}", value)
        if "{" in text:
            raise ProfileError(
                setting.reason.place, f"unknown placeholder in {text!r}; known: {', '.join(sorted(words))}"
            )
        environment[name] = text
    kubeconfigs = [grant.path for grant in profile.grants if grant.kind == "kubeconfig"]
    if kubeconfigs:
        environment["KUBECONFIG"] = ":".join(kubeconfigs)
    environment.update(proxy_environment(profile))
    return environment

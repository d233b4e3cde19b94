"""The wall of one runner: profiles, this host's features and an account become a running launcher.

The same for `guardhouse run` and `guardhouse try`. Runs in the boot process, as root where the runner was started
as root, before any secret is read.
"""

import ssl
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from guardhouse.data_files import shipped_directory
from guardhouse.kernel.probe import HostFeatures, probe_host
from guardhouse.launcher.start import LauncherHandle, gate_settings, start_launcher
from guardhouse.policy import Policy, dump_policy
from guardhouse.runner.allowed_files import find_allowed_files, find_readable
from guardhouse.runner.identity import Account
from guardhouse.sandbox.bundle import Bundle, Identity, ProfilePlan
from guardhouse.sandbox.compile import compile_bundle, with_exec_notice
from guardhouse.sandbox.facts import LAUNCHING_PROCESSES, Surroundings
from guardhouse.sandbox.load import load_profile, read_library
from guardhouse.sandbox.narrow_execute import exec_notice, narrow_execute
from guardhouse.sandbox.profile import Profile

__all__ = ["Wall", "put_up_wall"]

# Every wall has the parser worker: gate one's second reader runs there and nowhere else.
_PARSER_PROFILE: Final = "parser_worker"
_WORKER_PROFILES: Final = ("files_worker", "fetch_worker", "mcp_worker")


@dataclass(frozen=True, slots=True)
class Wall:
    """What was put up: the launcher, its bundle, and the profiles that commands may run under.

    ``mcp_profile`` is the one of local MCP servers, empty where none may be started.
    """

    launcher: LauncherHandle
    bundle: Bundle
    features: HostFeatures
    profile: str
    profiles: frozenset[str]
    has_gate: bool
    mcp_profile: str = ""
    tags: frozenset[str] | None = None
    narrowed: frozenset[str] = frozenset()


def put_up_wall(
    *,
    profile: str,
    policy: Policy,
    account: Account,
    workspace: Path,
    protected_paths: tuple[Path, ...],
    mcp_profile: str | None = None,
    with_workers: bool = True,
    files_settings: bytes | None = None,
    tags: frozenset[str] | None = None,
    journal: Path | None = None,
    guarded_paths: tuple[Path, ...] = (),
) -> Wall:
    """Compile the profiles that may be asked for and start the launcher with them.

    Args:
        profile: name or path of the default profile; those that the policy's rules name are added.
        protected_paths: the runner's own files, masked in every command's view.
        mcp_profile: name or path of the profile of local MCP servers; None where none may be started.
        with_workers: also compile the profiles of the workers that serve files and web pages.
        tags: this host's, for rules with conditions; None where it was given none.
        journal: the directory that a confined runner writes to; None where no runner and no keeper will be confined.
        guarded_paths: files of the operator's that commands may see and never change, besides policies and profiles.
        files_settings: JSON of `worker.settings.FilesSettings`; None sets the workspace's path alone.

    Raises:
        SetupError: a profile is wrong or needs a layer that this host does not give.
    """
    directory = shipped_directory("sandbox")
    library = read_library(directory)
    default = load_profile(profile, directory=directory, library=library)
    profiles: dict[str, Profile] = {default.name: default}
    for rule in (rule for layer in policy.layers for rule in layer.rules()):
        if rule.profile is not None and rule.profile not in profiles:
            profiles[rule.profile] = load_profile(rule.profile, directory=directory, library=library)
    for_mcp = None if mcp_profile is None else load_profile(mcp_profile, directory=directory, library=library)
    if for_mcp is not None:
        profiles.setdefault(for_mcp.name, for_mcp)
    offered = frozenset(profiles)
    for name in (_PARSER_PROFILE, *(_WORKER_PROFILES if with_workers else ())):
        profiles[name] = load_profile(name, directory=directory, library=library)
    features = probe_host()
    bundle = compile_bundle(
        list(profiles.values()),
        identity=Identity(
            uid=account.uid, gid=account.gid, groups=account.groups, user_name=account.name, home=account.home
        ),
        workspace=str(workspace),
        features=features,
        trusted_path=":".join(policy.trusted_path),
        around=_surroundings(
            protected_paths, journal, guarded=_what_we_are(policy, profiles.values(), journal, guarded_paths)
        ),
    )
    has_gate = not features.layers["exec_gate"]
    narrowed: frozenset[str] = frozenset()
    if not has_gate:
        bundle, narrowed = _with_narrowed(bundle, [profiles[name] for name in sorted(offered)], policy, features)
    gate_policy = b""
    if has_gate or any(plan.exec_notice != "none" for plan in bundle.profiles.values()):
        gate_policy = gate_settings(dump_policy(policy), environment=tags, follows=has_gate)
    launcher = start_launcher(bundle, warm=(default.name,), gate_policy=gate_policy, files_settings=files_settings)
    return Wall(
        launcher=launcher,
        bundle=bundle,
        features=features,
        profile=default.name,
        profiles=offered,
        has_gate=has_gate,
        mcp_profile="" if for_mcp is None else for_mcp.name,
        tags=tags,
        narrowed=narrowed,
    )


def _with_narrowed(
    bundle: Bundle, profiles: list[Profile], policy: Policy, features: HostFeatures
) -> tuple[Bundle, frozenset[str]]:
    """Add to each profile that permits it a plan that executes nothing but what the policy allows."""
    made: dict[str, ProfilePlan] = {}
    wanting = [profile for profile in profiles if profile.exec_fallback != "refuse"]
    if not wanting:
        return bundle, frozenset()
    readable = find_readable(policy.trusted_path)
    for profile in wanting:
        notice = exec_notice(
            profile.exec_fallback, exec_notices=features.exec_notices, caller_words=features.caller_words
        )
        programs = find_allowed_files(policy, with_some_arguments=notice == "judged_arguments")
        plan = narrow_execute(bundle.profiles[profile.name], programs=programs, readable=readable)
        if plan is not None:
            made[profile.name] = with_exec_notice(plan, profile, notice=notice)
    return (
        replace(bundle, profiles={**bundle.profiles, **{plan.name: plan for plan in made.values()}}),
        frozenset(made),
    )


def _surroundings(protected_paths: tuple[Path, ...], journal: Path | None, *, guarded: tuple[str, ...]) -> Surroundings:
    protected = tuple(sorted({str(path) for path in protected_paths}))
    if journal is None:
        return Surroundings(protected_paths=protected, guarded_paths=guarded)
    return Surroundings(
        protected_paths=protected,
        guarded_paths=guarded,
        own_processes=LAUNCHING_PROCESSES | {"runner", "keeper"},
        own_paths={
            "journal": (str(journal),),
            "installation": _installation(),
            "certificates": _certificates(),
            "resolver": tuple({str(Path("/etc/resolv.conf").resolve().parent)} - {"/"}),
        },
    )


def _what_we_are(
    policy: Policy, profiles: Iterable[Profile], journal: Path | None, others: tuple[Path, ...] = ()
) -> tuple[str, ...]:
    """Return the code, policies, profiles and state by which this runner judges, as real paths that exist."""
    found = {Path(sys.executable), Path(__file__).parents[1], *map(shipped_directory, ("sandbox", "policies"))}
    # Not the whole of /usr, where a distribution's interpreter is at home: an operator's commands may change that.
    found |= {Path(path) for path in _installation() if sys.prefix != sys.base_prefix or path != sys.base_prefix}
    found = found - {Path("/usr"), Path("/usr/local")} | set(others)
    if journal is not None:
        found.add(journal.parent)
    for layer in policy.layers:
        # An included file is shown by its name beside the file that includes it.
        found |= {Path(layer.name).parent / _file_of(rule.place) for rule in layer.rules()} | {Path(layer.name)}
    for profile in profiles:
        reasons = [profile.landlock_reason, profile.proc_reason, profile.workspace_reason, profile.network.reason]
        reasons += [entry.reason for entry in profile.view]
        reasons += [mask.reason for mask in profile.masks] + [grant.reason for grant in profile.grants]
        reasons += profile.architectures.values()
        found |= {Path(_file_of(place)) for place in (profile.place, *(reason.place for reason in reasons))}
    # Shipped files are shown by a path relative to their directory, which is guarded as a whole.
    real = {path.resolve() for path in found if path.is_absolute() and path.exists()}
    return tuple(sorted(str(path) for path in real if path != Path("/")))


def _file_of(place: str) -> str:
    return place.rsplit(":", 2)[0]


def _certificates() -> tuple[str, ...]:
    """Return where OpenSSL, or the environment in its place, has the system's authorities."""
    found = ssl.get_default_verify_paths()
    return tuple(sorted({path for path in (found.cafile, found.capath) if path}))


def _installation() -> tuple[str, ...]:
    """Return the directories that this interpreter and these packages are read from.

    Of the module path only what is the interpreter's own: ``python -m`` puts the working directory there as well.
    """
    own = {Path(sys.prefix), Path(sys.base_prefix), Path(__file__).resolve().parents[2]}
    found = own | {path for path in map(Path, sys.path) if any(path.is_relative_to(one) for one in own)}
    return tuple(sorted(str(path) for path in found if path != Path("/")))

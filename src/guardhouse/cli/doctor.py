"""`guardhouse doctor`: which layers of the wall this host gives, what is missing, what to do, which profiles run.

Wiring of `kernel.probe` (the answers) and `sandbox` (what each profile requires). Changes nothing.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import click

from guardhouse.cli.exit_codes import ExitCode
from guardhouse.data_files import shipped_directory
from guardhouse.errors import SetupError
from guardhouse.kernel.probe import HostFeatures, probe_host
from guardhouse.sandbox.compile import missing_layers
from guardhouse.sandbox.compile_process import lacking_layers
from guardhouse.sandbox.load import list_profiles, load_profile, read_library
from guardhouse.sandbox.profile import LAYERS, ProcessProfile
from guardhouse.sandbox.seccomp_compiler import check_compiler

__all__ = ["doctor"]


@dataclass(frozen=True, slots=True)
class ProfileHealth:
    """Whether one profile or process of ours can run here; ``missing`` maps a required layer to why it is not there."""

    name: str
    missing: dict[str, str]
    weaker: tuple[str, ...]


@click.command()
@click.option("--profile", default="observe", show_default=True, help="The profile that the exit status is about.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def doctor(context: click.Context, *, profile: str, as_json: bool) -> None:
    """Show every layer of the wall, what this host gives, and which profiles can run.

    Exit status 0 when the profile chosen can run here, 1 when it cannot.
    """
    features = probe_host()
    compiler = _compiler_problem()
    directory = shipped_directory("sandbox")
    names = list_profiles(directory)
    healths = [_examine(name, directory, features, compiler) for name in names]
    chosen = next((health for health in healths if health.name == profile), None)
    if chosen is None:
        chosen = _examine(profile, directory, features, compiler)
        healths.append(chosen)
    own = [_examine_process(process, features, compiler) for process in read_library(directory).processes.values()]
    runs = not chosen.missing and not any(health.missing for health in own)
    if as_json:
        data = _as_data(features, compiler, healths, chosen)
        click.echo(json.dumps(data | {"own_processes": _healths_as_data(own), "runs": runs}))
    else:
        _print(features, compiler, healths)
        _print_processes(own)
    context.exit(ExitCode.OK if runs else ExitCode.FAILED)


def _compiler_problem() -> str:
    try:
        check_compiler()
    except SetupError as error:
        return str(error)
    return ""


def _examine(name: str, directory: Path, features: HostFeatures, compiler: str) -> ProfileHealth:
    profile = load_profile(name, directory=directory)
    missing = dict(missing_layers(profile, features))
    if compiler:
        missing["seccomp"] = compiler
    weaker = [layer for layer, why in features.layers.items() if why and layer not in missing and layer != "exec_gate"]
    if features.landlock_abi < profile.landlock_minimum_abi and "landlock" not in missing:
        weaker.append("landlock")
    return ProfileHealth(profile.name, missing, tuple(dict.fromkeys(weaker)))


def _examine_process(process: ProcessProfile, features: HostFeatures, compiler: str) -> ProfileHealth:
    """Say how one of our own processes can confine itself here."""
    lacking = dict(lacking_layers(process, features))
    if compiler:
        lacking["seccomp"] = compiler
    missing = {layer: why for layer, why in lacking.items() if layer in process.requires}
    return ProfileHealth(process.name, missing, tuple(layer for layer in lacking if layer not in missing))


def _print_processes(healths: list[ProfileHealth]) -> None:
    click.echo()
    click.echo("  our own processes ('guardhouse sandbox show NAME' says what each keeps):")
    for health in healths:
        if health.missing:
            whys = "; ".join(f"{layer}: {why}" for layer, why in health.missing.items())
            click.echo(f"  {health.name:14} does not start here, since it cannot confine itself: {whys}")
        else:
            without = f", without {', '.join(health.weaker)}" if health.weaker else ""
            click.echo(f"  {health.name:14} confines itself{without}")


def _print(features: HostFeatures, compiler: str, healths: list[ProfileHealth]) -> None:
    started = "root or CAP_SYS_ADMIN" if features.privileged else f"uid {features.uid}, by user namespaces"
    click.echo(f"kernel {features.kernel_release} on {features.architecture}, started as {started}")
    click.echo()
    for layer, meaning in LAYERS.items():
        why = compiler if layer == "seccomp" and compiler else features.layers[layer]
        click.echo(f"  {'MISSING' if why else 'yes':8} {layer:14} {_detail(layer, features) or meaning}")
        if why:
            click.echo(f"  {'':8} {'':14} {why}")
    if features.user_namespaces:
        click.echo(f"  note: no user namespaces for ordinary users: {features.user_namespaces}")
    for note in features.notes:
        click.echo(f"  note: {note}")
    click.echo()
    for health in healths:
        if health.missing:
            click.echo(f"  {health.name:14} cannot run here: {', '.join(health.missing)} missing")
        elif health.weaker:
            click.echo(f"  {health.name:14} runs here, without {', '.join(health.weaker)}")
        else:
            click.echo(f"  {health.name:14} runs here")


def _detail(layer: str, features: HostFeatures) -> str:
    if layer == "landlock" and features.landlock_abi:
        return f"{LAYERS[layer]} (ABI {features.landlock_abi})"
    if layer.startswith("cgroup_") and features.cgroup_version:
        return f"{LAYERS[layer]} (cgroup v{features.cgroup_version})"
    return ""


def _as_data(
    features: HostFeatures, compiler: str, healths: list[ProfileHealth], chosen: ProfileHealth
) -> dict[str, object]:
    layers = {
        layer: {"there": not why, "why_not": why, "holds": LAYERS[layer]}
        for layer, why in ((name, features.layers[name]) for name in LAYERS)
    }
    if compiler:
        layers["seccomp"] = {"there": False, "why_not": compiler, "holds": LAYERS["seccomp"]}
    return {
        "kernel": features.kernel_release,
        "architecture": features.architecture,
        "privileged": features.privileged,
        "user_namespaces": not features.user_namespaces,
        "landlock_abi": features.landlock_abi,
        "cgroup_version": features.cgroup_version,
        "cgroup_controllers": sorted(features.cgroup_controllers),
        "openat2": features.openat2,
        "layers": layers,
        "notes": list(features.notes),
        "profiles": _healths_as_data(healths),
        "profile": chosen.name,
    }


def _healths_as_data(healths: list[ProfileHealth]) -> dict[str, object]:
    return {
        health.name: {"runs": not health.missing, "missing": health.missing, "without": list(health.weaker)}
        for health in healths
    }

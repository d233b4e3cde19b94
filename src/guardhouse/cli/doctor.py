"""`guardhouse doctor`: which layers of the wall this host gives, what is missing, what to do, which profiles run.

Wiring of `kernel.probe` (the answers) and `sandbox` (what each profile requires), and of the hub's freezer for managed
sandboxes. Changes nothing but a control group, made for a trial and removed.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from guardhouse.cli.exit_codes import ExitCode
from guardhouse.data_files import shipped_directory
from guardhouse.errors import SetupError
from guardhouse.hub.managed.freezer import find_freezer
from guardhouse.kernel.probe import HostFeatures, probe_host
from guardhouse.sandbox.compile import missing_layers
from guardhouse.sandbox.compile_process import lacking_layers
from guardhouse.sandbox.load import list_profiles, load_profile, read_library
from guardhouse.sandbox.narrow_execute import exec_notice
from guardhouse.sandbox.profile import LAYERS, ProcessProfile
from guardhouse.sandbox.seccomp_compiler import check_compiler

__all__ = ["doctor"]


@dataclass(frozen=True, slots=True)
class ProfileHealth:
    """Whether one profile or process of ours can run here; ``missing`` maps a required layer to why it is not there.

    ``without_gate`` is what a profile does with a command whose text leaves open what it runs, where execs cannot be
    followed: one of `WITHOUT_GATE`; "" for a process of ours.
    """

    name: str
    missing: dict[str, str]
    weaker: tuple[str, ...]
    without_gate: str = ""


@dataclass(frozen=True, slots=True)
class Freezing:
    """By which version of control groups a hub started from here could freeze an idle sandbox; None and ``why`` not."""

    version: int | None
    why: str


# What becomes, without an exec gate, of a command that gate one's reading of the text leaves undecided.
WITHOUT_GATE: Final = {
    "refused": "is refused",
    "allowed_files": "runs, and can execute only files that the policy allows whatever their arguments",
    "judged_arguments": (
        "runs, and can execute only files that the policy allows with some arguments; the arguments are judged as their"
        " caller shows them, which a program that is out to deceive can change"
    ),
}


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
    freezing = _examine_freezing()
    runs = not chosen.missing and not any(health.missing for health in own)
    if as_json:
        data = _as_data(features, compiler, healths, chosen)
        frozen = {"cgroup_version": freezing.version, "why": freezing.why}
        more = {"own_processes": _healths_as_data(own), "managed_freezing": frozen, "runs": runs}
        click.echo(json.dumps(data | more))
    else:
        _print(features, compiler, healths)
        _print_processes(own)
        _print_freezing(freezing)
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
    without_gate = "refused"
    # The stand-in is Landlock's to hold.
    if profile.exec_fallback != "refuse" and features.landlock_abi:
        notice = exec_notice(
            profile.exec_fallback, exec_notices=features.exec_notices, caller_words=features.caller_words
        )
        without_gate = "allowed_files" if notice == "none" else notice
    return ProfileHealth(profile.name, missing, tuple(dict.fromkeys(weaker)), without_gate)


def _examine_process(process: ProcessProfile, features: HostFeatures, compiler: str) -> ProfileHealth:
    """Say how one of our own processes can confine itself here."""
    lacking = dict(lacking_layers(process, features))
    if compiler:
        lacking["seccomp"] = compiler
    missing = {layer: why for layer, why in lacking.items() if layer in process.requires}
    return ProfileHealth(process.name, missing, tuple(layer for layer in lacking if layer not in missing))


def _examine_freezing() -> Freezing:
    """Try the freezer as a hub would, in a group of this process's own."""
    freezer, why = find_freezer(Path(f"/doctor/{os.getpid()}"))
    if freezer is None:
        return Freezing(None, why)
    freezer.close()
    return Freezing(freezer.version, "")


def _print_freezing(freezing: Freezing) -> None:
    click.echo()
    if freezing.version is None:
        click.echo(f"  a hub started from here ends the runners of idle managed sandboxes: {freezing.why}")
    else:
        click.echo(f"  a hub started from here freezes idle managed sandboxes in memory, by cgroup v{freezing.version}")


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
    click.echo()
    _print_without_gate(healths, features, is_missing=bool(features.layers["exec_gate"]))


def _print_notices(features: HostFeatures) -> None:
    """Say what the record of such a command will hold."""
    if features.exec_notices:
        click.echo(f"    without a record of what it started: {features.exec_notices}")
    elif features.caller_words:
        click.echo(f"    with a record of what it started, by what that had become: {features.caller_words}, which")
        click.echo(
            "    is how a program's arguments could be judged; 'judged_arguments' is no more than 'allowed_files'"
        )
    else:
        click.echo("    with a record of what it started, and a word to whoever is refused, by seccomp notification")


def _print_without_gate(healths: list[ProfileHealth], features: HostFeatures, *, is_missing: bool) -> None:
    """Say what becomes of a command whose text leaves open what it runs: loops, variables, interpreters."""
    if is_missing:
        click.echo("  execs cannot be followed here; a command whose text leaves open what it runs")
    else:
        click.echo("  execs are followed here: a command whose text leaves open what it runs is judged at each exec.")
        click.echo("  Should tracing be forbidden (kernel.yama.ptrace_scope=3), such a command")
    for kind, meaning in WITHOUT_GATE.items():
        names = [health.name for health in healths if health.without_gate == kind]
        if names:
            click.echo(f"    {meaning}: {', '.join(names)}")
    if any(health.without_gate != "refused" for health in healths):
        _print_notices(features)
    if is_missing and any(health.without_gate == "refused" for health in healths):
        click.echo("  ('exec_gate: {fallback: allowed_files, why: …}' lets a profile run it with allowed files alone)")


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
        "exec_notices": not features.exec_notices,
        "caller_words": not features.caller_words,
        "layers": layers,
        "notes": list(features.notes),
        "profiles": _healths_as_data(healths),
        "without_exec_gate": {health.name: health.without_gate for health in healths},
        "profile": chosen.name,
    }


def _healths_as_data(healths: list[ProfileHealth]) -> dict[str, object]:
    return {
        health.name: {"runs": not health.missing, "missing": health.missing, "without": list(health.weaker)}
        for health in healths
    }
